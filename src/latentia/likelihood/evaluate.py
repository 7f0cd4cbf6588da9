"""One function for the three methods for log p(x); `latentia evaluate RUN` calls it."""

from __future__ import annotations

__all__ = ["LikelihoodEvaluation", "evaluate_likelihood"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from latentia.distributions import OneHotCodes
from latentia.errors import ConfigurationError, UnsupportedError, nearest, require_count
from latentia.estimate import Estimate
from latentia.likelihood.annealed import annealed_log_likelihood, bidirectional_monte_carlo
from latentia.likelihood.enumeration import EnumeratedPosterior, enumerate_posterior, fits_in_a_table
from latentia.likelihood.gaps import Gaps, evaluate_gaps, has_gaussian_encoder
from latentia.likelihood.importance import importance_log_likelihood, log_importance_weights, simulated_bounds
from latentia.likelihood.information import mutual_information
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.posterior import GridPosterior, exact_posterior
from latentia.likelihood.quadrature import exact_log_likelihood

Method = Literal["exact", "importance", "annealed"]

SEARCHED = 100  # images at most whose best q is searched by draws, for a q that is not Gaussian
DRAWS = 100  # of each image, for the gap of a q that is not Gaussian


@dataclass(frozen=True)
class LikelihoodEvaluation:
    """The result of `evaluate_likelihood`.

    Attributes:
        estimates: means over the images.
        arrays: one row for each image, for an .npz file.
        posterior: of the exact method, the data of the pictures.
        gaps: of the exact method, if they were asked for.
        enumerated: posteriors over the codes of a discrete z, in the place of both.
    """

    estimates: list[Estimate]
    arrays: Mapping[str, Any]
    posterior: GridPosterior | None = None
    gaps: Gaps | None = None
    enumerated: EnumeratedPosterior | None = None


def evaluate_likelihood(
    model: Any,
    images: Tensor,
    method: Method = "exact",
    *,
    tolerance: float = 0.01,
    gaps: int = 1000,
    simulated: int = 100,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> LikelihoodEvaluation:
    """log p(x) of images under a model, and the method's other estimates.

    Args:
        model: a `VAE`, a run, a `LatentModel`, or anything with `decode` and `prior`.
        images: (N, *event_shape), as the likelihood scores them.
        method: `exact` for z of at most 3 dimensions: adds posterior entropy and rate, mutual information, active
            units, and with an encoder the inference gap in its two parts. For z on a finite set all of these are sums.
            `importance` adds the weights' effective sample size and Pareto k̂, and for codes the gap between bounds
            from both sides on simulated images, as `annealed` does for other z.
        tolerance: of `exact`, in nats for each image.
        gaps: of `exact`: the number of images, from the first, whose inference gap is split; 0 for none.
        simulated: of `annealed`: the number of images to simulate for the upper bound; 0 for none.
        seed: of the random methods.
        progress: is called with the number of images done, of all images, and what is being done.
        **options: of `exact_log_likelihood`, `importance_log_likelihood` or `annealed_log_likelihood`.

    Raises:
        ConfigurationError: there is no such method.
        UnsupportedError: the method cannot evaluate this model, or not in the time and memory given.
        DataError: images that the likelihood cannot score.
    """
    if method not in get_args(Method):
        raise ConfigurationError(
            [("likelihood", f"there is no method {method!r}. {nearest(method, get_args(Method))}")]
        )
    if method == "importance":
        result = importance_log_likelihood(model, images, seed=seed, progress=progress, **options)
        estimates = result.estimates()
        if isinstance(LatentModel.from_model(model).prior, OneHotCodes) and simulated > 1:
            estimates += _simulated(model, simulated, options.get("draws", 1000), seed)
        return LikelihoodEvaluation(estimates, result.arrays())
    if method == "annealed":
        result = annealed_log_likelihood(model, images, seed=seed, progress=progress, **options)
        estimates = result.estimates()
        if simulated:
            estimates += bidirectional_monte_carlo(
                model, simulated, seed=seed, progress=progress, **options
            ).estimates()
        return LikelihoodEvaluation(estimates, result.arrays())
    require_count("gaps", gaps, 0)
    return _exact(model, images, tolerance, gaps, seed, {**options, "progress": progress})


def _simulated(model: Any, count: int, draws: int, seed: int) -> list[Estimate]:
    """Bounds of log p(x) from both sides on simulated examples, for codes that annealing does not serve."""
    lower, upper = simulated_bounds(model, count, max(2, draws), seed=seed)
    about: dict[str, Any] = {"method": "importance sampling", "settings": {"stderr_over": "examples", "draws": draws}}
    return [
        Estimate.mean(lower, name="simulated_log_likelihood_lower", kind="lower bound", **about),
        Estimate.mean(upper, name="simulated_log_likelihood_upper", kind="upper bound", **about),
        Estimate.mean(upper - lower, name="bidirectional_gap", kind="upper bound", **about),
    ]


def _exact(
    model: Any, images: Tensor, tolerance: float, gaps: int, seed: int, options: Mapping[str, Any]
) -> LikelihoodEvaluation:
    subject = LatentModel.from_model(model)
    if subject.prior.has_enumerate_support:
        if not fits_in_a_table(subject, images):
            result = exact_log_likelihood(model, images, tolerance, **options)
            return LikelihoodEvaluation(result.estimates(), result.arrays())
        enumerated = enumerate_posterior(model, images, tolerance)
        return LikelihoodEvaluation(enumerated.estimates(), enumerated.arrays(), enumerated=enumerated)
    posterior = exact_posterior(model, images, tolerance, **options)
    estimates = posterior.estimates() + mutual_information(posterior, images, seed=seed, progress=options["progress"])
    arrays = posterior.arrays()
    split = None
    if gaps and len(images) > 1 and subject.encoder is not None:
        with subject.evaluating():
            gaussian = has_gaussian_encoder(subject, images[:1])
        try:
            some = images[:gaps] if gaussian else images[: min(gaps, SEARCHED)]
            split = evaluate_gaps(model, some, posterior=posterior, progress=options["progress"])
        except UnsupportedError as error:
            estimates += _sampled_gap(subject, images[:gaps], posterior, seed, str(error))
        else:
            estimates += split.estimates()
            arrays |= split.arrays()
    return LikelihoodEvaluation(estimates, arrays, posterior, split)


def _sampled_gap(
    subject: LatentModel, images: Tensor, posterior: GridPosterior, seed: int, reason: str
) -> list[Estimate]:
    """ELBO and inference gap from draws, for a q that is not Gaussian; their standard errors include the draws'."""
    rows = posterior.finished[posterior.finished < len(images)]
    if len(rows) < 2:
        return []
    with subject.evaluating(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        elbo = torch.cat([log_importance_weights(subject, x, DRAWS).mean(1) for x in images[rows].split(200)])
    settings: dict[str, Any] = {"stderr_over": "images", "draws": DRAWS, "not_split": reason}
    if len(rows) < len(images):
        settings["not_reached"] = len(images) - len(rows)
    gap = posterior.likelihood.values[rows] - elbo
    error = posterior.likelihood.errors[rows].mean().item()
    return [
        Estimate.mean(elbo, name="elbo", kind="lower bound", settings=settings),
        Estimate.mean(gap, name="inference_gap", settings=settings | {"error": error}),
    ]
