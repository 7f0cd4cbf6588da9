"""Points of the line and the plane: the encoded test set, data and generated points, and two distributions or samples
with the optimal map between them."""

from __future__ import annotations

__all__ = ["plot_encoded", "plot_points"]

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # imports its slow parts when they are first used
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions.mixtures import log_density
from latentia.divergences.empirical import sample_of
from latentia.divergences.wasserstein import optimal_map
from latentia.errors import DataError
from latentia.reports.style import (
    FAINT,
    INK,
    NORMAL,
    PALETTE,
    SMALL,
    WIDTH,
    class_color,
    class_groups,
    class_marker,
    label_axes,
    new_figure,
    plain_text,
    text_color,
)

SIGMAS = (1, 2, 3)
MASSES = tuple(1 - math.exp(-(sigma**2) / 2) for sigma in SIGMAS)
DRAWS = 400_000
CELLS = 240
SHOWN_CLASSES = 30
WRITTEN_CLASSES = 12  # so many class names are also written into the plane
WRITTEN_LENGTH = 10
LEVEL_CELLS, SHADES = 200, 21
MATCHED = 400  # draws of each distribution that are matched in the plane
JOINED = 41  # quantiles that are joined on the line
Vector = NDArray[np.float64]
Groups = list[tuple[int, str, Tensor]]


def plot_encoded(
    means: Tensor, prior: Distribution, labels: Tensor | None = None, classes: Sequence[str] = ()
) -> Figure:
    """The means of q(z|x) of a set of images in the plane, colored by class, with contours of the prior.

    For z of more than two dimensions, the plane is that of the first two principal directions of the means (through the
    origin of z, so that a standard normal prior stays one). The contours hold the prior's mass that 1, 2 and 3 standard
    deviations hold for a Gaussian in the plane: circles where the prior is standard normal. For z ∈ R¹ the picture is a
    histogram.

    Args:
        means: of q(z|x), (N, d).
        prior: p(z), event shape (d,).
        labels: (N,), integers, or None.
        classes: their names.
    """
    points = means.detach().double().cpu()
    groups = class_groups(labels, classes, len(points))
    if means.shape[1] == 1:
        return _histogram(points[:, 0], prior, groups)
    axis_words = ("$z_1$", "$z_2$")
    directions, title = None, r"Encoded test set: means of $q(z\,|\,x)$"
    if means.shape[1] > 2:
        centered = points - points.mean(0)
        _, singular, rotation = torch.linalg.svd(centered, full_matrices=False)
        directions = _signed(rotation[:2].T)
        shares = (singular**2 / (singular**2).sum())[:2].tolist()
        points = points @ directions
        axis_words = tuple(
            f"principal direction {number} ({share:.0%} of the variance)" for number, share in enumerate(shares, 1)
        )
        title = rf"Encoded test set: means of $q(z\,|\,x)$, $z\in R^{{{means.shape[1]}}}$, in their principal plane"
    figure = new_figure(0.85 * WIDTH, 0.73 * WIDTH)
    axes = figure.subplots()
    scatter_classes(axes, points.numpy(), groups)
    _write_classes(axes, points.numpy(), groups)
    bound = max(_reach(prior, directions), 1.04 * points.abs().max().item())
    _contours(axes, prior, directions, bound)
    axes.set(xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
    label_axes(axes, title, *axis_words)
    masses = ", ".join(f"{mass:.0%}" for mass in MASSES)
    note = f"dashed: the prior's 1σ, 2σ and 3σ regions, which hold {masses} of its mass"
    figure.supxlabel(note, fontsize=SMALL, color="#666666")
    return figure


def plot_points(
    real: Tensor,
    generated: Tensor,
    level: Callable[[Tensor], Tensor] | None = None,
    *,
    title: str = "Data and generated points",
    level_name: str = r"$D(x)$",
) -> Figure:
    """Real and generated points of the plane, and under them, where given, the level sets of a function of the plane.

    Args:
        real: draws of the data's distribution, (N, 2).
        generated: draws of the generator's, (M, 2).
        level: maps points (K, 2) to numbers (K,), such as D(x) in [0, 1].
        title: of the figure.
        level_name: what `level` is, for its color bar.

    Raises:
        DataError: for points that are not in the plane.
    """
    for name, points in (("real", real), ("generated", generated)):
        if points.dim() != 2 or points.shape[1] != 2:
            raise DataError(f"plot_points shows points of the plane, (N, 2), and {name} is {tuple(points.shape)}")
    both = torch.cat([real, generated]).detach().cpu()
    both = both[both.isfinite().all(1)]
    low, high = both.min(0).values, both.max(0).values
    middle, half = (low + high) / 2, 0.55 * float((high - low).max().clamp(min=1e-6))
    figure = new_figure(0.75 * WIDTH, 0.68 * WIDTH)
    axes = figure.subplots()
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    if level is not None:
        x, y = np.linspace(left, right, LEVEL_CELLS), np.linspace(bottom, top, LEVEL_CELLS)
        grid = torch.as_tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2), dtype=real.dtype, device=real.device)
        with torch.no_grad():
            heights = level(grid).detach().cpu().double().numpy().reshape(LEVEL_CELLS, LEVEL_CELLS)
        within = heights.min() >= 0 and heights.max() <= 1
        levels = np.linspace(0, 1, SHADES) if within else SHADES
        shades = axes.contourf(x, y, heights, levels=levels, cmap="Greys", alpha=0.6)
        bar = figure.colorbar(shades, ax=axes, shrink=0.85, ticks=np.linspace(0, 1, 5) if within else None)
        bar.set_label(level_name, fontsize=SMALL + 1)
        bar.ax.tick_params(labelsize=SMALL, width=0.6)
        bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue]
    # Half of the generated points lie over the data and half under them, so that neither hides the other.
    half_way = len(generated) // 2
    parts = ((generated[:half_way], 1), (real, 0), (generated[half_way:], 1))
    looks = (("data", PALETTE[0], "o", len(real)), ("generated", PALETTE[1], "x", len(generated)))
    for points, kind in parts:
        _, color, marker, count = looks[kind]
        x, y = points.detach().cpu().T.numpy()
        size = float(np.clip(6000 / max(1, count), 2, 14))
        axes.scatter(x, y, s=size, color=color, marker=marker, alpha=0.6, linewidths=0.5 if kind else 0)
    for name, color, marker, count in looks:
        axes.scatter([], [], s=14, color=color, marker=marker, label=f"{name} ({count})", linewidths=0.8)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.legend(fontsize=SMALL, loc="upper right", framealpha=0.85, edgecolor="none")
    label_axes(axes, title, "$x_1$", "$x_2$")
    return figure


