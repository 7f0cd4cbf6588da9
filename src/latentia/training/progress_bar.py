"""The progress of a run: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

__all__ = ["ProgressBar"]

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from latentia.estimate import Estimate

BAR_SECONDS = 0.2
LINE_SECONDS = 30.0


class ProgressBar:
    """What is shown on standard error, so that standard output stays clean.

    Args:
        total: steps of the run.
        quiet: show warnings alone.
        mute: show nothing at all; for all processes but the first.
    """

    def __init__(self, total: int, *, quiet: bool = False, mute: bool = False):
        self.total = total
        self.quiet = quiet or mute
        self.console = Console(stderr=True, quiet=mute)
        self._every = BAR_SECONDS if self.console.is_terminal else LINE_SECONDS
        self._bar = RichProgress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[costs]}"),
            console=self.console,
            disable=self.quiet or not self.console.is_terminal,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=total, rate="", costs="")
        self.begin(0)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, step: int) -> None:
        """Start the progress at this step."""
        self._began_at = self._shown_at = time.perf_counter()
        self._began_step = step
        self._bar.update(self._task, completed=step)

    def advance(self, step: int, latest: Mapping[str, Estimate]) -> None:
        """Tell that so many steps are done; shown five times a second in a terminal, else twice a minute."""
        now = time.perf_counter()
        if self.quiet or (now - self._shown_at < self._every and step < self.total):
            return
        self._shown_at = now
        rate = f"{(step - self._began_step) / max(now - self._began_at, 1e-9):.0f} steps/s"
        costs = "  ".join(f"{name} {e.value:.4g}" for name, e in latest.items() if name.endswith("/cost"))
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, rate=rate, costs=costs)
            self._bar.refresh()
        else:
            self._print(f"step {step}/{self.total}  {rate}  {costs}".rstrip())

    def say(self, text: str) -> None:
        """A line above the bar, unless quiet."""
        if not self.quiet:
            self._print(text, style="cyan")

    def warn(self, text: str) -> None:
        """A line above the bar, even when quiet."""
        self._print(text, style="yellow")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
