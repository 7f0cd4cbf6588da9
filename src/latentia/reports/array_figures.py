"""Pictures of vectors and signals: densities by column for tables, lines for signals."""

from __future__ import annotations

__all__ = ["plot_arrays", "plot_columns", "plot_given", "plot_signals", "table_text"]

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from latentia.data import Column
from latentia.errors import UnsupportedError
from latentia.reports.style import FAINT, INK, PALETTE, SMALL, WIDTH, label_axes, new_figure, plain_text

MOST_COLUMNS = 30  # columns of a table that a picture shows
MOST_CHANNELS = 4
MOST_BINS = 40
MOST_LEVELS = 25  # counts that are shown as single levels
REAL, MADE = FAINT, PALETTE[0]
SHARE = 0.005  # of the values on either side that a histogram may leave out


def plot_columns(real: Tensor | None, made: Tensor, columns: Sequence[Column], title: str) -> Figure:
    """Densities of each column: filled for the data, a line for samples of the model; shares of categories and counts.

    Args:
        real: data (N, d), NaN where a value is missing; None shows the samples alone.
        made: samples of x (not means), (n, d).
        columns: of the table; () numbers them.
        title: what is shown.
    """
    shown, named = _shown(made.shape[1], columns)
    figure, panels = _panels(shown)
    for place, axes in enumerate(panels):
        column = named[place]
        data = None if real is None else _values(real[:, place])
        _plot_column(axes, data, _values(made[:, place]), column)
        label_axes(axes, plain_text(column.name, length=24))
        axes.title.set_fontsize(SMALL)
        axes.set_yticks([])
    left_out = f" (the first {shown} of {made.shape[1]} columns)" if shown < made.shape[1] else ""
    figure.suptitle(f"{title}{left_out}", fontsize=SMALL + 2, color=INK)
    return figure


def plot_reconstructed_columns(x: Tensor, again: Tensor, columns: Sequence[Column], title: str) -> Figure:
    """Reconstructed against original values, a panel for each column; on the diagonal they are equal.

    Args:
        x: (N, d), NaN where a value is missing.
        again: E[x|z], (N, d).
        columns: of the table; () numbers them.
        title: what is shown.
    """
    shown, named = _shown(x.shape[1], columns)
    figure, panels = _panels(shown)
    for place, axes in enumerate(panels):
        seen = ~x[:, place].isnan()
        first, second = x[seen, place].numpy(), again[seen, place].numpy()
        ends = [float(np.min(first, initial=np.inf)), float(np.max(first, initial=-np.inf))]
        axes.plot(ends, ends, color=REAL, linewidth=1.0, zorder=1)
        axes.scatter(first, second, s=4, color=MADE, alpha=0.5, linewidths=0, zorder=2)
        label_axes(axes, plain_text(named[place].name, length=24))
        axes.title.set_fontsize(SMALL)
        axes.locator_params(nbins=3)
    figure.suptitle(title, fontsize=SMALL + 2, color=INK)
    return figure


def plot_given(covariate: Tensor, draws: Tensor, name: str, columns: Sequence[Column], title: str) -> Figure:
    """Each column of a table against a covariate: the mean of draws of x, and the band that holds 90 % of them.

    Args:
        covariate: values (K,).
        draws: of x for each value, (K, n, d).
        name: of the covariate.
        columns: of the table; () numbers them.
        title: what is shown.
    """
    shown, named = _shown(draws.shape[2], columns)
    figure, panels = _panels(shown)
    low, high = draws.float().quantile(torch.tensor([0.05, 0.95], device=draws.device), dim=1).cpu().numpy()
    means = draws.double().mean(1).cpu().numpy()
    for place, axes in enumerate(panels):
        axes.fill_between(covariate.cpu().numpy(), low[:, place], high[:, place], color=REAL, alpha=0.4, linewidth=0)
        axes.plot(covariate.cpu().numpy(), means[:, place], color=MADE, linewidth=1.2)
        label_axes(axes, plain_text(named[place].name, length=24))
        axes.title.set_fontsize(SMALL)
        axes.locator_params(nbins=3)
    figure.suptitle(f"{title} (horizontal: {plain_text(name, length=24)})", fontsize=SMALL + 2, color=INK)
    return figure


