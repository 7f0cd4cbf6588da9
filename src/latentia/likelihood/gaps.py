r"""The inference gap of a bound, as an approximation gap of the family and an amortization gap of the encoder.

    inference gap = log p(x) − ELBO(q) = KL(q, p(z|x)) = approximation gap + amortization gap    (Cremer et al. 2018)

    approximation gap   log p(x) − max over q of the family of ELBO(q), for this image alone
    amortization gap    that maximum − ELBO of the encoder's q

ELBO(q) = E_q f + H(q), f = log p(x, z), by Gauss-Hermite quadrature in q's frame, where f is smooth.

The best Gaussian needs no gradient of the decoder. By Stein's identities (Opper and Archambeau 2009),

    E_q ∇f = Σ⁻¹ E_q[(z − m) f],      E_q ∇∇f = Σ⁻¹ E_q[((z − m)(z − m)ᵀ − Σ) f] Σ⁻¹,

so the nodes of the bound also give the natural-gradient step Σ⁻¹ ← (1 − ρ)Σ⁻¹ − ρ E ∇∇f, m ← m + ρ Σ E ∇f. A
step is kept only if it raises the image's bound, so the best q is never worse than where it started: the encoder's q,
or the Gaussian with the exact posterior's moments, whichever ends higher.
"""

from __future__ import annotations

__all__ = ["Gaps", "evaluate_gaps", "gaussian_bound"]

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from latentia.distributions import Conditional, Fixed, Full, Posterior
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood.latent_model import LatentModel, full_precision
from latentia.likelihood.posterior import GridPosterior, exact_posterior

ORDER = 8  # Gauss-Hermite nodes along each axis
DECODED_AT_ONCE = 20_000
ROUNDS = 40
SMALLEST_STEP = 1e-3
CONVERGED = 1e-4  # nats


@dataclass(frozen=True)
class Gaps:
    """The inference gap of each image and its two parts, in nats.

    Attributes:
        posterior: the exact posteriors of these images, and possibly of more after them. Images whose posterior is not
            `finished` have NaN for gaps.
        inference: KL(q, p(z|x)) of the encoder's q, (N,).
        approximation: KL of the best q of the family, (N,).
        amortization: the difference of the two, (N,).
        mean: of the best q, (N, d).
        covariance: of the best q, (N, d, d).
        quadrature: how far a Gauss-Hermite rule of lower order moves the encoder's bound, (N,).
    """

    posterior: GridPosterior
    inference: Tensor
    approximation: Tensor
    amortization: Tensor
    mean: Tensor
    covariance: Tensor
    quadrature: Tensor

    @property
    def finished(self) -> Tensor:
        """Rows of the images whose gaps are known."""
        return _finished(self.posterior, len(self.inference))

    def estimates(self) -> list[Estimate]:
        """Means over the images, with standard errors over the images; none where fewer than two were reached."""
        settings: dict[str, Any] = {"stderr_over": "images", "order": ORDER}
        # Only the encoder's bound is compared at two orders; the best q is at least as smooth.
        rows = self.finished
        if len(rows) < 2:
            return []
        if len(rows) < len(self.inference):
            settings["not_reached"] = len(self.inference) - len(rows)
        error = self.posterior.likelihood.errors[rows].mean().item() + self.quadrature[rows].mean().item()
        parts = {
            "inference_gap": self.inference,
            "approximation_gap": self.approximation,
            "amortization_gap": self.amortization,
        }
        means = [
            Estimate.mean(values[rows], name=name, method="quadrature", settings={**settings, "error": error})
            for name, values in parts.items()
        ]
        elbo = self.posterior.likelihood.values[: len(self.inference)] - self.inference
        bound = Estimate.mean(elbo[rows], name="elbo", kind="lower bound", method="quadrature", settings=settings)
        return [bound, *means]

    def arrays(self) -> dict[str, Any]:
        """What to write to an .npz file."""
        names = ("inference", "approximation", "amortization", "mean", "covariance", "quadrature")
        return {f"gap_{name}": getattr(self, name).numpy() for name in names}


def _finished(posterior: GridPosterior, count: int) -> Tensor:
    """Rows, among the first `count`, of the images whose posterior is known."""
    return posterior.finished[posterior.finished < count]


def evaluate_gaps(
    model: Any, images: Tensor, tolerance: float = 0.01, *, posterior: GridPosterior | None = None, **options: Any
) -> Gaps:
    """Split the inference gap of an encoder, for z of at most three dimensions and a Gaussian q.

    Args:
        model: a `VAE`, a run or a `LatentModel` with an encoder.
        images: (N, *event_shape).
        tolerance: of log p(x), in nats for each image.
        posterior: exact posteriors of these images, or of images that begin with them, if they are known already.
        **options: of `exact_posterior`, if they are not.

    Raises:
        UnsupportedError: no encoder, or a q that is not Gaussian; and what `exact_posterior` raises.
    """
    subject = LatentModel.from_model(model)
    if subject.encoder is None:
        raise UnsupportedError("gaps are those of an encoder, and this model has none")
    if posterior is None:
        posterior = exact_posterior(model, images, tolerance, **options)
    structure = _structure(subject)
    with full_precision():
        used = subject
        mean, covariance = _moments(used.encoder(images.to(used.device, used.dtype)))  # pyright: ignore
        if structure == "diagonal" and not torch.equal(covariance, torch.diag_embed(covariance.diagonal(0, -2, -1))):
            structure = "full"
        bound = gaussian_bound(used, images, mean, covariance)[0]
        lower = gaussian_bound(used, images, mean, covariance, order=ORDER - 2)[0]
        own = _best(used, images, mean, covariance, structure)
        other = own
        rows = _finished(posterior, len(images))
        if len(rows):
            matched = _match(posterior.covariance[rows], covariance[rows], structure)
            found = _best(used, images[rows], posterior.mean[rows], matched, structure)
            other = tuple(start.index_copy(0, rows, part) for start, part in zip(own, found, strict=True))
    better = other[0] > own[0]
    best = torch.where(better, other[0], own[0])
    values = torch.full_like(best, torch.nan)
    values[rows] = posterior.likelihood.values[rows]
    return Gaps(
        posterior,
        values - bound,
        values - best,
        best - bound,
        torch.where(better[:, None], other[1], own[1]),
        torch.where(better[:, None, None], other[2], own[2]),
        (bound - lower).abs(),
    )


