"""The importance-weighted bound, and three gradients of it.

    L_K = E[log (1/K) Σₖ wₖ],  wₖ = p(x, zₖ)/q(zₖ|x),  zₖ ~ q(z|x)             (Burda et al. 2016, eq. 8)

L_K increases with K to log p(x). The reparametrized gradient of the encoder has a term of mean zero, the score of q,
whose noise does not decrease with K while the signal does. Two estimators leave it out:

- sticking the landing (Roeder et al. 2017): hold φ fixed inside log q. Unbiased for K = 1; for K > 1 it is biased.
- doubly reparametrized (Tucker et al. 2019): reparametrize a second time; the path through zₖ has weight w̃ₖ², where
  w̃ₖ = wₖ / Σⱼ wⱼ. Unbiased for every K.

Both concern φ as the parameters of q only. Where φ also enters p, by a VampPrior, that part of the gradient is the
plain one, with weights w̃ₖ, as are those of the decoder and of the prior.

For a mixture q = Σⱼ πⱼ qⱼ, K draws of each component give log Σⱼ πⱼ (1/K) Σₖ wⱼₖ, also a lower bound in expectation
(Morningstar et al. 2021, eq. 8), whose gradient reaches πⱼ.
"""

from __future__ import annotations

__all__ = ["IWAE"]

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.models import VAE
from latentia.objectives.objective import (
    Objective,
    Progress,
    Terms,
    log_mean_exp,
    mean_over_draws,
    reparametrized_or_strata,
)


class IWAE(Objective):
    """The importance-weighted bound with K = `k` draws; see the module's docstring for `gradient`.

    - `plain`: the gradient of the bound.
    - `sticking-the-landing`, `doubly-reparametrized`: see above.
    """

    bound_name: ClassVar[str] = "iwae"
    draws_key: ClassVar[str] = "k"

    k: int = Field(default=5, ge=1, description="draws of z for each image")
    gradient: Literal["plain", "sticking-the-landing", "doubly-reparametrized"] = Field(
        default="plain", description="estimator of the gradient of the encoder"
    )

    @property
    def bounds_log_likelihood(self) -> bool:
        return True

    @property
    def draws_of_each(self) -> int:
        return self.k

    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        numbers = vae.posterior.emit(x)
        q = vae.posterior.distribution(numbers)
        z, log_share = reparametrized_or_strata(q, self.k, "IWAE")  # (K, B, d), and the weights of strata
        if log_share is not None and self.gradient != "plain":
            raise UnsupportedError(
                f"objective.gradient={self.gradient} is for draws of equal weight, and this posterior has strata; set "
                "objective.gradient=plain"
            )
        scored_by = q if self.gradient == "plain" else vae.posterior.stopped(numbers)
        log_weight = vae.log_importance_weights(x, z, scored_by)  # (K, B)
        bound = log_mean_exp(log_weight) if log_share is None else (log_weight + log_share).logsumexp(0)
        weight = (log_weight if log_share is None else log_weight + log_share).detach().softmax(0)
        cost = -bound
        if self.gradient == "doubly-reparametrized" and z.requires_grad:
            # ∂L/∂zₖ already has one factor w̃ₖ. The hook multiplies the gradient through zₖ to the encoder by another;
            # the gradients of the decoder and of the prior do not pass it.
            z.register_hook(lambda gradient: gradient * weight.unsqueeze(-1))
        effective = 1 / weight.square().sum(0)
        elbo = mean_over_draws(log_weight, log_share).detach()
        return {"cost": cost, "bound": bound.detach(), "elbo": elbo, "effective_sample_size": effective}
