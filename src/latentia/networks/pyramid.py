"""The frame of the two residual networks: blocks at every size, resampling between the sizes.

Down: a convolution to `width` channels at the image's size, then some blocks at each size of the ladder. Between the
sizes come the mean of 2×2 pixels (at an odd edge, of those that exist) and a 1×1 convolution to more channels.
Up: a linear layer to the smallest size, then the same in reverse with bilinear interpolation, which reaches any size.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the networks of this package only

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from torch import nn

from latentia.networks.layers import Center, ladder, scaled
from latentia.networks.strided import doubling_widths


class _MakeBlock(Protocol):
    """Make a residual block, which keeps the shape of feature maps."""

    def __call__(self, channels: int, total: int) -> nn.Module:
        """Make a block with this number of channels, for a network with `total` blocks."""
        ...


@dataclass(frozen=True)
class Pyramid:
    """How to build both directions for one image shape.

    Attributes:
        shape: (C, H, W).
        width: channels at the image's size; they double with each size, to 8 × width at most.
        blocks: residual blocks at each size.
        block: makes a block.
        finish: makes the layers after the last block, from its number of channels.
        kernel: side of the convolutions from and to the image, odd.
    """

    shape: tuple[int, int, int]
    width: int
    blocks: int
    block: _MakeBlock
    finish: Callable[[int], list[nn.Module]]
    kernel: int

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The ladder, from the image's size down."""
        return ladder(*self.shape[1:], round_up=True)

    @property
    def widths(self) -> list[int]:
        """The channels at each size."""
        return doubling_widths(self.width, len(self.sizes))

    @property
    def features(self) -> tuple[int, int, int]:
        """The shape of the smallest feature maps."""
        return self.widths[-1], *self.sizes[-1]

    def down(self) -> nn.Sequential:
        """Images in [0, 1], (B, C, H, W), to feature maps, (B, *features)."""
        layers: list[nn.Module] = [Center(), scaled(self._edge(self.shape[0], self.width)), *self._stage(self.width)]
        for (larger, smaller), (before, after) in zip(pairwise(self.sizes), pairwise(self.widths), strict=True):
            window = (1 + (larger[0] > smaller[0]), 1 + (larger[1] > smaller[1]))
            layers += [nn.AvgPool2d(window, ceil_mode=True), *_change(before, after), *self._stage(after)]
        return nn.Sequential(*layers, *self.finish(self.widths[-1]))

    def up(self, inputs: int) -> nn.Sequential:
        """Vectors, (B, inputs), to unconstrained reals, (B, C, H, W)."""
        widths, sizes = self.widths[::-1], self.sizes[::-1]
        first = scaled(nn.Linear(inputs, math.prod(self.features)))
        layers: list[nn.Module] = [first, nn.Unflatten(1, self.features), *self._stage(widths[0])]
        for larger, (before, after) in zip(sizes[1:], pairwise(widths), strict=True):
            layers += [*_change(before, after), nn.Upsample(larger, mode="bilinear"), *self._stage(after)]
        return nn.Sequential(*layers, *self.finish(self.width), scaled(self._edge(self.width, self.shape[0])))

    def _stage(self, channels: int) -> list[nn.Module]:
        return [self.block(channels, self.blocks * len(self.sizes)) for _ in range(self.blocks)]

    def _edge(self, before: int, after: int) -> nn.Conv2d:
        return nn.Conv2d(before, after, self.kernel, padding=self.kernel // 2)


def _change(before: int, after: int) -> list[nn.Module]:
    return [] if before == after else [scaled(nn.Conv2d(before, after, 1, bias=False))]
