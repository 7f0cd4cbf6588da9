"""Ctrl-C and SIGTERM while a game is played: noted at once, obeyed after the step; a second one is obeyed at once."""

from __future__ import annotations

__all__ = ["Stop"]

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """Within the block, SIGINT and SIGTERM set `asked`; the handlers of before return at its end."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
