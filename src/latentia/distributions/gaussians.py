r"""Gaussians in the two roles that a VAE has for them, q(z|x) and p(z) = N(0, I), and the KL between full and diagonal
ones.

    log q(z)         = −½ Σⱼ (εⱼ² + 2 sⱼ + log 2π),  εⱼ = (zⱼ − μⱼ)/σⱼ,  sⱼ = log σⱼ
    H(q)             = Σⱼ sⱼ + d/2 (1 + log 2π)
    KL(q ‖ N(0, I))  = ½ Σⱼ (σⱼ² + μⱼ² − 1 − 2 sⱼ)                    (Kingma and Welling 2014, appendix B)
    KL(p ‖ q)        = ½ (tr Σq⁻¹Σp − d + δᵀΣq⁻¹δ + log det Σq / det Σp)

Between the large products of a training step, an operation on few numbers costs ten to twenty microseconds whatever it
does, and so does the Python code around it. These classes use few operations. torch's `Independent` of `Normal` takes
the logarithm of the scale back from the scale, and has no special case for zeros and ones. Both classes are such
`Independent`s and can be used wherever one can; a diagonal one makes its `Normal` when asked for it.

Importing this module registers with torch the KL of a diagonal Gaussian (`Independent` of `Normal`) against a full one
and the reverse, which torch lacks.
"""

from __future__ import annotations

__all__ = ["gaussian_kl"]

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, register_kl
from torch.distributions.utils import lazy_property


class DiagonalGaussian(Independent):
    """Vectors of independent normal numbers, from means and logarithms of standard deviations.

    Args:
        mean: (*batch, d).
        log_scale: (*batch, d).

    Attributes:
        loc: the means.
        log_scale: the logarithms of the scales.
        scale: the standard deviations.
    """

    has_rsample = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, mean: Tensor, log_scale: Tensor):
        self.loc, self.log_scale, self.scale = mean, log_scale, log_scale.exp()
        self.reinterpreted_batch_ndims = 1
        shape = mean.shape
        Distribution.__init__(self, shape[:-1], shape[-1:], validate_args=False)

    @lazy_property
    def base_dist(self) -> Normal:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The d numbers as a batch of distributions of one."""
        return Normal(self.loc, self.scale, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalGaussian:
        """The same distribution over a larger batch."""
        shape = (*batch_shape, *self.event_shape)
        return DiagonalGaussian(self.loc.expand(shape), self.log_scale.expand(shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws μ + εσ, (*sample_shape, *batch, d), with gradients; ε is drawn as torch does.

        Source: Kingma and Welling 2014, section 2.4.
        """
        mean = self.loc
        if len(sample_shape):
            noise = torch.randn((*sample_shape, *mean.shape), dtype=mean.dtype, device=mean.device)
        else:
            noise = torch.randn_like(mean, memory_format=torch.contiguous_format)
        return torch.addcmul(mean, noise, self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z) in nats for z of shape (..., d), broadcast against the batch."""
        noise = (value - self.loc) / self.scale
        terms = torch.add(self.log_scale, noise.square(), alpha=0.5)
        return -terms.sum(-1) - 0.5 * math.log(2 * math.pi) * self.event_shape[0]

    def entropy(self) -> Tensor:
        """In nats, (*batch)."""
        return self.log_scale.sum(-1) + 0.5 * (1 + math.log(2 * math.pi)) * self.event_shape[0]


class StandardGaussian(Independent):
    """N(0, I), one distribution without a batch.

    Args:
        zeros: (d,), its mean; sets the type and the device.
    """

    base_dist: Normal

    def __init__(self, zeros: Tensor):
        super().__init__(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Independent:
        """A batch of the distribution: an ordinary `Independent`."""
        new = Independent.__new__(Independent) if _instance is None else _instance
        return super().expand(batch_shape, _instance=new)

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ |z|² − d/2 log 2π for z of shape (..., d)."""
        return -0.5 * value.square().sum(-1) - 0.5 * math.log(2 * math.pi) * self.event_shape[0]


@register_kl(DiagonalGaussian, StandardGaussian)
def _kl_to_standard(q: DiagonalGaussian, p: StandardGaussian) -> Tensor:  # noqa: ARG001
    mean, scale = q.loc, q.scale
    # −1 is subtracted inside the sum, from numbers of its size: near the prior the KL is small.
    return torch.addcmul(scale * scale, mean, mean).sub_(1).sub_(q.log_scale, alpha=2).sum(-1).mul_(0.5)


def gaussian_kl(shift: Tensor, factor_p: Tensor, factor_q: Tensor) -> Tensor:
    """KL(P ‖ Q) in nats from the difference of the means (..., d) and Cholesky factors (..., d, d), Σ = L Lᵀ."""
    ratio = torch.linalg.solve_triangular(factor_q, factor_p, upper=False)
    shift = torch.linalg.solve_triangular(factor_q, shift[..., None], upper=False)
    return _from_ratio(ratio, shift.squeeze(-1))


def _from_ratio(ratio: Tensor, shift: Tensor) -> Tensor:
    """The same from Lq⁻¹Lp, lower triangular, and Lq⁻¹δ."""
    # tr − d − log det, entry by entry on the diagonal, so that equal distributions give 0 and near ones lose no digits
    diagonal = ratio.diagonal(dim1=-2, dim2=-1)
    own = (diagonal.square() - 1 - 2 * diagonal.log()).sum(-1)
    return 0.5 * (own + ratio.tril(-1).square().sum((-2, -1)) + shift.square().sum(-1))


def _diagonal_normal(distribution: Independent) -> Normal:
    if not isinstance(distribution.base_dist, Normal) or len(distribution.event_shape) != 1:
        raise NotImplementedError("KL with a MultivariateNormal is known for Independent(Normal, 1) alone")
    return distribution.base_dist


@register_kl(Independent, MultivariateNormal)
def _kl_diagonal_full(p: Independent, q: MultivariateNormal) -> Tensor:
    base = _diagonal_normal(p)
    return gaussian_kl(base.loc - q.loc, torch.diag_embed(base.scale), q.scale_tril)


@register_kl(MultivariateNormal, Independent)
def _kl_full_diagonal(p: MultivariateNormal, q: Independent) -> Tensor:
    base = _diagonal_normal(q)
    return _from_ratio(p.scale_tril / base.scale[..., None], (p.loc - base.loc) / base.scale)