def plot_distributions(p: Distribution, q: Distribution, names: tuple[str, str]) -> Figure:
    """Both densities, P above the line and Q below it, and lines that join equal quantiles; samples in the plane.

    On the line the optimal map joins equal quantiles. In the plane, and for projections of higher dimensions, it is the
    best matching (of squared distances) of as many draws of each.

    Args:
        p: a distribution.
        q: another over the same space.
        names: of the two, for the legend.

    Raises:
        ConfigurationError: distributions over different spaces.
        UnsupportedError: distributions on the line without a known distribution function.
    """
    if p.event_shape:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drawn = [distribution.sample((MATCHED,)).double().reshape(MATCHED, -1).numpy() for distribution in (p, q)]
        return _matching(drawn[0], drawn[1], names, "Samples of both distributions and their best matching")
    x, y = (values.numpy() for values in optimal_map(p, q, JOINED))
    wide = [values.numpy() for values in optimal_map(p, q, 201)]
    low, high = min(part.min() for part in wide), max(part.max() for part in wide)
    margin = 0.12 * (high - low) + 1e-3
    line = torch.linspace(low - margin, high + margin, 2001, dtype=torch.float64)
    discrete = [bool(one.support.is_discrete) for one in (p, q)]  # pyright: ignore[reportOptionalMemberAccess]
    heights = [None if d else log_density(one, line).exp().numpy() for d, one in zip(discrete, (p, q), strict=True)]
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    top = max([float(np.quantile(h, 0.999)) for h in heights if h is not None] or [1.0])
    for one, x_of, height, sign, color, name in zip((p, q), wide, heights, (1, -1), PALETTE, names, strict=False):
        level = sign * (1 + 1e-9)
        if height is None:
            points = np.unique(x_of)
            weights = log_density(one, torch.from_numpy(points)).exp().numpy()
            ends = level + sign * weights / weights.max()
            axes.vlines(points, level, ends, color=color, lw=2, label=plain_text(name, length=60))
        else:
            shape = level + sign * np.minimum(height / top, 1.3)
            axes.fill_between(
                line.numpy(), level, shape, color=color, alpha=0.45, lw=0, label=plain_text(name, length=60)
            )
    _join(axes, x, y)
    _finish(axes, "Two distributions, and the optimal map between equal quantiles", "x")
    return figure


