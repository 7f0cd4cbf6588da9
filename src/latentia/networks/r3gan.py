"""A residual generator and discriminator without normalization, after Huang et al. 2024 (R3GAN).

From that paper: residual bottlenecks 1×1 → grouped 3×3 → 1×1 with leaky rectifiers, resampling by smooth filters apart
from the convolutions, no normalization, and initial weights that replace it (Zhang et al. 2019, "Fixup", sect. 3). Of L
blocks, each begins as the identity, since its last convolution is zero, and its other m − 1 = 2 convolutions are scaled
by L^(−1/(2m−2)) = L^(−1/4), so that the change of the output in one step of gradient descent does not grow with L.

The frame around the blocks is not the paper's: a linear layer to the smallest maps, bilinear steps up, means of 2×2
pixels down. The discriminator takes images in [0, 1] and centers them to [−1, 1]; the generator emits logits, whose
sigmoid is the image.
"""

from __future__ import annotations

__all__ = ["R3GAN"]

import math

from pydantic import PositiveInt
from torch import nn

from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import ResidualSum, activation, gain_of, image_shape, scaled
from latentia.networks.network import Network
from latentia.networks.pyramid import Pyramid


class _Bottleneck(ResidualSum):
    """x + conv₁ₓ₁(f(conv₃ₓ₃(f(conv₁ₓ₁(x))))), whose second term starts at zero."""

    def __init__(self, channels: int, inner: int, group_width: int, total: int):
        super().__init__()
        groups = inner // math.gcd(inner, group_width)
        gain = gain_of("leaky-relu") * total**-0.25
        self.branch = nn.Sequential(
            scaled(nn.Conv2d(channels, inner, 1), gain),
            activation("leaky-relu"),
            scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain),
            activation("leaky-relu"),
            scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0),
        )


class R3GAN(Network, name="r3gan"):
    """Residual bottlenecks without normalization; for images from 8×8.

    Attributes:
        width: channels at the image's size; they double with each halving, to 8 × width at most.
        blocks: bottlenecks at each size.
        expansion: channels inside a bottleneck, as a multiple of those outside. 2 takes twice the time.
        group_width: channels that a 3×3 convolution sees at once (the greatest common divisor with the inner channels).
    """

    width: PositiveInt = 32
    blocks: PositiveInt = 1
    expansion: PositiveInt = 1
    group_width: PositiveInt = 16

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """The discriminator; labels enter by projection on the mean of the last feature maps."""
        pyramid = self._pyramid(input_shape)
        return encoder_with_head(pyramid.down(), pyramid.features, outputs, classes)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The generator."""
        return decoder_with_labels(self._pyramid(output_shape).up, inputs, classes)

    def _pyramid(self, shape: tuple[int, ...]) -> Pyramid:
        def block(channels: int, total: int) -> nn.Module:
            return _Bottleneck(channels, self.expansion * channels, self.group_width, total)

        image = image_shape(self.type_name, shape)
        return Pyramid(image, self.width, self.blocks, block, lambda _: [], kernel=1)
