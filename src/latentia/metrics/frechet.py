r"""The Fréchet distance between Gaussians fitted to two sets of features.

    d² = |m₁ − m₂|² + tr S₁ + tr S₂ − 2 tr (S₁ S₂)^½    (Dowson and Landau 1982; as a score: Heusel et al. 2017, eq. 6)

It is called "FID" only on the features of the original Inception network.

*Computation.* Sᵢ = RᵢᵀRᵢ with Rᵢ from a QR decomposition of the centered features. tr (S₁ S₂)^½ is the sum of the
singular values of R₁R₂ᵀ. No covariance is formed, so singular covariances (fewer samples than features) lose no digits.

*Bias.* The estimate from n samples is too large by about a constant over n, also for equal distributions.
`frechet_extrapolated` removes that term with a jackknife over groups (like the extrapolation in 1/n of Chong and
Forsyth 2020, "FID∞"); the result can be negative.

*Standard error.* By the delta method with the influence function of the fake features,

    φ(x) = 2(m₂ − m₁)·(x − m₂) + (x − m₂)ᵀ(I − T)(x − m₂) − tr (I − T)S₂,   T = R₁ᵀ U Σ⁻¹ Uᵀ R₁ the transport map 2 → 1,

and the corresponding one of the real features: Var φ/m + Var φ′/n. It refers to the limit of large n; it does not
contain the bias.
"""

from __future__ import annotations

__all__ = ["Frechet", "frechet_distance"]

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from latentia.divergences.empirical import bures
from latentia.errors import DataError
from latentia.estimate import Estimate
from latentia.metrics.metric import BOTH, Metric, MetricInputs, checked_pair

_NAME = "frechet_distance"
_NEGLIGIBLE = 1e-10  # singular values below this share of the largest carry no map


class Frechet(Metric):
    """The Fréchet distance, as estimated and without its 1/n bias."""

    higher_is_better: ClassVar[dict[str, int]] = {
        "frechet_distance": -1,
        "frechet_distance_extrapolated": -1,
        "fid": -1,
        "fid_extrapolated": -1,
    }
    measures: ClassVar[dict[str, str]] = dict.fromkeys(higher_is_better, BOTH)

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        dimension = inputs.real.shape[1]
        for name, count in (("real", len(inputs.real)), ("fake", len(inputs.fake))):
            if count <= dimension:
                raise DataError(
                    f"the Fréchet distance takes at least {dimension + 1} {name} samples, one more than there are "
                    f"features (given: {count}); give more, or use features of fewer dimensions"
                )
        name, _, of = inputs.features.frechet_name.partition("/")
        rest = f"/{of}" if of else ""
        return [
            frechet_distance(inputs.real, inputs.fake, name=f"{name}{rest}"),
            frechet_extrapolated(inputs.real, inputs.fake, name=f"{name}_extrapolated{rest}"),
        ]


class _Fit(NamedTuple):
    """A Gaussian fitted to features: mean (D,), R (r, D) with RᵀR the unbiased covariance, centered features (n, D)."""

    mean: Tensor
    factor: Tensor
    centered: Tensor


def _fit(features: Tensor) -> _Fit:
    mean = features.mean(0)
    centered = features - mean
    factor = torch.linalg.qr(centered, mode="r").R / math.sqrt(len(features) - 1)
    return _Fit(mean, factor, centered)


def _distance(mean_gap: Tensor, first: Tensor, second: Tensor, nuclear: Tensor) -> float:
    value = mean_gap.square().sum() + first.square().sum() + second.square().sum() - 2 * nuclear
    return max(0.0, value.item())


def _influence(own: _Fit, other_mean: Tensor, maps: Tensor, singular: Tensor) -> Tensor:
    """φ at each sample of one side; `maps` has rows w with T = Σ w wᵀ/σ."""
    along = own.centered @ maps.T
    through = (along.square() / singular).sum(1)
    phi = 2 * own.centered @ (own.mean - other_mean) + own.centered.square().sum(1) - through
    return phi - phi.mean()


