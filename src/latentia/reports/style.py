"""How every picture looks: one place for sizes, colors and the way images are laid side by side.

Pictures are made with matplotlib's objects alone (`Figure`, never pyplot), so that drawing one changes nothing for
whoever else draws in the same process. The ten class colors were chosen by search so that any two of them stay at
least 25 CIELAB units apart in normal vision and under full protanopia, deuteranopia and tritanopia (tests hold that).
"""

from __future__ import annotations

__all__ = [
    "DPI",
    "INK",
    "PALETTE",
    "WIDTH",
    "class_color",
    "class_marker",
    "label_axes",
    "new_figure",
    "save_figure",
    "show_tiles",
    "tile_images",
]

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from latentia.errors import DataError, RunError

DPI = 200
WIDTH = 6.5  # inches: the text width of a page
SMALL, NORMAL, LARGE = 7.0, 8.0, 9.0  # points
INK, FAINT, PAPER = "#1f1f1f", "#8c8c8c", "#ffffff"
PALETTE = (
    "#4674a2",
    "#d12e00",
    "#e8b900",
    "#2e178b",
    "#5dd1d1",
    "#740000",
    "#d15dff",
    "#a2a274",
    "#8b00ff",
    "#5d2e46",
)
MARKERS = "os^Dv"
CELL = 128  # pixels along the longer side of an image in a tiled picture, at least: more than are shown
GAP = 5


def new_figure(width: float = WIDTH, height: float = 4.0) -> Figure:
    """An empty figure with constrained layout; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def label_axes(axes: Axes, title: str = "", x: str = "", y: str = "", *, bare: bool = False) -> None:
    """Give axes their words in the shared fonts; `bare` takes the frame away, for pictures made of images."""
    axes.set_title(title, fontsize=LARGE, color=INK)
    axes.set_xlabel(x, fontsize=NORMAL, color=INK)
    axes.set_ylabel(y, fontsize=NORMAL, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK, width=0.6, length=0 if bare else 2.5)
    for side, spine in axes.spines.items():
        spine.set_linewidth(0.6)
        spine.set_visible(not bare and side in ("left", "bottom"))


def class_color(index: int) -> str:
    """The color of a class; after ten they come round again, with another marker."""
    return PALETTE[index % len(PALETTE)]


def class_marker(index: int) -> str:
    """The marker of a class: another one for each round of ten."""
    return MARKERS[index // len(PALETTE) % len(MARKERS)]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, the same bytes each time, and return its path.

    Raises:
        RunError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, metadata={"Software": None}, facecolor=figure.get_facecolor())
    except OSError as error:
        raise RunError(f"could not write the picture {path}: {error}") from error
    return path


def tile_images(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Lay images in rows, each pixel a sharp square, with white between the images.

    Args:
        images: (N, C, H, W), C being 1 or 3; values beyond [0, 1], as a Gaussian's mean may have, are cut.
        columns: images of a row; a last row that is not full is filled up with white.

    Returns:
        uint8 (height, width, 3).

    Raises:
        DataError: for images of another shape.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise DataError(f"a picture needs images (N, C, H, W) with C = 1 or 3, and these are {tuple(images.shape)}")
    count, _, height, width = images.shape
    factor = max(1, math.ceil(CELL / max(height, width)))
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1)
    pixels = pixels.permute(0, 2, 3, 1).cpu().numpy()
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    high, wide = pixels.shape[1:3]
    rows = math.ceil(count / columns)
    whole = np.full((rows * (high + GAP) - GAP, columns * (wide + GAP) - GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(pixels):
        top, left = index // columns * (high + GAP), index % columns * (wide + GAP)
        whole[top : top + high, left : left + wide] = image
    return whole


def show_tiles(axes: Axes, images: Tensor, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Show `tile_images` on axes whose unit is one image, so that column j has its center at x = j and row i at y = i.

    Returns:
        The centers of the columns and of the rows, for ticks.
    """
    whole = tile_images(images, columns)
    rows = math.ceil(len(images) / columns)
    high, wide = (whole.shape[0] + GAP) / rows, (whole.shape[1] + GAP) / columns
    margin_x, margin_y = GAP / wide / 2, GAP / high / 2
    extent = (-0.5 + margin_x, columns - 0.5 - margin_x, rows - 0.5 - margin_y, -0.5 + margin_y)
    axes.imshow(whole, extent=extent, interpolation="antialiased", aspect=high / wide)
    axes.set_xticks([])
    axes.set_yticks([])
    return np.arange(columns), np.arange(rows)


def to_tensor(picture: Any) -> Tensor:
    """A picture as floats (C, H, W) in [0, 1], from a path, a tensor, or an array (H, W), (H, W, C) or (C, H, W).

    Raises:
        DataError: if there is no such file, or it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(picture, str | Path):
        try:
            with Image.open(picture) as image:
                picture = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"cannot read the picture {picture}: {error}") from None
    values = torch.as_tensor(np.array(picture) if not isinstance(picture, Tensor) else picture.detach().cpu())
    if values.dim() == 2:
        values = values[None]
    elif values.dim() == 3 and values.shape[0] not in (1, 3):
        values = values.permute(2, 0, 1)
    if values.dim() != 3 or values.shape[0] not in (1, 3):
        raise DataError(f"a picture has one or three channels, and this one is of shape {tuple(values.shape)}")
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()