def plot_two_samples(x: Vector, y: Vector, names: tuple[str, str]) -> Figure:
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
        label = plain_text(name, length=60)
        axes.stairs(sign * (1 + count / top), edges, baseline=sign, fill=True, color=color, alpha=0.45, label=label)
    share = (np.arange(JOINED) + 0.5) / JOINED
    _join(axes, np.quantile(first[:, 0], share), np.quantile(second[:, 0], share))
    _finish(axes, "Two samples, and the optimal map between equal quantiles", "x")
    return figure


def mass_levels(density: Vector, masses: Sequence[float]) -> Vector:
    """Heights h such that the cells where the density is above h hold these shares of the whole.

    Args:
        density: over the cells of a regular grid, up to a factor.
        masses: shares between 0 and 1, increasing; the heights decrease.
    """
    falling = np.sort(density.ravel())[::-1]
    held = np.cumsum(falling) / falling.sum()
    return falling[np.minimum(np.searchsorted(held, masses), falling.size - 1)]


def scatter_classes(axes: Axes, points: Vector, groups: Groups) -> None:
    """Points of several classes with a legend; the classes take turns, as the last would hide the others."""
    size = float(np.clip(14000 / len(points), 2.5, 16))
    for turn in range(8):
        for label, _, rows in groups:
            part = points[rows.numpy()[turn::8]]
            look: dict[str, Any] = {"color": class_color(label), "marker": class_marker(label)}
            axes.scatter(*part.T, s=size, linewidths=0, alpha=0.75, **look)
    if len(groups) < 2:
        return
    handles = [
        Line2D([], [], markersize=5, label=name, color=class_color(label), marker=class_marker(label), linestyle="")
        for label, name, _ in groups[:SHOWN_CLASSES]
    ]
    title = "class" if len(groups) <= SHOWN_CLASSES else f"class (first {SHOWN_CLASSES} of {len(groups)})"
    axes.legend(
        handles=handles, title=title, fontsize=SMALL, title_fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5),
        frameon=False, ncols=1 + (len(handles) - 1) // 15, handletextpad=0.2,
    )  # fmt: skip


def _write_classes(axes: Axes, points: Vector, groups: Groups) -> None:
    """Write each class's name at its middle, for readers who cannot use the colors; near names move apart."""
    if not 2 <= len(groups) <= WRITTEN_CLASSES or any(len(name) > WRITTEN_LENGTH for _, name, _ in groups):
        return
    middles = np.stack([np.median(points[rows.numpy()], axis=0) for _, _, rows in groups])
    longest = max(len(name) for _, name, _ in groups)
    apart = np.ptp(points, axis=0).max() * np.array([0.025 + 0.022 * longest, 0.055])
    places = middles + 1e-3 * apart * np.random.default_rng(0).normal(size=middles.shape)
    for _ in range(200):
        gaps = (places[:, None] - places[None]) / apart
        distance = np.linalg.norm(gaps, axis=-1) + np.eye(len(places))
        push = np.where(distance < 1, 0.5 * (1 - distance) / distance, 0)[..., None] * gaps
        places = places + push.sum(1) * apart
    for (label, name, _), middle, place in zip(groups, middles, places, strict=True):
        if np.linalg.norm((place - middle) / apart) > 0.6:
            axes.plot(*np.stack([middle, place]).T, color=class_color(label), lw=0.7, zorder=4.5)
        look: dict[str, Any] = {"fontsize": NORMAL + 2, "fontweight": "bold", "ha": "center", "va": "center"}
        halo = [withStroke(linewidth=2.4, foreground="white")]
        axes.text(place[0], place[1], name, color=text_color(class_color(label)), zorder=5, path_effects=halo, **look)


