"""Ctrl-C and SIGTERM while a game is played: noted at once, obeyed after the step; a second one is obeyed at once."""

from __future__ import annotations

__all__ = ["Interrupted", "Stop"]

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from latentia.errors import RunError


class Interrupted(RunError):
    """The run was asked to stop, and has saved where it is."""


class Stop:
    """Within the block, SIGINT and SIGTERM set `asked`; the handlers of before return at its end.

    A signal that is ignored when the block begins (SIGINT of a job in the background) stays ignored.

    Args:
        and_then: called at the first signal, in the handler.
    """

    def __init__(self, and_then: Callable[[], None] | None = None) -> None:
        self.asked = False
        self._and_then = and_then
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: a handler in C, out of reach

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._and_then is not None:
            self._and_then()
