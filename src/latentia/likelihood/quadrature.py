"""log p(x) of each image for z in R¹, R² or R³, by quadrature, or on a finite set of z, by enumeration.

    log p(x) = log ∫ p(x|z) p(z) dz

`exact_log_likelihood` gives the values, `exact_posterior` the posteriors p(z|x) as well. The prior is integrated part
by part (`latentia.likelihood.charts`) on grids that are coarse where an image has no mass, fine where it has some, and
shared by all images (`latentia.likelihood.refinement`).

The numerical error of an image is the sum of

- what its last halvings of the grid could have moved, by their observed order, and the mass that was left out, and
- rounding: the difference between log p(x|z) as it was computed and in float64, at the best z found.

It is not a proof: it takes the logarithm of the decoder's density to be about as smooth as a coarse spacing shows it to
be, but for jumps and kinks. `settings["assumes"]` says so with every result, and `settings["bound_violations"]` counts
how often that was contradicted while the grid was refined.
"""

from __future__ import annotations

__all__ = ["exact_log_likelihood"]

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.distributions import Gaussian, GaussianLearnedScale
from latentia.distributions.codes import require_enumerable
from latentia.distributions.sphere import onto_support
from latentia.errors import ConfigurationError, UnsupportedError, nearest
from latentia.estimate import Estimate, Kind
from latentia.likelihood.charts import FIRST_SPACING, Chart, charts_of
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.lattice import NODES, Lattice, segment
from latentia.likelihood.proof.enclosure import Enclosure, enclose_log_likelihood
from latentia.likelihood.refinement import MOST_TILES, Integrand, Refined, Stop, refine
from latentia.networks.products import SkipZeros
from latentia.objectives.score_table import Block, Scorer, score_pairs, scorer_for
from latentia.threads import sharing

Precision = Literal["auto", "float32", "float64"]
Certificate = Literal["numerical", "proven"]

# The grid is off the round numbers that a decoder's own periods and edges are likely to have.
STRETCH = 1.0442
OFFSET = (0.3178, 0.4419, 0.2287)
PRIOR_TOLERANCE = 0.002
FLOAT32_DOWN_TO = 0.001  # nats; finer tolerances than this are computed in float64
ROUNDING_SHARE = 0.1  # of the tolerance; images with more rounding are computed again in float64
PROVEN_BY_DEFAULT = (
    16  # images at most that `auto` encloses besides, for the time of the quadrature and this many seconds
)
PROOF_SECONDS = 1.0
PROBED = 50  # images whose rounding is measured before any other work
PAIRS_AT_ONCE = 1000  # pairs of an image and a z that are scored together
SMALL_IMAGE = 64  # pixels
PRIOR_DRAWS = 1000  # points that show where mass may be, besides the grid
AUDIT = 0.001  # probability that the audit by these draws rejects a right value
# Draws of the posterior found, for each image and in all, that audit a decoder that is a function.
POSTERIOR_DRAWS, POSTERIOR_POINTS = 256, 200_000
FIRST_SHARE = 0.5  # of the seconds, for the first grid of such a decoder: without a second its values are not believed
UNCHECKED = 3.0  # times the error of an image of such a decoder, where the second grid was not resolved in time
MOST_DISAGREED = 5.0  # times the sum of their errors by which two grids may differ for their distance to be an error
AUDIT_DEVIATIONS = 5.0  # standard errors of such an audit within which it agrees
# An image whose log p(x|z) lies so many standard deviations below what the decoder expects at the best z is searched
# for with many more draws: something that no node met may explain it. Images that a model was fitted to stay below 20.
UNEXPLAINED = 20.0
SEARCH_DRAWS, SEARCHED_AT_ONCE, SEARCH_SECONDS = 2**22, 2**16, 2.0
# Features of a decoder that is a function are searched for by so many draws that one of this share of the tolerance
# is met with probability 0.95, and the share is part of the error. This part of the time taken so far is for it, and
# half a second.
UNMET_SHARE, MET = 0.05, 3.0
SEARCH_SHARE, LEAST_SEARCH = 0.2, 0.5
ASSUMES = (
    "the decoder's log-density, jumps and kinks apart, varies no faster between nodes of the first grid than from node "
    "to "
    "node"
)
CURES = {
    Stop.TIME: "ran out of time; allow more seconds (--seconds)",
    Stop.SIZE: f"needs more than the {MOST_TILES * NODES:,} nodes that the grid of one image may have, or than the "
    "memory allows; allow a larger tolerance or more memory",
    Stop.LEVELS: "is not resolved by the finest grid; it needs a larger tolerance",
    Stop.TAILS: "has mass that does not end where the grid does",
    Stop.NAN: "has log-densities that are not finite numbers (NaN)",
    Stop.PRECISION: "is at the floor of its precision; use precision='float64'",
    Stop.DISAGREE: "differs between two grids, so the decoder has features finer than both; allow more seconds",
    Stop.UNEXPLAINED: "is unlike everything that the decoder, a Python function, was seen to give, so that a feature "
    "finer than the grid may explain it: its value is a lower bound. Give the decoder as a module (Conditional or "
    "nn.Module)",
    Stop.NONE: "has rounding above the tolerance; use precision='float64'",
}


class Limits(TypedDict, total=False):
    """How the quadrature computes, and within what limits.

    Keys:
        certificate: `numerical`; `proven` (`latentia.likelihood.proof`, for decoders of known parts; some tenths of a
            second for each image); `auto`, the default, is numerical and proves up to 16 images as far as about
            as much time again allows. `details["proven"]` says which.
        prove: nats. Besides the numerical values, enclose log p(x) between proven bounds that are at most so far
            apart on average over the images, in up to half of the seconds: they are in `details` as `lower` and
            `upper`. (`enclose_log_likelihood` bounds each image to a tolerance.)
        precision: of decoder and table; `auto` is float32, and float64 where the tolerance is below 0.001 or float32
            rounds by too much.
        seconds: time allowed, unlimited by default; the step that it ends in is finished.
        memory: bytes allowed for tables, 4e9 by default.
        require: whether to raise where the tolerance is not met, as by default; otherwise `errors` and `reached` say
            what was met, and images that were not reached are left out of every mean.
        progress: is called with the number of images done, of all images, and what is being done.
    """

    certificate: Literal["auto", "numerical", "proven"]
    prove: float | None
    precision: Precision
    seconds: float
    memory: float
    require: bool
    progress: Callable[[int, int, str], None] | None


