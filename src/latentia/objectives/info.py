"""InfoVAE with the maximum mean discrepancy between the aggregate posterior and the prior.

    cost = distortion + (1 − α) rate + (α + λ − 1) MMD²(q(z), p(z))                                  (Zhao et al. 2019)

MMD² is estimated without bias from the batch's draws of q and as many of p, with the inverse multiquadratic kernel
k(a, b) = C / (C + |a − b|²), C = 2d (Tolstikhin et al. 2018, section 4).
"""

from __future__ import annotations

__all__ = ["Info"]

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from latentia.errors import ConfigurationError
from latentia.models import VAE
from latentia.objectives.objective import Objective, Progress, Terms, rate_of, reparametrized


class Info(Objective, name="info"):
    """InfoVAE; α = 1 leaves only the MMD (a Wasserstein autoencoder), α = 0 with λ = 1 is the plain bound.

    The MMD is that of the whole batch, so that an image's `mmd` and `cost` depend on the other images. It trains the
    encoder; a learned prior is trained by the rate only, so that for α = 1 it does not change.
    """

    smallest_batch: ClassVar[int] = 2

    alpha: float = Field(default=0.0, le=1, description="α; the weight of the KL is 1 − α")
    weight: float = Field(default=10.0, ge=0, description="λ; the weight of the MMD is α + λ − 1")
    kl: Literal["exact", "monte-carlo"] = Field(
        default="exact", description="how the KL is computed: in closed form, or from the draws"
    )

    @model_validator(mode="after")
    def _discrepancy_is_minimized(self) -> Self:
        if self.alpha + self.weight < 1:
            raise ValueError(
                f"the MMD has the weight alpha + weight − 1, which must be at least 0; set weight={1 - self.alpha:g}"
            )
        return self

    @property
    def bounds_log_likelihood(self) -> bool:
        return self.alpha <= 0 and self.alpha + self.weight == 1

    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        q, prior = vae.encode(x), vae.prior
        z = reparametrized(q, 1, "InfoVAE")
        distortion = -vae.decode(z).log_prob(x).mean(0)
        rate = rate_of(q, prior, z, self.kl)
        mmd = maximum_mean_discrepancy(z[0], prior.sample(torch.Size([len(x)])))
        cost = distortion + (1 - self.alpha) * rate + (self.alpha + self.weight - 1) * mmd
        terms = {"bound": -(distortion + rate), "rate": rate, "distortion": distortion, "mmd": mmd}
        return {"cost": cost, **{name: term.detach() for name, term in terms.items()}}


def maximum_mean_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """MMD² between two samples of n points, (n, d) each, as n numbers whose mean is the unbiased estimate.

    The mean is that of Gretton et al. 2012, eq. 3, and may be negative. The numbers are its pseudo-values to first
    order: where the distributions differ, their standard error is that of the estimate.

    Raises:
        ConfigurationError: fewer than two points.
    """
    n, scale = len(a), 2.0 * a.shape[-1]
    if n < 2:
        raise ConfigurationError("the MMD needs at least two images in a batch; set a larger batch_size")

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        squared = (u.unsqueeze(1) - v.unsqueeze(0)).square().sum(-1)
        return scale / (scale + squared)

    within = (kernel(a, a).sum(1) + kernel(b, b).sum(1) - 2) / (n - 1)  # the diagonals are exactly 1
    across = kernel(a, b)
    rows = within - across.mean(0) - across.mean(1)
    return 2 * rows - rows.mean()
