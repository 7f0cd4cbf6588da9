r"""The importance-weighted estimate of log p(x), for z of any dimension, with what tells whether to believe it.

    log p(x) ≈ log (1/K) Σₖ wₖ,   wₖ = p(x|zₖ) p(zₖ) / r(zₖ|x),   zₖ ~ r(z|x)            (Burda et al. 2016, eq. 8)

The mean of wₖ is unbiased for p(x), so its logarithm is a lower bound in expectation, and near log p(x) only if r
covers the posterior. A proposal that misses mass gives weights with a tail so heavy that K draws rarely see it: then
the standard error by the delta method, sd(w)/(mean(w) √K), is small and means nothing. The Pareto shape k̂ of the
weights and the effective sample size show that (see `latentia.integration.pareto`).

The *defensive mixture* r = (1 − α) q(z|x) + α p(z) (Hesterberg 1995) bounds the weights by p(x|z)/α.
"""

from __future__ import annotations

__all__ = ["importance_log_likelihood"]

import math
import time
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.errors import ConfigurationError, UnsupportedError
from latentia.integration import LogSumExp
from latentia.integration.pareto import K_HAT_LIMIT, pareto_k
from latentia.likelihood.latent_model import LatentModel, full_precision
from latentia.likelihood.quadrature import LikelihoodResult

DECODED_AT_ONCE = 20_000
RESAMPLES = 1000


def importance_log_likelihood(
    model: Any,
    images: Tensor,
    draws: int = 1000,
    *,
    defensive: float = 0.0,
    proposal: str = "encoder",
    seed: int = 0,
    seconds: float = math.inf,
) -> LikelihoodResult:
    """An estimate of log p(x) of each image by K draws.

    Args:
        model: a `VAE`, a run, or a `LatentModel`.
        images: (N, *event_shape), as the likelihood scores them.
        draws: K.
        defensive: α, the part of the draws that come from the prior.
        proposal: `encoder`, or `prior` for no encoder at all.
        seed: of the draws; the caller's generator is left as it was.
        seconds: time allowed.

    Returns:
        Values of kind "lower bound" (in expectation), their standard errors by the delta method, and in `details` the
        `effective_sample_size` and `pareto_k` of each image. `settings["bootstrap_stderr"]` is the standard error of
        the mean by a bootstrap over the images; `settings["warning"]` stands there when some k̂ exceeds 0.7.

    Raises:
        UnsupportedError: a model without an encoder where one is asked for, or time is up.
        DataError: images that the likelihood cannot score.
    """
    if draws < 1 or not 0 <= defensive < 1:
        raise ConfigurationError(f"importance: draws must be >= 1 and 0 <= defensive < 1; given {draws}, {defensive}")
    begin = time.monotonic()
    with full_precision(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        subject = LatentModel.from_model(model)
        subject.require_scorable(images)
        encoder = _encoder(subject, proposal)
        batch = max(1, DECODED_AT_ONCE // draws)
        parts = []
        for x in images.split(batch):
            if time.monotonic() - begin > seconds:
                raise UnsupportedError(
                    f"importance: {len(parts) * batch} of {len(images)} images were done in {seconds} s; allow more "
                    "seconds, fewer draws, or fewer images"
                )
            parts.append(_weigh(subject, encoder, x.to(subject.device, subject.dtype), draws, defensive))
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
    if heavy:
        cure = "method='exact'" if subject.latent <= 3 else "method='annealed'"
        settings["warning"] = (
            f"the weights of {heavy} of {len(images)} images have a Pareto shape above {K_HAT_LIMIT} (largest "
            f"{shape.max().item():.2f}): their estimates and standard errors cannot be trusted. Use {cure}"
        )
    details = {"effective_sample_size": effective, "pareto_k": shape}
    return LikelihoodResult(value, stderr, "lower bound", "importance sampling", settings, random=True, details=details)


def _encoder(model: LatentModel, proposal: str) -> Any:
    if proposal not in ("encoder", "prior"):
        raise ConfigurationError(f"proposal is {proposal!r}; it must be encoder or prior")
    if proposal == "encoder" and model.encoder is None:
        raise UnsupportedError(
            "importance sampling draws from an encoder, and this model has none. Use proposal='prior' (poor beyond a "
            "few dimensions), or method='annealed'"
        )
    return model.encoder if proposal == "encoder" else None


def _weigh(
    model: LatentModel, encoder: Any, x: Tensor, draws: int, defensive: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p̂, its standard error, effective sample size and k̂ for each image of a batch, (B,) each."""
    n = len(x)
    q: Distribution | None = None if encoder is None else encoder(x)
    total, squares = LogSumExp((n,)), LogSumExp((n,))
    # The largest weights are all that the Pareto fit needs: 3√K and one more.
    tail = torch.full((n, 0), -torch.inf, dtype=torch.float64)
    size = min(draws, max(draws // 5, 1), math.ceil(3 * math.sqrt(draws))) + 1
    step = max(1, DECODED_AT_ONCE // n)
    for first in range(0, draws, step):
        count = min(step, draws - first)
        z = _propose(model, q, n, count, defensive)
        scores = model.decoder(z.flatten(0, 1)).log_prob(x.repeat(count, *[1] * (x.dim() - 1))).view(count, n)
        log_weight = scores.double() + model.log_prior(z) - _log_proposal(model, q, z, defensive)
        log_weight = log_weight.T.cpu()  # (n, count)
        total.add(log_weight)
        squares.add(2 * log_weight)
        tail = torch.cat([tail, log_weight], -1)
        tail = tail.topk(min(size, tail.shape[-1]), dim=-1).values
    effective = (2 * total.value - squares.value).exp()
    # Var(log mean w) ≈ Var(w)/(K mean²) = (K/ESS − 1)/K, with K − 1 for an unbiased variance
    stderr = ((draws / effective - 1).clamp_min(0) / max(1, draws - 1)).sqrt()
    return total.value - math.log(draws), stderr, effective, _tail_k(tail, draws)


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


def _tail_k(tail: Tensor, draws: int) -> Tensor:
    """k̂ from the largest weights alone, (n, M + 1) of `draws`."""
    wanted = min(draws // 5, math.ceil(3 * math.sqrt(draws)))
    return pareto_k(tail, tail=wanted)


def _bootstrap(values: Tensor, seed: int) -> float:
    """Standard error of the mean over images, by resampling the images."""
    generator = torch.Generator().manual_seed(seed)
    means = [
        values[torch.randint(len(values), (len(values),), generator=generator)].mean().item() for _ in range(RESAMPLES)
    ]
    return torch.tensor(means, dtype=torch.float64).std().item()