@dataclass(frozen=True)
class LikelihoodResult:
    """log p(x), image by image.

    Attributes:
        values: log p(x) in nats, (N,), float64. Where `details["unexplained"]` is set and the error is ∞, the value is
            a lower bound: the mass that was found, less its numerical error.
        errors: bounds on their numerical errors in nats, (N,), proven if `kind` says so; for random methods, standard
            errors.
        kind: what the values are (see `Estimate`): `numerical` assumes what `settings["assumes"]` states.
        method: how it was made.
        settings: of the method, and its cost: `decoder_evaluations`, `seconds`.
        random: whether `errors` are standard errors.
        details: more arrays, one number (or vector) for each image.
        reached: (N,), which images have a finite error: the others have no part in the mean. None where all have.
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

        `settings["not_reached"]`, where present, counts the images that are not in the mean. A numerical value comes
        with the means of the proven bounds, where there are any.
        """
        return [self._mean(), *self._bounds()]

    def _bounds(self) -> Iterator[Estimate]:
        for side in ("lower", "upper") if self.kind == "numerical" and "lower" in self.details else ():
            found = torch.isfinite(self.details["lower"]) & torch.isfinite(self.details["upper"])
            values = self.details[side][found]
            if len(values):
                kind: Kind = "lower bound" if side == "lower" else "upper bound"
                apart = float((self.details["upper"][found] - self.details["lower"][found]).mean())
                settings: dict[str, Any] = {"proven": "for every image", "mean_width": apart}
                settings |= {"not_reached": int((~found).sum())} if len(values) < len(found) else {}
                bounds = LikelihoodResult(values, torch.zeros_like(values), kind, "enclosure", settings, random=True)
                yield replace(bounds._mean(), name=f"log_likelihood_{side}")

    def _mean(self) -> Estimate:
        values = self.values if self.reached is None else self.values[self.reached]
        errors = self.errors if self.reached is None else self.errors[self.reached]
        settings = {"stderr_over": "images", **self.settings}
        if not self.random:
            settings = {"error": errors.mean().item(), **settings, "worst_error": errors.max().item()}
        if len(values) < len(self.values):
            settings["not_reached"] = len(self.values) - len(values)
        name, n = "log_likelihood", len(values)
        if n < 2:
            return Estimate(values.item(), name, n=n, kind=self.kind, method=self.method, settings=settings)
        return Estimate.mean(values, name=name, kind=self.kind, method=self.method, settings=settings)

    def arrays(self) -> dict[str, Any]:
        """What to write to an .npz file: `log_likelihood`, its `error` or `stderr`, and the details."""
        named = {"log_likelihood": self.values, "stderr" if self.random else "error": self.errors, **self.details}
        if self.reached is not None:
            named["reached"] = self.reached
        return {name: tensor.cpu().numpy() for name, tensor in named.items()}


def exact_log_likelihood(
    model: Any, images: Tensor, tolerance: float = 0.01, **limits: Unpack[Limits]
) -> LikelihoodResult:
    """log p(x) of every image, with its error, for z of at most three dimensions or on a finite set.

    Args:
        model: a `VAE`, a run, a `LatentModel`, or anything with `decode` and `prior`.
        images: (N, *event_shape), as the likelihood scores them.
        tolerance: nats, for every image. The error of the mean, `settings["error"]`, comes out far smaller.
        **limits: see `Limits`.

    Raises:
        UnsupportedError: z has more dimensions, or the tolerance was not met in the time and memory allowed: the
            message says what was reached.
        DataError: images that the likelihood cannot score.
        ConfigurationError: a prior that does not integrate to 1, or a limit that is not one.
    """
    return solve(model, images, tolerance, **limits).result


@dataclass(frozen=True)
class Piece:
    """One part of the prior, integrated for some images.

    Attributes:
        rows: the images, (n,).
        used: which of them count; the others were integrated again in float64.
        model: in the precision that was used.
        chart: the part of the prior.
        lattice: of the tables, in the chart's coordinates.
        refined: what was found.
    """

    rows: Tensor
    used: Tensor
    model: LatentModel
    chart: Chart
    lattice: Lattice
    refined: Refined


@dataclass(frozen=True)
class Solution:
    """What the quadrature found: for `exact_posterior`, which reads the tables."""

    result: LikelihoodResult
    model: LatentModel
    pieces: list[Piece]


