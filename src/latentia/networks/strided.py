"""Strided convolutions between two sizes of the ladder, and back.

Along a side that is halved the kernel is 4 with stride 2, along one that is not, 3 with stride 1; padding is 1 in both.
The transposed convolution returns to any size, odd ones too: its output padding of one pixel lies within the kernel's
reach, so that the last row and column are computed like all others.
"""

from __future__ import annotations

__all__ = ["doubling_widths", "sizes_of_steps", "strided", "transposed"]

from torch import nn

from latentia.networks.layers import ladder

Size = tuple[int, int]


def strided(channels: tuple[int, int], larger: Size, smaller: Size, *, bias: bool = True) -> nn.Conv2d:
    """A convolution from (B, channels[0], *larger) to (B, channels[1], *smaller)."""
    kernel, stride = _geometry(larger, smaller)
    return nn.Conv2d(*channels, kernel, stride, padding=1, bias=bias)


def transposed(channels: tuple[int, int], smaller: Size, larger: Size, *, bias: bool = True) -> nn.ConvTranspose2d:
    """A transposed convolution from (B, channels[0], *smaller) to (B, channels[1], *larger)."""
    kernel, stride = _geometry(larger, smaller)
    missing = (larger[0] - stride[0] * smaller[0], larger[1] - stride[1] * smaller[1])
    return nn.ConvTranspose2d(*channels, kernel, stride, padding=1, output_padding=missing, bias=bias)


def sizes_of_steps(height: int, width: int) -> list[Size]:
    """The ladder from the image's own size down, with its last size repeated where there would be a single step.

    Examples:
        >>> sizes_of_steps(28, 28)
        [(28, 28), (14, 14), (7, 7)]
        >>> sizes_of_steps(8, 8)
        [(8, 8), (4, 4), (4, 4)]
    """
    sizes = ladder(height, width)
    return [*sizes, sizes[-1]] if len(sizes) == 2 else sizes


def doubling_widths(width: int, count: int) -> list[int]:
    """Channels that double from size to size, to eight times the first at most.

    Examples:
        >>> doubling_widths(32, 5)
        [32, 64, 128, 256, 256]
    """
    return [width * min(2**step, 8) for step in range(count)]


def _geometry(larger: Size, smaller: Size) -> tuple[Size, Size]:
    halved = (larger[0] > smaller[0], larger[1] > smaller[1])
    return (3 + halved[0], 3 + halved[1]), (1 + halved[0], 1 + halved[1])
