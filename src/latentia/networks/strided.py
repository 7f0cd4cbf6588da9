"""Strided convolutions from one size of the ladder to the next, and transposed convolutions back.

Along a side that is halved the kernel is 4 with stride 2; along one that is not, 3 with stride 1; padding is 1 in both.
The transposed convolution returns to any size, also odd ones: its output padding of one pixel lies within the kernel's
reach, so that the last row and column are computed like all others.

**Speed on a CPU** (measured in docs/speed-gan.md). Feature maps are kept in the channels-last memory format, in which
batch normalization takes a third of its time. A convolution from or to an image of one channel has too few channels for
the processor's vectors; it is computed as a matrix product with the image's patches, which gives the same sums. Weights
keep their shapes and memory format, so that checkpoints do not depend on this. On other devices nothing changes.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the networks of this package only

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, linear, unfold

from latentia.networks.layers import ladder

Size = tuple[int, int]

PADDING = 1


def strided(channels: tuple[int, int], larger: Size, smaller: Size, *, bias: bool = True) -> nn.Conv2d:
    """A convolution from (B, channels[0], *larger) to (B, channels[1], *smaller)."""
    kernel, stride = _geometry(larger, smaller)
    return StridedConvolution(*channels, kernel, stride, padding=PADDING, bias=bias)


def transposed(channels: tuple[int, int], smaller: Size, larger: Size, *, bias: bool = True) -> nn.ConvTranspose2d:
    """A transposed convolution from (B, channels[0], *smaller) to (B, channels[1], *larger)."""
    kernel, stride = _geometry(larger, smaller)
    missing = (larger[0] - stride[0] * smaller[0], larger[1] - stride[1] * smaller[1])
    return TransposedConvolution(*channels, kernel, stride, padding=PADDING, output_padding=missing, bias=bias)


class FeatureMaps(nn.Unflatten):
    """Reshape vectors to the feature maps that transposed convolutions start from, (B, C·h·w) → (B, C, h, w)."""

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__(1, shape)

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps, with channels last in memory on a CPU."""
        return _channels_last(super().forward(input))


def sizes_of_steps(height: int, width: int) -> list[Size]:
    """The ladder from the image's size down; its last size is repeated where there would be a single step.

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


class StridedConvolution(nn.Conv2d):
    """A convolution that reads one channel by a product with its patches, (B, pixels, kernel) · (kernel, channels)."""

    def forward(self, input: Tensor) -> Tensor:
        if self.in_channels > 1 or not _by_patches(input):
            return super().forward(_channels_last(input))
        patches = unfold(input, self.kernel_size, padding=PADDING, stride=self.stride)
        maps = linear(patches.transpose(1, 2), self.weight.flatten(1), self.bias)
        geometry = zip(input.shape[2:], self.kernel_size, self.stride, strict=True)
        sides = [(side + 2 * PADDING - kernel) // stride + 1 for side, kernel, stride in geometry]
        return maps.unflatten(1, sides).permute(0, 3, 1, 2)  # already channels-last


class TransposedConvolution(nn.ConvTranspose2d):
    """A transposed convolution that writes one channel by adding up patches, (B, pixels, channels) · (…, kernel)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.out_channels > 1 or output_size is not None or not _by_patches(input):
            return super().forward(input, output_size)
        pixels = input.permute(0, 2, 3, 1).flatten(1, 2)
        patches = (pixels @ self.weight.flatten(1)).transpose(1, 2)
        if patches.dtype in (torch.float16, torch.bfloat16):
            patches = patches.float()  # each pixel is a sum, which should be rounded once
        geometry = zip(input.shape[2:], self.stride, self.output_padding, strict=True)
        sides = tuple(stride * side + missing for side, stride, missing in geometry)
        images = fold(patches, sides, self.kernel_size, padding=PADDING, stride=self.stride)
        return images if self.bias is None else images + self.bias


def _by_patches(input: Tensor) -> bool:
    """Whether one channel is computed from patches: on a CPU, but not in a trace, whose exporters know no `fold`."""
    return input.device.type == "cpu" and not torch.jit.is_tracing()


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last) if maps.device.type == "cpu" else maps


def _geometry(larger: Size, smaller: Size) -> tuple[Size, Size]:
    halved = (larger[0] > smaller[0], larger[1] > smaller[1])
    return (3 + halved[0], 3 + halved[1]), (1 + halved[0], 1 + halved[1])
