"""log p(x) = log ∫ p(x|z) p(z) dz between two proven bounds, for z of few dimensions and a decoder of known parts.

A box that holds the prior's mass, but for a tail that is bounded by its distribution, is divided into tiles. On a tile
the decoder lies between affine functions (`affine`, `modules`, `restriction`), so the logarithm of p(x|z) p(z) lies
between quadratic ones (`likelihoods`, `priors`), and the mass of the tile between two numbers (`masses`). The tiles
whose two numbers are too far apart are divided again (`search`). Nothing is left out.

**Rounding** of float64 is added to every bound (`rounding`). What is enclosed is the integral in real arithmetic, of
the decoder with its stored weights and of the prior with its stored parameters. docs/exact.md states the theorem.
"""

from __future__ import annotations

__all__ = ["enclose_log_likelihood", "prove_exclusion"]

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from latentia.distributions import Conditional
from latentia.distributions.standardization import StandardizedConditional
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.proof.families import likelihoods_of, parts_of
from latentia.likelihood.proof.restriction import Restriction
from latentia.likelihood.proof.rounding import UNIT
from latentia.likelihood.proof.search import DEEPEST, Problem, Search, Siblings
from latentia.models import VAE
from latentia.objectives.score_table import score_pairs
from latentia.threads import sharing

MOST_DIMENSIONS = 3
MOST_VARIABLES = 256  # of a restricted network; on tiles where more rectifiers bend, the whole network is bounded
CAUTION = 0.5  # nats that an estimate of log p(x) is lowered by before tiles are dropped against it
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Enclosure:
    """Proven bounds of log p(x), image by image.

    Attributes:
        lower: of log p(x) in nats, (N,), float64; −∞ where nothing is known.
        upper: likewise.
        statistics: `tiles` that were bounded, `pairs` of an image and a tile, `rounds`, `seconds`, and `excluded`, the
            share of the prior's box that was dropped since a bound shows that it does not matter, on average.
    """

    lower: Tensor
    upper: Tensor
    statistics: dict[str, float] = field(default_factory=dict)

    @property
    def width(self) -> Tensor:
        """upper − lower, in nats, (N,)."""
        return self.upper - self.lower

    @property
    def middle(self) -> Tensor:
        """The middle of the bounds, in nats, (N,)."""
        return (self.lower + self.upper) / 2

    @property
    def half_width(self) -> Tensor:
        """How far log p(x) lies from `middle` at most, the rounding of both included, in nats, (N,)."""
        return (0.5 * self.width + 2 * UNIT * (self.lower.abs() + self.upper.abs())) * (1 + 8 * UNIT)


@dataclass(frozen=True)
class KeptTiles:
    """Tiles outside which an image has next to no posterior mass, proven.

    Attributes:
        centers: of the tiles, (T, d).
        radii: half their sides, (d,): the tiles form part of one grid.
        images: (P,), which image each kept pair belongs to; sorted by tile.
        tiles: (P,), and which tile.
        log_excluded: upper bound of log ∫ p(x|z) p(z) dz outside the image's kept tiles, (N,).
        log_lower: lower bound of log p(x), (N,), of low quality: the tiles are coarse.
        statistics: as of `Enclosure`.
    """

    centers: Tensor
    radii: Tensor
    images: Tensor
    tiles: Tensor
    log_excluded: Tensor
    log_lower: Tensor
    statistics: dict[str, float] = field(default_factory=dict)


