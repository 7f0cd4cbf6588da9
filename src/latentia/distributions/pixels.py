"""Distributions of gray pixels: the continuous Bernoulli, and a mixture of logistic distributions over 8-bit pixels.

*Continuous Bernoulli* on [0, 1], from logits. With l = log λ/(1−λ) its density is C(l) exp(x l − softplus(l)) with
C(l) = l / tanh(l/2) (Loaiza-Ganem and Cunningham 2019, who write it in λ). torch's `ContinuousBernoulli` clamps λ to
the precision of floats, which is wrong by nats for |l| > 16. Here every expression is in l, and accurate in its tails.

*Discretized logistic mixture.* A logistic distribution has the CDF σ((v − μ)/s). With v ∈ [−1, 1] and cells of
half-width 1/255, the probability of level k is the increase of the CDF over its cell; the first and last cells reach to
∓∞, so that the 256 probabilities sum to one. An increase is computed as log(σ(b) − σ(a)) = log(1 − e^{a−b}) + log σ(b)
+ log σ(−a), where nothing cancels. Scales are at least e⁻⁷, an eighth of a cell. After Salimans et al. 2017, eq. 2.
"""

from __future__ import annotations

__all__ = ["ContinuousBernoulliDistribution"]

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints, register_kl
from torch.nn.functional import logsigmoid
from torch.types import _size

from latentia.errors import UnsupportedError

