"""A residual convolutional encoder and decoder for VAEs.

Each block adds to its input the output of two 3×3 convolutions, activation first (He et al. 2016, "Identity mappings").
The last convolution of each of L blocks starts at 1/√L of the usual scale, so that all of them together add a fixed
share of variance at any depth. The encoder takes images in [0, 1] and centers them to [−1, 1].
"""

from __future__ import annotations

__all__ = ["Residual"]

import math
from typing import Literal

from pydantic import PositiveInt
from torch import nn

from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import Activation, ResidualSum, activation, gain_of, group_norm, image_shape, scaled
from latentia.networks.network import Network
from latentia.networks.pyramid import Pyramid


class _PreActivation(ResidualSum):
    """x + conv(f(conv(f(x)))); each f follows the normalization, where there is one."""

    def __init__(self, setting: Residual, channels: int, total: int):
        super().__init__()
        gain = gain_of(setting.activation)
        self.branch = nn.Sequential(
            *setting.before_convolution(channels),
            scaled(nn.Conv2d(channels, channels, 3, padding=1), gain),
            *setting.before_convolution(channels),
            scaled(nn.Conv2d(channels, channels, 3, padding=1), gain / math.sqrt(total)),
        )


class Residual(Network):
    """Residual blocks at each size of the image; for images from 8×8.

    Attributes:
        width: channels at the image's size; they double with each halving, to 8 × width at most.
        blocks: residual blocks at each size.
        norm: group normalization before each activation, or none.
        activation: the activation before each convolution of a block.
    """

    width: PositiveInt = 32
    blocks: PositiveInt = 1
    norm: Literal["group", "none"] = "group"
    activation: Activation = "silu"

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Center, blocks down the sizes, and a linear head; labels enter by projection on the mean of the last maps."""
        pyramid = self._pyramid(input_shape)
        return encoder_with_head(pyramid.down(), pyramid.features, outputs, classes)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """A linear layer, then blocks up the sizes."""
        return decoder_with_labels(self._pyramid(output_shape).up, inputs, classes)

    def before_convolution(self, channels: int) -> list[nn.Module]:
        """The normalization, if any, and the activation."""
        norm = [group_norm(channels)] if self.norm == "group" else []
        return [*norm, activation(self.activation)]

    def _pyramid(self, shape: tuple[int, ...]) -> Pyramid:
        def block(channels: int, total: int) -> nn.Module:
            return _PreActivation(self, channels, total)

        image = image_shape(self.type_name, shape)
        return Pyramid(image, self.width, self.blocks, block, self.before_convolution, kernel=3)
