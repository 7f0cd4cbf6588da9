"""Diagonal Gaussians in the two roles that a VAE has for them, q(z|x) and p(z) = N(0, I), in few operations.

    log q(z)         = −½ Σⱼ (εⱼ² + 2 sⱼ + log 2π),  εⱼ = (zⱼ − μⱼ)/σⱼ,  sⱼ = log σⱼ
    H(q)             = Σⱼ sⱼ + d/2 (1 + log 2π)
    KL(q ‖ N(0, I))  = ½ Σⱼ (σⱼ² + μⱼ² − 1 − 2 sⱼ)                    (Kingma and Welling 2014, appendix B)

Between the large products of a step an operation on few numbers costs ten to twenty microseconds, whatever it does, and
so does the Python around it, which no cache holds by then. What counts is how much of either there is. torch's
`Independent` of `Normal` takes the logarithm of the scale back out of the scale, and knows of no partner with zeros and
ones. These are such `Independent`s, and serve wherever one does; a diagonal one makes its `Normal` when asked for it.
"""

from __future__ import annotations

__all__ = ["DiagonalGaussian", "StandardGaussian"]

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, register_kl
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
        """Draws μ + εσ, (*sample_shape, *batch, d), with a gradient to both parameters; ε as torch's own distribution draws it.

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
        zeros: (d,), its mean; gives float type and device.
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
    # −1 stays inside the sum, where it is subtracted from numbers of its size: near the prior the rate is small.
    return torch.addcmul(scale * scale, mean, mean).sub_(1).sub_(q.log_scale, alpha=2).sum(-1).mul_(0.5)
