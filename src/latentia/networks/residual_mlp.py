"""A fully connected network of residual blocks, for z of few dimensions and for images of any shape.

A plane of z has to be folded into all digits, and what a decoder can fold grows with its depth. Each block adds to its
input what two linear layers make of it, normalized first, so that depth does not stand in the way of training
(He et al. 2016, "Identity mappings", with layer normalization, Ba et al. 2016). The last layer of each of L blocks
starts at 1/√L of the usual scale, so that all blocks together add a fixed share of variance.
"""

from __future__ import annotations

__all__ = ["ResidualMLP"]

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import Activation, PreciseLinear, activation
from latentia.networks.network import Network


class _Block(nn.Module):
    """x + W₂ f(W₁ norm(x))."""

    def __init__(self, width: int, name: Activation, total: int):
        super().__init__()
        last = nn.Linear(width, width)
        with torch.no_grad():
            last.weight /= math.sqrt(total)
            last.bias.zero_()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), activation(name), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ResidualMLP(Network, name="residual-mlp"):
    """A linear layer, residual blocks, and a linear layer; images are flattened and unflattened.

    Under a precision of `bf16-mixed` the layers next to z stay in float32: bfloat16 tells 2.00 from 2.01 and no better,
    and posteriors of a plane of digits are narrower than that.

    Attributes:
        width: of all hidden layers.
        blocks: of the decoder, two hidden layers each.
        encoder_blocks: of the encoder.
        activation: after the first layer and within each block.
    """

    width: PositiveInt = 512
    blocks: PositiveInt = 3
    encoder_blocks: PositiveInt = 1
    activation: Activation = "silu"

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Flatten, then the blocks, then a linear head; labels enter by projection on the last hidden layer."""
        flatten = [nn.Flatten()] if len(input_shape) > 1 else []
        first = nn.Linear(math.prod(input_shape), self.width)
        body = nn.Sequential(*flatten, *self._after(first, self.encoder_blocks))
        return encoder_with_head(body, (self.width,), outputs, classes)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The blocks, a linear layer, and the shape of x."""

        def build(inputs: int) -> nn.Module:
            last = nn.Linear(self.width, math.prod(output_shape))
            unflatten = [nn.Unflatten(1, tuple(output_shape))] if len(output_shape) > 1 else []
            return nn.Sequential(*self._after(PreciseLinear(inputs, self.width), self.blocks), last, *unflatten)

        return decoder_with_labels(build, inputs, classes)

    def _after(self, first: nn.Linear, blocks: int) -> list[nn.Module]:
        middle = [_Block(self.width, self.activation, blocks) for _ in range(blocks)]
        return [first, activation(self.activation), *middle, nn.LayerNorm(self.width)]
