"""The evidence lower bound and its weighted forms.

    cost = −E_q[log p(x|z)] + β KL(q(z|x), p(z))

With β = 1 this is the evidence lower bound. The terms are `distortion`, −E_q log p(x|z), `rate`, the KL, and `bound`,
which is −(distortion + rate) for every β.
"""

from __future__ import annotations

__all__ = ["ELBO"]

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from latentia.distributions.codes import OneHotCodes
from latentia.errors import UnsupportedError
from latentia.models import VAE
from latentia.objectives.objective import Objective, Progress, Terms, mean_over_draws, rate_of, reparametrized_or_strata
from latentia.objectives.score_table import scorer_for


class ELBO(Objective):
    """The evidence lower bound (Kingma and Welling 2014, eq. 3), its β-weighted form, and free bits.

    - `beta`: weight of the KL (Higgins et al. 2017). For β ≥ 1 the cost is still a bound, but less tight.
    - `warm_up`: epochs over which β rises linearly from 0 (Bowman et al. 2016).
    - `free_bits`: nats of KL in each latent dimension without cost: dimension j costs max(λ, its batch mean) (Kingma et
      al. 2016, appendix C.8). The cost of the batch is at least its KL, so that it remains a bound; the cost of one
      image depends on its batch.
    - `kl`: `exact` refuses pairs of distributions without a closed form; `monte-carlo` estimates it from the draws.
    - `gradient`: `reparametrized`, or `score` (the log-derivative trick, for any posterior, with more noise; with
      `samples` of 2 or more the baseline leaves one out). For a categorical posterior also `enumerated`, the sum over
      all codes, and `straight-through`, the Gumbel-softmax at `temperature`, whose gradient is biased.
    """

    beta: float = Field(default=1.0, ge=0, description="weight of the KL")
    warm_up: float = Field(default=0.0, ge=0, description="epochs over which beta rises from 0")
    free_bits: float = Field(default=0.0, ge=0, description="nats per latent dimension")
    samples: int = Field(default=1, ge=1, description="draws of z for each image")
    kl: Literal["exact", "monte-carlo"] = Field(
        default="exact", description="how the KL is computed: in closed form, or from the draws"
    )
    gradient: Literal["reparametrized", "score", "enumerated", "straight-through"] = Field(
        default="reparametrized", description="estimator of the gradient through z"
    )
    temperature: float = Field(default=1.0, gt=0, description="of straight-through")

    @property
    def draws_of_each(self) -> int:
        return self.samples

    @property
    def bounds_log_likelihood(self) -> bool:
        return self.beta >= 1

    def beta_at(self, progress: Progress) -> float:
        """The weight of the KL at this progress."""
        return self.beta * min(1.0, progress.epoch / self.warm_up) if self.warm_up else self.beta

    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        q, prior, beta = vae.encode(x), vae.prior, self.beta_at(progress)
        if self.gradient in ("enumerated", "straight-through"):
            return self._of_codes(vae, x, self._codes(q), prior, beta)
        by_score = self.gradient == "score"
        log_weights = None
        if by_score:
            z = q.sample(torch.Size([self.samples]))
        else:
            z, log_weights = reparametrized_or_strata(q, None if self.samples == 1 else self.samples, "ELBO")
        distortions = -vae.decode(z).log_prob(x)  # (samples, B), or (B,) for one reparametrized draw
        distortion = mean_over_draws(distortions, log_weights)
        floored = _with_free_bits(q, prior, self.free_bits) if self.free_bits else None
        rate = rate_of(q, prior, z, self.kl, log_weights)
        paid = rate if floored is None else floored
        cost = distortion + (paid if self.beta == 1 and not self.warm_up else beta * paid)
        if by_score:
            # ∇ E_q f = E_q[f ∇ log q] + E_q ∇f. The draws carry no gradient, so `cost` has the second term already; a
            # term of value 0 adds the first. f is everything that is averaged over draws, also a Monte Carlo KL.
            log_q = q.log_prob(z)
            drawn_kl = log_q - prior.log_prob(z) if self.kl == "monte-carlo" and not self.free_bits else 0.0
            signal = _minus_baseline((distortions + beta * drawn_kl).detach())
            cost = cost + (signal * (log_q - log_q.detach())).mean(0)
        distortion, rate = distortion.detach(), rate.detach()
        return {"cost": cost, "bound": -(distortion + rate), "rate": rate, "distortion": distortion}

    def _codes(self, q: Distribution) -> OneHotCodes:
        if not isinstance(q, OneHotCodes):
            raise UnsupportedError(
                f"objective.gradient={self.gradient} is for posterior=categorical; set "
                "objective.gradient=reparametrized"
            )
        if self.free_bits:
            raise UnsupportedError("free bits are for posterior=diagonal; set objective.free_bits=0")
        return q

    def _of_codes(self, vae: VAE, x: Tensor, q: OneHotCodes, prior: Distribution, beta: float) -> Terms:
        """Terms for a categorical q: expectations over all codes, or over draws with relaxed gradients."""
        if self.gradient == "enumerated":
            codes = q.enumerate_support()
            decoded = vae.decode(codes)
            table = scorer_for(decoded, x).block(decoded).scores(slice(None), slice(0, len(codes)))
            distortion = -(q.log_probs().exp() * table).sum(-1)
        else:
            distortion = -vae.decode(q.straight_through(self.samples, self.temperature)).log_prob(x).mean(0)
        rate = kl_divergence(q, prior)
        cost = distortion + beta * rate
        distortion, rate = distortion.detach(), rate.detach()
        return {"cost": cost, "bound": -(distortion + rate), "rate": rate, "distortion": distortion}


def _minus_baseline(signal: Tensor) -> Tensor:
    """The signal minus a baseline that does not change the mean gradient, (samples, B).

    The baseline of a draw is the mean over the image's other draws; with one draw an image, over the other images; with
    one draw of one image, 0. It never contains the draw itself, since it must be independent of the draw's score.
    """
    dimension = 0 if len(signal) > 1 else 1
    n = signal.shape[dimension]
    return signal - (signal.sum(dimension, keepdim=True) - signal) / (n - 1) if n > 1 else signal


def _with_free_bits(q: Distribution, prior: Distribution, free_bits: float) -> Tensor:
    """The rate that each image costs, (B,): its KL where the batch mean is above the floor, else the floor."""
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