def solve(
    model: Any,
    images: Tensor,
    tolerance: float,
    *,
    certificate: Literal["auto", "numerical", "proven"] = "auto",
    prove: float | None = None,
    precision: Precision = "auto",
    seconds: float = math.inf,
    memory: float = 4e9,
    require: bool = True,
    keep: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Solution:
    """The work behind `exact_log_likelihood`; with `keep`, tables of the posterior are kept."""
    if not tolerance > 0:
        raise ConfigurationError(f"tolerance is {tolerance}; it must be above 0 nats")
    for name, value, known in (
        ("precision", precision, get_args(Precision)),
        ("certificate", certificate, ("auto", *get_args(Certificate))),
    ):
        if value not in known:
            raise ConfigurationError([(name, f"there is no {name} {value!r}. {nearest(str(value), known)}")])
    if prove is not None and not prove > 0:
        raise ConfigurationError([("prove", f"it is {prove}, and must be above 0 nats")])
    begin = time.monotonic()
    subject = LatentModel.from_model(model)
    with subject.evaluating():
        # MKL: oneDNN compiles and keeps a kernel for each shape of a product, and here there are hundreds.
        torch.set_float32_matmul_precision("highest")
        subject.require_scorable(images)
        if subject.prior.has_enumerate_support:
            return _enumerate(subject, images, begin)
        if certificate == "proven":
            return _proven(subject, images, tolerance, seconds, require=require, keep=keep)
        require_enumerable(subject.prior)
        if not subject.has_grid:
            raise UnsupportedError(
                f"a grid serves z of at most 3 dimensions, and this model has {subject.latent}; use "
                "method='importance' (importance_log_likelihood) for an estimate, or method='annealed' "
                "(annealed_log_likelihood) for bounds; on the command line --likelihood importance or annealed"
            )
        subject.require_deterministic(images)
        bounds = None
        if prove is not None:
            bounds = enclose_log_likelihood(subject, images, prove, mean=True, seconds=seconds / 2, progress=progress)
        work = _Work(subject, images, tolerance, precision, begin + seconds, memory, keep, progress)
        if not work.is_network:
            work.end = begin + FIRST_SHARE * seconds
        work.run(torch.arange(len(images)))
        if work.is_network:
            work.search_unexplained()
        else:
            work.end = begin + seconds
            work.check(subject, precision)
        seconds_used = time.monotonic() - begin
        if bounds is not None:
            work.accept(bounds)
        elif certificate == "auto" and not keep and len(images) <= PROVEN_BY_DEFAULT:
            work.prove(min(seconds - seconds_used, PROOF_SECONDS + seconds_used))
        if not work.is_network:
            work.withdraw()
    seconds_used = time.monotonic() - begin
    result = work.result(seconds_used)
    reached = torch.isfinite(work.errors)
    if not bool(reached.any()):
        raise UnsupportedError(
            f"quadrature: none of {len(images)} images was reached in {seconds_used:.1f} s: {work.reasons(~reached)}. "
            f"Allow more seconds or memory, take fewer images, or use {OTHERS}"
        )
    short = ~(work.errors <= tolerance) | (work.stop == Stop.UNEXPLAINED)
    if require and bool(short.any()):
        worst, met = result.errors.max().item(), int((~short).sum())
        raise UnsupportedError(
            f"quadrature: {met} of {len(images)} images are certified to {tolerance} nats after "
            f"{result.settings['decoder_evaluations']:,} decoder evaluations in {result.settings['seconds']:.1f} s; "
            f"the worst is at {worst:.3g} nats, {result.settings['rounding']:.2g} of it rounding: "
            f"{work.reasons(short)}. "
            f"require=False returns what was reached; or use {OTHERS}"
        )
    return Solution(result, work.models[-1], work.pieces)


OTHERS = "method='importance' (importance_log_likelihood(model, images); --likelihood importance on the command line)"


class _Joint(Integrand):
    """f(u) = log p(x | T(u)) + log g(u) for each image x."""

    def __init__(self, model: LatentModel, chart: Chart, scorer: Scorer, has_kinks: bool):
        self.has_kinks = has_kinks
        self.model, self.chart, self.count, self.device = model, chart, len(scorer.images), model.device
        self.scorer, self.nodes_at_once = scorer, scorer.nodes_at_once
        if scorer.images[0].numel() <= SMALL_IMAGE and self.nodes_at_once > NODES:
            self.nodes_at_once *= 16  # the work is in the calls, not in the numbers
        self.threads = _threads(model, has_kinks)

    def prepare(self, points: Tensor) -> tuple[Block, Tensor]:
        z, log_density = _on_chart(self.chart, points)
        with SkipZeros():
            block = self.scorer.block(self.model.decoder(z.to(self.device, self.model.dtype)))
        return block, log_density.to(self.device, self.scorer.images.dtype)

    def table(self, prepared: object, rows: Tensor | slice, columns: slice) -> Tensor:
        block, log_density = prepared  # pyright: ignore[reportGeneralTypeIssues]
        rows = rows if isinstance(rows, slice) else rows.to(self.device)
        density = log_density[columns]
        table = block.scores(rows, columns).add_(density)
        if bool((density < REMOTE).any()):  # networks may overflow there
            table = torch.where((density < REMOTE) & table.isnan(), -torch.inf, table)
        return table

    def supremum(self) -> tuple[Tensor | None, bool]:
        # A probability is at most 1. A density is bounded by its scale: proven where the family fixes it.
        fixed = isinstance(self.model.family, Gaussian | GaussianLearnedScale)
        return self.scorer.supremum(), self.scorer.discrete or fixed


def _threads(model: LatentModel, is_network: bool) -> int:
    """How many threads may call the decoder at the same time.

    A function or a module of the user's may keep what it computes from one line to the next, and autocast is a setting
    of one thread.
    """
    if not is_network or model.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return 1
    parts = (part for module in model.modules() for part in module.modules())
    return torch.get_num_threads() if all(map(_is_library_module, parts)) else 1


def _is_library_module(part: nn.Module) -> bool:
    """Whether `forward` is torch's or this library's own, and nothing is hooked to it."""
    hooked = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
    return not hooked and type(part).forward.__module__.partition(".")[0] in {"torch", "latentia", "zuko"}


REMOTE = -100.0  # log-density of u below which a NaN of the decoder does not count


def _on_chart(chart: Chart, u: Tensor) -> tuple[Tensor, Tensor]:
    """z (M, d) and log g (M,) at u; where a flow leaves the numbers there is no mass."""
    z = chart.to_z(u)
    log_density = chart.log_density(u, z)
    if bool(torch.isfinite(z).all()):
        return z, log_density
    finite = torch.isfinite(z).all(-1)
    return torch.where(finite[:, None], z, 0.0), torch.where(finite, log_density, -torch.inf)


class _LogDensity(Integrand):
    """f(u) = log g(u): one function."""

    def __init__(self, chart: Chart):
        self.chart, self.count = chart, 1

    def prepare(self, points: Tensor) -> Tensor:
        return _on_chart(self.chart, points)[1].cpu()

    def table(self, prepared: object, rows: Tensor | slice, columns: slice) -> Tensor:
        assert isinstance(prepared, Tensor)
        return prepared[columns][None]


class _Work:
    """One quadrature: the charts, and what has been found of each image."""

    def __init__(
        self,
        subject: LatentModel,
        images: Tensor,
        tolerance: float,
        precision: Precision,
        end: float,
        memory: float,
        keep: bool,
        progress: Callable[[int, int, str], None] | None = None,
    ):
        self.images, self.tolerance, self.end, self.memory, self.keep = images, tolerance, end, memory, keep
        self.begin = time.monotonic()
        self.double = subject.in_float64()
        self.is_network = subject.source is not None or isinstance(subject.decoder, nn.Module)
        self.models = [subject]
        if precision == "float64" and self.double is None and subject.dtype != torch.float64:
            raise UnsupportedError(
                "precision='float64': the decoder does not compute with torch's operations, or returns shorter floats "
                "than "
                "it is given. Make it return float64 for a float64 z, or use precision='auto'"
            )
        wants_double = precision == "float64" or (precision == "auto" and tolerance < FLOAT32_DOWN_TO)
        if wants_double and self.double is not None:
            self.models = [self.double]
        elif precision == "auto" and self.double is not None:
            self.models = [subject, self.double]
        n, d = len(images), subject.dimension
        self.values = torch.full((n,), -torch.inf, dtype=torch.float64)
        self.errors, self.left_out, self.rounding = (torch.full_like(self.values, torch.inf) for _ in range(3))
        self.audit = torch.full_like(self.values, -torch.inf)
        self.best, self.seen = torch.zeros(n, subject.latent, dtype=torch.float64), None
        self.turn, self.checked, self.audited, self.searched = 0, 0, 0, 0
        self.is_bound = False
        self.progress, self.before, self.size = progress, 0, 0  # images of earlier chunks, and of this one
        self.unexplained, self.repeated = (torch.zeros(n, dtype=torch.bool) for _ in range(2))
        self.deviations = torch.full((n, 2**d), torch.inf, dtype=torch.float64)
        self.level, self.stop = (torch.zeros(n, dtype=torch.long) for _ in range(2))
        self.proven = torch.zeros(n, dtype=torch.bool)
        self.bounds: Enclosure | None = None
        self.pieces: list[Piece] = []
        self.nodes = self.products = 0
        self.violations = 0.0

    def run(self, rows: Tensor) -> None:
        """Integrate for these images, in the first precision, and again for those that it rounds by too much."""
        for piece in self.pieces:
            piece.used[torch.isin(piece.rows, rows)] = False
        for place, model in enumerate(self.models if len(rows) else ()):
            charts = charts_of(model.prior, model.log_prior)
            charts = [chart.turned(self.turn, model.dimension) for chart in charts] if self.turn else charts
            for chart in charts:
                if not chart.verified and place == 0:
                    _require_proper(chart, model.dimension, self.end - time.monotonic())
            rough, begin, count = [], 0, len(rows)
            for some in rows.split(self._chunk(model, charts)):
                # A share for each chunk, so that a few stubborn images do not leave the others without time.
                left = (self.end - time.monotonic()) * len(some) / (len(rows) - begin)
                self.before, self.size = len(self.images) - count + begin, len(some)
                begin += len(some)
                rough.append(self._solve(model, charts, some, left, last=model is self.models[-1]))
            rows = torch.cat(rough)
            if len(rows) == 0:
                break

    def check(self, subject: LatentModel, precision: Precision) -> None:
        """Integrate again on lattices that are turned, shifted and scaled at random, and compare.

        An image on which the second finds more mass is integrated again from there. Where the two disagree in the end,
        their distance is the error. Where time ended the second before it was resolved, its value so far is compared;
        an image without one is not reached.
        """
        used = time.monotonic() - self.begin
        unmet = self._search_prior(used)
        begin = time.monotonic()
        other = _Work(
            subject,
            self.images,
            self.tolerance,
            precision,
            min(self.end, begin + 3 * used + 1),
            self.memory,
            True,
            self.progress,
        )
        other.turn, other.seen = 1, self.best
        other.run(torch.isfinite(self.errors).nonzero().squeeze(1))
        both = torch.isfinite(self.errors) & torch.isfinite(other.errors)
        more = both & (other.values - self.values > self.errors + other.errors)
        if bool(more.any()):
            self.seen = other.best
            self.run(more.nonzero().squeeze(1))
            self.repeated |= more
            both &= torch.isfinite(self.errors)
        distance = torch.where(torch.isfinite(self.errors), (self.values - other.values).abs(), 0.0)
        claimed = self.errors + other.errors
        disagree = both & (distance > claimed)
        self.stop[disagree] = int(Stop.DISAGREE)
        late = torch.isfinite(self.errors) & ~both
        reason = torch.where(other.stop == Stop.NONE, int(Stop.TIME), other.stop)
        self.stop = torch.where(late & (self.stop == Stop.NONE), reason, self.stop)
        self.errors = torch.where(both, self.errors, UNCHECKED * self.errors)
        # The first may be off by their distance and the second's error, where its own error is below the distance.
        nearer = torch.where(distance > self.errors, distance + torch.minimum(distance, other.errors), 0.0)
        self.errors = torch.maximum(self.errors, torch.where(disagree | late, 2 * distance, nearer))
        # Where the claims of both were worth nothing, or more mass was found again and again, nor is their distance.
        worthless = disagree & (self.repeated | (distance > MOST_DISAGREED * claimed))
        self.errors = torch.where(worthless, torch.inf, self.errors)
        self.checked = int(both.sum())
        self.nodes, self.products = self.nodes + other.nodes, self.products + other.products
        if self.turn == 0:
            self._audit_found(other)
        self.errors += unmet

    def _audit_found(self, other: _Work) -> None:
        """Compare with Monte Carlo over the posterior that another integration found.

        Its nodes, drawn by their mass and moved at random within their cells, are a proposal q(u) = exp(f(node)) / Z,
        so the mean of exp(f(u) − f(node)) is the integral over the cells found divided by the sum Z. An image that
        contradicts it, by more than its error and `AUDIT_DEVIATIONS` standard errors, is integrated again from the best
        of the draws. The error of one that still does reaches to the far end of the Monte Carlo interval.
        """
        draws = max(1, min(POSTERIOR_DRAWS, POSTERIOR_POINTS // len(self.values)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            value, noise, best = other._sampled(draws)
        found = torch.isfinite(self.errors) & torch.isfinite(value)

        def contradicted() -> Tensor:
            claim = self.errors + other.errors + AUDIT_DEVIATIONS * noise
            return found & torch.isfinite(self.errors) & ((self.values - value).abs() > claim)

        if bool(contradicted().any()):
            self.seen = best
            self.run(contradicted().nonzero().squeeze(1))
        distance = (self.values - value).abs() + AUDIT_DEVIATIONS * noise
        self.errors = torch.where(contradicted(), torch.maximum(self.errors, distance), self.errors)
        self.audited = draws if bool(found.any()) else 0

    def _sampled(self, draws: int) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x) of each image by some `draws` of its posterior on the grid.

        Returns:
            log p(x) (N,), NaN where there is no posterior; its standard error (N,); the z with the highest f (N, d).
        """
        n = len(self.values)
        tables = [
            (piece, table, piece.used[table.function] & torch.isfinite(self.errors[piece.rows[table.function]]))
            for piece in self.pieces
            for table in piece.refined.tables
        ]
        whole = torch.full((n,), -torch.inf, dtype=torch.float64)
        for piece, table, used in tables:
            sums = table.values[used].double().logsumexp(-1) + piece.lattice.log_cell(table.level)
            whole = torch.logaddexp(whole, segment(sums, piece.rows[table.function[used]], n))
        count, total, square = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
        best, top = self.best.clone(), torch.full((n,), -torch.inf, dtype=torch.float64)
        for piece, table, used in tables:
            lattice, image, values = piece.lattice, piece.rows[table.function[used]], table.values[used].double()
            mass = (values + lattice.log_cell(table.level) - whole[image, None]).exp()
            # Each node as often as draws · mass, rounded up or down at random: systematic sampling.
            edge = torch.cat([torch.rand(1, dtype=torch.float64), draws * mass.flatten()]).cumsum(0)
            where = torch.repeat_interleave(edge.floor().diff().long())
            nodes = lattice.nodes(table.tiles[used], table.level)
            for some in where.split(PAIRS_AT_ONCE) if len(where) else ():
                jitter = torch.rand(len(some), lattice.dimension, dtype=torch.float64) - 0.5
                z, log_density = _on_chart(piece.chart, nodes[some] + jitter * lattice.spacing * 2.0**-table.level)
                own = image[some // values.shape[1]]
                points = z.to(piece.model.device, piece.model.dtype)
                score = score_pairs(piece.model.decoder(points), self.images[own].to(points)).cpu()
                f = (score + log_density).nan_to_num(-torch.inf, posinf=-torch.inf)
                ratio = (f - values.flatten()[some]).clamp(max=300).exp()
                count.index_add_(0, own, torch.ones_like(ratio))
                total.index_add_(0, own, ratio)
                square.index_add_(0, own, ratio.square())
                highest = torch.full_like(top, -torch.inf).scatter_reduce(0, own, f, "amax")
                is_top = (f == highest[own]) & (f > top[own])
                best[own[is_top]] = z[is_top]
                top = torch.maximum(top, highest)
        mean = total / count
        noise = (square / count - mean.square()).clamp_min(0).sqrt() / count.sqrt() / mean
        return whole + mean.log(), noise + 1 / count, best

    def withdraw(self) -> None:
        """Take numerical errors back from images that nothing explains, for decoders that are functions.

        The mass that was found is a lower bound of p(x), and nothing bounds what was not. Where all images are of this
        kind the result is a lower bound; otherwise they are not reached.
        """
        doubtful = self.unexplained & ~self.proven & torch.isfinite(self.errors)
        if not bool(doubtful.any()):
            return
        self.stop[doubtful] = int(Stop.UNEXPLAINED)
        self.is_bound = bool((doubtful == torch.isfinite(self.errors)).all())
        if not self.is_bound:
            self.values = torch.where(doubtful, self.values - self.errors, self.values)
            self.errors = torch.where(doubtful, torch.inf, self.errors)

    def result(self, seconds: float) -> LikelihoodResult:
        reached = torch.isfinite(self.errors)
        some = reached if bool(reached.any()) else ~reached
        # A value whose error is not known for another reason, such as rounding, is not a bound either.
        unexplained = self.unexplained & ~self.proven & (reached | (self.stop == int(Stop.UNEXPLAINED)))
        # Errors of the rule have either sign: the shifted grids' values of the mean estimate what is left of them
        # there.
        deviations = self.deviations[some].mean(0).abs().max().item()
        rounding = self.rounding[some].mean().item()
        model = self.models[0] if not self.pieces else self.pieces[-1].model
        proven = bool(self.proven[some].all())
        error = self.errors[some].mean().item() if bool(self.proven.any()) else None
        settings = {
            "tolerance": self.tolerance,
            "error": deviations + self.left_out[some].mean().item() + rounding if error is None else error,
            "rounding": self.rounding[some].max().item(),
            "precision": str(model.dtype).removeprefix("torch."),
            "decoder_evaluations": self.nodes,
            "scores": self.products,
            "bound_violations": self.violations,
            "seconds": round(seconds, 3),
        }
        if not proven:
            settings |= {"assumes": ASSUMES, "audit_draws": PRIOR_DRAWS, "audit_level": AUDIT}
            if self.checked:
                settings["second_grid"] = self.checked
            if self.searched:
                settings["search_draws"] = self.searched
            if self.audited:
                settings["posterior_draws"] = self.audited
            if bool(unexplained.any()):
                settings["unexplained"] = int(unexplained.sum())
        bounds = {} if self.bounds is None else {"lower": self.bounds.lower, "upper": self.bounds.upper}
        if self.bounds is not None and not bool(torch.isfinite(self.bounds.width).all()):
            settings["not_enclosed"] = int((~torch.isfinite(self.bounds.width)).sum())
        return LikelihoodResult(
            self.values,
            self.errors,
            "proven" if proven else "lower bound" if self.is_bound else "numerical",
            "enclosure" if proven else "quadrature",
            settings,
            details={
                "level": self.level,
                "proven": self.proven,
                "unexplained": unexplained,
                **bounds,
            },
            reached=None if bool(reached.all()) else reached,
        )

    def prove(self, seconds: float) -> None:
        """Enclose log p(x) while time allows: a narrow enclosure, or one that contradicts the value, replaces it."""
        if not bool(torch.isfinite(self.errors).any()) or seconds <= 0:
            return
        try:
            found = enclose_log_likelihood(self.models[0], self.images, 2 * self.tolerance, seconds=seconds)
        except UnsupportedError:
            return  # the decoder's parts are not known: the certificate stays numerical, and says so
        self.accept(found)

    def accept(self, found: Enclosure) -> None:
        """Take proven bounds: narrow ones, or ones that contradict the value, replace it and its error."""
        self.bounds = found
        middle, half = found.middle, found.half_width
        outside = ((self.values - middle).abs() > half + self.errors) & torch.isfinite(half)
        self.proven = (half <= self.tolerance) | outside
        self.values = torch.where(self.proven, middle, self.values)
        self.errors = torch.where(self.proven, half, self.errors)

    def reasons(self, short: Tensor) -> str:
        """Which images fall short, and why."""
        found = []
        for reason in Stop:
            rows = (short & (self.stop == reason)).nonzero().squeeze(1).tolist()
            if rows:
                named = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
                found.append(f"image{'s' if len(rows) > 1 else ''} {named} {CURES[reason]}")
        return "; ".join(found)

    def _chunk(self, model: LatentModel, charts: list[Chart]) -> int:
        """Images to take at a time, so that their summaries over the first grid fit in a quarter of the memory."""
        core = max(chart.core for chart in charts)
        return max(1, int(self.memory / 4 / (core**model.dimension * 8 * (3 * 2**model.dimension + 7))))

    def _solve(self, model: LatentModel, charts: list[Chart], rows: Tensor, seconds: float, *, last: bool) -> Tensor:
        """Integrate a chunk of images over every chart; returns the images that need a finer precision."""
        images, end = _rows(self.images, rows), time.monotonic() + seconds
        scorer = self._scorer(model, images)
        hints, rounding = self._hints(model, images, scorer, rows, last=last)
        rough = (rounding > ROUNDING_SHARE * self.tolerance) & (not last)
        if bool(rough.any()):  # without trying
            fine = ~rough
            rest = self._solve(model, charts, rows[fine], seconds, last=last) if bool(fine.any()) else rows[:0]
            return torch.cat([rest, rows[rough]])
        parts = [_Part.empty(len(rows), model.dimension, model.latent) for _ in charts]
        pieces: list[Piece] = []
        everyone = torch.arange(len(rows))
        for again in (False, True) if len(charts) > 1 else (False,):
            for k, chart in enumerate(charts):
                rest = [part.value for part in parts[:k] + parts[k + 1 :]]
                floor = torch.stack(rest).logsumexp(0) if rest else torch.full((len(rows),), -torch.inf).double()
                # A part that could not be integrated alone may be negligible against the others.
                some = (~torch.isfinite(parts[k].rule)).nonzero().squeeze(1) if again else everyone
                if len(some) == 0:
                    continue
                mine = _rows(images, some)
                found = self._refine(model, chart, mine, hints, some, floor[some], end - time.monotonic())
                parts[k].put(some, found, chart)
                for piece in pieces:
                    if piece.chart is chart:
                        piece.used[torch.isin(piece.rows, rows[some])] = False
                used = torch.ones(len(some), dtype=torch.bool)
                pieces.append(Piece(rows[some], used, model, chart, self._lattice(chart, model.dimension), found))
        return self._settle(model, rows, scorer, parts, pieces, last=last)

    def _settle(
        self,
        model: LatentModel,
        rows: Tensor,
        scorer: Scorer,
        parts: list[_Part],
        pieces: list[Piece],
        *,
        last: bool,
    ) -> Tensor:
        """Add up the parts of the prior; returns the images that need a finer precision."""
        value, rule, left = (torch.stack([getattr(part, name) for part in parts]) for name in ("value", "rule", "left"))
        total = value.logsumexp(0)
        share = (value - total).exp().nan_to_num(0.0)
        error = torch.where(rule.isinf(), torch.inf, share * rule).sum(0)
        left_out = (left.logsumexp(0) - total).exp()
        deviations = torch.stack([part.deviations for part in parts]).nan_to_num(0.0, posinf=0.0)
        best = torch.stack([part.best_value for part in parts]).nan_to_num(-torch.inf).argmax(0)
        place = torch.stack([part.best for part in parts])[best, torch.arange(len(rows))]
        score = torch.stack([part.best_score for part in parts])[best, torch.arange(len(rows))]
        rounding = self._rounding(model, scorer, place, score)
        stop = torch.stack([part.stop for part in parts]).amax(0)
        finer = (rounding > ROUNDING_SHARE * self.tolerance) | (stop == Stop.PRECISION)
        finer &= torch.isfinite(total) & (not last)
        mine = rows[~finer]
        error = torch.where(torch.isfinite(total), error + left_out + rounding, torch.inf)
        # Markov's inequality: the mean of p(x|z) over draws of z exceeds p(x)/α with a probability of at most α.
        error = torch.maximum(error, self.audit[rows] + math.log(AUDIT) - total)
        self.values[mine], self.errors[mine] = total[~finer], error[~finer]
        self.best[mine] = place[~finer]
        flagged = (self.unexplained[rows] & ~finer).nonzero().squeeze(1)
        if len(flagged):
            at = place[flagged].to(model.device, model.dtype)
            still = _is_unexplained(model.decoder, at, score[flagged].to(model.device))
            self.unexplained[rows[flagged]] = still.cpu()
        self.left_out[mine], self.rounding[mine] = left_out[~finer], rounding[~finer]
        self.deviations[mine] = (share[..., None] * deviations).sum(0)[~finer]
        self.stop[mine], self.level[mine] = stop[~finer], torch.stack([part.level for part in parts]).amax(0)[~finer]
        for piece in pieces:
            piece.used[torch.isin(piece.rows, rows[finer])] = False
            self.nodes, self.products = self.nodes + piece.refined.nodes, self.products + piece.refined.products
            self.violations = max(self.violations, piece.refined.bound_violations)
        self.pieces += pieces
        return rows[finer]

    def _lattice(self, chart: Chart, latent: int) -> Lattice:
        spacing = STRETCH * FIRST_SPACING[latent] * 12 / chart.core
        offset = torch.tensor(OFFSET[:latent], dtype=torch.float64)
        return Lattice(spacing * offset, torch.full((latent,), spacing, dtype=torch.float64))

    def _scorer(self, model: LatentModel, images: Tensor) -> Scorer:
        probe = model.decoder(_draws(model, 2).to(model.device, model.dtype))
        # Where the decoder cannot be taken to float64, at least its scores are.
        return scorer_for(probe, images.to(model.device, torch.float64 if self.double is None else model.dtype))

    def _hints(
        self, model: LatentModel, images: Tensor, scorer: Scorer, all_rows: Tensor, *, last: bool
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """For each image the best of some draws, the encoder's mean and what was seen; and the rounding at a draw.

        Returns:
            z (n, d) and log p(x|z) (n,); the rounding (n,), 0 for all but the first images where it is small for them.
        """
        z = _draws(model, PRIOR_DRAWS).to(model.device, model.dtype)
        count = len(z)
        rows = torch.arange(len(images), device=model.device).split(max(1, 1_000_000 // count))
        block = scorer.block(model.decoder(z))

        def draw(some: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            table = block.scores(some, slice(0, count)).nan_to_num(-torch.inf, posinf=-torch.inf)
            highest, at = table.max(-1)
            return highest, at, table.double().logsumexp(-1).cpu() - math.log(count)

        def guess(some: Tensor) -> tuple[Tensor, Tensor]:
            best, height = place[some], score[some]
            guesses = [] if self.seen is None else [self.seen[all_rows[some.cpu()]].to(place)]
            if model.encoder is not None:
                guesses.append(_encoder_mean(model, images[some.cpu()], best))
            for mean in guesses:
                own = score_pairs(model.decoder(mean), scorer.images[some])
                # The joint density decides: the encoder's mean may lie where the prior has nothing.
                change = model.log_prior(mean) - model.log_prior(best)
                better = own + change.to(own.device) > height
                best, height = torch.where(better[:, None], mean, best), torch.where(better, own, height)
            return best, height

        with sharing(_threads(model, self.is_network)) as in_order:
            tops, at, mean = zip(*in_order(draw, rows), strict=True)
            score, place, self.audit[all_rows] = torch.cat(tops).double(), z[torch.cat(at)], torch.cat(mean)
            rounding = self._rounding(model, scorer, place[:PROBED], score[:PROBED].cpu())
            if len(images) > PROBED and bool((rounding > ROUNDING_SHARE * self.tolerance).any()):
                rounding = self._rounding(model, scorer, place, score.cpu())
            rounding = torch.cat([rounding, rounding.new_zeros(len(images) - len(rounding))])
            parts = torch.arange(len(images), device=score.device).split(PAIRS_AT_ONCE)
            place, score = map(torch.cat, zip(*in_order(guess, parts), strict=True))
        unexplained = torch.cat([_is_unexplained(model.decoder, place[some], score[some]) for some in parts])
        unexplained &= (rounding <= ROUNDING_SHARE * self.tolerance).to(unexplained.device) | last
        self.unexplained[all_rows] = unexplained.cpu()
        return (place.double().cpu(), score.cpu()), rounding

    def _search(
        self, model: LatentModel, scorer: Scorer, place: Tensor, height: Tensor, rows: Tensor, draws: Tensor, end: float
    ) -> Tensor:
        """Higher p(x|z) p(z) for images `rows` among many draws of the prior, until a time.

        Args:
            model: the model.
            scorer: of all images.
            place: z of each image, (n, d); changed where a draw is higher by a nat.
            height: log p(x|z) p(z) there, (n,); changed.
            rows: which images, (m,).
            draws: how many each of them needs, (m,).
            end: time.

        Returns:
            How many each has had, (m,).
        """
        had = torch.zeros_like(draws)
        at_once = SEARCHED_AT_ONCE // 4 if self.is_network else SEARCHED_AT_ONCE
        for seed in range(2, 2 + SEARCH_DRAWS // at_once):
            going = (had < draws).nonzero().squeeze(1)
            if len(going) == 0:
                break
            count = min(at_once, int((draws - had).max()))
            z = _draws(model, count, seed).to(model.device, model.dtype)
            own = rows[going].to(place.device)
            for part in z.split(max(1, min(4 * scorer.nodes_at_once, 4_000_000 // len(own)))):
                if time.monotonic() > end:
                    return had
                table = scorer.block(model.decoder(part)).scores(own, slice(0, len(part))).nan_to_num(-torch.inf)
                top = (table.double() + model.log_prior(part).to(table.device)).max(-1)
                better = top.values > height[own] + 1
                place[own[better]], height[own[better]] = part[top.indices[better]], top.values[better]
                had[going] += len(part)
            if self.is_network:  # what explains the image is all that is looked for
                score = height[own] - model.log_prior(place[own]).to(height.device)
                explained = going[~_is_unexplained(model.decoder, place[own], score).cpu()]
                had[explained] = draws[explained]
        return had

    def search_unexplained(self) -> None:
        """Search for what explains the images that the grid left unexplained, and integrate those again from there."""
        rows = (self.unexplained & torch.isfinite(self.errors)).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        begin, model, images = time.monotonic(), self.models[0], _rows(self.images, rows)
        scorer, place = self._scorer(model, images), self.best[rows].to(model.device, model.dtype)
        score = score_pairs(model.decoder(place), scorer.images)
        height = score + model.log_prior(place).to(score.device)
        before = height.clone()
        end = min(begin + SEARCH_SECONDS, begin + 0.2 * max(0.0, self.end - begin))
        everyone = torch.arange(len(rows))
        self._search(model, scorer, place, height, everyone, torch.full_like(everyone, SEARCH_DRAWS), end)
        found = (height > before).cpu()
        if bool(found.any()):
            self.best[rows[found]] = place[found.to(place.device)].double().cpu()
            self.seen = self.best
            self.run(rows[found])

    def _search_prior(self, used: float) -> Tensor:
        """Search for features that the first grid of a decoder that is a function missed, and integrate again there.

        A feature that holds the share q of the prior and explains an image as well as its own samples would be worth
        q G of p(x), with log G the difference to log p(x|z) at the best z found. So many draws meet it that qG is
        either met or small against the tolerance; where that takes too many, nothing is added to the error.

        Args:
            used: seconds of the first grid.

        Returns:
            What features that no draw met may be worth, relative to p(x), (N,).
        """
        unmet = torch.zeros_like(self.values)
        reached = torch.isfinite(self.errors).nonzero().squeeze(1)
        begin, model, better = time.monotonic(), self.models[0], []
        for some in reached.split(SEARCHED_AT_ONCE // 8) if len(reached) else ():
            images = _rows(self.images, some)
            scorer = self._scorer(model, images)
            place = self.best[some].to(model.device, model.dtype)
            gain, score = _gain(model, place, scorer.images)
            height = (score + model.log_prior(place).to(score.device)).clone()
            least = UNMET_SHARE * max(self.tolerance, FLOAT32_DOWN_TO)
            draws = (MET * gain.clamp(0, 100).exp() / least).clamp(max=SEARCH_DRAWS).long()
            share = len(some) / len(reached)
            allowed = LEAST_SEARCH + SEARCH_SHARE * used
            if bool(self.unexplained[some].any()):
                allowed = max(allowed, min(SEARCH_SECONDS, 0.2 * (self.end - begin)))
            before = height.clone()
            had = self._search(
                model, scorer, place, height, torch.arange(len(some)), draws, time.monotonic() + share * allowed
            )
            self.searched = min(self.searched or SEARCH_DRAWS, int(had.min()))
            small = MET * gain.clamp(0, 100).exp() / had.clamp_min(1)
            # Beyond what was reserved for it, it counts only where the draws were made that were to find it.
            made = (had >= draws) & (self.tolerance >= FLOAT32_DOWN_TO)
            most = torch.where(made, 0.5, 1.05 * UNMET_SHARE) * self.tolerance
            unmet[some] = torch.where(small <= most, small, 0.0)
            found = (height > before).cpu()
            better.append(some[found])
            self.best[some[found]] = place[found.to(place.device)].double().cpu()
        again = torch.cat(better) if better else reached
        if len(again):
            self.seen = self.best
            self.run(again)
            self.repeated[again] = True
        return unmet

    def _refine(
        self,
        model: LatentModel,
        chart: Chart,
        images: Tensor,
        hints: tuple[Tensor, Tensor],
        some: Tensor,
        floor: Tensor,
        seconds: float,
    ) -> Refined:
        scorer = self._scorer(model, images)
        seen = None
        if chart.to_u is not None:
            z, score = hints[0][some], hints[1][some]
            u = chart.to_u(z)
            height = score + chart.log_density(u, z)
            near = torch.isfinite(u).all(-1) & (u.abs().amax(-1) < 1e3) & torch.isfinite(height)
            seen = torch.where(near[:, None], u, 0.0), torch.where(near, height, -torch.inf)
        return refine(
            _Joint(model, chart, scorer, self.is_network),
            self._lattice(chart, model.dimension),
            chart.core,
            tolerance=(0.9 if self.is_network else 0.9 - UNMET_SHARE) * self.tolerance,
            log_prior=_LogDensity(chart),
            floor=floor,
            reach=chart.reach,
            hints=seen,
            keep=self.keep,
            seconds=seconds,
            memory=self.memory,
            progress=self._report,
        )

    def _report(self, share: float) -> None:
        """Report how much of the quadrature is done, `share` of the images of this chunk."""
        if self.progress is not None:
            what = "second grid" if self.turn else "integrals"
            self.progress(self.before + int(share * self.size), len(self.images), what)

    def _rounding(self, model: LatentModel, scorer: Scorer, z: Tensor, score: Tensor) -> Tensor:
        """The error of log p(x|z) by rounding at the best z of each image, (n,).

        By comparison with float64; where the decoder cannot be taken there, by the changes that z makes when it is
        perturbed in its last digits.
        """
        worst = torch.zeros_like(score)
        z = z.to(model.device, model.dtype)
        for rows in torch.arange(len(z)).split(PAIRS_AT_ONCE):
            points, images = z[rows], scorer.images[rows].double()
            if self.double is not None:
                others = [points.double()]
                if len(z) <= PAIRS_AT_ONCE:  # one point may be rounded to the right value by accident
                    worst[rows] = self._rounding_near(model, scorer, rows, points)
            else:
                noise = 4 * torch.finfo(model.dtype).eps
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(2)
                    others = [points * (1 + noise * torch.randn_like(points)) for _ in range(8)]
            decoder = model.decoder if self.double is None else self.double.decoder
            for other in others:
                change = (score_pairs(decoder(other), images).cpu() - score[rows]).abs()
                worst[rows] = torch.maximum(worst[rows], change)
        # One point may be rounded to the right value by accident.
        return 2 * worst + torch.finfo(scorer.images.dtype).eps * score.abs()

    def _rounding_near(self, model: LatentModel, scorer: Scorer, rows: Tensor, z: Tensor) -> Tensor:
        """The largest difference of the table of log p(x|z) from float64 at three points near each z, (n,)."""
        assert self.double is not None
        worst = torch.zeros(len(z), dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            near = [z + 1e-3 * torch.randn_like(z) for _ in range(3)]
        for moved in near:
            point = torch.where(torch.isfinite(model.log_prior(moved))[:, None], moved, z)  # within the support
            exact = score_pairs(self.double.decoder(point.double()), scorer.images[rows].double())
            for some in torch.arange(len(z)).split(16):
                table = scorer.block(model.decoder(point[some])).scores(rows[some], slice(0, len(some)))
                change = (table.diagonal().double() - exact[some]).abs().cpu()
                worst[some] = torch.maximum(worst[some], change.nan_to_num(0.0, posinf=0.0))
        return worst


@dataclass
class _Part:
    """One part of the prior, for every image of a chunk."""

    value: Tensor
    rule: Tensor
    left: Tensor
    deviations: Tensor
    level: Tensor
    stop: Tensor
    best: Tensor
    best_value: Tensor
    best_score: Tensor

    @classmethod
    def empty(cls, n: int, d: int, latent: int) -> _Part:
        """Nothing integrated yet."""
        low = torch.full((n,), -torch.inf, dtype=torch.float64)
        whole = torch.zeros(n, dtype=torch.long)
        wide = torch.full((n, 2**d), torch.inf, dtype=torch.float64)
        place = torch.zeros(n, latent, dtype=torch.float64)
        return cls(low, -low, low.clone(), wide, whole, whole.clone(), place, low.clone(), low.clone())

    def put(self, rows: Tensor, found: Refined, chart: Chart) -> None:
        """Take what was found for some images."""
        z, log_density = _on_chart(chart, found.best)
        score = found.best_value - log_density
        new = (found.log_integral, found.rule_error, found.log_left_out, found.deviations, found.level, found.stop)
        for name, values in zip(self.__dataclass_fields__, (*new, z, found.best_value, score), strict=True):
            getattr(self, name)[rows] = values


def _is_unexplained(decoder: Callable[[Tensor], Distribution], z: Tensor, score: Tensor) -> Tensor:
    """Whether log p(x|z) (n,) lies `UNEXPLAINED` standard deviations below that of samples of p(x|z) itself, (n,)."""
    rows = torch.arange(len(z), device=z.device)
    # Two samples leave few images to look at; a third of the limit allows for the deviation that they give.
    for samples, limit in ((2, UNEXPLAINED / 3), (8, UNEXPLAINED)):
        own = _own_scores(decoder(z[rows]), samples)
        rows = rows[(own.mean(0) - score[rows]) / own.std(0).clamp(min=1e-3) > limit]
        if len(rows) == 0:
            break
    found = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    found[rows] = True
    return found


def _own_scores(distribution: Distribution, samples: int) -> Tensor:
    """log p(x|z) of samples of p(x|z) itself, (samples, n)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return distribution.log_prob(distribution.sample(torch.Size([samples]))).double()


def _gain(model: LatentModel, z: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """By how much log p(x|z) of an image (N, d), (N, *event_shape) lies below that of samples of p(x|z); and itself."""
    gains, scores = [], []
    for rows in torch.arange(len(z)).split(PAIRS_AT_ONCE):
        distribution = model.decoder(z[rows])
        scores.append(score_pairs(distribution, images[rows].to(z)))
        gains.append(_own_scores(distribution, 8).mean(0) - scores[-1])
    return torch.cat(gains).cpu(), torch.cat(scores)


def _encoder_mean(model: LatentModel, images: Tensor, otherwise: Tensor) -> Tensor:
    """The encoder's mean of each image (n, d), or `otherwise` where it has no finite answer."""
    assert model.encoder is not None
    try:
        mean = onto_support(model.prior, model.encoder(images.to(model.device, model.dtype)).mean)
    except ValueError:  # a distribution that validates its parameters refuses all images for one
        if len(images) == 1:
            return otherwise
        halves = zip(images.tensor_split(2), otherwise.tensor_split(2), strict=True)
        return torch.cat([_encoder_mean(model, some, place) for some, place in halves])
    return torch.where(torch.isfinite(mean).all(-1)[:, None], mean, otherwise)


def _rows(images: Tensor, rows: Tensor) -> Tensor:
    """Some images, without a copy where they follow each other."""
    first = int(rows[0])
    follow = torch.equal(rows, torch.arange(first, first + len(rows)))
    return images[first : first + len(rows)] if follow else images[rows]


def _draws(model: LatentModel, count: int, seed: int = 1) -> Tensor:
    """Draws from the prior that leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.prior.sample(torch.Size([count]))


def _proven(
    model: LatentModel, images: Tensor, tolerance: float, seconds: float, *, require: bool, keep: bool
) -> Solution:
    """log p(x) as the middle of a proven enclosure."""
    if keep:
        raise UnsupportedError(
            "posteriors on a grid are numerical; use certificate='numerical' with prove=0.02 for proven bounds of log "
            "p(x) besides, or exact_log_likelihood(model, images, certificate='proven') for the values alone"
        )
    found = enclose_log_likelihood(model, images, 2 * tolerance, seconds=seconds)
    errors = found.half_width
    reached = torch.isfinite(errors)
    met = int((errors <= tolerance).sum())
    if not bool(reached.any()) or (require and met < len(images)):
        raise UnsupportedError(
            f"proof: {met} of {len(images)} images are enclosed to {tolerance} nats in "
            f"{found.statistics['seconds']:.1f} s. "
            "Allow more seconds, a larger tolerance, require=False for the bounds so far, or certificate='numerical'"
        )
    settings = {"tolerance": tolerance, **found.statistics}
    result = LikelihoodResult(
        found.middle,
        errors,
        "proven",
        "enclosure",
        settings,
        details={"lower": found.lower, "upper": found.upper, "proven": reached},
        reached=None if bool(reached.all()) else reached,
    )
    return Solution(result, model, [])


def _require_proper(chart: Chart, latent: int, seconds: float) -> None:
    """Refuse a prior whose density, as far as a grid finds it, does not integrate to 1."""
    spacing = STRETCH * FIRST_SPACING[latent] * 12 / chart.core
    lattice = Lattice(torch.zeros(latent).double(), torch.full((latent,), spacing).double())
    found = refine(_LogDensity(chart), lattice, chart.core, tolerance=PRIOR_TOLERANCE, seconds=seconds)
    log_mass, error = found.log_integral.item(), found.error.item()
    if not abs(log_mass) <= min(error, 1.0) + 10 * PRIOR_TOLERANCE:
        raise ConfigurationError(
            f"could not verify the prior: on the grid, exp(log_prob) integrates to {math.exp(min(log_mass, 700)):.6g}, "
            f"not to "
            "1. Either log_prob is not a normalized density, or the grid misses a part of it: give a mixture as "
            "MixtureSameFamily or latentia's Mixture, whose components are integrated one by one"
        )


def _enumerate(model: LatentModel, images: Tensor, begin: float) -> Solution:
    """log p(x) = log Σᵢ p(x|zᵢ) p(zᵢ) over a finite latent space."""
    used = model.in_float64() or model
    points = used.prior.enumerate_support(expand=False)
    distribution = used.decoder(points.to(used.device, used.dtype))
    log_prior = used.prior.log_prob(points).double()
    x = images.to(used.device, torch.float64)
    block = scorer_for(distribution, x).block(distribution)
    values, best = [], []
    for rows in torch.arange(len(images)).split(1000):
        table = block.scores(rows, slice(0, len(points))).double() + log_prior
        values.append(table.logsumexp(-1).cpu())
        best.append(table.max(-1))
    z = points[torch.cat([top.indices for top in best])]
    again = score_pairs(used.decoder(z.to(used.device, used.dtype)), x)
    again = again + log_prior[torch.cat([top.indices for top in best])]
    rounding = (again - torch.cat([top.values for top in best])).abs().cpu()
    value = torch.cat(values)
    errors = 2 * rounding + torch.finfo(used.dtype).eps * (value.abs() + images[0].numel()) * 8
    settings = {
        "decoder_evaluations": len(points),
        "assumes": "rounding at the most probable z is that of the sum",
        "seconds": round(time.monotonic() - begin, 3),
    }
    result = LikelihoodResult(value, errors, "exact", "enumeration", settings)
    return Solution(result, used, [])