def _contours(axes: Axes, prior: Distribution, directions: Tensor | None, bound: float) -> None:
    look = {"linewidth": 0.8, "color": FAINT, "linestyle": (0, (4, 3)), "zorder": 4}
    if _is_standard_normal(prior):
        for sigma in SIGMAS:
            axes.add_patch(Circle((0, 0), sigma, fill=False, **look))
            halo = [withStroke(linewidth=1.8, foreground="white")]
            words: dict[str, Any] = {"fontsize": SMALL, "color": INK, "ha": "center", "va": "center", "zorder": 6}
            axes.text(0.5 * sigma, -(0.75**0.5) * sigma, f"{sigma}σ", path_effects=halo, **words)
        return
    edges = np.linspace(-bound, bound, CELLS + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    density = _density(prior, directions, edges, centers)
    levels = mass_levels(density, MASSES)
    rising, order = np.unique(levels, return_index=True)
    names = {level: f"{SIGMAS[index]}σ" for level, index in zip(rising, order, strict=True)}
    lines = axes.contour(
        centers, centers, density, levels=rising, colors=INK, linewidths=0.8, linestyles="dashed", alpha=0.6
    )
    axes.clabel(lines, fmt=names, fontsize=SMALL)


def _reach(prior: Distribution, directions: Tensor | None) -> float:
    """How far from the origin the picture must go to show the prior's outermost contour."""
    if _is_standard_normal(prior):
        return 1.1 * SIGMAS[-1]
    with torch.no_grad():
        draws = prior.sample(torch.Size([20_000])).double()
    largest = (draws if directions is None else draws @ directions).abs().amax(1)
    return 1.1 * largest.quantile(0.995).item()


def _density(prior: Distribution, directions: Tensor | None, edges: Vector, centers: Vector) -> Vector:
    """The prior's density over the plane: exact for z ∈ R², else a smoothed histogram of projected draws."""
    with torch.no_grad():
        if directions is None:
            y, x = np.meshgrid(centers, centers, indexing="ij")
            grid = torch.as_tensor(np.stack([x, y], -1).reshape(-1, 2), dtype=torch.float32)
            log_prior = torch.cat([prior.log_prob(part) for part in grid.split(8192)]).double()
            return (log_prior - log_prior.max()).exp().numpy().reshape(CELLS, CELLS)
        draws = (prior.sample(torch.Size([DRAWS])).double() @ directions).numpy()
    counts, _, _ = np.histogram2d(draws[:, 1], draws[:, 0], bins=[edges, edges])
    return scipy.ndimage.gaussian_filter(counts, sigma=5.0)


def _histogram(values: Tensor, prior: Distribution, groups: Groups) -> Figure:
    figure = new_figure(WIDTH, 0.45 * WIDTH)
    axes = figure.subplots()
    bound = max(_reach(prior, None), 1.04 * values.abs().max().item())
    bins = np.linspace(-bound, bound, 81)
    parts = [values[rows].numpy() for _, _, rows in groups]
    colors = [class_color(label) for label, _, _ in groups]
    axes.hist(parts, bins=list(bins), stacked=True, color=colors, label=[name for _, name, _ in groups])
    z = torch.linspace(-bound, bound, 400)
    with torch.no_grad():
        density = prior.log_prob(z[:, None]).exp() * len(values) * float(bins[1] - bins[0])
    axes.plot(z.numpy(), density.numpy(), color=INK, linewidth=0.9, linestyle="--", label="prior $p(z)$, scaled")
    axes.legend(fontsize=SMALL, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    label_axes(axes, r"Encoded test set: means of $q(z\,|\,x)$", "$z$", "images")
    return figure


def _is_standard_normal(prior: Distribution) -> bool:
    if not (isinstance(prior, Independent) and isinstance(prior.base_dist, Normal)):
        return False
    return bool((prior.mean == 0).all() and (prior.variance == 1).all())


def _signed(directions: Tensor) -> Tensor:
    """Each direction with its largest entry positive, so that the picture is the same each time."""
    largest = directions.abs().argmax(0)
    return directions * directions.gather(0, largest[None]).sign()


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
        axes.scatter(points[:, 0], points[:, 1], s=6, color=color, lw=0, label=plain_text(name, length=60), zorder=2)
    axes.set_aspect("equal", adjustable="datalim")
    label_axes(axes, title, *labels)
    axes.legend(fontsize=SMALL, frameon=False)
    return figure