def gaussian_bound(
    model: LatentModel, images: Tensor, mean: Tensor, covariance: Tensor, order: int = ORDER
) -> tuple[Tensor, Tensor, Tensor]:
    """ELBO of Gaussians, one for each image, and the expected gradient and curvature of f = log p(x, z).

    Args:
        model: whose joint it is.
        images: (N, *event_shape).
        mean: (N, d), float64.
        covariance: (N, d, d), float64.
        order: Gauss-Hermite nodes along each axis.

    Returns:
        ELBO (N,), E_q ∇f (N, d), E_q ∇∇f (N, d, d), all float64.
    """
    n, d = mean.shape
    unit, weight = _hermite(order, d)  # (M, d), (M,)
    factor = torch.linalg.cholesky(covariance)
    step = max(1, DECODED_AT_ONCE // len(unit))
    bounds, gradients, curvatures = [], [], []
    for rows in torch.arange(n).split(step):
        offset = torch.einsum("nij,mj->mni", factor[rows], unit)
        z = mean[rows] + offset  # (M, n, d)
        x = images[rows].to(model.device, model.dtype)
        flat = z.flatten(0, 1).to(model.device, model.dtype)
        score = model.decoder(flat).log_prob(x.repeat(len(unit), *[1] * (x.dim() - 1))).double()
        f = (score + model.log_prior(flat)).cpu().view(len(unit), -1)
        expected = weight @ f
        centered = f - expected
        inverse = torch.linalg.inv(factor[rows])  # L⁻¹, so that Σ⁻¹ (z − m) = L⁻ᵀ u
        first = torch.einsum("m,mn,mj->nj", weight, centered, unit)
        second = torch.einsum("m,mn,mj,mk->njk", weight, centered, unit, unit)
        entropy = factor[rows].diagonal(0, -2, -1).log().sum(-1) + 0.5 * d * (1 + math.log(2 * math.pi))
        bounds.append(expected + entropy)
        gradients.append(torch.einsum("nji,nj->ni", inverse, first))
        curvatures.append(torch.einsum("nji,njk,nkl->nil", inverse, second, inverse))
    return torch.cat(bounds), torch.cat(gradients), torch.cat(curvatures)


def _structure(model: LatentModel) -> str:
    """The covariances of the family: `fixed`, `diagonal` or `full`."""
    family: Posterior | None = None
    conditional = getattr(model.source, "posterior", None)
    if isinstance(conditional, Conditional) and isinstance(conditional.family, Posterior):
        family = conditional.family
    if isinstance(family, Fixed):
        return "fixed"
    return "full" if isinstance(family, Full) else "diagonal"


def _moments(q: Distribution) -> tuple[Tensor, Tensor]:
    if isinstance(q, MultivariateNormal):
        return q.mean.double().cpu(), q.covariance_matrix.double().cpu()
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q.mean.double().cpu(), torch.diag_embed(q.variance.double()).cpu()
    raise UnsupportedError(
        f"the best q of a family is found for Gaussian families, and this encoder gives {type(q).__name__}; "
        "its inference gap is log p(x) − ELBO (exact_log_likelihood, evaluate_bound)"
    )


def _match(exact: Tensor, covariance: Tensor, structure: str) -> Tensor:
    """A starting covariance of the right structure with the exact posterior's precisions."""
    if structure == "fixed":
        return covariance
    if structure == "full":
        return exact
    return torch.diag_embed(1 / torch.linalg.inv(exact).diagonal(0, -2, -1))


def _best(
    model: LatentModel, images: Tensor, mean: Tensor, covariance: Tensor, structure: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximize each image's bound from a start: ELBO (N,), mean, covariance of the best."""
    d = mean.shape[-1]
    bound, gradient, curvature = gaussian_bound(model, images, mean, covariance)
    bound, mean, covariance = bound.clone(), mean.clone(), covariance.clone()
    step = torch.ones(len(mean), dtype=torch.float64)
    going = torch.arange(len(mean))
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
        new_bound, new_gradient, new_curvature = gaussian_bound(model, images[going], new_mean, new_covariance)
        gain = (new_bound - bound[going]).nan_to_num(-torch.inf)
        better = gain > 0
        up = going[better]
        bound[up], mean[up], covariance[up] = new_bound[better], new_mean[better], new_covariance[better]
        gradient[up], curvature[up] = new_gradient[better], new_curvature[better]
        step[going] = torch.where(better, (1.5 * step[going]).clamp(max=1.0), 0.3 * step[going])
        finished = (better & (gain < CONVERGED)) | (step[going] < SMALLEST_STEP)
        going = going[~finished]
    return bound, mean, covariance


def _hermite(order: int, d: int) -> tuple[Tensor, Tensor]:
    """Nodes (M, d) and weights (M,) for expectations under N(0, I)."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(order))
    weights = weights / weights.sum()
    grid = torch.cartesian_prod(*[nodes] * d).reshape(-1, d)
    return grid, torch.cartesian_prod(*[weights] * d).reshape(-1, d).prod(-1)
