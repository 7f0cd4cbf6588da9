"""Pictures of exact posteriors p(z|x) in the plane, with an encoder's q(z|x), and of images with large inference gaps.

Nothing is interpolated between the nodes of the quadrature: log p(z|x) = log p(x|z) + log p(z) − log p(x) is evaluated
again on the picture's grid.
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from latentia.errors import UnsupportedError
from latentia.likelihood import Gaps, GridPosterior, LatentModel
from latentia.reports.style import INK, NORMAL, PALETTE, SMALL, WIDTH, label_axes, new_figure, show_tiles, tile_images

CELLS = 91  # along a panel's axis
DRAWS = 20_000  # of q, for the heights of its contours
HELD = (0.5, 0.9, 0.99)  # mass within the contours
FILLS = ("#4674a2", "#92b3d2", "#d9e5f0")
DEPTHS = (0, 1, 3, 10, 30, 100, 300)  # nats below the peak
DEPTH_COLORS = ("#08306b", "#2a6cab", "#6aa3cf", "#a9cbe4", "#d2e2f0", "#eaf1f8")
ENCODER, BEST = PALETTE[1], "#00703c"
EXTREME = 4


@torch.no_grad()
def plot_posteriors(posterior: GridPosterior, images: Tensor, rows: Sequence[int], gaps: Gaps | None = None) -> Figure:
    """Exact posteriors p(z|x) of some images, with the encoder's q(z|x) over them where there is an encoder.

    Filled regions and lines hold 50, 90 and 99 % of the mass of p(z|x) and of q(z|x). Each panel is zoomed to where
    the two lie, in equal scales of both coordinates, with its image in the emptiest corner.

    Args:
        posterior: of the images, z ∈ R².
        images: (N, C, H, W).
        rows: which to show, at most eight of them.
        gaps: of the first images, for the inference gap in the titles.

    Raises:
        UnsupportedError: for z of another dimension.
    """
    require_plane(posterior)
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure = new_figure(WIDTH, 1.75 * lines + 0.6)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, row in zip(panels.flat, rows, strict=False):
        q = _encoded(posterior.model, images[row])
        view = _window(posterior, row, q)
        z = plane_grid(view)
        density = np.exp(_log_posterior(posterior, images, row, z)).reshape(CELLS, CELLS)
        heights = _heights(posterior, row)
        axes.contourf(
            *view, density, levels=[*heights[::-1], max(density.max(), heights[0]) * 1.01], colors=FILLS[::-1]
        )
        shown = density / density.max()
        if q is not None:
            shown = shown + _lines(axes, view, q, ENCODER)
        _inset(axes, images[row], shown)
        words = f"log p(x) = {number(posterior.likelihood.values[row].item(), 1)}"
        if gaps is not None and row < len(gaps.inference):
            words += f"\ngap {number(gaps.inference[row].item(), 2)} nats"
        _frame(axes, view, words)
    for axes in panels.flat[len(rows) :]:
        axes.set_axis_off()
    with_q = r" and the encoder's $q(z\,|\,x)$" if posterior.model.encoder is not None else ""
    gap = "; gap: log p(x) − ELBO" if gaps is not None else ""
    figure.suptitle(rf"Exact posteriors $p(z\,|\,x)$ of {len(rows)} images{with_q}{gap}", fontsize=NORMAL + 1)
    handles: list[Any] = [
        Patch(color=color, label=f"{held * 100:.0f} % of p(z|x)") for held, color in zip(HELD, FILLS, strict=True)
    ]
    if with_q:
        handles.append(Line2D([], [], color=ENCODER, linewidth=1, label="50, 90 and 99 % of q(z|x)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)
    return figure


@torch.no_grad()
def plot_extreme_gaps(gaps: Gaps, images: Tensor, count: int = EXTREME) -> Figure:
    """The images with the largest and the smallest inference gaps, log p(x) − ELBO, with encoder and exact posterior.

    Above each panel are the image, the decoder's output at the encoder's mean, and its output at the highest mode of
    the exact posterior. The panel shows log p(z|x) in nats below its peak, with contours (90 % of the mass) of the
    encoder's q and of the best q of the family; all three lie inside the window.

    Args:
        gaps: of the images, z ∈ R².
        images: (N, C, H, W).
        count: how many of each kind.

    Raises:
        UnsupportedError: for z of another dimension.
    """
    posterior = gaps.posterior
    require_plane(posterior)
    done = gaps.finished
    order = done[gaps.inference[done].argsort(descending=True)].tolist()
    count = min(count, max(1, len(order) // 2))
    chosen = [("largest gap", order[:count]), ("smallest gap", order[: -count - 1 : -1])]
    norm, colors = BoundaryNorm(DEPTHS, len(DEPTH_COLORS)), ListedColormap(DEPTH_COLORS)
    figure = new_figure(WIDTH, 4.9)
    cells = figure.subplots(2, count, squeeze=False)
    shade = None
    for line, (kind, rows) in enumerate(chosen):
        for axes, row in zip(cells[line], rows, strict=True):
            q = _encoded(posterior.model, images[row])
            assert q is not None  # gaps are those of an encoder
            best = gaps.best(row)
            view = _window(posterior, row, q, best)
            log_density = _log_posterior(posterior, images, row, plane_grid(view)).reshape(CELLS, CELLS)
            depth = np.clip(posterior[row].log_density.max().item() - log_density, 0, DEPTHS[-1])
            shade = axes.contourf(*view, depth, levels=DEPTHS, cmap=colors, norm=norm)
            _lines(axes, view, best, BEST, (0.9,), linestyle="--")
            _lines(axes, view, q, ENCODER, (0.9,))
            _frame(axes, view)
            words = f"approximation {number(gaps.approximation[row].item(), 2)}"
            words += f"\namortization {number(gaps.amortization[row].item(), 2)}"
            _strip(axes, posterior, images[row], q, row, words)
        cells[line, 0].set_ylabel(f"{kind}\n$z_2$", fontsize=NORMAL, color=INK)
    figure.suptitle(
        f"Inference gaps log p(x) − ELBO in nats, the extremes among {len(order)} images: x, and the decoder's output\n"
        "at the encoder's mean and at the exact posterior's mode",
        fontsize=NORMAL + 1,
    )
    if shade is not None:
        bar = figure.colorbar(shade, ax=cells, shrink=0.6, aspect=30, pad=0.02)
        bar.set_label(r"log $p(z\,|\,x)$, nats below its peak", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
    handles = [
        Line2D([], [], color=ENCODER, label="encoder's q(z|x), 90 % of its mass"),
        Line2D([], [], color=BEST, linestyle="--", label="best q of the family, 90 %"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def require_plane(posterior: GridPosterior) -> None:
    """Raise UnsupportedError for z of another dimension than two."""
    if posterior.dimension != 2 or posterior.model.latent != 2:
        raise UnsupportedError(f"this picture shows z in the plane, and here z has {posterior.model.latent} dimensions")


def plane_grid(view: tuple[NDArray[Any], NDArray[Any]]) -> Tensor:
    """Points (M, 2) of a grid over the plane, row by row of the second coordinate."""
    y, x = np.meshgrid(view[1], view[0], indexing="ij")
    return torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2))


def number(value: float, digits: int) -> str:
    """A number with a minus sign in place of the hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


