"""The continuous Bernoulli distribution on [0, 1], from logits, exact in its tails.

With l = log λ/(1−λ), its density is C(l) exp(x l − softplus(l)) with C(l) = l / tanh(l/2) (Loaiza-Ganem and Cunningham
2019, who give it in terms of λ). torch's own distribution clamps λ to the precision of floats, which is wrong by nats
for |l| > 16; here every expression is written in l.
"""

from __future__ import annotations

__all__ = ["ContinuousBernoulliDistribution"]

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid
from torch.types import _size

# Below this |l| the closed forms lose digits to 0/0, which the series do not: their next term is below 1e-15.
SERIES_BELOW = 0.05


class ContinuousBernoulliDistribution(Distribution):
    """Distributions with logits of any shape; log-densities in nats."""

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

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> ContinuousBernoulliDistribution:
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))

    def log_normalizer(self) -> Tensor:
        """log C(l), even in l; log 2 at l = 0."""
        small, size, square = self._parts()
        closed = torch.log(size) - torch.log(torch.tanh(size / 2))
        # log(l / tanh(l/2)) = log 2 + l²/12 − 7l⁴/1440 + 31l⁶/90720 − 127l⁸/4838400 + …
        series = square * (1 / 12 - square * (7 / 1440 - square * (31 / 90720 - square * (127 / 4838400))))
        return torch.where(small, 0.6931471805599453 + series, closed)

    def log_prob(self, value: Tensor) -> Tensor:
        # x l − softplus(l) as a sum of two terms of one sign, so that nothing cancels in the tails. torch's softplus
        # drops e^{−l} beyond l = 20; its logsigmoid does not.
        bernoulli = value * logsigmoid(self.logits) + (1 - value) * logsigmoid(-self.logits)
        return bernoulli + self.log_normalizer()

    @property
    def mean(self) -> Tensor:
        """E x = 1/(1 − e^{−l}) − 1/l, odd around ½."""
        small, size, square = self._parts()
        closed = self.logits.sign() * (1 / -torch.expm1(-size) - 1 / size - 0.5)
        # ½ + l/12 − l³/720 + l⁵/30240 − l⁷/1209600 + …
        series = self.logits * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        return 0.5 + torch.where(small, series, closed)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draw by the inverse CDF: x = log(1 + u (e^l − 1)) / l, by its mirror image for l > 0."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        small, size, _ = self._parts()
        tail = (-torch.log1p(u * torch.expm1(-size)) / size).clamp(0, 1)  # distribution with logit −|l|, on [0, 1]
        closed = torch.where(self.logits > 0, 1 - tail, tail)
        # The same in powers of l: the cumulants of a Bernoulli variable of mean u.
        logit, spread = self.logits, u * (1 - u)
        series = u + logit * spread * (1 / 2 + logit * ((1 - 2 * u) / 6 + logit * (1 - 6 * spread) / 24))
        return torch.where(small, series, closed)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where |l| is small; |l|, or 1 where it is small (no NaN in gradients); l², or 0 where it is large."""
        small = self.logits.abs() < SERIES_BELOW
        return small, self.logits.abs().where(~small, 1.0), self.logits.square().where(small, 0.0)
