"""Two distributions, or two samples, and the optimal map that carries one to the other.

On the line the map joins equal quantiles. In the plane, and for projections of higher dimensions, it is the best
matching (of squared distances) of as many draws of each.
"""

from __future__ import annotations

__all__ = ["draw_distributions", "draw_samples"]

import numpy as np
import scipy  # its parts are slow to import; it does that when they are first used
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.distributions import Distribution

from latentia.distributions.mixtures import log_density
from latentia.divergences.canonical import canonical_pair
from latentia.divergences.supports import is_discrete
from latentia.divergences.table import optimal_map
from latentia.divergences.transport import sample_of
from latentia.reports.style import PALETTE, SMALL, WIDTH, label_axes, new_figure

MATCHED = 400  # draws of each distribution that are matched in the plane
JOINED = 41  # quantiles that are joined on the line
Vector = NDArray[np.float64]


def draw_distributions(p: Distribution, q: Distribution, names: tuple[str, str]) -> Figure:
    """Both densities, P above the line and Q below it, and lines that join equal quantiles; draws in the plane.

    Args:
        p: a distribution.
        q: another over the same space.
        names: of the two, for the legend.

    Raises:
        ConfigurationError: distributions over different spaces.
        UnsupportedError: distributions on the line without a known distribution function.
    """
    p, q = canonical_pair(p, q)
    if p.event_shape:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drawn = [distribution.sample((MATCHED,)).double().reshape(MATCHED, -1).numpy() for distribution in (p, q)]
        return _matching(drawn[0], drawn[1], names, "Draws of both distributions and their best matching")
    x, y = (values.numpy() for values in optimal_map(p, q, JOINED))
    wide = [values.numpy() for values in optimal_map(p, q, 201)]
    low, high = min(part.min() for part in wide), max(part.max() for part in wide)
    margin = 0.12 * (high - low) + 1e-3
    line = torch.linspace(low - margin, high + margin, 2001, dtype=torch.float64)
    heights = []
    for distribution in (p, q):
        if is_discrete(distribution):
            heights.append(None)
        else:
            heights.append(log_density(distribution, line).exp().numpy())
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    top = max([float(np.quantile(h, 0.999)) for h in heights if h is not None] or [1.0])
    for distribution, height, sign, color, name in zip((p, q), heights, (1, -1), PALETTE, names, strict=False):
        level = sign * (1 + 1e-9)
        if height is None:
            points, weights = _atoms(distribution)
            axes.vlines(points, level, level + sign * weights / weights.max(), color=color, lw=2, label=name)
        else:
            shape = level + sign * np.minimum(height / top, 1.3)
            axes.fill_between(line.numpy(), level, shape, color=color, alpha=0.45, lw=0, label=name)
    _join(axes, x, y)
    _finish(axes, "Two distributions, and the optimal map between equal quantiles", "x")
    return figure


def draw_samples(x: Vector, y: Vector, names: tuple[str, str]) -> Figure:
    """Two samples, (n,) or (n, d): histograms on the line; in more dimensions two principal axes and a matching.

    Raises:
        DataError: empty samples, values that are not finite, different dimensions.
    """
    first, second = sample_of(x, "x").numpy(), sample_of(y, "y").numpy()
    if first.shape[1] > 1:
        generator = np.random.default_rng(0)
        size = min(MATCHED, len(first), len(second))
        chosen = [part[generator.permutation(len(part))[:size]] for part in (first, second)]
        return _matching(chosen[0], chosen[1], names, f"{size} points of each sample and their best matching")
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    both = np.concatenate([first[:, 0], second[:, 0]])
    edges = np.histogram_bin_edges(both, bins=min(60, max(10, int(np.sqrt(len(both))))))
    counts = [np.histogram(part[:, 0], bins=edges, density=True)[0] for part in (first, second)]
    top = max(float(count.max()) for count in counts)
    for count, sign, color, name in zip(counts, (1, -1), PALETTE, names, strict=False):
        axes.stairs(sign * (1 + count / top), edges, baseline=sign, fill=True, color=color, alpha=0.45, label=name)
    share = (np.arange(JOINED) + 0.5) / JOINED
    _join(axes, np.quantile(first[:, 0], share), np.quantile(second[:, 0], share))
    _finish(axes, "Two samples, and the optimal map between equal quantiles", "x")
    return figure


def _atoms(distribution: Distribution) -> tuple[Vector, Vector]:
    from latentia.divergences.supports import atoms

    finite, _ = atoms(distribution)
    return finite.points.numpy(), finite.weights.numpy()


def _join(axes: Axes, x: Vector, y: Vector) -> None:
    axes.plot(np.stack([x, y]), np.stack([np.ones_like(x), -np.ones_like(y)]), color="#555555", lw=0.5, alpha=0.8)


def _finish(axes: Axes, title: str, x: str) -> None:
    label_axes(axes, title, x)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.0))
    axes.set_ylim(-2.45, 2.75)


def _matching(x: Vector, y: Vector, names: tuple[str, str], title: str) -> Figure:
    """Points of the plane joined by the matching of least squared distance, found before any projection."""
    squares = ((x[:, None] - y[None]) ** 2).sum(-1)
    order = scipy.optimize.linear_sum_assignment(squares)[1]
    labels = ("$x_1$", "$x_2$")
    if x.shape[1] > 2:
        both = np.concatenate([x, y])
        axes_of_variance = np.linalg.svd(both - both.mean(0), full_matrices=False)[2][:2]
        x, y = (x - both.mean(0)) @ axes_of_variance.T, (y - both.mean(0)) @ axes_of_variance.T
        labels = ("first principal axis", "second principal axis")
    figure = new_figure(0.8 * WIDTH, 0.7 * WIDTH)
    axes = figure.subplots()
    matched = y[order]
    axes.plot(np.stack([x[:, 0], matched[:, 0]]), np.stack([x[:, 1], matched[:, 1]]), color="#888888", lw=0.4, zorder=1)
    for points, color, name in ((x, PALETTE[0], names[0]), (y, PALETTE[1], names[1])):
        axes.scatter(points[:, 0], points[:, 1], s=6, color=color, lw=0, label=name, zorder=2)
    axes.set_aspect("equal", adjustable="datalim")
    label_axes(axes, title, *labels)
    axes.legend(fontsize=SMALL, frameon=False)
    return figure
