"""A mixture of Gaussians with full covariances, fitted by expectation-maximization."""

from __future__ import annotations

__all__ = ["MixtureSampler"]

import math
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from latentia.errors import DataError
from latentia.samplers.sampler import Sampler, Steps, no_progress

LEAST_VARIANCE = 1e-4  # of each component, in units of the codes' mean variance: no component shrinks to one code


class MixtureSampler(Sampler, name="mixture"):
    """A mixture of Gaussians, as the density estimator of Ghosh et al. 2020, section 4, with 10 components there.

    Attributes:
        components: K, at most; components that lose all codes are removed.
        steps: of expectation-maximization, at most; it stops earlier where held-out codes no longer gain.
    """

    components: int = Field(default=10, ge=1, le=10_000)
    steps: int = Field(default=200, ge=1)

    def build(self, latent: int) -> nn.Module:
        return _Mixture(self.components, latent)

    def fit(self, module: nn.Module, codes: Tensor, held_out: Tensor, progress: Steps = no_progress) -> None:
        if len(codes) < 2 * self.components:
            cure = f"set components={len(codes) // 2}"
            raise DataError(
                f"{self.components} components need twice as many codes, and there are {len(codes)}; {cure}"
            )
        log_weights, means, factors = fit_mixture(codes, held_out, self.components, self.steps, progress)
        mixture = cast(_Mixture, module)
        empty = self.components - len(means)  # their weight is zero
        mixture.log_weights.copy_(nn.functional.pad(log_weights, (0, empty), value=-torch.inf))
        mixture.means.copy_(nn.functional.pad(means, (0, 0, 0, empty)))
        identity = torch.eye(means.shape[1], dtype=factors.dtype).expand(empty, -1, -1)
        mixture.factors.copy_(torch.cat([factors, identity]))


class _Mixture(nn.Module):
    """Weights, means and Cholesky factors, as buffers."""

    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, components: int, latent: int):
        super().__init__()
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.zeros(components, latent))
        self.register_buffer("factors", torch.eye(latent).repeat(components, 1, 1))

    def forward(self, posterior: nn.Module | None = None) -> Distribution:
        used = self.log_weights > -torch.inf
        parts = MultivariateNormal(self.means[used], scale_tril=self.factors[used], validate_args=False)
        return MixtureSameFamily(Categorical(logits=self.log_weights[used]), parts, validate_args=False)


def fit_mixture(
    codes: Tensor, held_out: Tensor, components: int, steps: int, progress: Steps
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights (K,), means (K, d) and Cholesky factors (K, d, d), float64, by expectation-maximization.

    The start is a choice of distant codes (k-means++; Arthur and Vassilvitskii 2007) with the covariance of all codes.
    The state with the largest mean log-density of held-out codes is returned. Random numbers come from torch's global
    generator.

    Args:
        codes: (N, d).
        held_out: (M, d).
        components: K.
        steps: at most.
        progress: is called with the number of steps done and `steps`.
    """
    x, others = codes.double(), held_out.double()
    d = x.shape[1]
    whole = torch.atleast_2d(x.T.cov(correction=0))
    floor = LEAST_VARIANCE * whole.trace() / d + 1e-12
    eye = torch.eye(d, dtype=torch.float64)
    means = _distant_rows(x, components)
    factors = torch.linalg.cholesky(whole + floor * eye).repeat(len(means), 1, 1)
    log_weights = torch.full((len(means),), -math.log(len(means)), dtype=torch.float64)
    best, since, kept = -math.inf, 0, (log_weights, means, factors)
    for step in range(steps):
        progress(step, steps)
        joint = _log_joint(x, log_weights, means, factors)
        share = joint.softmax(1)
        total = share.sum(0)
        alive = total > 1  # a component of one code is that code
        if not bool(alive.any()):
            break
        share, total = share[:, alive], total[alive]
        means = share.T @ x / total[:, None]
        covariances = []
        for k in range(len(means)):  # one by one, as all at once take K times the memory of the codes
            centered = x - means[k]
            covariances.append((share[:, k, None] * centered).T @ centered / total[k])
        factors = torch.linalg.cholesky(torch.stack(covariances) + floor * eye)
        log_weights = (total / total.sum()).log()
        value = _log_joint(others, log_weights, means, factors).logsumexp(1).mean().item()
        if value > best + 1e-5:
            best, since, kept = value, 0, (log_weights, means, factors)
        elif (since := since + 1) >= 10:
            break
    return kept


def _log_joint(x: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """log wₖ + log pₖ(x), (N, K)."""
    normals = MultivariateNormal(means, scale_tril=factors, validate_args=False)
    return normals.log_prob(x[:, None]) + log_weights


def _distant_rows(x: Tensor, count: int) -> Tensor:
    """Rows of x, each chosen with a probability in proportion to its squared distance from those before it."""
    chosen = [x[torch.randint(len(x), ())]]
    distance = (x - chosen[0]).square().sum(1)
    while len(chosen) < count and bool((distance > 0).any()):
        chosen.append(x[int(torch.multinomial(distance, 1))])
        distance = torch.minimum(distance, (x - chosen[-1]).square().sum(1))
    return torch.stack(chosen)
