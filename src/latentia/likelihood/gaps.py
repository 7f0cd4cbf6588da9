r"""The inference gap of an encoder, as an approximation gap of its family and an amortization gap of the encoder.

    inference gap = log p(x) − ELBO(q) = KL(q, p(z|x)) = approximation gap + amortization gap    (Cremer et al. 2018)

    approximation gap   log p(x) − max over q of the family of ELBO(q), for this image alone
    amortization gap    that maximum − ELBO of the encoder's q

ELBO(q) = E_q f + H(q), f = log p(x, z), by two rules of different nodes in q's frame, whose difference is the error:
Gauss-Hermite rules at first, and trapezoidal rules of ever smaller spacings for the images on which those differ.

The best Gaussian needs no gradient of the decoder. By Stein's identities (Opper and Archambeau 2009),

    E_q ∇f = Σ⁻¹ E_q[(z − m) f],      E_q ∇∇f = Σ⁻¹ E_q[((z − m)(z − m)ᵀ − Σ) f] Σ⁻¹,

so the nodes of the bound also give the natural-gradient step Σ⁻¹ ← (1 − ρ)Σ⁻¹ − ρ E ∇∇f, m ← m + ρ Σ E ∇f. A step is
kept only if it raises the image's bound. The search starts from the encoder's q, from the posterior's moments and, for
a posterior of several modes, from those of its largest basins of attraction and of neighboring pairs. It is not
exhaustive: the approximation gap is an upper bound, and the amortization gap a lower bound.

Other families of q are searched by draws: `latentia.likelihood.family_search`.
"""

from __future__ import annotations

