"""A mixture of logistic distributions over 8-bit pixels, integrated over each pixel's cell.

A logistic distribution has CDF σ((v − μ)/s). With v ∈ [−1, 1] and cells of half-width 1/255, the probability of level k is
the CDF's increase over the cell; the first and last cells reach to ∓∞, so the 256 probabilities sum to one.
Increases are computed as log(σ(b) − σ(a)) = log(1 − e^{a−b}) + log σ(b) + log σ(−a), where nothing cancels, so that
they are exact for parameters of any size. Scales have a floor, e⁻⁷, an eighth of a cell.
"""

from __future__ import annotations

__all__ = ["DiscretizedLogisticMixtureDistribution"]

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid
from torch.types import _size

LOG_CELL = math.log(2 / 255)
LOWEST_LOG_SCALE = -7.0
LARGEST_LOG_SCALE = 40.0  # in draws: beyond it every draw is black or white all the same, and ∞ · 0 is not a number


class DiscretizedLogisticMixtureDistribution(Distribution):
    """Distributions over images with values k/255.

    Args:
        parameters: (*batch, K(1 + 2C), H, W): K mixture logits, K·C means, K·C log-scales.
        components: K.
    """

    def __init__(self, parameters: Tensor, components: int):
        *batch, numbers, height, width = parameters.shape
        channels = (numbers // components - 1) // 2
        logits, means, log_scales = parameters.split([components, components * channels, components * channels], dim=-3)
        self.components = components
        self.parameters = parameters
        self.log_weights = logits.log_softmax(dim=-3)  # (*batch, K, H, W)
        self.means = means.unflatten(-3, (components, channels))  # (*batch, K, C, H, W), on the scale [−1, 1]
        self.log_scales = log_scales.unflatten(-3, (components, channels)).clamp(min=LOWEST_LOG_SCALE)
        super().__init__(torch.Size(batch), torch.Size((channels, height, width)), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {}

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, 3)

    def expand(
        self, batch_shape: _size, _instance: Distribution | None = None
    ) -> DiscretizedLogisticMixtureDistribution:
        return DiscretizedLogisticMixtureDistribution(
            self.parameters.expand(*batch_shape, *self.parameters.shape[-3:]), self.components
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of images (*batch, C, H, W), values k/255: (*batch), in nats."""
        v = (2 * value - 1).unsqueeze(-4)
        inverse_scale = torch.exp(-self.log_scales)
        upper = (v - self.means + 1 / 255) * inverse_scale
        lower = (v - self.means - 1 / 255) * inverse_scale
        inside = _log_one_minus_exp(LOG_CELL - self.log_scales) + logsigmoid(upper) + logsigmoid(-lower)
        log_cell = torch.where(
            v < -1 + 1 / 255, logsigmoid(upper), torch.where(v > 1 - 1 / 255, logsigmoid(-lower), inside)
        )
        log_pixel = torch.logsumexp(log_cell.sum(-3) + self.log_weights, dim=-3)
        return log_pixel.sum((-1, -2))

    def bits_per_dimension(self, value: Tensor) -> Tensor:
        """−log₂ p(x) / (C·H·W): (*batch)."""
        return -self.log_prob(value) / (self.event_shape.numel() * math.log(2))

    @property
    def mean(self) -> Tensor:
        """E x, (*batch, C, H, W): the mean number of the 255 edges between cells that lie below a draw, over 255."""
        inverse_scale, weights = torch.exp(-self.log_scales), self.log_weights.exp().unsqueeze(-3)
        mean = torch.zeros(*self.batch_shape, *self.event_shape, dtype=self.means.dtype, device=self.means.device)
        for level in range(1, 256):
            edge = (2 * level - 1) / 255 - 1
            mean = mean + (weights * torch.sigmoid((self.means - edge) * inverse_scale)).sum(-4)
        return mean / 255

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draw images with values k/255."""
        shape = torch.Size(sample_shape)
        weights = self.log_weights.movedim(-3, -1)
        chosen = torch.distributions.Categorical(logits=weights).sample(shape)  # (*shape, *batch, H, W)
        index = chosen.unsqueeze(-3).unsqueeze(-4).expand(*shape, *self.batch_shape, 1, *self.event_shape)
        mean = self.means.expand(*shape, *self.means.shape).gather(-4, index).squeeze(-4)
        log_scale = self.log_scales.expand(*shape, *self.log_scales.shape).gather(-4, index).squeeze(-4)
        u = torch.rand_like(mean)  # u = 0 gives −∞ and hence level 0
        v = mean + log_scale.clamp(max=LARGEST_LOG_SCALE).exp() * (u.log() - torch.log1p(-u))
        return ((v + 1) / 2 * 255).round().clamp(0, 255) / 255


def _log_one_minus_exp(log_width: Tensor) -> Tensor:
    """log(1 − e^{−w}) from log w, also where w is too small to be told from 0."""
    width = log_width.exp()
    tiny = log_width < -14  # the series' next term, w²/24, is below 1e-13
    return torch.where(tiny, log_width - width / 2, torch.log(-torch.expm1(-width.where(~tiny, 1.0))))
