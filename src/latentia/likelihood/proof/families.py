"""Which likelihoods and priors can be bounded, by their exact type: a subclass may mean something else."""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform

from latentia.distributions import (
    Bernoulli,
    Conditional,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerColumn,
    GaussianPerPixel,
    Poisson,
)
from latentia.distributions.standardization import StandardizedConditional
from latentia.errors import UnsupportedError
from latentia.likelihood.proof.likelihoods import (
    BernoulliLikelihoods,
    Likelihoods,
    NormalLikelihoods,
    PoissonLikelihoods,
)
from latentia.likelihood.proof.per_pixel import PerPixelLikelihoods
from latentia.likelihood.proof.priors import Box, Normals, normals_of
from latentia.likelihood.proof.product_priors import SERVED as PRODUCTS
from latentia.likelihood.proof.product_priors import Product, product_of

SERVED = "bernoulli, poisson, gaussian, gaussian-learned, gaussian-per-column or gaussian-per-pixel"
INSTEAD = "the numerical quadrature (exact_log_likelihood without prove)"


def likelihoods_of(conditional: Conditional, images: Tensor, seen: Tensor | None = None) -> Likelihoods:
    """Bounds of log p(x|z) for some images.

    Args:
        conditional: the decoder.
        images: (N, *event_shape).
        seen: which values are not missing, the same ones in all images, (D,); None for all.

    Raises:
        UnsupportedError: for a likelihood without a bound.
    """
    images, every = images.detach().double().flatten(1).cpu(), images[0].numel()
    seen = torch.ones(every, dtype=torch.bool) if seen is None else seen
    images = images[:, seen]
    kind, shared, scaling = conditional.family, conditional.shared, None
    if isinstance(conditional, StandardizedConditional):
        scaling = conditional.standardization
        if scaling is not None and type(kind) is not GaussianPerColumn:
            raise UnsupportedError(
                f"no proven bound is known for the likelihood {type(kind).__name__} of standardized values; set "
                f"data.standardize=false, use likelihood=gaussian-per-column, or {INSTEAD}"
            )
    if type(kind) is Bernoulli:
        return BernoulliLikelihoods(images)
    if type(kind) is Poisson:
        return PoissonLikelihoods(images)
    if type(kind) is Gaussian:
        return NormalLikelihoods(images, torch.full(images.shape[1:], kind.scale, dtype=torch.float64))
    if type(kind) in (GaussianLearnedScale, GaussianPerColumn) and isinstance(shared, Tensor):
        scales = shared.detach().double().cpu().flatten().exp().expand(every)[seen]
        if scaling is None:
            return NormalLikelihoods(images, scales)
        both = (scaling.center, scaling.spread)
        center, spread = (x.detach().double().flatten().cpu().expand(every)[seen] for x in both)
        return NormalLikelihoods((images - center) / spread, scales).shifted(-spread.log().sum())
    if type(kind) is GaussianPerPixel:
        if not bool(seen.all()):
            raise UnsupportedError(f"missing values have no proven bound with a scale for each pixel; use {INSTEAD}")
        return PerPixelLikelihoods(images, kind.smallest_scale)
    raise UnsupportedError(
        f"no proven bound is known for the likelihood {type(kind).__name__}; use likelihood={SERVED}, or {INSTEAD}"
    )


def parts_of(prior: Distribution) -> Normals | Box | Product:
    """The prior in a form whose mass on a tile can be bounded.

    Raises:
        UnsupportedError: for a prior without a bound.
    """
    base = prior.base_dist if type(prior) is Independent else None
    if type(base) is Uniform:
        return Box(base.low.detach().double().cpu(), base.high.detach().double().cpu())
    if type(base) in PRODUCTS:
        assert base is not None
        return product_of(base)
    return normals_of(prior)
