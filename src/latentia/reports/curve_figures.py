"""Curves of what training recorded: a panel for each term, a line for each part of the model that reports it.

A record's name is `<who>/<term>`: `vae/rate`, `validation/rate`, `generator/cost`. Terms of one name share a panel.
"""

from __future__ import annotations

__all__ = ["plot_curves"]

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

# Panel titles and units of known terms; any other term is shown under its own name.
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
    "loss": ("Loss, without the penalty", "nats"),
    "penalty": ("Gradient penalty", ""),
    "real_logit": ("Mean logit of real examples", ""),
    "fake_logit": ("Mean logit of generated examples", ""),
    "fooling": ("Adversarial term of the cost", "nats"),
}
# Who reports a term, in a legend.
WHO: Mapping[str, str] = {
    "vae": "training",
    "autoencoder": "training, autoencoder",
    "pair": "generator and encoder",
    "validation": "validation",
}
MOST_POINTS = 400
LEGEND_LINE = 0.14  # height of a line of a legend, of that of the values
TITLE_WIDTH = 28  # characters that fit over one of three panels side by side
SETTLING = 0.1  # share of the run in which values may leave the panel
FLATTENED = 1.6  # they may if the whole run spans this many times the range of the rest


def plot_curves(
    records: Sequence[Mapping[str, Any]],
    *,
    lines: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Every recorded term against the epoch, with bands of one standard error.

    A `cost` that is the negative bound is not plotted a second time. Where there are very many records, means of
    consecutive ones are plotted.

    Args:
        records: as `Run.records` gives them: epoch, name, value, stderr.
        lines: legend of a reporter, in place of the one known here.
        units: of terms, in place of those known here.
        title: over all panels.

    Raises:
        RunError: if nothing was recorded.
    """
    series = _series(records)
    terms = sorted(dict.fromkeys(term for _, term in series), key=lambda term: term == "cost")  # the cost comes last
    if not terms:
        raise RunError("nothing was recorded, so there are no curves to plot")
    if "cost" in terms and all(_mirrors(series, who) for who, term in series if term == "cost"):
        terms.remove("cost")
    names = {**WHO, **(lines or {})}
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
            _line(axes, _thinned(values), colors[who], names.get(who, who.replace("_", " ")))
        cut |= _fit(axes, list(drawn.values()))
        label_axes(axes, _title(term, list(drawn)), "epoch", known.get(term, ""))
        axes.grid(visible=True, linewidth=0.3, color="#d9d9d9")
        axes.set_axisbelow(True)
        if len(drawn) > 1 or (len(colors) > 1 and term in TERMS):
            _put_legend(axes, list(drawn.values()))
    for axes in figure.axes[len(terms) :]:
        axes.set_axis_off()
    banded = any((values[:, 2] > 0).any() for values in series.values())
    notes = ["bands: ± 1 standard error"] * banded + ["the first tenth of the run may leave a panel"] * cut
    figure.supxlabel("; ".join(notes), fontsize=SMALL, color="#666666", x=0.995, ha="right")
    return figure


def _put_legend(axes: Axes, drawn: Sequence[NDArray[np.float64]]) -> None:
    """A legend where matplotlib finds room among lines; it does not see bands, so above these room is made."""
    if not any((values[:, 2] > 0).any() for values in drawn):
        axes.legend(fontsize=SMALL, frameon=False)
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + (LEGEND_LINE * len(drawn) + 0.04) * (high - low))
    axes.legend(fontsize=SMALL, frameon=False, loc="upper right", borderaxespad=0.1)


def _series(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """(who, term) → rows of epoch, value and standard error; values that are not finite interrupt the line."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for record in records:
        who, slash, term = str(record["name"]).rpartition("/")
        value, stderr = float(record["value"]), float(record.get("stderr") or 0.0)
        row = (float(record["epoch"]), value if math.isfinite(value) else math.nan, stderr)
        found.setdefault((who, term) if slash else ("", term), []).append(row)
    return {key: np.asarray(rows) for key, rows in found.items()}


def _title(term: str, reporters: Sequence[str]) -> str:
    """The title of a known term; else the term, with what reports it if that is one part alone."""
    if term in TERMS:
        return TERMS[term][0]
    name = f"{term}: {reporters[0]}" if len(reporters) == 1 and reporters[0] else term
    return textwrap.fill(name.replace("_", " "), TITLE_WIDTH)


def _mirrors(series: Mapping[tuple[str, str], NDArray[np.float64]], who: str) -> bool:
    cost, bound = series[who, "cost"], series.get((who, "bound"))
    return bound is not None and cost.shape == bound.shape and np.allclose(cost[:, 1], -bound[:, 1], rtol=1e-5)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `MOST_POINTS` rows: means of consecutive rows, with the standard error of such a mean."""
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
    """Choose the range from what comes after the first tenth of the run if the start would flatten the rest.

    Returns:
        Whether some of the start is left out.
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
