"""Curves of what was recorded in training: a panel for each term, a line for each of those who report it.

A record's name is `<who>/<term>`: `vae/rate`, `validation/rate`, `generator/cost`. Panels gather by the term.
"""

from __future__ import annotations

__all__ = ["curves"]

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from latentia.errors import RunError
from latentia.reports.style import SMALL, WIDTH, class_color, label_axes, new_figure

# Panel titles and units of terms that are known; any other term is shown under its own name.
TERMS: Mapping[str, tuple[str, str]] = {
    "bound": (r"Bound of $\log\,p(x)$", "nats"),
    "elbo": ("Evidence lower bound", "nats"),
    "rate": (r"Rate, KL($q(z\,|\,x)$, $p(z)$)", "nats"),
    "distortion": (r"Distortion, $-\mathrm{E}_q\,\log\,p(x\,|\,z)$", "nats"),
    "mutual_information": ("Index-code mutual information", "nats"),
    "total_correlation": ("Total correlation", "nats"),
    "dimension_wise": ("Dimension-wise KL", "nats"),
    "effective_sample_size": ("Effective sample size", "draws"),
    "mmd": ("Squared MMD", ""),
    "reconstruction_error": ("Reconstruction error", "squared, per pixel"),
    "cost": ("Cost", ""),
}
MOST_POINTS = 400
TITLE_WIDTH = 28  # characters that stand over a panel of three side by side
SETTLING = 0.1  # of the run: what lies beyond the range of the rest in this time may leave the panel
FLATTENED = 1.6  # times the range of the rest: what the whole run must span for that to happen


def curves(
    records: Sequence[Mapping[str, Any]],
    *,
    lines: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Every recorded term against the epoch, with bands of one standard error.

    Args:
        records: as `Run.records` gives them: epoch, name, value, stderr.
        lines: legend of a reporter, such as `{"vae": "training"}`; others keep their own name.
        units: of terms, in place of those known here.
        title: over all panels.

    A `cost` that is the bound with its sign turned is not drawn a second time. Means of consecutive records stand for
    them where there are very many.

    Raises:
        RunError: if nothing was recorded.
    """
    series = _series(records)
    terms = sorted(dict.fromkeys(term for _, term in series), key=lambda term: term == "cost")  # the cost comes last
    if not terms:
        raise RunError("nothing was recorded, so there are no curves to draw")
    if "cost" in terms and all(_mirrors(series, who) for who, term in series if term == "cost"):
        terms.remove("cost")
    known = {**{term: unit for term, (_, unit) in TERMS.items()}, **(units or {})}
    columns = min(3, len(terms)) if len(terms) != 4 else 2
    rows = math.ceil(len(terms) / columns)
    figure = new_figure(WIDTH if columns > 1 else WIDTH * 0.6, 2.1 * rows + 0.25 + 0.2 * bool(title))
    if title:
        figure.suptitle(title, fontsize=SMALL + 2)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    cut = False
    colors = {who: class_color(number) for number, who in enumerate(dict.fromkeys(who for who, _ in series))}
    for axes, term in zip(panels, terms, strict=False):
        drawn = {who: values for (who, name), values in series.items() if name == term}
        for who, values in drawn.items():
            _line(axes, _thinned(values), colors[who], (lines or {}).get(who, who))
        cut |= _fit(axes, list(drawn.values()))
        label_axes(axes, _title(term, list(drawn)), "epoch", known.get(term, ""))
        axes.grid(visible=True, linewidth=0.3, color="#d9d9d9")
        axes.set_axisbelow(True)
        if len(drawn) > 1 or (len(colors) > 1 and term in TERMS):
            axes.legend(fontsize=SMALL, frameon=False)
    for axes in figure.axes[len(terms) :]:
        axes.set_axis_off()
    banded = any((values[:, 2] > 0).any() for values in series.values())
    notes = ["bands: ± 1 standard error"] * banded + ["the first tenth of the run may leave a panel"] * cut
    figure.supxlabel("; ".join(notes), fontsize=SMALL, color="#666666", x=0.995, ha="right")
    return figure


def _series(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """(who, term) → rows of epoch, value, standard error; values that are not finite break the line."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for record in records:
        who, slash, term = str(record["name"]).rpartition("/")
        value, stderr = float(record["value"]), float(record.get("stderr") or 0.0)
        row = (float(record["epoch"]), value if math.isfinite(value) else math.nan, stderr)
        found.setdefault((who, term) if slash else ("", term), []).append(row)
    return {key: np.asarray(rows) for key, rows in found.items()}


def _title(term: str, reporters: Sequence[str]) -> str:
    """A known term's own title; of others, the record's name where one alone reports it."""
    if term in TERMS:
        return TERMS[term][0]
    name = f"{reporters[0]}/{term}" if len(reporters) == 1 and reporters[0] else term
    return textwrap.fill(name.replace("_", " "), TITLE_WIDTH)


def _mirrors(series: Mapping[tuple[str, str], NDArray[np.float64]], who: str) -> bool:
    cost, bound = series[who, "cost"], series.get((who, "bound"))
    return bound is not None and cost.shape == bound.shape and np.allclose(cost[:, 1], -bound[:, 1], rtol=1e-5)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `MOST_POINTS` rows: means of equally many consecutive rows, with the standard error of such a mean."""
    size = math.ceil(len(values) / MOST_POINTS)
    if size < 2:
        return values
    groups = np.array_split(values, math.ceil(len(values) / size))
    means = [(*group[:, :2].mean(0), np.sqrt((group[:, 2] ** 2).sum()) / len(group)) for group in groups]
    return np.asarray(means)


def _line(axes: Axes, values: NDArray[np.float64], color: str, name: str) -> None:
    epoch, value, stderr = values.T
    marker = "o" if len(values) <= 12 else None
    axes.plot(epoch, value, color=color, linewidth=1.1, marker=marker, markersize=2.5, label=name or None)
    axes.fill_between(epoch, value - stderr, value + stderr, color=color, alpha=0.25, linewidth=0)


def _fit(axes: Axes, drawn: Sequence[NDArray[np.float64]]) -> bool:
    """Choose the range by what comes after the first tenth of the run, where its start would flatten the rest.

    Returns:
        Whether something of that start is left out.
    """
    axes.margins(x=0.02)
    whole = np.concatenate(drawn)
    whole = whole[np.isfinite(whole[:, 1])]
    settled = whole[whole[:, 0] >= SETTLING * max(values[-1, 0] for values in drawn)]
    if not len(settled):
        return False
    low, high = _range(settled)
    widest = _range(whole)
    if high <= low or widest[1] - widest[0] < FLATTENED * (high - low):
        return False
    margin = 0.06 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    return True


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    return float((values[:, 1] - values[:, 2]).min()), float((values[:, 1] + values[:, 2]).max())
