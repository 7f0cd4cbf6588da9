"""log p(x) of each image, exactly, for z in R¹, R² or R³: by quadrature with a certificate, or by enumeration.

    log p(x) = log ∫ p(x|z) p(z) dz                                                             (items 1c and 1e)

`exact_log_likelihood` gives the values, `exact_posterior` the posteriors p(z|x) as well (items 1i and 1j). The grid is
that of `latentia.likelihood.refinement`: coarse where an image has no mass, fine where it has some, shared by all
images.

The certificate of an image is the sum of

- what its last halving of the grid could have moved, and the mass that was left out (`refinement`), and
- rounding: the largest difference, over all images, between log p(x, z) as it was computed and in float64, at the
  best z found.

It is a numerical certificate: it takes the decoder's log-density to be about as smooth as a coarse spacing shows it
to be.
`settings["bound_violations"]` counts how often that was contradicted on the way down.
"""

from __future__ import annotations

__all__ = ["LikelihoodResult", "Limits", "exact_log_likelihood"]

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate, Kind
from latentia.likelihood.latent_model import LatentModel, full_precision
from latentia.likelihood.lattice import Lattice
from latentia.likelihood.refinement import Integrand, Refined, refine
from latentia.objectives.score_table import Block, score_pairs, scorer_for

Precision = Literal["auto", "float32", "float64"]

# Spacing of the first grid in units of the prior's scale, and tiles along its side: ±4.8 scales in every case.
FIRST_SPACING = {1: 0.0125, 2: 0.1, 3: 0.2}
FIRST_TILES = 12
PRIOR_TOLERANCE = 0.002
FLOAT32_DOWN_TO = 0.001  # nats; finer tolerances than this are computed in float64
PRIOR_DRAWS = 4096


class Limits(TypedDict, total=False):
    """How the quadrature is to compute, and within what.

    Keys:
        precision: of decoder and table; `auto` is float32, and float64 where the tolerance is below 0.001.
        seconds: time allowed, without end by default; the step that it ends in is finished.
        memory: bytes allowed for tables, 4e9 by default.
        require: whether to raise where the tolerance is not met, as by default; else the certificates tell, and images
            that were not reached at all are left out of every mean.
    """

    precision: Precision
    seconds: float
    memory: float
    require: bool


@dataclass(frozen=True)
class LikelihoodResult:
    """log p(x), image by image.

    Attributes:
        values: log p(x) in nats, (N,), float64.
        errors: certified bounds on their numerical errors in nats, (N,); for random methods, standard errors.
        kind: what each value is: exact, a bound in expectation, or an estimate.
        method: how it was made.
        settings: of the method, and its cost: `decoder_evaluations`, `seconds`.
        random: whether `errors` are standard errors.
        details: more arrays, one number (or vector) for each image.
        reached: (N,), which images the time was enough for: the others have no certificate, and no part in the mean.
            None where that is all of them.
    """

    values: Tensor
    errors: Tensor
    kind: Kind
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False
    details: Mapping[str, Tensor] = field(default_factory=dict)
    reached: Tensor | None = None

    def estimates(self) -> list[Estimate]:
        """The mean of log p(x) over the images, in nats; its standard error is over the images.

        `settings["not_reached"]`, where it is there, counts those that are not in the mean.
        """
        values = self.values if self.reached is None else self.values[self.reached]
        errors = self.errors if self.reached is None else self.errors[self.reached]
        settings = {"stderr_over": "images", **self.settings}
        if not self.random:
            settings = {"error": errors.mean().item(), **settings, "worst_error": errors.max().item()}
        if len(values) < len(self.values):
            settings["not_reached"] = len(self.values) - len(values)
        name, n = "log_likelihood", len(values)
        if n < 2:
            return [Estimate(values.item(), name, n=n, kind=self.kind, method=self.method, settings=settings)]
        return [Estimate.mean(values, name=name, kind=self.kind, method=self.method, settings=settings)]

    def arrays(self) -> dict[str, Any]:
        """What to write to an .npz file: `log_likelihood`, its `error` or `stderr`, and the details."""
        named = {"log_likelihood": self.values, "stderr" if self.random else "error": self.errors, **self.details}
        if self.reached is not None:
            named["reached"] = self.reached
        return {name: tensor.cpu().numpy() for name, tensor in named.items()}


