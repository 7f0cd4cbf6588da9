"""The evidence lower bound and its weighted forms.

    cost = −E_q[log p(x|z)] + β KL(q(z|x), p(z))

With β = 1 this is the bound of item 1c. Each term is recorded under its own name: `distortion` is −E_q log p(x|z),
`rate` is the KL, and `bound` is −(distortion + rate), whatever β is.
"""

from __future__ import annotations

__all__ = ["ELBO"]

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from latentia.errors import UnsupportedError
from latentia.models import VAE
from latentia.objectives.objective import Objective, Progress, Terms, mean_over_draws, rate_of, reparametrized


class ELBO(Objective):
    """The evidence lower bound (Kingma and Welling 2014, eq. 3), its β-weighted form and free bits.

    - `beta`: weight of the KL (Higgins et al. 2017). For β ≥ 1 the cost is still a bound, and a looser one.
    - `warm_up`: epochs over which β rises from 0 in a straight line (Bowman et al. 2016).
    - `free_bits`: nats of KL in each latent dimension that cost nothing: dimension j pays max(λ, its batch mean)
      (Kingma et al. 2016, appendix C.8). The batch pays at least its KL, so the cost remains a bound; what one image
      pays depends on the batch it is in.
    - `kl`: `exact` refuses pairs of distributions without a closed form; `monte-carlo` draws it.
    - `gradient`: `reparametrized`, or `score` (log-derivative trick, which any posterior serves and which is noisier).
    """

    beta: float = Field(default=1.0, ge=0)
    warm_up: float = Field(default=0.0, ge=0, description="epochs")
    free_bits: float = Field(default=0.0, ge=0, description="nats per latent dimension")
    samples: int = Field(default=1, ge=1, description="draws of z for each image")
    kl: Literal["exact", "monte-carlo"] = "exact"
    gradient: Literal["reparametrized", "score"] = "reparametrized"

    @property
    def bounds_log_likelihood(self) -> bool:
        return self.beta >= 1

    def beta_at(self, progress: Progress) -> float:
        """The weight of the KL at this moment."""
        return self.beta * min(1.0, progress.epoch / self.warm_up) if self.warm_up else self.beta

    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        q, prior, beta = vae.encode(x), vae.prior, self.beta_at(progress)
        by_score = self.gradient == "score"
        if by_score:
            z = q.sample(torch.Size([self.samples]))
        else:
            z = reparametrized(q, None if self.samples == 1 else self.samples, "ELBO")
        distortions = -vae.decode(z).log_prob(x)  # (samples, B), or (B,) for one draw that carries a gradient
        distortion = mean_over_draws(distortions)
        floored = _with_free_bits(q, prior, self.free_bits) if self.free_bits else None
        rate = rate_of(q, prior, z, self.kl)
        paid = rate if floored is None else floored
        cost = distortion + (paid if self.beta == 1 and not self.warm_up else beta * paid)
        if by_score:
            # ∇ E_q f = E_q[f ∇ log q] + E_q ∇f. The draws carry no gradient, so `cost` has the second half already;
            # a term of value 0 adds the first. f is all that is averaged over draws: a KL that is drawn belongs to it.
            log_q = q.log_prob(z)
            drawn_kl = log_q - prior.log_prob(z) if self.kl == "monte-carlo" and not self.free_bits else 0.0
            signal = _less_the_others((distortions + beta * drawn_kl).detach())
            cost = cost + (signal * (log_q - log_q.detach())).mean(0)
        distortion, rate = distortion.detach(), rate.detach()
        return {"cost": cost, "bound": -(distortion + rate), "rate": rate, "distortion": distortion}


def _less_the_others(signal: Tensor) -> Tensor:
    """The signal less a baseline that leaves its mean gradient as it was, (samples, B).

    The baseline of a draw is the mean over the image's other draws; with one draw an image, over the other images; with
    one draw of one image, 0. It never contains the draw itself, whose score it would be correlated with.
    """
    dimension = 0 if len(signal) > 1 else 1
    n = signal.shape[dimension]
    return signal - (signal.sum(dimension, keepdim=True) - signal) / (n - 1) if n > 1 else signal


def _with_free_bits(q: Distribution, prior: Distribution, free_bits: float) -> Tensor:
    """What each image pays, (B,): its KL in the dimensions whose batch mean is above the floor, the floor in others."""
    per_dimension = dimension_rates(q, prior)  # (B, d)
    counted = per_dimension.mean(0) > free_bits
    return torch.where(counted, per_dimension, free_bits).sum(-1)


def dimension_rates(q: Distribution, prior: Distribution) -> Tensor:
    """KL in each latent dimension, (B, d), in nats, where both distributions factorize.

    Raises:
        UnsupportedError: for distributions that do not.
    """
    bases = [distribution.base_dist for distribution in (q, prior) if isinstance(distribution, Independent)]
    if len(bases) != 2 or not all(isinstance(base, Normal) for base in bases):
        raise UnsupportedError(
            "free bits need a posterior and a prior that factorize over the dimensions of z; "
            "set objective.free_bits=0, or posterior=diagonal and prior=normal"
        )
    return kl_divergence(*bases)