def _encoded(model: LatentModel, image: Tensor) -> Distribution | None:
    """q(z|x) of one image, with batch shape (1,)."""
    return None if model.encoder is None else model.encoder(image[None].to(model.device, model.dtype))


def _window(
    posterior: GridPosterior, row: int, *distributions: Distribution | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates of a square around 99 % of the posterior and of the distributions, with a margin for the image."""
    part = posterior[row]
    weight = part.mass
    lows, highs = [], []
    order = part.z.argsort(0)
    for axis in range(2):
        held = weight[order[:, axis]].cumsum(0) / weight.sum()
        ends = torch.searchsorted(held, torch.tensor([0.003, 0.997], dtype=held.dtype)).clamp(max=len(held) - 1)
        low, high = part.z[order[ends, axis], axis].tolist()
        lows.append(low)
        highs.append(high)
    low, high = torch.tensor(lows), torch.tensor(highs)
    for distribution in distributions:
        if distribution is not None:
            draws = distribution.sample(torch.Size([2000])).reshape(-1, 2).float().cpu()
            low = torch.minimum(low, draws.quantile(0.003, 0))
            high = torch.maximum(high, draws.quantile(0.997, 0))
    middle, half = ((low + high) / 2).tolist(), 0.7 * (high - low).max().item()
    return (
        np.linspace(middle[0] - half, middle[0] + half, CELLS),
        np.linspace(middle[1] - half, middle[1] + half, CELLS),
    )


@torch.no_grad()
def _log_posterior(posterior: GridPosterior, images: Tensor, row: int, z: Tensor) -> NDArray[Any]:
    """log p(z|x) at z (M, 2), in nats."""
    model = posterior.model
    points = z.to(model.device, model.dtype)
    image = images[row].to(model.device, model.dtype)
    score = model.decoder(points).log_prob(image).double() + model.log_prior(points)
    return (score.cpu() - posterior.likelihood.values[row]).numpy()


def _heights(posterior: GridPosterior, row: int) -> list[float]:
    """Densities above which the posterior has 50, 90 and 99 % of its mass, decreasing."""
    falling = posterior[row].log_density.sort(descending=True).values.exp()
    held = falling.cumsum(0) / falling.sum()
    return falling[torch.searchsorted(held, torch.tensor(HELD, dtype=held.dtype))].tolist()


def _lines(
    axes: Axes,
    view: tuple[NDArray[Any], NDArray[Any]],
    distribution: Distribution,
    color: str,
    held: Sequence[float] = HELD,
    linestyle: str = "-",
) -> NDArray[Any]:
    """Draw contours that enclose these masses, by quantiles of the density over draws; return density / peak."""
    draws = distribution.sample(torch.Size([DRAWS]))
    levels = (
        distribution.log_prob(draws)
        .flatten()
        .double()
        .quantile(torch.tensor([1 - h for h in held], dtype=torch.float64))
    )
    z = plane_grid(view).to(draws)
    log_density = (
        distribution.log_prob(z if not distribution.batch_shape else z[:, None])
        .reshape(CELLS, CELLS)
        .double()
        .cpu()
        .numpy()
    )
    look: dict[str, Any] = {"colors": color, "linewidths": 0.9, "linestyles": linestyle}
    axes.contour(*view, log_density, levels=np.unique(levels.cpu().numpy()), **look)
    return np.exp(log_density - log_density.max())


def _inset(axes: Axes, image: Tensor, density: NDArray[Any]) -> None:
    """Put the image in the corner with the least density."""
    part = int(0.36 * CELLS)
    corners = {
        (0.02, 0.67): density[-part:, :part],
        (0.67, 0.67): density[-part:, -part:],
        (0.67, 0.02): density[:part, -part:],
        (0.02, 0.02): density[:part, :part],
    }
    x, y = min(corners, key=lambda corner: float(corners[corner].max()))
    inner = axes.inset_axes((x, y, 0.31, 0.31))
    inner.imshow(tile_images(image[None], 1))
    inner.set(xticks=[], yticks=[])


def _strip(axes: Axes, posterior: GridPosterior, image: Tensor, q: Distribution, row: int, title: str) -> None:
    """Above the axes: x, and the decoder's output at q's mean and at the posterior's highest mode."""
    part = posterior[row]
    z = torch.stack([q.mean[0].double().cpu(), part.z[part.log_density.argmax()]])
    model = posterior.model
    decoded = model.decoder(z.to(model.device, model.dtype)).mean.cpu().reshape(2, *image.shape)
    ratio = image.shape[-2] / image.shape[-1]
    strip = axes.inset_axes((0, 1.04, 1, ratio / 3))
    places, _ = show_tiles(strip, torch.cat([image[None].to(decoded), decoded]), 3)
    strip.xaxis.tick_top()
    strip.set_xticks(places, ["$x$", "$q$", "mode"])
    label_axes(strip, bare=True)
    strip.tick_params(pad=1)
    strip.set_title(title, fontsize=SMALL, color=INK)


def _frame(axes: Axes, view: tuple[NDArray[Any], NDArray[Any]], title: str = "") -> None:
    label_axes(axes, "", "$z_1$", "$z_2$")
    axes.set_title(title, fontsize=SMALL, color=INK, wrap=False)  # wrapped in the last column alone
    axes.set(xlim=(view[0][0], view[0][-1]), ylim=(view[1][0], view[1][-1]))
    axes.set_box_aspect(1)
    axes.xaxis.set_major_locator(MaxNLocator(2))  # labels with a sign and two decimals touch where there are more
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.ticklabel_format(useOffset=False)
    axes.xaxis.labelpad = axes.yaxis.labelpad = 1
