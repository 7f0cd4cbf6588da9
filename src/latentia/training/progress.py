"""What is known of a run while it trains: means of the costs between two records, and a progress bar."""

from __future__ import annotations

__all__ = ["ProgressBar"]

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

from latentia.estimate import Estimate
from latentia.objectives import Terms

FOLD_ROWS = 256
BAR_SECONDS = 0.2
FIRST_LINE, LAST_LINE = 2.0, 30.0  # seconds between lines where there is no terminal, at first and in the end


class MetricAccumulator:
    """Means of the players' terms since the last record, with standard errors, and a check that all are finite.

    Terms stay on the device until they are asked for, so that no step waits for it. After some 256 of them, they are
    reduced to means and variances over the examples of each batch.

    Args:
        reduce: sums a tensor over processes.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor] = lambda values: values):
        self._reduce = reduce
        self._rows: list[tuple[int, str, str]] = []  # step, player, term
        self._settled = torch.zeros(0, 3, dtype=torch.float64)  # Σ, Σ², count of the first rows, over all processes
        self._moments: list[Tensor] = []  # (rows, 3): mean, variance, count of the rows that follow
        self._raw: list[Tensor] = []  # (B,): the rows after those, as they came

    def add(self, step: int, player: str, terms: Terms) -> None:
        """Add the terms of a player in a step, each (B,) and without a graph."""
        self._rows += [(step, player, name) for name in terms]
        self._raw += terms.values()
        if len(self._raw) >= FOLD_ROWS:
            self._fold()

    def _fold(self) -> None:
        """Reduce the raw rows: many at a time cost hardly more than one."""
        for count, rows in itertools.groupby(self._raw, key=len):
            variance, mean = torch.var_mean(torch.stack(list(rows)).float(), dim=1, correction=0)
            self._moments.append(torch.stack([mean, variance, torch.full_like(mean, count)], dim=1))
        self._raw = []

    def settle(self) -> None:
        """Bring together, in every process, what all of them have added."""
        self._fold()
        if self._moments:
            mean, variance, count = torch.cat(self._moments).cpu().double().unbind(1)
            sums = torch.stack([count * mean, count * (variance + mean.square()), count], dim=1)
            self._settled = torch.cat([self._settled, self._reduce(sums)])
            self._moments = []

    def first_not_finite(self) -> tuple[int, str, list[str]] | None:
        """Step, player and names of the first settled terms that are not finite; None if all are."""
        bad = (~self._settled[:, 0].isfinite()).nonzero()[:, 0].tolist()
        if not bad:
            return None
        step, player, _ = self._rows[bad[0]]
        names: list[str] = []
        for s, p, name in (self._rows[row] for row in bad):
            if (s, p) != (step, player) or name in names:  # of a later batch
                break
            names.append(name)
        return step, player, sorted(names, key=lambda name: name == "cost")  # its parts come before the cost

    def collect(self) -> list[Estimate]:
        """Means over all settled terms, named player/term; then the accumulator is empty."""
        totals: dict[str, list[float]] = {}
        for (_, player, name), row in zip(self._rows, self._settled.tolist(), strict=True):
            total = totals.setdefault(f"{player}/{name}", [0.0, 0.0, 0.0])
            total[:] = [a + b for a, b in zip(total, row, strict=True)]
        self.restore([], self._settled[:0])
        return [_estimate(name, *total) for name, total in totals.items()]

    def state(self) -> tuple[list[tuple[int, str, str]], Tensor]:
        """What is settled and not yet recorded, for a checkpoint."""
        return self._rows, self._settled

    def restore(self, rows: Iterable[Any], settled: Tensor) -> None:
        """Inverse of `state`."""
        self._rows = [(step, player, name) for step, player, name in rows]
        self._settled, self._moments, self._raw = settled, [], []


def _estimate(name: str, total: float, squares: float, count: float) -> Estimate:
    mean = total / count
    variance = max(0.0, squares / count - mean**2)
    stderr = math.sqrt(variance / (count - 1)) if count > 1 else None
    return Estimate(mean, name, stderr, int(count), method="mean over training examples")


class Pace:
    """When the next line is due where there is no terminal: after 2 s, then at twice the interval, up to 30 s."""

    def __init__(self) -> None:
        self._at, self._wait = time.perf_counter(), FIRST_LINE

    def due(self, *, at_once: bool = False) -> bool:
        """Whether to print a line now; if so, the next one is due later."""
        now = time.perf_counter()
        if not at_once and now - self._at < self._wait:
            return False
        self._at, self._wait = now, min(2 * self._wait, LAST_LINE)
        return True


class Part:
    """How much of one part of some work is done; `str` gives it with the time left, by the mean speed so far."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self.what, self._began, self._first = "", time.perf_counter(), 0

    def report(self, done: int, total: int, what: str) -> bool:
        """Note what is done; returns whether another part has begun, as less is done than before."""
        again = done < self.done
        if again or total != self.total:
            self._began, self._first = time.perf_counter(), done
        self.done, self.total, self.what = done, total, what
        return again

    def __str__(self) -> str:
        if not self.total:
            return f"  {self.done}" if self.done else " …"
        text = f"  {self.done}/{self.total} ({self.done / self.total:.0%})"
        if self._first < self.done < self.total:
            used = time.perf_counter() - self._began
            text += f", {used * (self.total - self.done) / (self.done - self._first):.0f} s left"
        return text