def exact_log_likelihood(
    model: Any, images: Tensor, tolerance: float = 0.01, **limits: Unpack[Limits]
) -> LikelihoodResult:
    """log p(x) of every image, with a certificate, for z of at most three dimensions or on a finite set.

    Args:
        model: a `VAE`, a run, a `LatentModel`, or anything with `decode` and `prior`.
        images: (N, *event_shape), as the likelihood scores them.
        tolerance: nats, for every image. The certificate of the mean, `settings["error"]`, comes out far smaller.
        **limits: see `Limits`.

    Raises:
        UnsupportedError: z has more dimensions, or the tolerance was not met in the time and memory allowed: the message
            says what was reached.
        DataError: images that the likelihood cannot score.
        ConfigurationError: a prior that does not integrate to 1.
    """
    return solve(model, images, tolerance, **limits).result


@dataclass(frozen=True)
class Solved:
    """What the quadrature found: for `exact_posterior`, which reads the tables.

    Attributes:
        result: the values.
        model: the model that was evaluated, in the precision that was used.
        lattice: of the tables.
        parts: for each chunk of images, where it starts and what was found.
    """

    result: LikelihoodResult
    model: LatentModel
    lattice: Lattice
    parts: list[tuple[int, Refined]]


def solve(
    model: Any,
    images: Tensor,
    tolerance: float,
    *,
    precision: Precision = "auto",
    seconds: float = math.inf,
    memory: float = 4e9,
    require: bool = True,
    keep: bool = False,
) -> Solved:
    """The work behind `exact_log_likelihood`; with `keep`, tables of the posterior are kept."""
    if not tolerance > 0:
        raise ConfigurationError(f"tolerance is {tolerance}; it must be above 0 nats")
    begin = time.monotonic()
    with full_precision():
        subject = LatentModel.from_model(model)
        subject.require_scorable(images)
        if subject.prior.has_enumerate_support:
            return _enumerate(subject, images, begin)
        if subject.latent > 3:
            raise UnsupportedError(
                f"a grid serves z of at most 3 dimensions, and this model has {subject.latent}; use "
                "method='importance' (importance_log_likelihood) for an estimate, or method='annealed' "
                "(annealed_log_likelihood) for bounds"
            )
        double = subject.in_float64()
        wants_double = precision == "float64" or (precision == "auto" and tolerance < FLOAT32_DOWN_TO)
        used = double if wants_double and double is not None else subject
        lattice = _lattice(used)
        _require_proper(used, lattice, begin + seconds - time.monotonic())
        parts, start = [], 0
        rounding = 0.0
        for chunk in images.split(_chunk(used.latent, memory)):
            # A share for each chunk, so that a few stubborn images do not leave the others without time.
            left = (begin + seconds - time.monotonic()) * len(chunk) / (len(images) - start)
            refined = _refine_chunk(used, chunk, lattice, tolerance, keep, left, memory)
            rounding = max(rounding, _rounding(used, double, chunk, refined))
            parts.append((start, refined))
            start += len(chunk)
    reached = torch.cat([torch.isfinite(part.error) for _, part in parts])
    if not bool(reached.any()):
        raise UnsupportedError(
            f"quadrature: none of {len(images)} images was reached in {time.monotonic() - begin:.1f} s; allow more "
            "seconds or memory, take fewer images, or ask for method='importance'"
        )
    result = _collect(parts, reached, rounding, tolerance, used, time.monotonic() - begin)
    if require and not bool((result.errors <= tolerance).all()):
        worst, met = result.errors.max().item(), int((result.errors <= tolerance).sum())
        raise UnsupportedError(
            f"quadrature: {met} of {len(images)} images are certified to {tolerance} nats after "
            f"{result.settings['decoder_evaluations']:,} decoder evaluations in {result.settings['seconds']:.1f} s; "
            f"the worst is at {worst:.3g} nats, {result.settings['rounding']:.2g} of it rounding. Allow more seconds "
            "or memory, a larger tolerance, precision='float64', or ask for method='importance'"
        )
    return Solved(result, used, lattice, parts)