# Below this |l| the closed forms lose digits to 0/0 and the series are used; their next term is below 1e-15.
_SERIES_BELOW = 0.05
_LOG_CELL = math.log(2 / 255)
_LOWEST_LOG_SCALE = -7.0
_LARGEST_LOG_SCALE = 40.0  # in draws: beyond it every draw is black or white, and ∞ · 0 is not a number


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
        # drops e^{−l} beyond l = 20; logsigmoid does not.
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

    @property
    def variance(self) -> Tensor:
        """1/l² − 1/(4 sinh²(l/2)), even in l."""
        small, size, square = self._parts()
        closed = size.square().reciprocal() - torch.exp(-size) / torch.expm1(-size).square()
        # 1/12 − l²/240 + l⁴/6048 − l⁶/172800 + …
        series = 1 / 12 - square * (1 / 240 - square * (1 / 6048 - square / 172800))
        return torch.where(small, series, closed)

    def entropy(self) -> Tensor:
        """In nats. log p(x) is linear in x, so its mean is its value at the mean."""
        return -self.log_prob(self.mean)

    def cdf(self, value: Tensor) -> Tensor:
        """F(x) = (e^{lx} − 1)/(e^l − 1)."""
        logits, x = torch.broadcast_tensors(self.logits, value.clamp(0, 1))
        size = torch.where(logits == 0, torch.ones_like(logits), logits.abs())
        rising = torch.exp(size * (x - 1)) * torch.expm1(-size * x) / torch.expm1(-size)
        falling = torch.expm1(-size * x) / torch.expm1(-size)
        return torch.where(logits == 0, x, torch.where(logits > 0, rising, falling))

    def icdf(self, value: Tensor) -> Tensor:
        """F⁻¹(u) = log(1 + u (e^l − 1))/l."""
        logits, u = torch.broadcast_tensors(self.logits, value)
        small, size, _ = self._parts()
        falling = -torch.log1p(u * torch.expm1(-size)) / size
        rising = 1 + torch.log(u + (1 - u) * torch.exp(-size)) / size
        return torch.where(small, self._series(u), torch.where(logits > 0, rising, falling)).clamp(0, 1)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draw by the inverse CDF for l ≤ 0, and by its mirror image for l > 0."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        small, size, _ = self._parts()
        tail = (-torch.log1p(u * torch.expm1(-size)) / size).clamp(0, 1)  # of logit −|l|, on [0, 1]
        closed = torch.where(self.logits > 0, 1 - tail, tail)
        return torch.where(small, self._series(u), closed)

    def _series(self, u: Tensor) -> Tensor:
        """The inverse CDF in powers of l: the cumulants of a Bernoulli variable of mean u."""
        logit, spread = self.logits, u * (1 - u)
        return u + logit * spread * (1 / 2 + logit * ((1 - 2 * u) / 6 + logit * (1 - 6 * spread) / 24))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where |l| is small; |l|, or 1 where it is small (no NaN in gradients); l², or 0 where it is large."""
        small = self.logits.abs() < _SERIES_BELOW
        return small, self.logits.abs().where(~small, 1.0), self.logits.square().where(small, 0.0)


@register_kl(ContinuousBernoulliDistribution, ContinuousBernoulliDistribution)
def _kl(p: ContinuousBernoulliDistribution, q: ContinuousBernoulliDistribution) -> Tensor:
    return p.log_prob(p.mean) - q.log_prob(p.mean)  # both are linear in x


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
        self.log_scales = log_scales.unflatten(-3, (components, channels)).clamp(min=_LOWEST_LOG_SCALE)
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
        return self._log_pixels(value).sum((-1, -2))

    def _log_pixels(self, value: Tensor) -> Tensor:
        """log p of each pixel, all channels together, (*batch, H, W)."""
        v = (2 * value - 1).unsqueeze(-4)
        inverse_scale = torch.exp(-self.log_scales)
        upper = (v - self.means + 1 / 255) * inverse_scale
        lower = (v - self.means - 1 / 255) * inverse_scale
        inside = _log_one_minus_exp(_LOG_CELL - self.log_scales) + logsigmoid(upper) + logsigmoid(-lower)
        log_cell = torch.where(
            v < -1 + 1 / 255, logsigmoid(upper), torch.where(v > 1 - 1 / 255, logsigmoid(-lower), inside)
        )
        return torch.logsumexp(log_cell.sum(-3) + self.log_weights, dim=-3)

    def bits_per_dimension(self, value: Tensor) -> Tensor:
        """−log₂ p(x) / (C·H·W): (*batch)."""
        return -self.log_prob(value) / (self.event_shape.numel() * math.log(2))

    @property
    def mean(self) -> Tensor:
        """E x, (*batch, C, H, W)."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """Var x of each pixel and channel, (*batch, C, H, W)."""
        mean, square = self._moments()
        return (square - mean.square()).clamp_min(0)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """E x and E x². A level is the number of edges between cells below the draw, and k² = Σ_{j≤k} (2j − 1)."""
        inverse_scale, weights = torch.exp(-self.log_scales), self.log_weights.exp().unsqueeze(-3)
        mean = torch.zeros(*self.batch_shape, *self.event_shape, dtype=self.means.dtype, device=self.means.device)
        square = torch.zeros_like(mean)
        for level in range(1, 256):
            edge = (2 * level - 1) / 255 - 1
            above = (weights * torch.sigmoid((self.means - edge) * inverse_scale)).sum(-4)
            mean = mean + above
            square = square + (2 * level - 1) * above
        return mean / 255, square / 255**2

    def entropy(self) -> Tensor:
        """In nats, (*batch), for one channel.

        Raises:
            UnsupportedError: more channels share their component, so that a pixel has 256^C values.
        """
        if self.event_shape[0] > 1:
            raise UnsupportedError(
                "the entropy of a logistic mixture is a sum over all values of a pixel, 256^C for C channels; average "
                "-log_prob over draws"
            )
        total = torch.zeros(*self.batch_shape, dtype=self.means.dtype, device=self.means.device)
        for level in range(256):
            value = torch.full(self.event_shape, level / 255, dtype=self.means.dtype, device=self.means.device)
            log_p = self._log_pixels(value)
            total = total - (log_p.exp() * log_p).sum((-1, -2))
        return total

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draw images with values k/255."""
        shape = torch.Size(sample_shape)
        with torch.no_grad():  # not as a decorator, which compilers cannot trace here
            weights = self.log_weights.movedim(-3, -1)
            chosen = Categorical(logits=weights, validate_args=False).sample(shape)  # (*shape, *batch, H, W)
            index = chosen.unsqueeze(-3).unsqueeze(-4).expand(*shape, *self.batch_shape, 1, *self.event_shape)
            mean = self.means.expand(*shape, *self.means.shape).gather(-4, index).squeeze(-4)
            log_scale = self.log_scales.expand(*shape, *self.log_scales.shape).gather(-4, index).squeeze(-4)
            u = torch.rand_like(mean)  # u = 0 gives −∞ and hence level 0
            v = mean + log_scale.clamp(max=_LARGEST_LOG_SCALE).exp() * (u.log() - torch.log1p(-u))
            return ((v + 1) / 2 * 255).round().clamp(0, 255) / 255


def _log_one_minus_exp(log_width: Tensor) -> Tensor:
    """log(1 − e^{−w}) from log w, also where w is small."""
    width = log_width.exp()
    tiny = log_width < -14  # the series' next term, w²/24, is below 1e-13
    return torch.where(tiny, log_width - width / 2, torch.log(-torch.expm1(-width.where(~tiny, 1.0))))
