"""The continuous Bernoulli law on [0, 1], from logits, exact in its tails.

With l = log λ/(1−λ), its density is C(l) exp(x l − softplus(l)) with C(l) = l / tanh(l/2) (Loaiza-Ganem and Cunningham
2019, eq. 3 in terms of the logit). torch's own law clamps λ to the precision of floats, which is wrong by nats
for |l| > 16; here every expression is written in l.
"""

from __future__ import annotations

__all__ = ["ContinuousBernoulliLaw"]

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import softplus
from torch.types import _size

# Below this |l| the closed forms lose digits to 0/0, and the series' next term is below float64's rounding.
SERIES_BELOW = 0.02


class ContinuousBernoulliLaw(Distribution):
    """Laws with logits of any shape; log-densities in nats."""

    has_rsample = True

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {"logits": constraints.real}

    @property
    def support(self) -> constraints.Constraint:
        return constraints.unit_interval

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> ContinuousBernoulliLaw:
        return ContinuousBernoulliLaw(self.logits.expand(batch_shape))

    def log_normaliser(self) -> Tensor:
        """log C(l), even in l; log 2 at l = 0."""
        small, size, square = self._parts()
        closed = torch.log(size) - torch.log(torch.tanh(size / 2))
        # log(l / tanh(l/2)) = log 2 + l²/12 − 7l⁴/1440 + 31l⁶/90720 − …
        series = 0.6931471805599453 + square / 12 - 7 * square**2 / 1440 + 31 * square**3 / 90720
        return torch.where(small, series, closed)

    def log_prob(self, value: Tensor) -> Tensor:
        # x l − softplus(l) as a sum of two terms of one sign, so that nothing cancels in the tails
        bernoulli = -(value * softplus(-self.logits) + (1 - value) * softplus(self.logits))
        return bernoulli + self.log_normaliser()

    @property
    def mean(self) -> Tensor:
        # E x = 1/(1 − e^{−l}) − 1/l, odd around ½
        small, size, square = self._parts()
        closed = 1 / -torch.expm1(-size) - 1 / size - 0.5
        odd = torch.where(
            small, size.where(~small, self.logits.abs()) / 12 * (1 - square / 60 + square**2 / 2520), closed
        )
        return 0.5 + self.logits.sign() * odd

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draw by the inverse CDF: x = log(1 + u (e^l − 1)) / l, by its mirror image for l > 0."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        small, size, _ = self._parts()
        tail = -torch.log1p(u * torch.expm1(-size)) / size  # law with logit −|l|, on [0, 1]
        tail = torch.where(small, u, tail).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - tail, tail)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where |l| is small; |l|, or 1 where it is small (no NaN in gradients); l², or 0 where it is large."""
        small = self.logits.abs() < SERIES_BELOW
        return small, self.logits.abs().where(~small, 1.0), self.logits.square().where(small, 0.0)