def frechet_distance(real: Tensor, fake: Tensor, *, name: str = _NAME) -> Estimate:
    """The distance between the fitted Gaussians, with its standard error by the delta method; see the module.

    Args:
        real: features (n, D), n ≥ 2; below D + 1 the covariance is singular and the standard error too small.
        fake: (m, D), m ≥ 2.
        name: of the estimate.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    first, second = (_fit(x) for x in checked_pair(real, fake, 2, "Fréchet distance"))
    u, singular, vt = torch.linalg.svd(first.factor @ second.factor.T, full_matrices=False)
    value = _distance(first.mean - second.mean, first.factor, second.factor, singular.sum())
    kept = singular > _NEGLIGIBLE * singular.max().clamp(min=torch.finfo(singular.dtype).tiny)
    sides = (
        _influence(second, first.mean, u.T[kept] @ first.factor, singular[kept]),
        _influence(first, second.mean, vt[kept] @ second.factor, singular[kept]),
    )
    variance = sum(side.square().sum().item() / (len(side) - 1) / len(side) for side in sides)
    n, dimension = min(len(real), len(fake)), first.mean.numel()
    settings = {"interval": "delta method", "bias": "upwards, about constant/n", "dimension": dimension}
    if n <= dimension:
        settings["warning"] = f"{n} samples for {dimension} features: the covariance is singular"
    return Estimate(value, name, math.sqrt(variance), n, "1", method="fitted Gaussians", settings=settings)


def frechet_of_moments(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """The distance between two Gaussians given by mean (D,) and covariance (D, D), in float64."""
    first, second = (_root(c.double()) for c in (covariance, other_covariance))
    return bures(mean.double() - other_mean.double(), first.T, second.T)


def _root(covariance: Tensor) -> Tensor:
    """R with RᵀR the covariance. Rounding can make its smallest eigenvalues negative; they count as 0."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def frechet_extrapolated(
    real: Tensor, fake: Tensor, *, groups: int = 20, name: str = f"{_NAME}_extrapolated"
) -> Estimate:
    """The distance without its 1/n bias, by the jackknife that leaves out one group of each side in turn.

    Where d(n) = d + a/n, the mean over groups of d without that group, minus d(n), is a/n/(groups − 1).

    Args:
        real: features (n, D), n ≥ 2·groups.
        fake: (m, D), m ≥ 2·groups.
        groups: sample i belongs to group i mod `groups`, so shuffle sorted samples.
        name: of the estimate.

    Raises:
        DataError: as `frechet_distance`; for fewer than two samples for each group.
    """
    x, y = checked_pair(real, fake, 2 * groups, f"extrapolated Fréchet distance with {groups} groups")
    if groups < 2:
        raise DataError(f"the jackknife needs at least 2 groups, not {groups}")
    whole = frechet_distance(x, y)
    first, second = (_Moments.of(z, groups) for z in (x, y))
    left_out = torch.tensor(
        [frechet_of_moments(*first.without(g), *second.without(g)) for g in range(groups)], dtype=torch.float64
    )
    bias = (groups - 1) * (left_out.mean().item() - whole.value)
    spread = math.sqrt((groups - 1) * left_out.var(correction=0).item())
    stderr = max(whole.stderr or 0.0, spread) if whole.value < bias else whole.stderr
    settings = {"interval": "delta method", "groups": groups, "bias_removed": bias, "dimension": x.shape[1]}
    return Estimate(whole.value - bias, name, stderr, whole.n, "1", method="jackknife", settings=settings)


class _Moments(NamedTuple):
    """Counts (G,), sums (G, D), second moments (G, D, D) of groups of centered features, and the center."""

    counts: Tensor
    sums: Tensor
    products: Tensor
    center: Tensor

    @classmethod
    def of(cls, features: Tensor, groups: int) -> _Moments:
        center = features.mean(0)
        parts = [(features[g::groups] - center) for g in range(groups)]
        return cls(
            torch.tensor([len(part) for part in parts], dtype=features.dtype, device=features.device),
            torch.stack([part.sum(0) for part in parts]),
            torch.stack([part.T @ part for part in parts]),
            center,
        )

    def without(self, group: int) -> tuple[Tensor, Tensor]:
        """Mean and unbiased covariance of all samples except this group."""
        n = self.counts.sum() - self.counts[group]
        mean = (self.sums.sum(0) - self.sums[group]) / n
        products = self.products.sum(0) - self.products[group]
        return mean + self.center, (products - n * torch.outer(mean, mean)) / (n - 1)
