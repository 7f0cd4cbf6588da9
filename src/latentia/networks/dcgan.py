"""The networks of Radford et al. 2016 (DCGAN), for any image size.

The discriminator has strided convolutions with leaky rectifiers; the generator has transposed convolutions with batch
normalization and rectifiers. All weights start from N(0, 0.02²), the scales of batch normalization from N(1, 0.02²).
Two things have another form than in the paper, with the same meaning: the full-size convolutions next to z are linear
layers, and the generator emits logits, whose sigmoid is the image in [0, 1] (the paper's tanh is that sigmoid of twice
the logit, on [−1, 1]). The discriminator takes images in [0, 1] and centers them to [−1, 1].
"""

from __future__ import annotations

__all__ = ["DCGAN"]

import math
from itertools import pairwise
from typing import Literal, TypeVar

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latentia.errors import ConfigurationError
from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import Center, image_shape
from latentia.networks.network import Network
from latentia.networks.strided import FeatureMaps, doubling_widths, sizes_of_steps, strided, transposed

_Layer = TypeVar("_Layer", bound=nn.Module)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that refuses to train on a single image, which it would map to zero."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize feature maps, (B, C, H, W); in training, B of two or more."""
        if self.training and input.shape[0] < 2:
            text = (
                "batch normalization cannot train on a batch of one image. Use batches of two or more "
                "(batch_size=2; drop a last batch of one), or a network without it: network=r3gan"
            )
            raise ConfigurationError([("network", text)])
        return super().forward(input)


class DCGAN(Network):
    """Deep convolutional generator and discriminator; for images from 8×8.

    Attributes:
        width: channels next to the image; they double with each size, to 8 × width at most.
        norm: what the *discriminator* has: batch normalization after each convolution but the first (the paper), none,
            or spectral normalization of every weight (Miyato et al. 2018). The generator has batch normalization.
    """

    width: PositiveInt = 64
    norm: Literal["batch", "none", "spectral"] = "batch"

    @property
    def bounds_slope(self) -> bool:
        return self.norm == "spectral"

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """The discriminator; labels enter by projection on the mean of the last feature maps."""
        channels, height, width = image_shape(self.type_name, input_shape)
        sizes = sizes_of_steps(height, width)
        widths = [channels, *doubling_widths(self.width, len(sizes) - 1)]
        layers: list[nn.Module] = [Center()]
        for step, (shapes, sides) in enumerate(zip(pairwise(widths), pairwise(sizes), strict=True)):
            normalized = self.norm == "batch" and step > 0
            conv = _initial(strided(shapes, *sides, bias=not normalized))
            layers.append(spectral_norm(conv) if self.norm == "spectral" else conv)
            layers += [_initial(BatchNorm(shapes[1]))] if normalized else []
            layers.append(nn.LeakyReLU(0.2, inplace=step > 0))  # in place saves memory and a copy
        features = (widths[-1], *sizes[-1])
        spectral = self.norm == "spectral"
        module = encoder_with_head(nn.Sequential(*layers), features, outputs, classes, spectral=spectral)
        if not spectral:  # spectral normalization divides the scale of the weight out
            module.apply(_initial_head)
        return module

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The generator."""
        channels, height, width = image_shape(self.type_name, output_shape)

        def build(inputs: int) -> nn.Module:
            sizes = sizes_of_steps(height, width)[::-1]
            widths = [*doubling_widths(self.width, len(sizes) - 1)[::-1], channels]
            start = (widths[0], *sizes[0])
            layers: list[nn.Module] = [
                _initial(nn.Linear(inputs, math.prod(start), bias=False)),
                FeatureMaps(start),
            ]
            for shapes, sides in zip(pairwise(widths), pairwise(sizes), strict=True):
                layers += [_initial(BatchNorm(shapes[0])), nn.ReLU(inplace=True)]
                last = sides[1] == (height, width)
                layers.append(_initial(transposed(shapes, *sides, bias=last)))
            return nn.Sequential(*layers)

        return decoder_with_labels(build, inputs, classes)


def _initial(layer: _Layer) -> _Layer:
    """Draw the paper's initial weights."""
    mean = 1.0 if isinstance(layer, BatchNorm) else 0.0
    nn.init.normal_(layer.weight, mean, 0.02)  # pyright: ignore[reportArgumentType]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer


def _initial_head(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        _initial(module)