class NotebookLine:
    """One line of text under a notebook's cell, which each new one replaces."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = -math.inf

    def show(self, text: str, *, at_once: bool = False) -> None:
        """Replace the line, if the last time was long enough ago or `at_once`."""
        now = time.perf_counter()
        if not at_once and now - self._shown_at < BAR_SECONDS:
            return
        self._shown_at = now
        from IPython.display import display  # every notebook has it

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def clear(self) -> None:
        """Remove the line, if there is one."""
        if self._handle is not None:
            self.show("", at_once=True)


def text_bar(done: int, total: int, width: int = 24) -> str:
    """A bar of text, such as ━━━━━━╌╌ for three quarters."""
    full = min(width, width * done // max(total, 1))
    return "━" * full + "╌" * (width - full)


class ProgressBar:
    """The progress on standard error: a bar in a terminal or a notebook, elsewhere lines at the intervals of `Pace`.

    Args:
        total: steps of the run.
        quiet: show warnings alone.
        mute: show nothing; for all processes but the first.
        label: what is counted.
    """

    def __init__(self, total: int, *, quiet: bool = False, mute: bool = False, label: str = "step"):
        self.total, self.label = total, label
        self.quiet = quiet or mute
        self.console = Console(stderr=True, quiet=mute)
        self._pace = Pace()
        self._notebook = NotebookLine() if self.console.is_jupyter and not self.quiet else None
        self._bar = RichProgress(
            TextColumn(label),
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

    def begin(self, step: int, total: int | None = None) -> None:
        """Start at this step, with another total if given."""
        if total is not None:
            self.total = total
            self._bar.update(self._task, total=total)
        self._began_at = self._shown_at = time.perf_counter()
        self._began_step = step
        self._bar.update(self._task, completed=step)

    def advance(self, step: int, latest: Mapping[str, Estimate]) -> None:
        """Show that `step` steps are done, if the last time was long enough ago."""
        now = time.perf_counter()
        last = step >= self.total
        if self.quiet:
            return
        if self.console.is_terminal or self._notebook:
            if now - self._shown_at < BAR_SECONDS and not last:
                return
            self._shown_at = now
        elif not self._pace.due(at_once=last):
            return
        rate = f"{(step - self._began_step) / max(now - self._began_at, 1e-9):.0f} steps/s"
        costs = "  ".join(f"{name} {e.value:.4g}" for name, e in latest.items() if name.endswith("/cost"))
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, rate=rate, costs=costs)
            self._bar.refresh()
        elif self._notebook:
            bar = text_bar(step, self.total)
            self._notebook.show(f"{self.label} {step}/{self.total} {bar} {rate}  {costs}".rstrip(), at_once=True)
        else:
            self._print(f"{self.label} {step}/{self.total}  {rate}  {costs}".rstrip())

    def say(self, text: str) -> None:
        """Print a line above the bar, unless quiet."""
        if not self.quiet:
            self._print(text, style="cyan")

    def warn(self, text: str) -> None:
        """Print a line above the bar, even when quiet."""
        self._print(text, style="yellow")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
