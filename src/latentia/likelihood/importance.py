r"""Importance sampling of log p(x), for z of any dimension.

    log p(x) ≈ log (1/K) Σₖ wₖ,   wₖ = p(x|zₖ) p(zₖ) / r(zₖ|x),   zₖ ~ r(z|x)            (Burda et al. 2016, eq. 8)

The mean of wₖ is unbiased for p(x), so its logarithm is a lower bound in expectation. It is close to log p(x) only if
r covers the posterior. A proposal that misses mass gives weights with a heavy tail, which K draws rarely show: the
standard error by the delta method, sd(w)/(mean(w) √K), is then small and meaningless. The Pareto shape k̂ of
the weights shows that (`latentia.integration.pareto`), as does their effective sample size.

The *defensive mixture* r = (1 − α) q(z|x) + α p(z) (Hesterberg 1995) bounds the weights by p(x|z)/α.
"""

from __future__ import annotations

__all__ = ["importance_log_likelihood", "log_importance_weights", "simulated_bounds"]

import math
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.errors import ConfigurationError, UnsupportedError, counted
from latentia.integration.pareto import K_HAT_LIMIT, pareto_k
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.quadrature import LikelihoodResult

Proposal = Literal["encoder", "prior"]

DECODED_AT_ONCE = 20_000
RESAMPLES = 1000
CURE = "; use proposal='prior', method='annealed' or, for z of at most 3 dimensions, method='exact'"
MUCH_LONGER = 3  # than the time allowed: draws that are refused by their speed before the time is up
FEWEST_DRAWS = 25  # to which a Pareto tail is fitted


