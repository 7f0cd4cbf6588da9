"""The last layer of an encoder and the first of a decoder, with and without class labels.

A class-conditional encoder adds to its linear head an inner product of the features with an embedding of the label,
f(x, y) = ψ(φ(x)) + V_y φ(x) (Miyato & Koyama 2018, eq. 4): the *projection*. Feature maps enter it as their mean
over pixels. With more than one output, V_y has one row for each. A class-conditional decoder reads z concatenated with
an embedding of the label.

Continuous covariates take the place of labels in any network: an encoder reads them next to what a network makes of
x, a decoder next to z.
"""

from __future__ import annotations

__all__: list[str] = []

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

    Maps in the channels-last memory format are read in that order, against weights that are permuted to match. Copying
    the maps would cost more, and their gradients would then have another memory format than the maps, which slows down
    all layers before it.

    Args:
        features: (C, h, w).
        outputs: how many numbers it gives for each example.
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
        self.body, self.head, self.classes = body, head, classes
        embedding = nn.Embedding(classes, head.out_features * channels)
        nn.init.normal_(embedding.weight, std=1 / math.sqrt(channels))  # the scale of the head's own output
        self.embedding = spectral_norm(embedding) if spectral else embedding

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map x, (B, *input_shape), and labels, (B,), to (B, outputs)."""
        features = self.body(x)
        pooled = features.flatten(2).mean(2) if features.dim() > 2 else features
        rows = self.embedding(labels).unflatten(1, (-1, pooled.shape[1]))
        return self.head(features) + (rows @ pooled.unsqueeze(2)).squeeze(2)

    def each_class(self, x: Tensor) -> Tensor:
        """The outputs for every label, (K, B, outputs); the features, which no label changes, are computed once."""
        features = self.body(x)
        pooled = features.flatten(2).mean(2) if features.dim() > 2 else features
        every = self.embedding(torch.arange(self.classes, device=x.device))
        rows = every.unflatten(1, (-1, pooled.shape[1]))  # (K, outputs, channels)
        return self.head(features) + torch.einsum("koc,bc->kbo", rows, pooled)


class LabeledDecoder(nn.Module):
    """A decoder that reads z with an embedding of the label appended."""

    def __init__(self, decoder: nn.Module, classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.decoder = decoder

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Map z, (B, inputs), and labels, (B,), to (B, *output_shape)."""
        return self.decoder(torch.cat([z, self.embedding(labels).to(z.dtype)], dim=1))


class CovariateEncoder(nn.Module):
    """An encoder of x and covariates: a network of x to numbers, and a perceptron of these and the covariates.

    Args:
        trunk: (B, *shape) → (B, width).
        width: of what the trunk gives.
        covariates: how many.
        outputs: how many numbers the result gives for each x.
    """

    def __init__(self, trunk: nn.Module, width: int, covariates: int, outputs: int):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Sequential(nn.Linear(width + covariates, width), nn.SiLU(), nn.Linear(width, outputs))
        self.straight = nn.Linear(width + covariates, outputs, bias=False)

    def forward(self, x: Tensor, covariates: Tensor) -> Tensor:
        """Map x, (B, *shape), and covariates, (B, k), to (B, outputs)."""
        seen = torch.cat([self.trunk(x), covariates], 1)
        return self.head(seen) + self.straight(seen)


class CovariateDecoder(nn.Module):
    """A decoder that reads z with the covariates appended."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor, covariates: Tensor) -> Tensor:
        """Map z, (B, d), and covariates, (B, k), to (B, *output_shape)."""
        return self.decoder(torch.cat([z, covariates.to(z.dtype)], 1))


def encode_each_class(network: nn.Module, x: Tensor, classes: int) -> Tensor:
    """The outputs of a class-conditional encoder for x, (B, *shape), and each of its labels: (K, B, outputs)."""
    if isinstance(network, ProjectionEncoder):
        return network.each_class(x)
    labels = torch.arange(classes, device=x.device).repeat_interleave(len(x))
    return network(x.repeat(classes, *[1] * (x.dim() - 1)), labels).unflatten(0, (classes, len(x)))


def encoder_with_head(
    body: nn.Sequential, features: tuple[int, ...], outputs: int, classes: int, *, spectral: bool = False
) -> nn.Module:
    """Put a linear head on a body, and with classes add the projection.

    Args:
        body: maps (B, *input_shape) to (B, *features).
        features: (F,) or (C, h, w).
        outputs: how many numbers the result gives for each x.
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
    return nn.Sequential(*body, *([nn.Identity()] if maps else []), head)  # the identity keeps the names of the weights


def decoder_with_labels(build: Callable[[int], nn.Module], inputs: int, classes: int) -> nn.Module:
    """Build a decoder of `inputs` numbers; with classes, it also reads an embedding of the label."""
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