class _Joint(Integrand):
    """f(z) = log p(x|z) + log p(z) for each image x."""

    def __init__(self, model: LatentModel, images: Tensor):
        self.model, self.count, self.device = model, len(images), model.device
        probe = model.decoder(model.prior.sample(torch.Size([2])).to(model.dtype))
        self.scorer = scorer_for(probe, images.to(self.device, model.dtype))
        self.nodes_at_once = self.scorer.nodes_at_once

    def prepare(self, points: Tensor) -> tuple[Block, Tensor]:
        z = points.to(self.device, self.model.dtype)
        return self.scorer.block(self.model.decoder(z)), self.model.log_prior(z).to(z.dtype)

    def table(self, prepared: object, rows: Tensor | slice, columns: slice) -> Tensor:
        block, log_prior = prepared  # pyright: ignore[reportGeneralTypeIssues]
        rows = rows if isinstance(rows, slice) else rows.to(self.device)
        return block.scores(rows, columns).add_(log_prior[columns])


class _LogPrior(Integrand):
    """f(z) = log p(z): one function, whose integral must be 1."""

    def __init__(self, model: LatentModel):
        self.model, self.count = model, 1

    def prepare(self, points: Tensor) -> Tensor:
        return self.model.log_prior(points.to(self.model.device)).cpu()

    def table(self, prepared: object, rows: Tensor | slice, columns: slice) -> Tensor:
        assert isinstance(prepared, Tensor)
        return prepared[columns][None]


def _lattice(model: LatentModel) -> Lattice:
    """Level 0: spacing in units of the prior's scale, around its median."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = model.prior.sample(torch.Size([PRIOR_DRAWS])).double().cpu()
    low, middle, high = torch.quantile(draws, torch.tensor([0.159, 0.5, 0.841], dtype=torch.float64), dim=0)
    scale = (high - low) / 2
    if not bool(torch.isfinite(draws).all()) or not bool((scale > 0).all()):
        raise ConfigurationError(
            "the prior's draws are not finite or do not vary; a grid needs a distribution with a density"
        )
    if torch.allclose(scale, torch.ones_like(scale), atol=0.1) and torch.allclose(middle, 0 * middle, atol=0.1):
        scale, middle = torch.ones_like(scale), torch.zeros_like(middle)  # N(0, I), but for the noise of the draws
    return Lattice(middle, FIRST_SPACING[model.latent] * scale)


def _require_proper(model: LatentModel, lattice: Lattice, seconds: float) -> None:
    found = refine(_LogPrior(model), lattice, FIRST_TILES, tolerance=PRIOR_TOLERANCE, seconds=seconds)
    log_mass, error = found.log_integral.item(), found.error.item()
    if not abs(log_mass) <= error + 10 * PRIOR_TOLERANCE:
        raise ConfigurationError(
            f"the prior integrates to {math.exp(min(log_mass, 700)):.6g}, not to 1: it is no probability density"
        )


def _chunk(latent: int, memory: float) -> int:
    """How many images to take at a time, so that their summaries over the first grid fit in a quarter of the memory."""
    per_image = FIRST_TILES**latent * 8 * (3 * 2**latent + 6)
    return max(1, int(memory / 4 / per_image))


def _refine_chunk(
    model: LatentModel, images: Tensor, lattice: Lattice, tolerance: float, keep: bool, seconds: float, memory: float
) -> Refined:
    joint = _Joint(model, images)
    hints = None
    if model.encoder is not None:
        q = model.encoder(images.to(model.device, model.dtype))
        place = q.mean
        values = score_pairs(model.decoder(place), joint.scorer.images) + model.log_prior(place)
        hints = (place.cpu(), values.cpu())
    return refine(
        joint,
        lattice,
        FIRST_TILES,
        tolerance=0.9 * tolerance,
        supremum=joint.scorer.supremum(),
        log_prior=_LogPrior(model),
        hints=hints,
        keep=keep,
        seconds=seconds,
        memory=memory,
    )


def _rounding(used: LatentModel, double: LatentModel | None, images: Tensor, found: Refined) -> float:
    """The largest difference between log p(x, z) as computed and in float64, at each image's best node."""
    if double is None or used is double:
        # Nothing finer to compare with: a random walk of as many roundings as there are terms, four deviations wide.
        reached = torch.isfinite(found.error)
        scale = max(found.best_value[reached].abs().tolist(), default=0.0)
        return 4 * torch.finfo(used.dtype).eps * scale * math.sqrt(images[0].numel())
    worst = 0.0
    reached = torch.isfinite(found.error)
    if not bool(reached.any()):
        return worst
    best, values = found.best[reached], found.best_value[reached]
    for x, z, value in zip(images[reached].split(1000), best.split(1000), values.split(1000), strict=True):
        z = z.to(used.dtype).double().to(used.device)  # the node as the network saw it
        exact = score_pairs(double.decoder(z), x.double().to(used.device)) + double.log_prior(z)
        worst = max(worst, (exact.cpu() - value).abs().max().item())
    return worst


