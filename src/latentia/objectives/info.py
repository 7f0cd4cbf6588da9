"""InfoVAE with the maximum mean discrepancy between the aggregate posterior and the prior.

    cost = distortion + (1 − α) rate + (α + λ − 1) MMD²(q(z), p(z))                    (Zhao et al. 2019, eq. 6)

MMD² is taken without bias from the batch's draws of q and as many of p, with the inverse multiquadratic kernel
k(a, b) = C / (C + |a − b|²), C = 2d (Tolstikhin et al. 2018). It belongs to the batch and not to an image: every image
of the batch carries the same value.
"""

from __future__ import annotations

__all__ = ["Info", "maximum_mean_discrepancy"]

import torch
from pydantic import Field
from torch import Tensor

from latentia.errors import CannotServe
from latentia.models import VAE
from latentia.objectives.objective import Clock, Objective, Terms, rate_of


class Info(Objective, name="info"):
    """InfoVAE; α = 1 leaves the MMD alone (a Wasserstein auto-encoder), α = 0 and λ = 1 is the plain bound."""

    alpha: float = Field(default=0.0, le=1)
    weight: float = Field(default=10.0, ge=0, description="λ: α + λ − 1 weighs the MMD")

    @property
    def bounds_log_likelihood(self) -> bool:
        return self.alpha == 0 and self.weight == 1

    def __call__(self, vae: VAE, x: Tensor, clock: Clock) -> Terms:
        q, prior = vae.encode(x), vae.prior
        if not q.has_rsample:
            raise CannotServe(f"InfoVAE needs a posterior with rsample, and {type(q).__name__} has none")
        z = q.rsample()
        distortion = -vae.decode(z).log_prob(x)
        rate = rate_of(q, prior, z, "exact")
        drawn = prior.sample(torch.Size([len(x)]))
        mmd = maximum_mean_discrepancy(z, drawn).expand(len(x))
        cost = distortion + (1 - self.alpha) * rate + (self.alpha + self.weight - 1) * mmd
        terms = {"bound": -(distortion + rate), "rate": rate, "distortion": distortion, "mmd": mmd}
        return {"cost": cost, **{name: term.detach() for name, term in terms.items()}}


def maximum_mean_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """MMD² between two samples (n, d) and (m, d), unbiased, hence sometimes negative; a scalar."""
    scale = 2.0 * a.shape[-1]

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        squared = (u.unsqueeze(1) - v.unsqueeze(0)).square().sum(-1)
        return scale / (scale + squared)

    n, m = len(a), len(b)
    within_a = (kernel(a, a).sum() - n) / (n * (n - 1))  # the diagonal is exactly 1
    within_b = (kernel(b, b).sum() - m) / (m * (m - 1))
    return within_a + within_b - 2 * kernel(a, b).mean()
