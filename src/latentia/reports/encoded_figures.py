"""The encoded test set in the plane: where q(z|x) puts its means, by class, against the prior."""

from __future__ import annotations

__all__ = ["encoded_test_set", "mass_levels"]

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts are slow to import; it does that when they are first used
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from latentia.reports.style import (
    FAINT,
    INK,
    NORMAL,
    SMALL,
    WIDTH,
    class_color,
    class_marker,
    label_axes,
    new_figure,
)

SIGMAS = (1, 2, 3)
MASSES = tuple(1 - math.exp(-(sigma**2) / 2) for sigma in SIGMAS)
DRAWS = 400_000
CELLS = 240
SHOWN_CLASSES = 30


def encoded_test_set(
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
    kinds = _kinds(points, labels, classes)
    if means.shape[1] == 1:
        return _histogram(points[:, 0], prior, kinds)
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
    _scatter(axes, points.numpy(), kinds)
    bound = max(_reach(prior, directions), 1.04 * points.abs().max().item())
    _contours(axes, prior, directions, bound)
    axes.set(xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
    label_axes(axes, title, *axis_words)
    masses = ", ".join(f"{mass:.0%}" for mass in MASSES)
    note = f"dashed: the prior's 1σ, 2σ and 3σ regions, which hold {masses} of its mass"
    figure.supxlabel(note, fontsize=SMALL, color="#666666")
    return figure


def mass_levels(density: NDArray[np.float64], masses: Sequence[float]) -> NDArray[np.float64]:
    """Heights h such that the cells where the density is above h hold these shares of the whole.

    Args:
        density: over the cells of a regular grid, up to a factor.
        masses: shares between 0 and 1, rising; the heights fall.
    """
    falling = np.sort(density.ravel())[::-1]
    held = np.cumsum(falling) / falling.sum()
    return falling[np.minimum(np.searchsorted(held, masses), falling.size - 1)]


def _kinds(points: Tensor, labels: Tensor | None, classes: Sequence[str]) -> list[tuple[str, Tensor]]:
    """(name, rows) of each class that occurs."""
    if labels is None:
        return [("", torch.arange(len(points)))]
    labels = labels.cpu()
    return [
        (classes[value] if value < len(classes) else str(value), (labels == value).nonzero().squeeze(1))
        for value in map(int, labels.unique().tolist())
    ]


def _scatter(axes: Axes, points: NDArray[np.float64], kinds: list[tuple[str, Tensor]]) -> None:
    # The classes take turns: one after the other, the last would hide the rest.
    size = float(np.clip(14000 / len(points), 2.5, 16))
    for turn in range(8):
        for number, (_, rows) in enumerate(kinds):
            part = points[rows.numpy()[turn::8]]
            axes.scatter(
                *part.T, s=size, color=class_color(number), marker=class_marker(number), linewidths=0, alpha=0.75
            )
    if len(kinds) < 2:
        return
    handles, written = [], []
    apart = 0.06 * float(np.ptp(points, axis=0).max())
    for number, (name, rows) in enumerate(kinds[:SHOWN_CLASSES]):
        look: dict[str, Any] = {"color": class_color(number), "marker": class_marker(number), "linestyle": ""}
        handles.append(Line2D([], [], markersize=5, label=name, **look))
        middle = np.median(points[rows.numpy()], axis=0)
        halo = [withStroke(linewidth=2.2, foreground="white")]
        # A name at the middle of its class, for those who cannot go by color, where there is room for it.
        if len(name) <= 3 and all(np.linalg.norm(middle - other) > apart for other in written):
            written.append(middle)
            words: dict[str, Any] = {
                "fontsize": NORMAL + 2,
                "fontweight": "bold",
                "ha": "center",
                "va": "center",
                "zorder": 5,
            }
            axes.text(middle[0], middle[1], name, color=class_color(number), path_effects=halo, **words)
    title = "class" if len(kinds) <= SHOWN_CLASSES else f"class (first {SHOWN_CLASSES} of {len(kinds)})"
    axes.legend(
        handles=handles, title=title, fontsize=SMALL, title_fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5),
        frameon=False, ncols=1 + (len(handles) - 1) // 15,
    )  # fmt: skip


def _contours(axes: Axes, prior: Distribution, directions: Tensor | None, bound: float) -> None:
    look = {"linewidth": 0.8, "color": FAINT, "linestyle": (0, (4, 3)), "zorder": 4}
    if _is_standard_normal(prior):
        for sigma in SIGMAS:
            axes.add_patch(Circle((0, 0), sigma, fill=False, **look))
            _word(axes, 0.5 * sigma, -(0.75**0.5) * sigma, f"{sigma}σ")
        return
    edges = np.linspace(-bound, bound, CELLS + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    density = _density(prior, directions, edges, centers)
    levels = mass_levels(density, MASSES)
    rising, words = np.unique(levels, return_index=True)
    names = {level: f"{SIGMAS[index]}σ" for level, index in zip(rising, words, strict=True)}
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


def _density(
    prior: Distribution, directions: Tensor | None, edges: NDArray[np.float64], centers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The prior's density over the plane: exact for z ∈ R², else a smoothed histogram of projected draws."""
    with torch.no_grad():
        if directions is None:
            y, x = np.meshgrid(centers, centers, indexing="ij")
            grid = torch.as_tensor(np.stack([x, y], -1).reshape(-1, 2), dtype=torch.float32)
            log_density = torch.cat([prior.log_prob(part) for part in grid.split(8192)]).double()
            return (log_density - log_density.max()).exp().numpy().reshape(CELLS, CELLS)
        draws = (prior.sample(torch.Size([DRAWS])).double() @ directions).numpy()
    counts, _, _ = np.histogram2d(draws[:, 1], draws[:, 0], bins=[edges, edges])
    return scipy.ndimage.gaussian_filter(counts, sigma=5.0)


def _histogram(values: Tensor, prior: Distribution, kinds: list[tuple[str, Tensor]]) -> Figure:
    figure = new_figure(WIDTH, 0.45 * WIDTH)
    axes = figure.subplots()
    bound = max(_reach(prior, None), 1.04 * values.abs().max().item())
    bins = np.linspace(-bound, bound, 81)
    parts = [values[rows].numpy() for _, rows in kinds]
    colors = [class_color(number) for number in range(len(kinds))]
    axes.hist(parts, bins=list(bins), stacked=True, color=colors, label=[name for name, _ in kinds])
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


def _word(axes: Axes, x: float, y: float, text: str) -> None:
    halo = [withStroke(linewidth=1.8, foreground="white")]
    axes.text(x, y, text, fontsize=SMALL, color=INK, ha="center", va="center", zorder=6, path_effects=halo)
