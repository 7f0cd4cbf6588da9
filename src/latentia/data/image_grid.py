"""Images side by side in one picture: a plain grid of pixels; figures with words are in `latentia.reports`."""

from __future__ import annotations

__all__ = ["image_grid", "write_image_grid"]

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from latentia.errors import DataError
from latentia.files import atomic_write

GAP = 2
GAP_GRAY = 255
CELL = 56  # small images are enlarged to about this many pixels, to be seen


def image_grid(images: Tensor, columns: int | None = None, scale: int | None = None, gap: int = GAP) -> Tensor:
    """Images in rows, as one picture.

    Args:
        images: float (N, C, H, W) in [0, 1]; C is 1 or 3, N at least 1.
        columns: images of a row; None makes the grid about square.
        scale: pixels of the picture along a side of a pixel of an image; None enlarges small images to about 56 pixels.
        gap: white pixels between the images and around them.

    Returns:
        uint8 (C, height, width).

    Raises:
        DataError: for images of another shape, or with values outside [0, 1].
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not images.numel():
        shape = tuple(images.shape)
        raise DataError(f"a grid needs images of shape (N, C, H, W) with C = 1 or 3, and these are {shape}")
    images = images.detach().cpu()
    if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():
        low, high = images.min().item(), images.max().item()
        raise DataError(
            f"a grid needs floats in [0, 1], and these are {images.dtype} from {low:.4g} to {high:.4g}; "
            "clamp them, or divide bytes by 255"
        )
    count, channels, height, width = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    scale = scale or max(1, round(CELL / max(height, width)))
    pixels = (images.float() * 255).round().byte()
    pixels = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    down, right = height * scale + gap, width * scale + gap
    picture = torch.full((channels, rows * down + gap, columns * right + gap), GAP_GRAY, dtype=torch.uint8)
    for index, image in enumerate(pixels):
        top, left = gap + index // columns * down, gap + index % columns * right
        picture[:, top : top + height * scale, left : left + width * scale] = image
    return picture


def write_image_grid(path: Path, images: Tensor, columns: int | None = None, scale: int | None = None) -> None:
    """Write a grid of images to a file such as samples.png; its folder is made. See `image_grid`."""
    picture = image_grid(images, columns, scale).permute(1, 2, 0).squeeze(-1).numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary)