def plot_signals(signals: Tensor, title: str, again: Tensor | None = None, columns: int = 4) -> Figure:
    """Signals as lines, one panel each, a color for each channel; reconstructions over the originals.

    Args:
        signals: (N, C, L), NaN where a value is missing.
        title: what is shown.
        again: reconstructions of the signals, of the same shape.
        columns: panels side by side.
    """
    signals, again = _as_signals(signals), None if again is None else _as_signals(again)
    columns = min(columns, len(signals))
    rows = math.ceil(len(signals) / columns)
    figure = new_figure(WIDTH, 0.95 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for place, axes in enumerate(panels):
        if place >= len(signals):
            axes.set_visible(False)
            continue
        for channel in range(min(signals.shape[1], MOST_CHANNELS)):
            color = PALETTE[channel % len(PALETTE)]
            original = signals[place, channel].numpy()
            axes.plot(original, color=REAL if again is not None else color, linewidth=1.6 if again is not None else 1.0)
            if again is not None:
                axes.plot(again[place, channel].numpy(), color=color, linewidth=1.0)
        label_axes(axes)
        axes.locator_params(nbins=3)
    figure.suptitle(title, fontsize=SMALL + 2, color=INK)
    return figure


def plot_arrays(
    x: Tensor, title: str, columns: Sequence[Column] = (), real: Tensor | None = None, again: Tensor | None = None
) -> Figure:
    """The picture that suits vectors (N, d) or signals (N, C, L); see the functions for each.

    Args:
        x: samples, or originals if there are reconstructions.
        title: what is shown.
        columns: of a table.
        real: data to compare samples with.
        again: reconstructions of x.

    Raises:
        UnsupportedError: for arrays of another shape.
    """
    if x.dim() == 3:
        return plot_signals(x, title, again)
    if x.dim() != 2:
        raise UnsupportedError(f"there is no picture for examples of the shape {tuple(x.shape[1:])}; use --out F.npz")
    return (
        plot_columns(real, x, columns, title) if again is None else plot_reconstructed_columns(x, again, columns, title)
    )


def _as_signals(x: Tensor) -> Tensor:
    return x.float().cpu()


def _shown(width: int, columns: Sequence[Column]) -> tuple[int, list[Column]]:
    named = list(columns) or [Column(f"column {place}") for place in range(width)]
    return min(width, MOST_COLUMNS), named


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    wide = min(6, max(1, math.ceil(math.sqrt(1.6 * count))))
    rows = math.ceil(count / wide)
    figure = new_figure(WIDTH, 1.15 * rows + 0.4)
    panels = list(figure.subplots(rows, wide, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def _values(x: Tensor) -> np.ndarray:
    values = x.double().cpu().numpy()
    return values[np.isfinite(values)]


def _plot_column(axes: Axes, real: np.ndarray | None, made: np.ndarray, column: Column) -> None:
    reference = made if real is None or not len(real) else real
    if not len(reference):
        return
    levels = column.kind in ("category", "ordinal", "binary") or (
        column.kind == "count" and np.quantile(reference, 1 - SHARE) < MOST_LEVELS
    )
    if levels:
        last = int(max(len(column.categories) - 1, np.quantile(reference, 1 - SHARE), 1))
        edges = np.arange(last + 2) - 0.5
    else:
        low, high = np.quantile(reference, [SHARE, 1 - SHARE])
        margin = 0.15 * (high - low) or 0.5
        bins = max(10, min(MOST_BINS, round(3 * len(reference) ** (1 / 3))))
        edges = np.linspace(low - margin, high + margin, bins + 1)
    for values, filled in ((real, True), (made, False)):
        if values is None or not len(values):
            continue
        counts, _ = np.histogram(values, edges)
        density = counts / (len(values) * np.diff(edges))
        if filled:
            axes.stairs(density, edges, fill=True, color=REAL)
        else:
            axes.stairs(density, edges, color=MADE, linewidth=1.2)
    if levels and column.categories and len(column.categories) <= 5:
        axes.set_xticks(range(len(column.categories)), [plain_text(c, length=8) for c in column.categories])
    else:
        axes.locator_params(axis="x", nbins=3)


def table_text(x: Tensor, columns: Sequence[Column]) -> str:
    """Rows as CSV text, with the columns' names and the names of categories; empty where a value is missing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = list(columns) or [Column(f"column {place}") for place in range(x.shape[1])]
    writer.writerow([column.name for column in named])
    for row in x.tolist():
        writer.writerow([_cell(value, column) for value, column in zip(row, named, strict=True)])
    return stream.getvalue()


def _cell(value: float, column: Column) -> str:
    if math.isnan(value):
        return ""
    if column.categories and column.kind in ("category", "ordinal"):
        return column.categories[int(value)] if value == int(value) and 0 <= value < len(column.categories) else ""
    return f"{value:.12g}"