def _collect(
    parts: list[tuple[int, Refined]],
    reached: Tensor,
    rounding: float,
    tolerance: float,
    model: LatentModel,
    seconds: float,
) -> LikelihoodResult:
    found = [part for _, part in parts]
    # Errors of the rule come with either sign: the shifted grids' opinions of the mean say what is left of them there.
    deviations = torch.cat([part.deviations for part in found])[reached].mean(0).abs().max().item()
    left_out = torch.cat([part.left_out for part in found])[reached].mean().item()
    settings = {
        "tolerance": tolerance,
        "error": deviations + left_out + rounding,
        "rounding": rounding,
        "precision": str(model.dtype).removeprefix("torch."),
        "decoder_evaluations": sum(part.nodes for part in found),
        "scores": sum(part.products for part in found),
        "bound_violations": max(part.bound_violations for part in found),
        "seconds": round(seconds, 3),
    }
    return LikelihoodResult(
        torch.cat([part.log_integral for part in found]),
        torch.cat([part.error for part in found]) + rounding,
        "exact",
        "quadrature",
        settings,
        details={"level": torch.cat([part.level for part in found])},
        reached=None if bool(reached.all()) else reached,
    )


def _enumerate(model: LatentModel, images: Tensor, begin: float) -> Solved:
    """log p(x) = log Σᵢ p(x|zᵢ) p(zᵢ) over a finite latent space."""
    used = model.in_float64() or model
    points = used.prior.enumerate_support(expand=False)
    distribution = used.decoder(points.to(used.device, used.dtype))
    log_prior = used.prior.log_prob(points).double()
    block = scorer_for(distribution, images.to(used.device, used.dtype)).block(distribution)
    tables = [
        block.scores(rows, slice(0, len(points))).double() + log_prior for rows in torch.arange(len(images)).split(1000)
    ]
    values = torch.cat([table.logsumexp(-1) for table in tables]).cpu()
    errors = 8 * torch.finfo(used.dtype).eps * (values.abs() + images[0].numel())
    settings = {"decoder_evaluations": len(points), "seconds": round(time.monotonic() - begin, 3)}
    result = LikelihoodResult(values, errors, "exact", "enumeration", settings)
    return Solved(result, used, Lattice(torch.zeros(1), torch.ones(1)), [])
