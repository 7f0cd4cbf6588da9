"""How a network ends or begins, with and without class labels.

A class-conditional encoder adds to its linear head an inner product of the features with an embedding of the label,
f(x, y) = ψ(φ(x)) + V_y φ(x) (Miyato & Koyama 2018, eq. 4): the *projection*. Feature maps enter it as their mean
over pixels. With more than one output, V_y has one row for each. A class-conditional decoder reads z with an embedding
of the label beside it.
"""

from __future__ import annotations

__all__ = ["LabeledDecoder", "MapsHead", "ProjectionEncoder", "decoder_with_labels", "encoder_with_head"]

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.parametrizations import spectral_norm

from latentia.errors import ConfigurationError
from latentia.networks.layers import PreciseLinear

WIDEST_EMBEDDING = 64


class MapsHead(nn.Linear):
    """A linear layer on all numbers of feature maps, (B, C, h, w), in that order.

    Maps whose channels lie last in memory are read as they lie, against weights that are put in the same order: to copy
    the maps would cost more, and the gradients that came back would lie otherwise than the maps, which slows every
    layer down to the next convolution.

    Args:
        features: (C, h, w).
        outputs: how many numbers it gives.
    """

    def __init__(self, features: tuple[int, ...], outputs: int):
        super().__init__(math.prod(features), outputs)
        self.features = features

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, outputs)."""
        if input.is_contiguous():
            return super().forward(input.flatten(1))
        weight = self.weight.unflatten(1, self.features).permute(0, 2, 3, 1).flatten(1)
        return linear(input.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


class ProjectionEncoder(nn.Module):
    """Features, a linear head, and the projection on the label's embedding."""

    def __init__(self, body: nn.Module, head: nn.Linear, channels: int, classes: int, spectral: bool):
        super().__init__()
        self.body, self.head = body, head
        embedding = nn.Embedding(classes, head.out_features * channels)
        nn.init.normal_(embedding.weight, std=1 / math.sqrt(channels))  # the scale of the head's own part
        self.embedding = spectral_norm(embedding) if spectral else embedding

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map x, (B, *input_shape), and labels, (B,), to (B, outputs)."""
        features = self.body(x)
        pooled = features.flatten(2).mean(2) if features.dim() > 2 else features
        rows = self.embedding(labels).unflatten(1, (-1, pooled.shape[1]))
        return self.head(features) + (rows @ pooled.unsqueeze(2)).squeeze(2)


class LabeledDecoder(nn.Module):
    """A decoder that reads z with an embedding of the label appended."""

    def __init__(self, decoder: nn.Module, classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.decoder = decoder

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Map z, (B, inputs), and labels, (B,), to (B, *output_shape)."""
        return self.decoder(torch.cat([z, self.embedding(labels).to(z.dtype)], dim=1))


def encoder_with_head(
    body: nn.Sequential, features: tuple[int, ...], outputs: int, classes: int, *, spectral: bool = False
) -> nn.Module:
    """Put a linear head on a body, and the projection beside it where there are classes.

    Args:
        body: maps (B, *input_shape) to (B, *features).
        features: (F,) or (C, h, w).
        outputs: how many numbers the whole gives for each x.
        classes: number of classes; 0 for none.
        spectral: whether the head and the embedding are spectrally normalized.
    """
    _check(outputs=outputs, classes=classes)
    maps = len(features) > 1
    head = MapsHead(features, outputs) if maps else PreciseLinear(math.prod(features), outputs)
    if spectral:
        spectral_norm(head)
    if classes:
        return ProjectionEncoder(body, head, features[0], classes, spectral)
    return nn.Sequential(*body, *([nn.Identity()] if maps else []), head)  # so that weights keep their old names


def decoder_with_labels(build: Callable[[int], nn.Module], inputs: int, classes: int) -> nn.Module:
    """Build a decoder of `inputs` numbers that reads an embedding of the label beside them where there are classes."""
    _check(inputs=inputs, classes=classes)
    if not classes:
        return build(inputs)
    width = min(classes, WIDEST_EMBEDDING)
    return LabeledDecoder(build(inputs + width), classes, width)


def _check(*, classes: int, **counts: int) -> None:
    problems = [(key, f"must be at least 1 (given: {count})") for key, count in counts.items() if count < 1]
    if classes < 0:
        problems.append(("classes", f"must be at least 1, or 0 for a network without labels (given: {classes})"))
    if problems:
        raise ConfigurationError(problems)