def enclose_log_likelihood(
    model: Any,
    images: Tensor,
    tolerance: float = 0.01,
    *,
    mean: bool = False,
    seconds: float = math.inf,
    progress: Callable[[int, int, str], None] | None = None,
) -> Enclosure:
    """Lower and upper bounds of log p(x) for every image, proven, for z of at most three dimensions.

    Args:
        model: a `VAE`, a run, or a `LatentModel` whose decoder is a `Conditional`; in evaluation mode.
        images: (N, *event_shape). Missing values (NaN) are integrated out; images that miss the same ones are bounded
            together.
        tolerance: how far apart the two bounds of an image may be, in nats.
        mean: ask for the tolerance of the mean over the images only, at a fraction of the cost; single images may have
            bounds further apart.
        seconds: time allowed; the best bounds reached by then are returned.
        progress: is called with the number of images done, of all images, and what is being done; with `mean`, the
            share of the images is tolerance/width.

    Raises:
        UnsupportedError: a decoder, likelihood or prior that cannot be bounded, naming it and the cure.
        DataError: images that the likelihood cannot score.
    """
    if not tolerance > 0:
        raise ConfigurationError(f"tolerance is {tolerance}; it must be above 0 nats")
    begin, count = time.monotonic(), len(images)
    lower = torch.full((count,), -math.inf, dtype=torch.float64)
    upper, statistics = -lower, {"tiles": 0.0, "pairs": 0.0, "excluded": 0.0, "rounds": 0.0}
    groups = _of_one_pattern(images)
    for number, index in enumerate(groups):
        until = time.monotonic() + (begin + seconds - time.monotonic()) / (len(groups) - number)
        before = sum(len(group) for group in groups[:number])

        def report(share: float, what: str, before: int = before, size: int = len(index)) -> None:
            if progress is not None:
                progress(before + int(share * size), count, what)

        lower[index], upper[index], found = _enclose(model, images[index], tolerance, mean, until, report)
        found["excluded"] *= len(index) / count
        statistics = {name: value + found[name] for name, value in statistics.items()}
    return Enclosure(lower, upper, {**statistics, "seconds": time.monotonic() - begin})