def importance_log_likelihood(
    model: Any,
    images: Tensor,
    draws: int = 1000,
    *,
    defensive: float = 0.0,
    proposal: Proposal = "encoder",
    seed: int = 0,
    seconds: float = math.inf,
    progress: Callable[[int, int, str], None] | None = None,
) -> LikelihoodResult:
    """An estimate of log p(x) of each image from K draws.

    Args:
        model: a `VAE`, a run, or a `LatentModel`.
        images: (N, *event_shape), as the likelihood scores them.
        draws: K.
        defensive: α, the share of the draws that come from the prior.
        proposal: `encoder`, or `prior` to draw without an encoder.
        seed: of the draws; the caller's generator is not changed.
        seconds: time allowed. Draws that would take much longer, by the speed of the first ones, are refused at once.
        progress: is called with the number of images done, of all images, and a name.

    Returns:
        Values of kind "lower bound" (in expectation), their standard errors by the delta method (infinite for a single
        draw, which does not show its error), and in `details` the `effective_sample_size` and `pareto_k` of each image.
        `settings["bootstrap_stderr"]` is the standard error of the mean by a bootstrap over the images;
        `settings["warning"]` is present when some k̂ exceeds 0.7 or is unknown.

    Raises:
        UnsupportedError: a model without an encoder where one is needed, draws that are not finite, or time is up.
        DataError: images that the likelihood cannot score.
    """
    if draws < 1 or not 0 <= defensive < 1:
        raise ConfigurationError(f"importance: draws must be >= 1 and 0 <= defensive < 1; given {draws}, {defensive}")
    if proposal not in get_args(Proposal):
        raise ConfigurationError(f"proposal is {proposal!r}; it must be encoder or prior")
    begin = time.monotonic()
    subject = LatentModel.from_model(model)
    with subject.evaluating(), torch.random.fork_rng(devices=[]):
        subject.require_scorable(images)
        subject.require_deterministic(images)
        torch.manual_seed(seed)
        batch = max(1, DECODED_AT_ONCE // draws)
        parts = []
        for x in images.split(batch):
            if time.monotonic() - begin > seconds:
                raise UnsupportedError(
                    f"importance: {len(parts) * batch} of {len(images)} images were done in {seconds} s; allow more "
                    "seconds, fewer draws, or fewer images"
                )
            weights = log_importance_weights(
                subject, x, draws, proposal=proposal, defensive=defensive, seconds=begin + seconds - time.monotonic()
            )
            parts.append(_summarize(weights))
            if progress is not None:
                progress(min(len(parts) * batch, len(images)), len(images), "")
    value, stderr, effective, shape = (torch.cat(part) for part in zip(*parts, strict=True))
    settings: dict[str, Any] = {
        "draws": draws,
        "proposal": proposal,
        "defensive": defensive,
        "seed": seed,
        "draws_stderr": stderr.square().sum().sqrt().item() / len(value),
        "bootstrap_stderr": _bootstrap(value, seed),
        "median_effective_sample_size": effective.median().item(),
        "share_above_k_limit": (shape > K_HAT_LIMIT).double().mean().item(),
        "decoder_evaluations": draws * len(images),
        "seconds": round(time.monotonic() - begin, 3),
    }
    heavy = int((shape > K_HAT_LIMIT).sum())
    cure = "method='exact'" if subject.latent <= 3 else "method='annealed'"
    if draws < FEWEST_DRAWS:
        settings["warning"] = (
            f"{draws} draws of each image are too few to show the tail of its weights, so that the standard errors "
            f"{'are unknown' if draws == 1 else 'cannot be trusted'}. Use draws={FEWEST_DRAWS} or more, or {cure}"
        )
    elif heavy:
        settings["warning"] = (
            f"the weights of {heavy} of {len(images)} images have a Pareto shape above {K_HAT_LIMIT} (largest "
            f"{shape.max().item():.2f}): their estimates and standard errors cannot be trusted. Use {cure}"
        )
    details = {"effective_sample_size": effective, "pareto_k": shape}
    return LikelihoodResult(value, stderr, "lower bound", "importance sampling", settings, random=True, details=details)


def simulated_bounds(model: Any, count: int, draws: int = 1000, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Bounds of log p(x) from both sides, in expectation, on examples drawn from the model itself; (count,) each.

    The z that an example was drawn with is a draw of its exact posterior. The mean of K weights of draws from the
    encoder gives the lower bound; where that z takes the place of one of the K draws, it is an upper bound (Sobolev and
    Vetrov 2019, theorem 1). It works for any z, discrete ones too.

    Args:
        model: with an encoder.
        count: number of examples to draw.
        draws: K, at least 2.
        seed: of the draws; the caller's generator is not changed.

    Raises:
        ConfigurationError: too few examples or draws.
        UnsupportedError: a model without an encoder.
    """
    if count < 1 or draws < 2:
        raise ConfigurationError(f"bounds from both sides need count >= 1 and draws >= 2; given {count}, {draws}")
    subject = LatentModel.from_model(model)
    lower, upper = [], []
    with subject.evaluating(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        z = subject.prior.sample(torch.Size([count])).to(subject.device, subject.dtype)
        x = subject.decoder(z).sample()
        batch = max(1, DECODED_AT_ONCE // draws)
        for some, known in zip(x.split(batch), z.split(batch), strict=True):
            weights = log_importance_weights(subject, some, draws)
            assert subject.encoder is not None  # else no weights
            given = encode(subject.encoder, some.to(subject.device, subject.dtype)).log_prob(known).double()
            joint = subject.decoder(known).log_prob(some).double() + subject.log_prior(known)
            exact = torch.cat([(joint - given).cpu()[:, None], weights[:, 1:]], 1)
            lower.append(weights.logsumexp(1) - math.log(draws))
            upper.append(exact.logsumexp(1) - math.log(draws))
    return torch.cat(lower), torch.cat(upper)


def log_importance_weights(
    model: LatentModel,
    images: Tensor,
    draws: int,
    *,
    proposal: Proposal = "encoder",
    defensive: float = 0.0,
    seconds: float = math.inf,
) -> Tensor:
    """log p(x, z) − log r(z|x) of draws z ~ r(z|x) from torch's global generator, in nats.

    Args:
        model: the model.
        images: (N, *event_shape).
        draws: K, for each image.
        proposal: r, as for `importance_log_likelihood`.
        defensive: α, likewise.
        seconds: time allowed.

    Returns:
        (N, K), float64, on the CPU.

    Raises:
        UnsupportedError: a model without an encoder where one is needed, draws that are not finite, or too many for the
            time.
    """
    if proposal == "encoder" and model.encoder is None:
        raise UnsupportedError(
            "importance sampling draws from an encoder, and this model has none. Use proposal='prior' (poor beyond a "
            "few dimensions), or method='annealed'"
        )
    n = len(images)
    x = images.to(model.device, model.dtype)
    q = encode(model.encoder, x) if model.encoder is not None and proposal == "encoder" else None
    parts, started = [], time.monotonic()
    for begin in range(0, draws, max(1, DECODED_AT_ONCE // n)):
        used = time.monotonic() - started
        wanted = used * draws / begin if begin else 0.0
        if used > seconds or (used > 1 and wanted > MUCH_LONGER * seconds):
            raise UnsupportedError(
                f"importance: {draws} draws of {counted(n, 'image')} take about {wanted:.3g} seconds, and "
                f"{seconds:.3g} are left; give fewer draws, at most {max(2, int(draws * seconds / wanted))} for these, "
                "or allow more seconds (--draws, --seconds)"
            )
        count = min(max(1, DECODED_AT_ONCE // n), draws - begin)
        z = _propose(model, q, n, count, defensive)
        scores = model.decoder(z.flatten(0, 1)).log_prob(x.repeat(count, *[1] * (x.dim() - 1))).view(count, n)
        parts.append((scores.double() + model.log_prior(z) - _log_proposal(model, q, z, defensive)).cpu())
    return torch.cat(parts).T


def encode(encoder: Callable[[Tensor], Distribution], x: Tensor) -> Distribution:
    """q(z|x) of images x (N, …).

    Raises:
        UnsupportedError: an encoder that gives NaN or infinite numbers.
    """
    try:
        q = encoder(x)
    except ValueError as error:  # torch's check of the parameters
        if "Expected parameter" not in str(error):
            raise
        raise UnsupportedError(f"the encoder gives parameters that are not those of a distribution{CURE}") from None
    with torch.random.fork_rng(devices=[]):
        finite = torch.isfinite(q.sample()).all(-1)
    if not bool(finite.all()):
        raise UnsupportedError(
            f"the encoder's z is not finite for {int((~finite).sum())} of a batch of {len(finite)} images{CURE}"
        )
    return q


def _propose(model: LatentModel, q: Distribution | None, n: int, count: int, defensive: float) -> Tensor:
    """Draws (count, n, d) from the proposal."""
    prior = model.prior
    if q is None:
        return prior.sample(torch.Size([count, n])).to(model.device, model.dtype)
    z = q.sample(torch.Size([count]))
    if defensive:
        swap = torch.rand(count, n, 1, device=z.device) < defensive
        z = torch.where(swap, prior.sample(torch.Size([count, n])).to(z), z)
    return z


def _log_proposal(model: LatentModel, q: Distribution | None, z: Tensor, defensive: float) -> Tensor:
    if q is None:
        return model.log_prior(z)
    own = q.log_prob(z).double()
    if not defensive:
        return own
    return torch.logaddexp(own + math.log1p(-defensive), model.log_prior(z) + math.log(defensive))


def _summarize(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p̂, its standard error, the effective sample size and k̂, (N,) each, from weights (N, K)."""
    draws = log_weights.shape[1]
    total = log_weights.logsumexp(1)
    effective = (2 * total - (2 * log_weights).logsumexp(1)).exp()
    effective = effective.nan_to_num(0.0)  # all weights are 0
    # Var(log mean w) ≈ Var(w)/(K mean²) = (K/ESS − 1)/K, with K − 1 for an unbiased variance
    stderr = (
        ((draws / effective - 1).clamp_min(0) / (draws - 1)).sqrt() if draws > 1 else torch.full_like(total, torch.inf)
    )
    return total - math.log(draws), stderr, effective, pareto_k(log_weights)


def _bootstrap(values: Tensor, seed: int) -> float:
    """Standard error of the mean over images, by resampling the images."""
    generator = torch.Generator().manual_seed(seed)
    means = [
        values[torch.randint(len(values), (len(values),), generator=generator)].mean().item() for _ in range(RESAMPLES)
    ]
    return torch.tensor(means, dtype=torch.float64).std().item()
