"""Pictures made of images: samples, reconstructions beside their originals, snapshots of training in a strip."""

from __future__ import annotations

__all__ = ["film_strip", "reconstructions", "samples", "side_by_side"]

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentia.errors import DataError
from latentia.reports.style import NORMAL, WIDTH, label_axes, new_figure, show_tiles, to_tensor


def samples(images: Tensor, title: str, columns: int | None = None) -> Figure:
    """A grid of images.

    Args:
        images: (N, C, H, W) in [0, 1].
        title: what they are; say whether they are draws of x or means E[x|z].
        columns: of the grid; None makes it about square.
    """
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    width = min(WIDTH, 0.45 * columns + 0.2)
    figure = new_figure(width, width * rows / columns * images.shape[2] / images.shape[3] + 0.25)
    axes = figure.subplots()
    show_tiles(axes, images, columns)
    label_axes(axes, title, bare=True)
    return figure


def reconstructions(originals: Tensor, reconstructed: Tensor, columns: int = 10) -> Figure:
    """Originals over their reconstructions, in pairs of rows.

    Args:
        originals: x, (N, C, H, W) in [0, 1].
        reconstructed: E[x|z] at the mean of q(z|x), of the same shape.
        columns: pairs side by side.

    Raises:
        DataError: if the two differ in shape.
    """
    if originals.shape != reconstructed.shape:
        raise DataError(f"originals {tuple(originals.shape)} and reconstructions {tuple(reconstructed.shape)} differ")
    columns = min(columns, len(originals))
    pairs = math.ceil(len(originals) / columns)
    ratio = originals.shape[2] / originals.shape[3]
    figure = new_figure(WIDTH, (WIDTH - 0.7) / columns * 2 * pairs * ratio + 0.12 * pairs + 0.3)
    grid = figure.subplots(pairs, 1, squeeze=False)
    for number, axes in enumerate(grid[:, 0]):
        part = slice(number * columns, (number + 1) * columns)
        rows = [_filled(images[part], columns) for images in (originals, reconstructed)]
        _, centers = show_tiles(axes, torch.cat(rows), columns)
        axes.set_yticks(centers, ["$x$", r"E[$x\,|\,z$]"])
        label_axes(axes, bare=True)
        axes.tick_params(axis="y", labelsize=NORMAL)
    label_axes(grid[0, 0], r"Test images $x$ over their reconstructions, $z$ the mean of $q(z\,|\,x)$", bare=True)
    grid[0, 0].tick_params(axis="y", labelsize=NORMAL)
    return figure


def film_strip(pictures: Sequence[Path | str | Any], captions: Sequence[str], title: str = "") -> Figure:
    """Snapshots side by side, such as samples of one fixed noise after 10, 30, 50 and 90 epochs (item 4f of the notes).

    Args:
        pictures: paths of images, tensors, or arrays (H, W), (H, W, C) or (C, H, W).
        captions: one under each.
        title: over them all.

    Raises:
        DataError: for a file that is no picture, or numbers of pictures and captions that differ.
    """
    return _in_a_row(pictures, captions, title, below=True)


def side_by_side(pictures: Sequence[Path | str | Any], titles: Sequence[str], title: str = "") -> Figure:
    """Pictures beside each other, each under its own title, such as one model's samples beside another's.

    Args:
        pictures: as in `film_strip`.
        titles: one over each.
        title: over them all.

    Raises:
        DataError: as in `film_strip`.
    """
    return _in_a_row(pictures, titles, title, below=False)


def _in_a_row(pictures: Sequence[Any], words: Sequence[str], title: str, *, below: bool) -> Figure:
    if len(pictures) != len(words) or not pictures:
        raise DataError(f"give one caption for each picture: there are {len(pictures)} and {len(words)}")
    tensors = [to_tensor(picture) for picture in pictures]
    ratios = [image.shape[2] / image.shape[1] for image in tensors]
    width = min(WIDTH, 2.6 * sum(ratios))
    figure = new_figure(width, width / sum(ratios) + 0.25 + 0.25 * bool(title))
    if title:
        figure.suptitle(title, fontsize=NORMAL + 1)
    axes_of = figure.subplots(1, len(tensors), squeeze=False, gridspec_kw={"width_ratios": ratios})[0]
    for axes, image, text in zip(axes_of, tensors, words, strict=True):
        pixels = image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
        # Small images are enlarged with sharp pixels; large ones are made smaller with care.
        axes.imshow(pixels, interpolation="nearest" if max(image.shape) <= 128 else "antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        label_axes(axes, "" if below else text, x=text if below else "", bare=True)
    return figure


def _filled(images: Tensor, count: int) -> Tensor:
    """As many images as asked for, white ones at the end if need be."""
    return torch.cat([images, images.new_ones(count - len(images), *images.shape[1:])])
