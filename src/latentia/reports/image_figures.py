"""Pictures made of images: samples, reconstructions, snapshots in a strip, and decoded regions of latent space."""

from __future__ import annotations

__all__ = [
    "plot_decoded_plane",
    "plot_film_strip",
    "plot_interpolations",
    "plot_latent_slices",
    "plot_reconstructions",
    "plot_samples",
]

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Independent, Normal

from latentia.distributions.sphere import onto_support
from latentia.errors import DataError, UnsupportedError
from latentia.models import VAE
from latentia.reports.style import INK, NORMAL, SMALL, WIDTH, label_axes, new_figure, plain_text, show_tiles, to_tensor

DRAWS = 100_000
LEAST_WIDTH, LEAST_HEIGHT, LARGEST_HEIGHT = 2.2, 0.9, 12.0  # inches: room for a title over very flat images
DECODED = r"E[$x\,|\,z$]"


def plot_samples(images: Tensor, title: str, columns: int | None = None) -> Figure:
    """A grid of images.

    Args:
        images: (N, C, H, W) in [0, 1].
        title: what they are; say whether they are samples of x or means E[x|z].
        columns: of the grid; None makes it about square.
    """
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    width = min(WIDTH, 0.45 * columns + 0.2)
    height = width * rows / columns * images.shape[2] / images.shape[3] + 0.25
    figure = _image_figure(width, height)
    axes = figure.subplots()
    show_tiles(axes, images, columns)
    label_axes(axes, title, bare=True)
    return figure


def plot_classes(images: Tensor, columns: int, names: Sequence[str], title: str) -> Figure:
    """A grid of images with a row for each class.

    Args:
        images: (classes · columns, C, H, W) in [0, 1], those of each class together.
        columns: images of a class.
        names: of the classes; more names than rows are left out.
        title: what the images are.
    """
    rows = len(images) // columns
    width = min(WIDTH, 0.6 * columns + 1.2)
    figure = _image_figure(width, (width - 1.2) * rows / columns * images.shape[2] / images.shape[3] + 0.35)
    axes = figure.subplots()
    _, centers = show_tiles(axes, images, columns)
    axes.set_yticks(centers, [plain_text(name) for name in names[:rows]])
    label_axes(axes, title, bare=True)
    return figure


def plot_reconstructions(
    originals: Tensor, reconstructed: Tensor, columns: int = 10, *, decoded: str = DECODED
) -> Figure:
    """Originals over their reconstructions, in pairs of rows.

    Args:
        originals: x, (N, C, H, W) in [0, 1].
        reconstructed: the decoder's output at the mean of q(z|x), of the same shape.
        columns: pairs side by side.
        decoded: what the decoder's output is, such as E[x|z] of a VAE or G(z) of a BiGAN.

    Raises:
        DataError: if the two differ in shape.
    """
    if originals.shape != reconstructed.shape:
        raise DataError(f"originals {tuple(originals.shape)} and reconstructions {tuple(reconstructed.shape)} differ")
    columns = min(columns, len(originals))
    pairs = math.ceil(len(originals) / columns)
    ratio = originals.shape[2] / originals.shape[3]
    height = (WIDTH - 0.7) / columns * 2 * pairs * ratio + 0.12 * pairs + 0.3
    figure = _image_figure(WIDTH, height)
    grid = figure.subplots(pairs, 1, squeeze=False)
    for number, axes in enumerate(grid[:, 0]):
        part = slice(number * columns, (number + 1) * columns)
        rows = [_filled(images[part], columns) for images in (originals, reconstructed)]
        _, centers = show_tiles(axes, torch.cat(rows), columns)
        axes.set_yticks(centers, ["$x$", decoded])
        label_axes(axes, bare=True)
        axes.tick_params(axis="y", labelsize=NORMAL)
    title = rf"Test images $x$ over their reconstructions {decoded}, $z$ the mean of $q(z\,|\,x)$"
    label_axes(grid[0, 0], title, bare=True)
    grid[0, 0].tick_params(axis="y", labelsize=NORMAL)
    return figure


