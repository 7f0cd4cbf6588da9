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

from latentia.errors import CannotServe
from latentia.models import VAE
from latentia.objectives.objective import Clock, Objective, Terms, rate_of


class ELBO(Objective):
    """The evidence lower bound (Kingma and Welling 2014, eq. 3), its β-weighted form and free bits.

    - `beta`: weight of the KL (Higgins et al. 2017). For β ≥ 1 the cost is still a bound, and a looser one.
    - `warm_up`: epochs over which β rises from 0 in a straight line (Bowman et al. 2016).
    - `free_bits`: nats of KL in each latent dimension that cost nothing, on the batch's mean
      (Kingma et al. 2016, eq. 16). The cost pays at least that much, so it remains a bound.
    - `kl`: `exact` refuses pairs of laws without a closed form; `monte-carlo` draws it.
    - `gradient`: `reparametrised`, or `score` (log-derivative trick, which any posterior serves and which is noisier).
    """

    beta: float = Field(default=1.0, ge=0)
    warm_up: float = Field(default=0.0, ge=0, description="epochs")
    free_bits: float = Field(default=0.0, ge=0, description="nats per latent dimension")
    samples: int = Field(default=1, ge=1, description="draws of z for each image")
    kl: Literal["exact", "monte-carlo"] = "exact"
    gradient: Literal["reparametrised", "score"] = "reparametrised"

    @property
    def bounds_log_likelihood(self) -> bool:
        return self.beta >= 1

    def beta_at(self, clock: Clock) -> float:
        """The weight of the KL at this moment."""
        return self.beta * min(1.0, clock.epoch / self.warm_up) if self.warm_up else self.beta

    def __call__(self, vae: VAE, x: Tensor, clock: Clock) -> Terms:
        q, prior = vae.encode(x), vae.prior
        z = self._draw(q)
        distortion = -vae.decode(z).log_prob(x)
        rate = rate_of(q, prior, z, self.kl)
        paid = self._paid_rate(q, prior, rate) if self.free_bits else rate
        cost = distortion.mean(0) if distortion.dim() > 1 else distortion
        terms = {"bound": -(cost + rate), "rate": rate, "distortion": cost}
        if self.gradient == "score":
            # ∇ E_q f = E_q[f ∇ log q] + E_q ∇f: a term of value 0 that carries the first half. The draws are
            # detached, so each factor sees the law's parameters and not the path of z.
            score = q.log_prob(z)
            centred = (distortion - distortion.mean()).detach()
            surrogate = centred * (score - score.detach())
            cost = cost + (surrogate.mean(0) if surrogate.dim() > 1 else surrogate)
        return {"cost": cost + self.beta_at(clock) * paid, **{name: term.detach() for name, term in terms.items()}}

    def _draw(self, q: Distribution) -> Tensor:
        shape = torch.Size([self.samples] if self.samples > 1 else [])
        if self.gradient == "score":
            if self.kl != "exact":
                raise CannotServe("ELBO(gradient='score') needs kl='exact'; set objective.kl=exact")
            return q.sample(shape)
        if not q.has_rsample:
            raise CannotServe(
                f"ELBO needs a posterior with rsample, and {type(q).__name__} has none; set objective.gradient=score"
            )
        return q.rsample(shape)

    def _paid_rate(self, q: Distribution, prior: Distribution, rate: Tensor) -> Tensor:
        per_dimension = dimension_rates(q, prior)  # (B, d)
        counted = per_dimension.mean(0) > self.free_bits
        return torch.where(counted, per_dimension, self.free_bits).sum(-1)


def dimension_rates(q: Distribution, prior: Distribution) -> Tensor:
    """KL in each latent dimension, (B, d), in nats, where both laws factorise.

    Raises:
        CannotServe: for laws that do not.
    """
    bases = [law.base_dist for law in (q, prior) if isinstance(law, Independent)]
    if len(bases) != 2 or not all(isinstance(base, Normal) for base in bases):
        raise CannotServe(
            "free bits need a posterior and a prior that factorise over the dimensions of z; "
            "set objective.free_bits=0, or posterior=diagonal and prior=normal"
        )
    return kl_divergence(*bases)
