"""A latent-variable model with finitely many values of z: everything about it is exact.

    p(x) = Σᵢ p(zᵢ) p(x|zᵢ),   p(zᵢ|x) = p(x|zᵢ) p(zᵢ) / p(x)

For any distribution q on the K values, the bound Σᵢ q(zᵢ) log[p(x|zᵢ) p(zᵢ) / q(zᵢ)] is log p(x) − KL(q, p(z|x)).
"""

from __future__ import annotations

__all__ = ["BernoulliMixture", "FiniteLatentModel", "fit_bernoulli_mixture"]

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent

from latentia.errors import DataError


class FiniteLatentModel:
    """A prior on K values of z and a distribution of x for each of them.

    Args:
        prior: a categorical distribution on K values, without batch dimensions.
        conditional: distributions p(x|zᵢ) with batch shape (K,).

    Raises:
        ValueError: if the two do not have the same K.
    """

    def __init__(self, prior: Categorical, conditional: Distribution):
        if prior.batch_shape or conditional.batch_shape != prior.param_shape:
            raise ValueError(
                f"the prior has {tuple(prior.param_shape)} values and there are distributions of x for "
                f"{tuple(conditional.batch_shape)}; give one for each value"
            )
        self.prior = prior
        self.conditional = conditional

    @property
    def size(self) -> int:
        """K."""
        return self.prior.param_shape[-1]

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, zᵢ) in nats: x (B, *event) → (B, K)."""
        return self.conditional.log_prob(x.unsqueeze(1)) + self.prior.logits

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats: (B,)."""
        return self.log_joint(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> Categorical:
        """p(z|x) by Bayes' rule: a categorical distribution with batch shape (B,)."""
        return Categorical(logits=self.log_joint(x))

    def bound(self, x: Tensor, q: Tensor) -> Tensor:
        """The evidence lower bound of each x under q(z|x), (B, K), rows summing to one: (B,), in nats."""
        return (q * self.log_joint(x)).sum(-1) - torch.special.xlogy(q, q).sum(-1)

    def sample(self, n: int) -> Tensor:
        """Draw n examples from p(x): (n, *event)."""
        z = self.prior.sample(torch.Size([n]))
        return self.conditional.sample(torch.Size([n]))[torch.arange(n), z]


class BernoulliMixture(FiniteLatentModel):
    """A mixture of products of Bernoulli distributions over G binary pixels.

    Args:
        weights: (K,), positive, summing to one.
        means: (K, G), strictly between 0 and 1.
    """

    def __init__(self, weights: Tensor, means: Tensor):
        super().__init__(Categorical(probs=weights), Independent(Bernoulli(probs=means), 1))
        self.means = means

    def log_joint(self, x: Tensor) -> Tensor:
        """As in `FiniteLatentModel`, by one matrix product: x·log ŷ + (1−x)·log(1−ŷ)."""
        on, off = self.means.log(), torch.log1p(-self.means)
        return x @ (on - off).T + off.sum(-1) + self.prior.logits


@dataclass(frozen=True)
class MixtureFit:
    """The result of expectation-maximization.

    Attributes:
        model: the mixture.
        log_likelihoods: mean log p(x) in nats, before the first step and after each.
    """

    model: BernoulliMixture
    log_likelihoods: list[float]


def fit_bernoulli_mixture(
    x: Tensor, components: int, *, steps: int = 50, seed: int = 0, margin: float = 1e-4
) -> MixtureFit:
    """Fit a mixture of Bernoullis by expectation-maximization; the log-likelihood never decreases.

    The E-step is the exact posterior. The M-step is the maximizer over weights and over means in [margin, 1 − margin]:
    the expected log-likelihood is concave in each mean, so that clamping the free maximizer to the interval gives the
    maximizer there.

    Args:
        x: binary, (N, G).
        components: K.
        steps: of EM.
        seed: of the start, one random image for each component, moved toward ½.
        margin: means stay this far from 0 and 1.

    Raises:
        DataError: if x is not binary, or there are fewer rows than components.
    """
    if not bool(((x == 0) | (x == 1)).all()):
        raise DataError(
            "a mixture of Bernoulli distributions needs binary pixels; binarize them (data.binarize=threshold)"
        )
    if len(x) < components:
        raise DataError(f"{components} components need at least as many images, and there are {len(x)}")
    x = x.double()
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:components]
    means = 0.25 + 0.5 * x[chosen]
    model = BernoulliMixture(torch.full((components,), 1 / components, dtype=torch.float64), means)
    log_likelihoods = [model.log_prob(x).mean().item()]
    for _ in range(steps):
        responsibility = model.posterior(x).probs  # (N, K)
        total = responsibility.sum(0)
        means = (responsibility.T @ x / total.unsqueeze(-1)).clamp(margin, 1 - margin)
        model = BernoulliMixture(total / len(x), means)
        log_likelihoods.append(model.log_prob(x).mean().item())
    return MixtureFit(model, log_likelihoods)
