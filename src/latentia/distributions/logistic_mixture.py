"""A mixture of logistic laws over 8-bit pixels, integrated over each pixel's cell.

A logistic law has CDF σ((v − μ)/s). With v ∈ [−1, 1] and cells of half-width 1/255, the probability of level k is
the CDF's increase over the cell; the first and last cells reach to ∓∞, so the 256 probabilities sum to one.
Increases are computed from the nearer tail, log(σ(b) − σ(a)) = log(1 − e^{a−b}) + log σ(b) + log σ(−a), which is exact
for logits of any size.
"""

from __future__ import annotations

__all__ = ["DiscretisedLogisticMixtureLaw"]

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid
from torch.types import _size

LOWEST_LOG_SCALE = -7.0  # a logistic ten times narrower than a cell puts all its mass on one level


class DiscretisedLogisticMixtureLaw(Distribution):
    """Laws over images with values k/255.

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

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> DiscretisedLogisticMixtureLaw:
        return DiscretisedLogisticMixtureLaw(
            self.parameters.expand(*batch_shape, *self.parameters.shape[-3:]), self.components
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of images (*batch, C, H, W), values k/255: (*batch), in nats."""
        v = (2 * value - 1).unsqueeze(-4)
        inverse_scale = torch.exp(-self.log_scales)
        upper = (v - self.means + 1 / 255) * inverse_scale
        lower = (v - self.means - 1 / 255) * inverse_scale
        width = (2 / 255) * inverse_scale
        inside = torch.log(-torch.expm1(-width)) + logsigmoid(upper) + logsigmoid(-lower)
        log_cell = torch.where(
            v < -1 + 1 / 255, logsigmoid(upper), torch.where(v > 1 - 1 / 255, logsigmoid(-lower), inside)
        )
        log_pixel = torch.logsumexp(log_cell.sum(-3) + self.log_weights, dim=-3)
        return log_pixel.sum((-1, -2))

    def bits_per_dimension(self, value: Tensor) -> Tensor:
        """−log₂ p(x) / (C·H·W): (*batch)."""
        return -self.log_prob(value) / (self.event_shape.numel() * 0.6931471805599453)

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture before discretisation, cut to [0, 1]: the picture to show."""
        mean = (self.log_weights.exp().unsqueeze(-3) * self.means).sum(-4)
        return ((mean + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draw images with values k/255."""
        shape = torch.Size(sample_shape)
        weights = self.log_weights.movedim(-3, -1)
        chosen = torch.distributions.Categorical(logits=weights).sample(shape)  # (*shape, *batch, H, W)
        index = chosen.unsqueeze(-3).unsqueeze(-4).expand(*shape, *self.batch_shape, 1, *self.event_shape)
        mean = self.means.expand(*shape, *self.means.shape).gather(-4, index).squeeze(-4)
        log_scale = self.log_scales.expand(*shape, *self.log_scales.shape).gather(-4, index).squeeze(-4)
        u = torch.rand_like(mean).clamp(1e-7, 1 - 1e-7)
        v = mean + log_scale.exp() * (u.log() - torch.log1p(-u))
        return ((v + 1) / 2 * 255).round().clamp(0, 255) / 255
