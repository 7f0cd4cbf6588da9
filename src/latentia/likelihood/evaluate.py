"""How good is this model? One call for the three ways to log p(x), as `latentia evaluate RUN` makes it."""

from __future__ import annotations

__all__ = ["LikelihoodEvaluation", "evaluate_likelihood"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from latentia.errors import ConfigurationError, nearest
from latentia.estimate import Estimate
from latentia.likelihood.annealed import annealed_log_likelihood, bidirectional_monte_carlo
from latentia.likelihood.gaps import Gaps, evaluate_gaps, mutual_information
from latentia.likelihood.importance import importance_log_likelihood
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.posterior import GridPosterior, exact_posterior

Method = Literal["exact", "importance", "annealed"]


@dataclass(frozen=True)
class LikelihoodEvaluation:
    """What was found.

    Attributes:
        estimates: means over the images.
        arrays: one row for each image, for an .npz file.
        posterior: of the exact method, what the pictures are drawn from.
        gaps: of the exact method, where they were asked for.
    """

    estimates: list[Estimate]
    arrays: Mapping[str, Any]
    posterior: GridPosterior | None = None
    gaps: Gaps | None = None


def evaluate_likelihood(
    model: Any,
    images: Tensor,
    method: Method = "exact",
    *,
    tolerance: float = 0.01,
    gaps: int = 1000,
    simulated: int = 100,
    seed: int = 0,
    **options: Any,
) -> LikelihoodEvaluation:
    """log p(x) of images under a model, and what else the method can tell.

    Args:
        model: a `VAE`, a run, a `LatentModel`, or anything with `decode` and `prior`.
        images: (N, *event_shape), as the likelihood scores them.
        method: `exact` for z of at most 3 dimensions: adds posterior entropy and rate, mutual information, active
            units, and where there is a Gaussian encoder the split of the bound's slack. `importance` adds the
            weights' effective sample size and Pareto k̂. `annealed` adds the gap between both bounds on simulated
            images.
        tolerance: of `exact`, in nats for each image.
        gaps: of `exact`: on how many of the first images to split the slack; 0 for none.
        simulated: of `annealed`: how many images to simulate for the upper bound; 0 for none.
        seed: of the random methods.
        **options: of `exact_log_likelihood`, `importance_log_likelihood` or `annealed_log_likelihood`.

    Raises:
        ConfigurationError: there is no such method.
        UnsupportedError: the method cannot serve this model, or not in the time and memory given.
        DataError: images that the likelihood cannot score.
    """
    if method not in get_args(Method):
        raise ConfigurationError(
            [("likelihood", f"there is no method {method!r}. {nearest(method, get_args(Method))}")]
        )
    if method == "importance":
        result = importance_log_likelihood(model, images, seed=seed, **options)
        return LikelihoodEvaluation(result.estimates(), result.arrays())
    if method == "annealed":
        result = annealed_log_likelihood(model, images, seed=seed, **options)
        estimates = result.estimates()
        if simulated:
            estimates += bidirectional_monte_carlo(model, simulated, seed=seed, **options).estimates()
        return LikelihoodEvaluation(estimates, result.arrays())
    return _exact(model, images, tolerance, gaps, options)


def _exact(model: Any, images: Tensor, tolerance: float, gaps: int, options: Mapping[str, Any]) -> LikelihoodEvaluation:
    posterior = exact_posterior(model, images, tolerance, **options)
    estimates = posterior.estimates() + mutual_information(posterior)
    arrays = posterior.arrays()
    split = None
    if gaps and len(images) > 1 and LatentModel.from_model(model).encoder is not None:
        split = evaluate_gaps(model, images[:gaps], posterior=posterior)
        estimates += split.estimates()
        arrays |= split.arrays()
    return LikelihoodEvaluation(estimates, arrays, posterior, split)