__all__ = ["Gaps", "evaluate_gaps", "gaussian_elbo"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from latentia.distributions import Conditional, Fixed, Full, Posterior
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood.family_search import EVALUATED, search_family
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.posterior import GridPosterior, Slice, exact_posterior
from latentia.objectives.score_table import score_pairs

ORDERS = (10, 7)  # of the two Gauss-Hermite rules
SPACING, TWIN, RADIUS = (
    0.7,
    0.7731,
    {1: 7.5, 2: 6.2, 3: 5.7},
)  # of the trapezoidal rules; the second spacing is that of the first times TWIN
LEVELS = {1: (2, 14), 2: (0, 5), 3: (0, 3)}  # rules, each with half the spacing of the one before: the first, the end
TAIL = 1e-5  # what the rules may miss of f beyond their nodes, in units of its deviation
SEARCHED = {1: (4, 12), 2: (0, 3), 3: (0, 2)}  # levels that the search begins and ends with
RULE_TOLERANCE, RELATIVE = {1: 3e-4, 2: 0.005, 3: 0.01}, {1: 1e-4, 2: 1e-3, 3: 1e-3}  # nats, and of f's deviation
SEARCH_AGAIN = 0.05  # nats between the rule of the search and a finer one
DECODED_AT_ONCE = 20_000
ROUNDS, SMALLEST_STEP, CONVERGED = 60, 1e-3, 1e-5  # of the search; the last in nats
BASINS, LEAST_BASIN = 6, 0.01  # starts in a posterior of several modes, and the mass that makes one worth it
SEARCHED_AT_ONCE = 50  # images, whose number done is reported
DEPTH = 8.0  # nats below the peak, to which basins are followed
GAPS = ("inference", "approximation", "amortization")


@dataclass(frozen=True)
class Gaps:
    """The inference gap of each image and its two parts, in nats.

    Attributes:
        posterior: the exact posteriors of these images, and possibly of more after them.
        inference: KL(q, p(z|x)) of the encoder's q, (N,). NaN where the posterior is not `finished` or q is not finite.
        approximation: KL of the best q of the family that was found, (N,).
        amortization: the difference of the two, (N,), at least 0 but for the noise of draws.
        errors: numerical errors of the three by name, (N,) each; with `draws` they include standard errors over draws.
        mean: of the best q, (N, d).
        covariance: of the best q, (N, d, d).
        best: gives the best q of one image, with batch shape () or (1,).
        draws: of each bound, where q is not Gaussian; 0 for a quadrature.
    """

    posterior: GridPosterior
    inference: Tensor
    approximation: Tensor
    amortization: Tensor
    errors: Mapping[str, Tensor]
    mean: Tensor
    covariance: Tensor
    best: Callable[[int], Distribution]
    draws: int = 0

    @property
    def finished(self) -> Tensor:
        """Rows of the images whose gaps are known."""
        return (~torch.isnan(self.inference)).nonzero().squeeze(1)

    def estimates(self) -> list[Estimate]:
        """Means over the images, with standard errors over the images; none for fewer than two images."""
        rows = self.finished
        if len(rows) < 2:
            return []
        settings: dict[str, Any] = {"stderr_over": "images"}
        if self.draws:
            settings |= {"draws": self.draws, "draws_by": "search of the family"}
        if len(rows) < len(self.inference):
            settings["not_reached"] = len(self.inference) - len(rows)
        elbo = self.posterior.likelihood.values[: len(self.inference)] - self.inference
        # A divergence is at least 0, and the quadrature's errors may leave one a little below.
        bound_of_approximation = self.approximation if self.draws else self.approximation.clamp_min(0.0)
        parts = (
            ("elbo", "lower bound", elbo, "inference"),
            ("inference_gap", "estimate" if self.draws else "numerical", self.inference, "inference"),
            ("approximation_gap", "upper bound", bound_of_approximation, "approximation"),
            ("amortization_gap", "lower bound", self.amortization, "amortization"),
        )
        return [
            Estimate.mean(
                values[rows],
                name=name,
                kind=kind,
                method="quadrature and draws" if self.draws else "quadrature",
                settings=settings | {"error": self.errors[error][rows].mean().item()},
            )
            for name, kind, values, error in parts
        ]

    def arrays(self) -> dict[str, Any]:
        """What to write to an .npz file."""
        arrays = {f"gap_{name}": getattr(self, name).numpy() for name in (*GAPS, "mean", "covariance")}
        return arrays | {f"gap_{name}_error": error.numpy() for name, error in self.errors.items()}


def evaluate_gaps(
    model: Any,
    images: Tensor,
    tolerance: float = 0.01,
    *,
    posterior: GridPosterior | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> Gaps:
    """Split the inference gap of an encoder, for z of at most three dimensions.

    Args:
        model: a `VAE`, a run or a `LatentModel` with an encoder.
        images: (N, *event_shape).
        tolerance: of log p(x), in nats for each image.
        posterior: exact posteriors of these images, or of images that begin with them, if they are known already.
        progress: is called with the number of images done, of all images, and what is being done.
        **options: of `exact_posterior`, if they are not.

    Raises:
        UnsupportedError: no encoder, or a q that is neither Gaussian nor of a family that can be searched; and what
            `exact_posterior` raises.
    """
    subject = LatentModel.from_model(model)
    if subject.encoder is None:
        raise UnsupportedError("gaps are those of an encoder, and this model has none")
    with subject.evaluating():
        moments = _encoded(subject.encoder, images.to(subject.device, subject.dtype))
    if posterior is None:
        posterior = exact_posterior(model, images, tolerance, **options)
    used = posterior.model if posterior.likelihood.settings["precision"] == "float64" else subject
    if moments is None:
        return _gaps_by_draws(used, images, posterior)
    mean, covariance = moments
    structure = _structure(subject, covariance)
    finite = torch.isfinite(mean).all(-1) & torch.isfinite(torch.linalg.cholesky_ex(covariance).L).all((-1, -2))
    rows = posterior.finished[posterior.finished < len(images)]
    rows = rows[finite[rows]]
    gaps, errors, best_mean, best_covariance = _unknown(len(mean), mean.shape[1])
    for number, some in enumerate(rows.split(SEARCHED_AT_ONCE)):
        if progress is not None:
            progress(number * SEARCHED_AT_ONCE, len(rows), "inference gaps")
        with subject.evaluating(), used.evaluating():
            bound, rule = gaussian_elbo(used, images[some], mean[some], covariance[some])
            best, best_rule, best_mean[some], best_covariance[some] = _search(
                used, images[some], mean[some], covariance[some], bound, rule, posterior, some, structure
            )
        values, error = posterior.likelihood.values[some], posterior.likelihood.errors[some]
        gaps[:, some] = torch.stack([values - bound, values - best, best - bound])
        errors[:, some] = torch.stack([error + rule, error + best_rule + CONVERGED, rule + best_rule])

    def normal(row: int) -> Distribution:
        return MultivariateNormal(best_mean[row], best_covariance[row])

    parts = dict(zip(GAPS, gaps, strict=True))
    by_name: dict[str, Tensor] = dict(zip(GAPS, errors, strict=True))
    return Gaps(posterior, **parts, errors=by_name, mean=best_mean, covariance=best_covariance, best=normal)


def _gaps_by_draws(model: LatentModel, images: Tensor, posterior: GridPosterior) -> Gaps:
    """The gaps of an encoder whose q is not Gaussian."""
    rows = posterior.finished[posterior.finished < len(images)]
    if not len(rows):
        raise UnsupportedError("no image has an exact posterior, so that no gap is known; allow more seconds")
    with model.evaluating():
        found = search_family(model, images, posterior, rows)
    gaps, errors, mean, covariance = _unknown(len(images), found.mean.shape[1])
    values, error = posterior.likelihood.values[rows], posterior.likelihood.errors[rows]
    gaps[:, rows] = torch.stack([values - found.bound, values - found.best, found.best - found.bound])
    both = (found.bound_error.square() + found.best_error.square()).sqrt()
    errors[:, rows] = torch.stack([error + found.bound_error, error + found.best_error, both])
    mean[rows], covariance[rows] = found.mean, found.covariance
    place = {row: number for number, row in enumerate(rows.tolist())}
    parts = dict(zip(GAPS, gaps, strict=True))
    by_name: dict[str, Tensor] = dict(zip(GAPS, errors, strict=True))
    best: Callable[[int], Distribution] = lambda row: found.distribution(place[row])  # noqa: E731
    return Gaps(posterior, **parts, errors=by_name, mean=mean, covariance=covariance, best=best, draws=EVALUATED)


def _unknown(n: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaps (3, n), their errors (3, n), means (n, d) and covariances (n, d, d), all NaN."""
    double = torch.float64
    gaps, errors = (torch.full((3, n), torch.nan, dtype=double) for _ in range(2))
    return (
        gaps,
        errors,
        torch.full((n, d), torch.nan, dtype=double),
        torch.full((n, d, d), torch.nan, dtype=double),
    )


def gaussian_elbo(
    model: LatentModel, images: Tensor, mean: Tensor, covariance: Tensor, tolerance: float | None = None
) -> tuple[Tensor, Tensor]:
    """ELBO of one Gaussian q for each image, and its numerical error, in nats.

    Args:
        model: whose joint density it is.
        images: (N, *event_shape).
        mean: (N, d), float64.
        covariance: (N, d, d), float64.
        tolerance: finer rules are tried until the error is this small; 0.0003 to 0.01 by default, by the dimension.

    Returns:
        ELBO (N,) and error (N,), float64.
    """
    value, error, _ = _elbo(model, images, mean, covariance, tolerance or RULE_TOLERANCE[mean.shape[1]])
    return value, error


class _Expected(NamedTuple):
    """Of each image: ELBO (N,), E_q ∇f (N, d), E_q ∇∇f (N, d, d), a bound of the rounding in E_q f and the standard
    deviation of f under q, (N,) each."""

    bound: Tensor
    gradient: Tensor
    curvature: Tensor
    rounding: Tensor
    spread: Tensor


def _elbo(
    model: LatentModel, images: Tensor, mean: Tensor, covariance: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `gaussian_elbo` returns, and the level of the rule that it took, (N,)."""
    n, d = mean.shape
    value, error = torch.full((n,), torch.nan).double(), torch.full((n,), torch.inf).double()
    level = torch.zeros(n, dtype=torch.long)
    going = torch.arange(n)
    first, last = LEVELS[d]
    for now in range(first, last):
        some = images[going], mean[going], covariance[going]
        expected, twin = (_expect(model, *some, _rule(d, now, twin)) for twin in (False, True))
        fine, rough = expected.bound, twin.bound
        change = (fine - value[going]).abs()
        apart = torch.where(fine == rough, 0.0, (fine - rough).abs())  # both may be −∞
        # Two rules may agree by accident; of second order, at a kink, the error is a third of the change from the last.
        found = torch.maximum((5 if now == first else 2) * apart, torch.where(torch.isfinite(change), change, 0.0) / 2)
        found += TAIL * expected.spread
        value[going], error[going], level[going] = fine, found + expected.rounding, now
        going = going[
            (found > torch.maximum(RELATIVE[d] * expected.spread, torch.tensor(tolerance))) | torch.isnan(found)
        ]
        if len(going) == 0:
            break
    return value, error.nan_to_num(torch.inf), level


def _expect(
    model: LatentModel, images: Tensor, mean: Tensor, covariance: Tensor, rule: tuple[Tensor, Tensor]
) -> _Expected:
    """Expectations of f under each q by one rule of nodes (M, d) and weights (M,)."""
    unit, weight = rule
    d = mean.shape[1]
    factor = torch.linalg.cholesky(covariance)
    images = images.to(model.device, model.dtype)
    parts = []
    for rows in torch.arange(len(mean)).split(max(1, DECODED_AT_ONCE // len(unit))):
        z = mean[rows] + torch.einsum("nij,mj->mni", factor[rows], unit)  # (M, n, d)
        f = torch.cat([_log_joint(model, images[rows], some) for some in z.split(max(1, DECODED_AT_ONCE // len(rows)))])
        expected = weight @ f
        centered = (f - expected).nan_to_num(0.0, neginf=0.0)
        inverse = torch.linalg.inv(factor[rows])  # L⁻¹, so that Σ⁻¹ (z − m) = L⁻ᵀ u
        first = torch.einsum("m,mn,mj->nj", weight, centered, unit)
        second = torch.einsum("m,mn,mj,mk->njk", weight, centered, unit, unit)
        entropy = factor[rows].diagonal(0, -2, -1).log().sum(-1) + 0.5 * d * (1 + math.log(2 * math.pi))
        rounding = 4 * torch.finfo(model.dtype).eps * (weight @ f.abs()).nan_to_num(0.0, posinf=0.0)
        spread = (weight @ centered.square()).sqrt()
        gradient = torch.einsum("nji,nj->ni", inverse, first)
        curvature = torch.einsum("nji,njk,nkl->nil", inverse, second, inverse)
        parts.append((expected + entropy, gradient, curvature, rounding, spread))
    return _Expected(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _log_joint(model: LatentModel, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) for z (M, n, d) and images (n, …): (M, n), float64, on the CPU."""
    flat = z.flatten(0, 1).to(model.device, model.dtype)
    score = score_pairs(model.decoder(flat), x.repeat(len(z), *[1] * (x.dim() - 1)))
    return (score + model.log_prior(flat)).cpu().view(len(z), -1)


@lru_cache(maxsize=64)
def _rule(d: int, level: int, twin: bool) -> tuple[Tensor, Tensor]:
    """Nodes (M, d) and weights (M,) for expectations under N(0, I).

    Level 0 is a product of Gauss-Hermite rules; the others are trapezoidal rules, in a ball and off the center, so that
    no period of f is common to both rules of a level.
    """
    if level == 0:
        nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(ORDERS[twin]))
        grid = torch.cartesian_prod(*[nodes] * d).reshape(-1, d)
        weight = torch.cartesian_prod(*[weights] * d).reshape(-1, d).prod(-1)
        return grid, weight / weight.sum()
    spacing = SPACING * 2.0 ** (1 - level) * (TWIN if twin else 1.0)
    count = math.ceil(RADIUS[d] / spacing)
    axis = (torch.arange(-count, count + 1, dtype=torch.float64) + (0.31 if twin else 0.0)) * spacing
    grid = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    grid = grid[grid.square().sum(-1) <= RADIUS[d] ** 2]
    return grid, (-0.5 * grid.square().sum(-1)).softmax(0)


def _search(
    model: LatentModel,
    images: Tensor,
    mean: Tensor,
    covariance: Tensor,
    bound: Tensor,
    rule: Tensor,
    posterior: GridPosterior,
    rows: Tensor,
    structure: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best q of each image: ELBO (N,), its error (N,), mean, covariance; no worse than the encoder's."""
    n, d = mean.shape
    owner, means, covariances = _starts(mean, covariance, posterior, rows, structure)
    value = torch.full((len(owner),), -torch.inf, dtype=torch.float64)
    found_mean, found_covariance = means.clone(), covariances.clone()
    level, last = torch.full((len(owner),), SEARCHED[d][0]), SEARCHED[d][1]
    while bool((level <= last).any()):
        now = int(level.min())
        some = (level == now).nonzero().squeeze(1)
        climbed, m, c = _climb(model, images[owner[some]], means[some], covariances[some], structure, now)
        checked, _, needed = _elbo(model, images[owner[some]], m, c, 10 * RULE_TOLERANCE[d])
        up = checked > value[some]
        value[some[up]], found_mean[some[up]], found_covariance[some[up]] = checked[up], m[up], c[up]
        # Where the rule was too coarse for what it led to, search again with one that was not.
        coarse = (climbed - checked).abs() > SEARCH_AGAIN
        level[some] = torch.where(coarse, needed.clamp_min(now + 1), last + 1)
    top = torch.full((n,), -torch.inf, dtype=torch.float64).scatter_reduce(0, owner, value, "amax")
    first = torch.full((n,), len(owner)).scatter_reduce(
        0, owner, torch.where(value == top[owner], torch.arange(len(owner)), len(owner)), "amin"
    )
    m, c = found_mean[first], found_covariance[first]
    best, error = gaussian_elbo(model, images, m, c)
    up = best > bound
    return (
        torch.where(up, best, bound),
        torch.where(up, error, rule),
        torch.where(up[:, None], m, mean),
        torch.where(up[:, None, None], c, covariance),
    )


def _starts(
    mean: Tensor, covariance: Tensor, posterior: GridPosterior, rows: Tensor, structure: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Starts of the search: the image of each (S,), in order, mean (S, d) and covariance (S, d, d)."""
    owner, means, covariances = [], [], []
    for i, row in enumerate(rows.tolist()):
        basins = _basins(posterior[row])
        matched = [(posterior.mean[row], posterior.covariance[row]), *(basins if len(basins) > 1 else [])]
        own = covariance[i : i + 1]
        starts = [(mean[i], own[0]), *((m, _match(c[None], own, structure)[0]) for m, c in matched)]
        owner += [i] * len(starts)
        means += [m for m, _ in starts]
        covariances += [c for _, c in starts]
    return torch.tensor(owner), torch.stack(means), torch.stack(covariances)


def _basins(part: Slice) -> list[tuple[Tensor, Tensor]]:
    """Mean and covariance of the largest basins of attraction of a posterior's modes, and of neighboring pairs."""
    high = part.log_density > part.log_density.max() - DEPTH
    z, height, mass = part.z[high], part.log_density[high], part.mass[high]
    near = torch.from_numpy(KDTree(z.numpy()).query(z.numpy(), k=min(3 ** z.shape[1], len(z)))[1].reshape(len(z), -1))
    up = near.gather(1, height[near].argmax(1, keepdim=True)).squeeze(1)
    while not torch.equal(up, up[up]):
        up = up[up]
    tops, label = up.unique(return_inverse=True)
    share = torch.zeros(len(tops)).double().index_add(0, label, mass) / mass.sum()
    large = (share > LEAST_BASIN).nonzero().squeeze(1)
    largest = large[share[large].argsort(descending=True)[:BASINS]]
    apart = torch.cdist(z[tops[largest]], z[tops[large]])
    groups = {(basin,) for basin in largest.tolist()}
    if len(large) > 2:  # of two basins the pair is the whole
        closest = large[apart.topk(2, largest=False).indices[:, 1]]
        groups |= {tuple(sorted(pair)) for pair in zip(largest.tolist(), closest.tolist(), strict=True)}
    found = []
    for group in sorted(groups):
        weight = torch.where(torch.isin(label, torch.tensor(group)), mass, 0.0)
        weight = weight / weight.sum()
        middle = weight @ z
        spread = torch.einsum("m,mi,mj->ij", weight, z - middle, z - middle)
        if torch.linalg.eigvalsh(spread)[0] > 1e-12 * spread.trace():  # more than one node in every direction
            found.append((middle, spread))
    return found


def _climb(
    model: LatentModel, images: Tensor, mean: Tensor, covariance: Tensor, structure: str, level: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximize each image's bound by one rule, from a start: ELBO (N,), mean, covariance of the best."""
    d = mean.shape[-1]
    rule = _rule(d, level, False)
    bound, gradient, curvature, *_ = _expect(model, images, mean, covariance, rule)
    bound, mean, covariance = bound.clone(), mean.clone(), covariance.clone()
    step = torch.ones(len(mean), dtype=torch.float64)
    going = torch.isfinite(bound).nonzero().squeeze(1)
    identity = torch.eye(d, dtype=torch.float64)
    for _ in range(ROUNDS):
        if len(going) == 0:
            break
        rho = step[going, None, None]
        if structure == "fixed":
            precision = torch.linalg.inv(covariance[going])
            new_covariance = covariance[going]
            move = -torch.linalg.inv(curvature[going] - precision) @ gradient[going, :, None]
            new_mean = mean[going] + step[going, None] * move.squeeze(-1)
        else:
            wanted = -curvature[going] if structure == "full" else -curvature[going] * identity
            precision = (1 - rho) * torch.linalg.inv(covariance[going]) + rho * wanted
            eigenvalues, vectors = torch.linalg.eigh(precision)
            # A precision that is not positive gives no step: try the largest eigenvalue, which may be refused.
            eigenvalues = torch.where(eigenvalues > 1e-6, eigenvalues, eigenvalues[:, -1:].clamp_min(1.0))
            new_covariance = vectors @ torch.diag_embed(1 / eigenvalues) @ vectors.mT
            new_mean = mean[going] + step[going, None] * (new_covariance @ gradient[going, :, None]).squeeze(-1)
        new_bound, new_gradient, new_curvature, *_ = _expect(model, images[going], new_mean, new_covariance, rule)
        gain = (new_bound - bound[going]).nan_to_num(-torch.inf)
        better = gain > 0
        up = going[better]
        bound[up], mean[up], covariance[up] = new_bound[better], new_mean[better], new_covariance[better]
        gradient[up], curvature[up] = new_gradient[better], new_curvature[better]
        step[going] = torch.where(better, (1.5 * step[going]).clamp(max=1.0), 0.3 * step[going])
        finished = (better & (gain < CONVERGED)) | (step[going] < SMALLEST_STEP)
        going = going[~finished]
    return bound, mean, covariance


def _structure(model: LatentModel, covariance: Tensor) -> str:
    """The covariances of the family: `fixed`, `diagonal` or `full`."""
    conditional = getattr(model.source, "posterior", None)
    family: Posterior | None = None
    if isinstance(conditional, Conditional) and isinstance(conditional.family, Posterior):
        family = conditional.family
    if isinstance(family, Fixed):
        return "fixed"
    diagonal = torch.equal(covariance, torch.diag_embed(covariance.diagonal(0, -2, -1)))
    return "diagonal" if diagonal and not isinstance(family, Full) else "full"


def _encoded(encoder: Callable[[Tensor], Distribution], x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean (N, d) and covariance (N, d, d) of q for each image, NaN where it is not a distribution; None if q is not
    Gaussian."""
    try:
        return _moments(encoder(x))
    except ValueError as error:  # torch's check of the parameters, of all images together
        if "Expected parameter" not in str(error):
            raise
        if len(x) > 1:
            parts = [part for part in (_encoded(encoder, one) for one in x.split(1)) if part is not None]
            if len(parts) < len(x):
                return None
            d = max(len(mean[0]) for mean, _ in parts)
            means, covariances = zip(*parts, strict=True)
            return torch.cat([m.expand(1, d) for m in means]), torch.cat([c.expand(1, d, d) for c in covariances])
        return torch.full((1, 1), torch.nan).double(), torch.full((1, 1, 1), torch.nan).double()


def has_gaussian_encoder(model: LatentModel, images: Tensor) -> bool:
    """Whether the encoder's q is Gaussian, for which gaps come from quadrature."""
    assert model.encoder is not None
    return _encoded(model.encoder, images.to(model.device, model.dtype)) is not None


def _moments(q: Distribution) -> tuple[Tensor, Tensor] | None:
    if isinstance(q, MultivariateNormal):
        return q.mean.double().cpu(), q.covariance_matrix.double().cpu()
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q.mean.double().cpu(), torch.diag_embed(q.variance.double()).cpu()
    return None


def _match(exact: Tensor, covariance: Tensor, structure: str) -> Tensor:
    """A starting covariance of the right structure with the exact posterior's precisions."""
    if structure == "fixed":
        return covariance
    if structure == "full":
        return exact
    return torch.diag_embed(1 / torch.linalg.inv(exact).diagonal(0, -2, -1))
