"""β-TC: the rate split in three, each with a weight of its own.

    E_x KL(q(z|x), p(z)) = I(x; z) + TC(z) + Σⱼ KL(q(zⱼ), p(zⱼ))                        (Chen et al. 2018, eq. 2)

The aggregate q(z) is estimated from the batch by minibatch-weighted sampling (their appendix C.1):
log q(z) ≈ logsumexpᵢ log q(z|xᵢ) − log(N M), for M images of a batch out of N. The three terms are estimates, biased by
the batch; their sum is the Monte Carlo rate exactly.
"""

from __future__ import annotations

__all__ = ["BetaTC"]

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Independent

from latentia.errors import CannotServe
from latentia.models import VAE
from latentia.objectives.objective import Clock, Objective, Terms


class BetaTC(Objective, name="beta-tc"):
    """Distortion + α·mutual information + β·total correlation + γ·dimension-wise KL."""

    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=6.0, ge=0)
    gamma: float = Field(default=1.0, ge=0)

    @property
    def bounds_log_likelihood(self) -> bool:
        # With unequal weights an estimate of the total correlation, which may be negative, enters the cost.
        return self.alpha == self.beta == self.gamma == 1

    def __call__(self, vae: VAE, x: Tensor, clock: Clock) -> Terms:
        q, prior = vae.encode(x), vae.prior
        if not isinstance(q, Independent) or not isinstance(prior, Independent):
            raise CannotServe("beta-tc needs laws that factorise over z: set posterior=diagonal and prior=normal")
        z = q.rsample()
        distortion = -vae.decode(z).log_prob(x)
        batch = len(x)
        # log q(zᵢⱼ | xₖ) for every pair of images, (i, k, j)
        pairwise = q.base_dist.log_prob(z.unsqueeze(1))
        log_size = math.log(batch * max(clock.data_size, batch))
        log_aggregate = pairwise.sum(-1).logsumexp(1) - log_size
        log_marginals = (pairwise.logsumexp(1) - log_size).sum(-1)
        log_q, log_p = q.log_prob(z), prior.log_prob(z)
        mutual_information = log_q - log_aggregate
        total_correlation = log_aggregate - log_marginals
        dimension_wise = log_marginals - log_p
        cost = (
            distortion + self.alpha * mutual_information + self.beta * total_correlation + self.gamma * dimension_wise
        )
        rate = torch.distributions.kl_divergence(q, prior)
        terms = {
            "bound": -(distortion + rate),
            "rate": rate,
            "distortion": distortion,
            "mutual_information": mutual_information,
            "total_correlation": total_correlation,
            "dimension_wise": dimension_wise,
        }
        return {"cost": cost, **{name: term.detach() for name, term in terms.items()}}