def plot_film_strip(
    pictures: Sequence[Path | str | Any], captions: Sequence[str], title: str = "", *, below: bool = True
) -> Figure:
    """Pictures side by side, such as samples from one fixed noise after 10, 30, 50 and 90 epochs.

    Args:
        pictures: paths of images, tensors, or arrays (H, W), (H, W, C) or (C, H, W).
        captions: one for each.
        title: over them all.
        below: whether the captions stand below the pictures or above them.

    Raises:
        DataError: for a file that is not a picture, or numbers of pictures and captions that differ.
    """
    if len(pictures) != len(captions) or not pictures:
        raise DataError(f"give one caption for each picture: there are {len(pictures)} and {len(captions)}")
    tensors = [to_tensor(picture) for picture in pictures]
    ratios = [image.shape[2] / image.shape[1] for image in tensors]
    width = min(WIDTH, 2.6 * sum(ratios))
    figure = _image_figure(width, width / sum(ratios) + 0.25 + 0.25 * bool(title))
    if title:
        figure.suptitle(title, fontsize=NORMAL + 1)
    panels = figure.subplots(1, len(tensors), squeeze=False, gridspec_kw={"width_ratios": ratios})[0]
    for axes, image, text in zip(panels, tensors, captions, strict=True):
        pixels = image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
        # Sharp pixels where a small image is enlarged; averages where a large one is reduced.
        axes.imshow(pixels, interpolation="nearest" if max(image.shape) <= 128 else "antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        label_axes(axes, "" if below else text, x=text if below else "", bare=True)
    return figure


def prior_quantiles(vae: VAE, levels: Tensor) -> tuple[Tensor, str]:
    """Quantiles of each coordinate of the prior, (len(levels), d), and how they were found.

    For independent Gaussians they are exact, by the inverse normal CDF; for any other prior they are those of 100 000
    draws from torch's global generator.
    """
    prior = vae.prior
    with torch.no_grad():
        if isinstance(prior, Independent) and isinstance(prior.base_dist, Normal):
            return prior.base_dist.icdf(levels[:, None].to(prior.mean)), "the quantiles of its prior"
        draws = prior.sample(torch.Size([DRAWS]))
        index = (levels * (DRAWS - 1)).round().long()
        return draws.sort(dim=0).values[index], f"the quantiles of {DRAWS:,} draws of the prior".replace(",", " ")


@torch.no_grad()
def plot_decoded_plane(vae: VAE, side: int = 15) -> Figure:
    """E[x|z] over a grid of z ∈ R² (or a row of z ∈ R¹) at equally spaced quantiles of the prior in each coordinate.

    For the standard normal prior this is the grid of the inverse normal CDF: each image stands for an equal share of
    the prior's mass (Kingma and Welling 2014, appendix A).

    Args:
        vae: with z of one or two dimensions.
        side: images along an axis.

    Raises:
        UnsupportedError: for more dimensions; `plot_latent_slices` shows those.
    """
    if vae.latent > 2:
        raise UnsupportedError(
            f"a plane shows z of one or two dimensions, and here z has {vae.latent}; use plot_latent_slices"
        )
    levels = (torch.arange(side) + 0.5) / side
    quantiles, how = prior_quantiles(vae, levels)
    if vae.latent == 1:
        z = quantiles
    else:
        # Rows go from the top down, and z₂ upwards.
        down, right = torch.meshgrid(quantiles[:, 1].flip(0), quantiles[:, 0], indexing="ij")
        z = torch.stack([right, down], dim=-1).reshape(-1, 2)
    images = vae.decode(z).mean
    rows = len(images) // side
    ratio = images.shape[2] / images.shape[3]
    wide = 0.85 * WIDTH if rows > 1 else WIDTH
    figure = _image_figure(wide, (wide - 0.8) * rows / side * ratio + 0.9)
    axes = figure.subplots()
    columns, centers = show_tiles(axes, images, side)
    step = max(1, side // 7)
    shown = list(range(side // 2 % step, side, step))
    words = [f"{level:.2f}" for level in levels[shown].tolist()]
    axes.set_xticks(columns[shown], _numbers(quantiles[shown, 0]))
    what = f"plane: {DECODED}, each coordinate of $z$" if rows > 1 else f"line: {DECODED}, $z$"
    label_axes(axes, f"Decoded {what} at {how}", "$z_1$", bare=True)
    top = axes.secondary_xaxis("top")
    top.set_xticks(columns[shown], words)
    top.set_xlabel(r"quantile of $z_1$", fontsize=NORMAL, color=INK)
    _style_second(top)
    if rows > 1:
        axes.set_yticks(centers[::-1][shown], _numbers(quantiles[shown, 1]))
        axes.set_ylabel("$z_2$", fontsize=NORMAL, color=INK)
        right_axis = axes.secondary_yaxis("right")
        right_axis.set_yticks(centers[::-1][shown], words)
        right_axis.set_ylabel(r"quantile of $z_2$", fontsize=NORMAL, color=INK)
        _style_second(right_axis)
    return figure


@torch.no_grad()
def plot_latent_slices(vae: VAE, means: Tensor, side: int = 9, dimensions: int = 3) -> Figure:
    """E[x|z] over planes through the latent space, a plane for each pair of the most active dimensions.

    Those are the dimensions in which the encoded images vary most. The others stay at the encoded images' mean; the two
    that move go through the prior's quantiles.

    Args:
        vae: with z of at least two dimensions.
        means: of q(z|x) of some images, (N, d).
        side: images along an axis of a slice.
        dimensions: how many of the dimensions take part; three give three slices.

    Raises:
        UnsupportedError: for z of one dimension; `plot_decoded_plane` shows that.
    """
    if vae.latent < 2:
        raise UnsupportedError("slices need z of at least two dimensions; use plot_decoded_plane")
    levels = (torch.arange(side) + 0.5) / side
    quantiles, how = prior_quantiles(vae, levels)
    order = means.var(0).argsort(descending=True)[:dimensions].sort().values.tolist()
    pairs = [(i, j) for number, i in enumerate(order) for j in order[number + 1 :]]
    ratio = vae.event_shape[1] / vae.event_shape[2]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = _image_figure(WIDTH, rows * ((WIDTH / columns - 0.6) * ratio + 0.5) + 0.4)
    figure.suptitle(
        rf"Slices through $z\in R^{{{vae.latent}}}$: {DECODED}, two coordinates at {how},"
        "\nthe others at the mean of the encoded test set",
        fontsize=SMALL + 1.5,
    )
    panels = figure.subplots(rows, columns, squeeze=False).flat
    ticks = sorted({0, side // 2, side - 1})
    for axes, (i, j) in zip(panels, pairs, strict=False):
        z = means.mean(0).repeat(side, side, 1)
        z[:, :, i] = quantiles[:, i]
        z[:, :, j] = quantiles[:, j].flip(0)[:, None]
        across, down = show_tiles(axes, vae.decode(z.reshape(-1, vae.latent)).mean, side)
        axes.set_xticks(across[ticks], _numbers(quantiles[ticks, i]))
        axes.set_yticks(down[::-1][ticks], _numbers(quantiles[ticks, j]))
        label_axes(axes, x=f"$z_{{{i + 1}}}$", y=f"$z_{{{j + 1}}}$", bare=True)
    for axes in figure.axes[len(pairs) :]:
        axes.set_axis_off()
    return figure


@torch.no_grad()
def plot_interpolations(vae: VAE, start: Tensor, end: Tensor, steps: int = 9) -> Figure:
    """E[x|z] along the straight line between the encoded means of two images, with the images at the two ends.

    Args:
        vae: the model.
        start: images (R, C, H, W), one for each row.
        end: images of the same shape.
        steps: decoded images of a row.
    """
    from_z, to_z = vae.center(start), vae.center(end)
    share = torch.linspace(0, 1, steps)
    z = torch.lerp(from_z[:, None], to_z[:, None], share[None, :, None].to(from_z))
    z = onto_support(vae.prior, z)  # on a sphere, a point of the great circle
    decoded = vae.decode(z).mean.reshape(len(start), steps, *start.shape[1:])
    rows = torch.cat([start[:, None], decoded, end[:, None]], dim=1)
    ratio = start.shape[2] / start.shape[3]
    figure = _image_figure(WIDTH, WIDTH / (steps + 2) * len(start) * ratio + 0.5)
    axes = figure.subplots()
    columns, _ = show_tiles(axes, rows.flatten(0, 1), steps + 2)
    middle = [f"{value:.2g}" for value in share.tolist()]
    axes.set_xticks(columns, [r"$x_a$", *middle, r"$x_b$"])
    title = rf"Test images $x_a$ and $x_b$; between them {DECODED}, $z$ on the way from $a$ to $b$"
    label_axes(axes, title, "share of the way", bare=True)
    return figure


def _image_figure(width: float, height: float) -> Figure:
    return new_figure(max(LEAST_WIDTH, width), min(max(LEAST_HEIGHT, height), LARGEST_HEIGHT))


def _filled(images: Tensor, count: int) -> Tensor:
    """As many images as asked for, with white ones at the end where needed."""
    return torch.cat([images, images.new_ones(count - len(images), *images.shape[1:])])


def _style_second(axis: SecondaryAxis) -> None:
    axis.tick_params(labelsize=SMALL, colors=INK, length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _numbers(values: Tensor) -> list[str]:
    return [f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00") for value in values.tolist()]
