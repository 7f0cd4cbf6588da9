"""A posterior that is a mixture of Gaussians, and expectations by strata.

A draw of a mixture has no gradient to the weights. The sum over components has:

    E_q f = Σₖ πₖ E_{N(mₖ, sₖ²)} f,

with one reparametrized draw (or more) of every component, weighted by πₖ (Morningstar et al. 2021, eq. 4). The sum has
less variance than draws of the mixture.
"""

from __future__ import annotations

__all__ = ["MixturePosterior", "Stratified", "weighted_draws"]

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from latentia.distributions.conditional import at_least_float32
from latentia.distributions.posteriors import Posterior


class Stratified(Distribution):
    """A distribution whose expectations are weighted sums over draws with gradients."""

    @abstractmethod
    def strata(self, draws: int) -> tuple[Tensor, Tensor]:
        """Draws z (S, *batch, *event) and log w (S, *batch) with E_q f = E Σₛ wₛ f(zₛ) and Σₛ wₛ = 1.

        `draws` is the number for each stratum. Both carry gradients.
        """


def weighted_draws(q: Distribution, draws: int) -> tuple[Tensor, Tensor | None]:
    """Draws z with gradients and the logarithms of their weights; None for equal weights.

    A `Stratified` q gives `draws` for each stratum; any other has to have rsample.
    """
    if isinstance(q, Stratified):
        return q.strata(draws)
    return q.rsample(torch.Size([draws])), None


class MixturePosterior(Posterior, name="mixture"):
    """A mixture of diagonal Gaussians: K logits, K·d means, then K·d logarithms of standard deviations.

    Its KL has no closed form: set `objective.kl=monte-carlo`, or use `objective=iwae`. Every component is decoded.
    """

    reparametrized: ClassVar[bool] = False

    components: int = Field(default=4, ge=1, description="K, of every image")

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.components * (1 + 2 * math.prod(event_shape)),)

    def distribution(self, parameters: Tensor, shared: Any = None, event_dims: int = 1) -> Distribution:
        parameters = at_least_float32(parameters)
        k = self.components
        size = (parameters.shape[-1] - k) // 2
        logits, means, log_scales = parameters.split([k, size, size], dim=-1)
        return GaussianMixture(logits, means.unflatten(-1, (k, -1)), log_scales.unflatten(-1, (k, -1)))


class GaussianMixture(MixtureSameFamily, Stratified):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    """A mixture of diagonal Gaussians with event shape (d,).

    Args:
        logits: of the components, (*batch, K).
        means: (*batch, K, d).
        log_scales: log standard deviations, (*batch, K, d).
    """

    def __init__(self, logits: Tensor, means: Tensor, log_scales: Tensor):
        normal = Normal(means, log_scales.exp(), validate_args=False)
        weights = Categorical(logits=logits, validate_args=False)
        super().__init__(weights, Independent(normal, 1, validate_args=False), validate_args=False)

    def strata(self, draws: int) -> tuple[Tensor, Tensor]:
        """`draws` of every component: z (draws · K, *batch, d), log weights (draws · K, *batch)."""
        z = self.component_distribution.rsample(torch.Size([draws])).movedim(-2, 0)  # (K, draws, *batch, d)
        log_weights = self.mixture_distribution.logits.movedim(-1, 0) - math.log(draws)
        return z.flatten(0, 1), log_weights.repeat_interleave(draws, 0)
