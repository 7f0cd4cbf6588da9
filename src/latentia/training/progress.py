"""The progress bar: step, rate, remaining time and the latest costs."""

from __future__ import annotations

__all__ = ["Progress"]

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from latentia.estimate import Estimate

REFRESH_SECONDS = 0.1


class Progress:
    """A bar on standard error, so that standard output stays clean; `quiet` shows nothing but what is said."""

    def __init__(self, total: int, *, quiet: bool = False):
        self.quiet = quiet
        self.console = Console(stderr=True)
        self._shown_at = 0.0
        self._bar = RichProgress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[costs]}"),
            console=self.console,
            disable=quiet,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=total, rate="", costs="")
        self._began_at, self._began_step = time.perf_counter(), 0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.refresh()
        self._bar.stop()

    def begin(self, step: int) -> None:
        """Start the clock at this step."""
        self._began_at, self._began_step = time.perf_counter(), step
        self._bar.update(self._task, completed=step)

    def advance(self, step: int, latest: Mapping[str, Estimate]) -> None:
        """Show this many steps done, at most ten times a second."""
        now = time.perf_counter()
        if self.quiet or now - self._shown_at < REFRESH_SECONDS:
            return
        self._shown_at = now
        rate = (step - self._began_step) / max(now - self._began_at, 1e-9)
        costs = "  ".join(f"{name} {e.value:.4g}" for name, e in latest.items() if name.endswith("/cost"))
        self._bar.update(self._task, completed=step, rate=f"{rate:.0f} steps/s", costs=costs)
        self._bar.refresh()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, style="yellow", highlight=False, soft_wrap=True)
