"""β-TC: the rate as a sum of three terms with separate weights.

    E_x KL(q(z|x), p(z)) = I(x; z) + TC(z) + Σⱼ KL(q(zⱼ), p(zⱼ))                        (Chen et al. 2018, eq. 2)

The aggregate q(z) = (1/N) Σₙ q(z|xₙ) at a draw of q(z|xᵢ) is estimated from the batch of M by stratified sampling
(their appendix C.2): xᵢ with its weight 1/N, and the M − 1 others as a sample of the N − 1 others. The estimate of q(z)
is unbiased, and exact for a batch of all images; its logarithms, and so the three terms, have a bias from the batch.
The sum of the terms is exactly the Monte Carlo rate, log q(z|x) − log p(z).
"""

from __future__ import annotations

__all__ = ["BetaTC"]

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Independent

from latentia.errors import ConfigurationError, UnsupportedError
from latentia.models import VAE
from latentia.objectives.objective import Objective, Progress, Terms, rate_of, reparametrized


class BetaTC(Objective, name="beta-tc"):
    """Distortion + α·mutual information + β·total correlation + γ·dimension-wise KL.

    The three terms of an image depend on its batch.
    """

    smallest_batch: ClassVar[int] = 2

    alpha: float = Field(default=1.0, ge=0, description="weight of the mutual information")
    beta: float = Field(default=6.0, ge=0, description="weight of the total correlation")
    gamma: float = Field(default=1.0, ge=0, description="weight of the dimension-wise KL")

    @property
    def bounds_log_likelihood(self) -> bool:
        # With other weights the bias of the terms enters the cost, with an unknown sign.
        return self.alpha == self.beta == self.gamma == 1

    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        q, prior = vae.encode(x), vae.prior
        if not isinstance(q, Independent) or not isinstance(prior, Independent):
            raise UnsupportedError(
                "beta-tc needs distributions that factorize over z: set posterior=diagonal and prior=normal"
            )
        z = reparametrized(q, 1, "beta-tc")
        distortion = -vae.decode(z).log_prob(x).mean(0)
        rate = rate_of(q, prior, z, "exact")
        z = z[0]
        # log q(zᵢⱼ | xₖ) for every pair of images, (i, k, j)
        pairwise = q.base_dist.log_prob(z.unsqueeze(1))
        log_weights = stratified_log_weights(len(x), max(progress.data_size, len(x))).to(pairwise)
        log_aggregate = (pairwise.sum(-1) + log_weights).logsumexp(1)
        log_marginals = (pairwise + log_weights.unsqueeze(-1)).logsumexp(1).sum(-1)
        log_q, log_p = q.log_prob(z), prior.log_prob(z)
        mutual_information = log_q - log_aggregate
        total_correlation = log_aggregate - log_marginals
        dimension_wise = log_marginals - log_p
        cost = (
            distortion + self.alpha * mutual_information + self.beta * total_correlation + self.gamma * dimension_wise
        )
        terms = {
            "bound": -(distortion + rate),
            "rate": rate,
            "distortion": distortion,
            "mutual_information": mutual_information,
            "total_correlation": total_correlation,
            "dimension_wise": dimension_wise,
        }
        return {"cost": cost, **{name: term.detach() for name, term in terms.items()}}


def stratified_log_weights(batch: int, data_size: int) -> Tensor:
    """log of the weight of image k in q(zᵢ), (i, k): 1/N on the diagonal, (N − 1)/N shared by the M − 1 others.

    Raises:
        ConfigurationError: for a batch of one image out of more.
    """
    if batch == 1 < data_size:
        raise ConfigurationError("beta-tc needs at least two images in a batch; set a larger batch_size")
    others = -math.inf if batch == 1 else math.log((data_size - 1) / (batch - 1))
    weights = torch.full((batch, batch), others).fill_diagonal_(0.0)
    return weights - math.log(data_size)
