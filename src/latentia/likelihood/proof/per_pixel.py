"""Normal pixels with a mean and a scale each, for the proof: log p(x|z) by affine arithmetic, pair by pair.

The two parameters of a pixel do not enter as an exponential family in the decoder's outputs, so nothing is shared among
images: a pair of an image and a tile costs D times as much as in `likelihoods`. With the decoder's μ and s, and the
floor c, σ = eˢ + c. With u = s − log c that is log σ = log c + softplus(u) and 1/σ = sigmoid(−u)/c.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math

import torch
from torch import Tensor
from torch.nn import functional

from latentia.likelihood.proof.affine import AffineBounds
from latentia.likelihood.proof.curves import SIGMOID, SQUARE, softplus
from latentia.likelihood.proof.likelihoods import HALF_LOG_2PI, Likelihoods, Products, Table
from latentia.likelihood.proof.restriction import Restriction
from latentia.likelihood.proof.rounding import UNIT, gamma_of

NUMBERS_AT_ONCE = 4_000_000  # in one array


class PerPixelLikelihoods(Likelihoods):
    """log p(x|z) = −Σⱼ [½ ((xⱼ − μⱼ)/σⱼ)² + log σⱼ + ½ log 2π]; the outputs are all μ, then all s.

    Args:
        images: (N, D).
        floor: c, which the scales are larger than.
    """

    def __init__(self, images: Tensor, floor: float):
        count = images.shape[1]
        peak = -count * (math.log(floor) + HALF_LOG_2PI)
        noise = gamma_of(4 * count) * count * (abs(math.log(floor)) + 2)
        constants = torch.full((len(images),), -count * HALF_LOG_2PI, dtype=torch.float64)
        super().__init__(images, constants, constants * 0 + peak + noise, constants * 0 + noise)
        self.floor = floor
        self.largest = torch.full((2 * count,), 1 / floor, dtype=torch.float64)  # how much outputs matter, roughly

    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("not an exponential family in the decoder's outputs")

    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("not an exponential family in the decoder's outputs")

    def skew(self, mean: Tensor) -> Tensor:
        raise NotImplementedError("not an exponential family in the decoder's outputs")

    def at(self, network: Restriction, points: Tensor) -> Tensor:
        variables = network.variables(AffineBounds.of_boxes(points, torch.zeros_like(points)))
        mean, log_scale = network.outputs(variables.center).chunk(2, -1)
        scale = log_scale.exp() + self.floor
        scores = -0.5 * ((self.features.unsqueeze(1) - mean) / scale).square() - scale.log()
        return scores.sum(-1) + self.constants[:, None]

    def products(self, network: Restriction, rows: Tensor) -> Products:
        return Products(self.features.new_zeros(len(rows)), self.features.new_zeros(len(rows), 0), 0.0)

    def restricted(self, products: Products, before: Restriction, after: Restriction) -> Products:
        return products

    def table(
        self,
        network: Restriction,
        tiles: AffineBounds,
        rows: Tensor,
        products: Products,
        together: int,
        choices: list[Tensor],
        limit: float,
        integrate: bool = False,
    ) -> list[tuple[Tensor, Table]]:
        outputs = _outputs(network, network.variables(tiles))
        mean, raw = _half(outputs, 0), _half(outputs, 1)
        one, zero, log_floor = (torch.tensor(x, dtype=torch.float64) for x in (1.0, 0.0, math.log(self.floor)))
        excess = raw.scaled(one, -log_floor)
        inverse = excess.scaled(-one, zero).through(SIGMOID).scaled(one / self.floor, zero)
        (count, d), size = (mean.error.shape[1], tiles.error.shape[1]), len(mean.error)
        total = torch.ones(1, count, dtype=torch.float64)
        logs = excess.through(softplus(1.0)).scaled(one, log_floor).linear(functional.linear, total, None, count)
        flat, nothing = torch.zeros(size, d, d, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        never = torch.zeros(size, dtype=torch.bool)
        parts = []
        for some in rows.split(max(1, NUMBERS_AT_ONCE // outputs.coefficients.numel())):
            n = len(some)
            squares = _half_squares(self.features[some], mean, inverse, total)
            bounds = (squares + AffineBounds(logs.coefficients.repeat(n, 1, 1), logs.error.repeat(n, 1))).cleaned()
            value = self.constants[some, None] - bounds.center.view(n, size)
            slope = -bounds.slopes.view(n, size, d)
            rounding = 1e-14 * (bounds.magnitude.view(n, size) + self.constants[some, None].abs())
            slack = bounds.error.view(n, size) + rounding + self.noise[some, None]
            table = Table(value, slope, slack, flat, nothing, nothing, never, nothing, rounding.amax(0))
            parts.append((some, table))
        return parts


def _outputs(network: Restriction, variables: AffineBounds) -> AffineBounds:
    """Bounds of the decoder's outputs, (S, 2D), from those of its variables."""
    coefficients = network.linear(variables.coefficients).clone()
    coefficients[:, 0] += network.bias
    gamma = 2 * gamma_of(variables.error.shape[-1])
    size = network.absolute(variables.magnitude) + network.bias.abs()
    error = network.absolute(variables.error) * (1 + gamma) + (network.error + gamma * size)
    return AffineBounds(coefficients, error).cleaned()


def _half(bounds: AffineBounds, which: int) -> AffineBounds:
    return AffineBounds(bounds.coefficients.chunk(2, -1)[which], bounds.error.chunk(2, -1)[which])


def _half_squares(images: Tensor, mean: AffineBounds, inverse: AffineBounds, total: Tensor) -> AffineBounds:
    """½ Σⱼ ((xⱼ − μⱼ)/σⱼ)² for each image and tile, (n S, 1)."""
    n = len(images)
    coefficients = -mean.coefficients.repeat(n, 1, 1)
    images = images.repeat_interleave(len(mean.error), 0)
    coefficients[:, 0] += images
    rounding = 4 * UNIT * (images.abs() + mean.center.abs().repeat(n, 1))
    difference = AffineBounds(coefficients, mean.error.repeat(n, 1) + rounding)
    weighted = difference * AffineBounds(inverse.coefficients.repeat(n, 1, 1), inverse.error.repeat(n, 1))
    return weighted.through(SQUARE).linear(functional.linear, 0.5 * total, None, images.shape[1])
