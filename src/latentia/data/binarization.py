"""Gray pixels as probabilities of binary ones.

A Bernoulli likelihood scores x in {0, 1} only (notes 1a). Gray images of 8 bits are made binary in one of three ways:
each pixel a fresh draw with P(x = 1) = gray/255 at every step (*dynamic*, Burda et al. 2016), one such draw kept for
good (*static*, Salakhutdinov and Murray 2008), or a *threshold*. All three leave images that are binary already (0 and
255) as they are, so that binarizing twice is binarizing once.

How the dynamic draw is made. A pixel is one where u < gray, with u uniform on the integers 0 to 254: then P(x = 1) is
gray/255 exactly, and gray 0 and 255 are certain. On a CPU the u are the bytes of 64-bit random words, those equal to
255 being drawn again: a batch of 128 MNIST images takes 0.12 ms, where `torch.rand(...) * 255 < gray` takes 0.41 ms and
`torch.bernoulli` 0.48 ms (one core; a test keeps that order true).
"""

from __future__ import annotations

__all__ = ["binarize_dynamic", "binarize_static", "require_binary", "threshold", "to_unit"]

import numpy as np
import torch
from torch import Tensor

from latentia.errors import DataError


def to_unit(images: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]; 0 and 255 become exactly 0 and 1.

    Args:
        images: uint8, any shape.
    """
    return images.float().div_(255)


def threshold(images: Tensor) -> Tensor:
    """Float32 ones where the gray level is at least 128, else zeros.

    Args:
        images: uint8, any shape.
    """
    return torch.ge(images, 128, out=torch.empty(images.shape, device=images.device))


def binarize_dynamic(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A fresh draw with P(x = 1) = gray/255, independent over pixels; float32 in {0, 1}.

    Args:
        images: uint8, any shape.
        generator: on the images' device; None is torch's global one.
    """
    draw = _bytes_below_255 if images.device.type == "cpu" else _integers_below_255
    return torch.lt(draw(images, generator), images, out=torch.empty(images.shape, device=images.device))


def binarize_static(images: Tensor, seed: int) -> Tensor:
    """One draw that is a function of the seed alone, on any device; float32 in {0, 1}.

    The first k images get the same bits whether they are drawn alone or as the head of a larger set.

    Args:
        images: uint8, any shape, the first dimension being the image.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)  # always the CPU's, so that a GPU sees the same bits
    uniform = torch.randint(0, 255, images.shape, dtype=torch.uint8, generator=generator).to(images.device)
    return torch.lt(uniform, images, out=torch.empty(images.shape, device=images.device))


def require_binary(images: Tensor, likelihood: str = "a Bernoulli likelihood") -> Tensor:
    """Return the images if every pixel is binary: 0 or 1 in a float tensor, 0 or 255 in a uint8 one.

    Args:
        images: any shape.
        likelihood: who asks, for the message.

    Raises:
        DataError: naming a gray value and the cure.
    """
    one = 255 if images.dtype == torch.uint8 else 1
    gray = (images != 0) & (images != one)
    if gray.any():
        share, value = gray.double().mean().item(), images[gray][0].item()
        raise DataError(
            f"{likelihood} scores binary pixels, and {share:.1%} of these are gray (such as {value:.4g}). "
            "Set data.binarize=dynamic (or static, or threshold), or choose a likelihood for gray pixels."
        )
    return images


def _integers_below_255(images: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randint(0, 255, images.shape, dtype=torch.uint8, device=images.device, generator=generator)


def _bytes_below_255(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """The same distribution as `_integers_below_255`, from whole random words: one draw serves eight pixels."""
    count = images.numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    uniform = words.view(torch.uint8)[:count]
    values = uniform.numpy()  # shares its memory; numpy finds rare bytes eight times faster than torch
    again = np.flatnonzero(values == 255)
    values[again] = torch.randint(0, 255, again.shape, dtype=torch.uint8, generator=generator).numpy()
    return uniform.view(images.shape)
