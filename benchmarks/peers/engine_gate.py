"""A gate between the steps of latentia's own engine, which is otherwise as a user runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gate import Gate

from latentia.estimate import Estimate
from latentia.training.progress import ProgressBar


def gate_engine(gate: Gate, note: Callable[[int, Mapping[str, Estimate]], object]) -> None:
    """From now on the engine waits at the gate before each step; call before it begins.

    The engine tells its progress when all is done that a step brings, records and checkpoints with it: there it waits.
    A warning ends it, for it says that the engine does not do what it was asked, such as to compile.

    Args:
        gate: where to wait.
        note: given the number of steps made, and the last value of all that is recorded.
    """
    shown = ProgressBar.advance

    def advance(bar: ProgressBar, step: int, latest: Mapping[str, Estimate]) -> None:
        shown(bar, step, latest)
        note(step, latest)
        gate.wait()

    def warn(_: ProgressBar, text: str) -> None:
        raise RuntimeError(text)

    # Pyright minds that these have another word for self.
    ProgressBar.advance = advance  # pyright: ignore[reportAttributeAccessIssue]
    ProgressBar.warn = warn  # pyright: ignore[reportAttributeAccessIssue]
    gate.wait()