def _enclose(
    model: Any, images: Tensor, tolerance: float, mean: bool, until: float, report: Callable[[float, str], None]
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Bounds for images of the same missing values, and statistics."""
    with torch.no_grad(), sharing(torch.get_num_threads()) as apply:
        problem = _problem(model, images)
        search, share, rounds, every = Search(problem, tolerance, until, report, apply), tolerance / 200, 1, len(images)
        if mean:
            lower, upper = search.run_for_mean(torch.arange(every), problem.hints)
        else:
            lower, upper = search.run(torch.arange(every), problem.hints, share)
        while not mean and time.monotonic() < until and rounds < 8:
            open_ = ~(upper - lower <= tolerance) & torch.isfinite(lower)
            index = open_.nonzero().flatten()
            if len(index) == 0:
                break
            share, rounds = share / 8, rounds + 1
            low, high = search.run(index, lower[index], share)
            lower[index], upper[index] = torch.maximum(low, lower[index]), torch.minimum(high, upper[index])
    return lower, upper, {**search.statistics(), "rounds": float(rounds)}


def _of_one_pattern(images: Tensor) -> list[Tensor]:
    """Indices of images, grouped by which of their values are missing (NaN)."""
    if not images.is_floating_point() or not bool(images.isnan().any()):
        return [torch.arange(len(images))]
    _, pattern = images.isnan().flatten(1).cpu().unique(dim=0, return_inverse=True)
    return [(pattern == number).nonzero().flatten() for number in range(int(pattern.max()) + 1)]


def prove_exclusion(
    model: Any, images: Tensor, *, side: float = 0.1, share: float = 1e-6, seconds: float = math.inf
) -> KeptTiles:
    """The tiles of a grid that an image needs: all others together hold at most about `share` of p(x), proven.

    Args:
        model: as for `enclose_log_likelihood`.
        images: (N, *event_shape).
        side: of the tiles at most, in units of z.
        share: of p(x) that may be excluded. The bound on what was excluded is in the result.
        seconds: time allowed.

    Raises:
        UnsupportedError: as for `enclose_log_likelihood`, and where the time ends before all tiles are that small.
    """
    begin = time.monotonic()
    with torch.no_grad(), sharing(torch.get_num_threads()) as apply:
        problem = _problem(model, images)
        search = Search(problem, math.inf, begin + seconds, apply=apply)
        level = max(0, math.ceil(math.log2(2 * float(problem.prior.scale.max()) / side)))
        if level > DEEPEST:
            least = 2 * float(problem.prior.scale.max()) * 2.0**-DEEPEST
            raise ConfigurationError(f"side is {side:.3g}; for this prior it must be at least {least:.3g}")
        found = search.exclude(torch.arange(len(images)), problem.hints, level, share)
    statistics = {**search.statistics(), "seconds": time.monotonic() - begin}
    return replace(_kept_tiles(problem, level, found), statistics=statistics)


def _problem(model: Any, images: Tensor) -> Problem:
    """What is integrated, in the form that the search needs."""
    subject = LatentModel.from_model(model)
    subject.require_scorable(images)
    conditional = _conditional(subject)
    latent = subject.latent
    if latent > MOST_DIMENSIONS:
        raise UnsupportedError(
            f"tiles serve z of at most {MOST_DIMENSIONS} dimensions, and this model has {latent}; use "
            "method='importance' or method='annealed'"
        )
    if len(_of_one_pattern(images)) > 1:
        raise UnsupportedError("the images have different missing values; call it for each pattern by itself")
    seen = None
    if images.is_floating_point() and bool(images.isnan().any()):
        seen = ~images[0].isnan().flatten().cpu()
    family = likelihoods_of(conditional, images, seen)
    components = parts_of(subject.prior)
    first = components.origin(0.0)
    whole = Restriction.of_network(conditional.network, first, torch.ones_like(first), MOST_VARIABLES, seen)
    at_center = family.at(whole, torch.zeros(1, latent, dtype=torch.float64))
    if not bool(torch.isfinite(at_center).all()):
        raise UnsupportedError(
            "the decoder gives numbers that are not finite; check its weights, or use method='importance'"
        )
    reach = float((family.supremum - at_center).max().clamp(0, 1e12)) + 200
    prior = components.box(math.sqrt(2 * reach))
    whole = Restriction.of_network(conditional.network, prior.origin, prior.scale, MOST_VARIABLES, seen)
    return Problem(family, prior, whole, _hints(subject, images))


def _conditional(subject: LatentModel) -> Conditional:
    """The network and family that p(x|z) is made of."""
    found = subject.decoder
    if isinstance(subject.source, VAE) and type(subject.source).decode is VAE.decode:
        found = subject.source.likelihood
    if (
        not isinstance(found, Conditional)
        or type(found) not in (Conditional, StandardizedConditional)
        or found._forward_hooks
        or found._forward_pre_hooks
    ):
        raise UnsupportedError(
            "a proven bound needs to know what the decoder computes: pass LatentModel(Conditional(network, family, "
            "event_shape=…, condition_shape=…), prior) without hooks, or use the numerical quadrature "
            "(exact_log_likelihood)"
        )
    return found


def _hints(subject: LatentModel, images: Tensor) -> Tensor:
    """What the encoder suggests log p(x) to be, (N,): only the order of work depends on it, no bound does."""
    nothing = torch.full((len(images),), -math.inf, dtype=torch.float64)
    modules = [] if subject.source is None else list(subject.source.modules())
    if subject.encoder is None or any(isinstance(part, _BatchNorm) and part.training for part in modules):
        return nothing
    parts = []
    for some in images.to(subject.device, subject.dtype).split(1000):
        q = subject.encoder(some)
        mean, spread = q.mean, q.stddev.double()
        joint = score_pairs(subject.decoder(mean), some) + subject.log_prior(mean)
        parts.append((joint + (spread.log() + HALF_LOG_2PI).sum(-1)).cpu())
    return torch.where(torch.isfinite(found := torch.cat(parts)), found - CAUTION, nothing)


def _kept_tiles(problem: Problem, level: int, found: tuple[Tensor, Tensor, list[Siblings]]) -> KeptTiles:
    excluded, low, kept = found
    prior, d = problem.prior, len(problem.prior.origin)
    centers = torch.cat([torch.zeros(0, d, dtype=torch.float64), *(tiles.centers for tiles in kept)])
    images, numbers, before = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)], 0
    for tiles in kept:
        column, row = tiles.open.T.nonzero().T
        images.append(tiles.images[row])
        numbers.append(before + column)
        before += len(tiles.centers)
    corners = prior.origin + prior.scale * centers
    return KeptTiles(corners, prior.scale * 2.0**-level, torch.cat(images), torch.cat(numbers), excluded, low)
