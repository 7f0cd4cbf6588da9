r"""The Fréchet distance between Gaussians fitted to two sets of features.

    d² = |m₁ − m₂|² + tr S₁ + tr S₂ − 2 tr (S₁ S₂)^½    (Dowson and Landau 1982; as a score: Heusel et al. 2017, eq. 6)

Only on the features of the original Inception network is it the "FID".

*How it is computed.* With factors Sᵢ = RᵢᵀRᵢ, by QR decomposition of the centered features and never from a product of
covariances, tr (S₁ S₂)^½ is the sum of the singular values of R₁R₂ᵀ. Nothing is squared, so singular covariances (fewer
samples than features) lose no digits.

*Its bias.* From n samples it comes out too large, by about a constant over n: for equal distributions the truth is 0 and the
figure is not. `frechet_extrapolated` takes that term away with a jackknife over groups (as extrapolating in 1/n does:
Chong and Forsyth 2020, "FID∞"), and may then be negative.

*Its interval.* By the delta method: the distance moves by the mean over samples x of fake features of

    φ(x) = 2(m₂ − m₁)·(x − m₂) + (x − m₂)ᵀ(I − T)(x − m₂) − tr (I − T)S₂,   T = R₁ᵀ U Σ⁻¹ Uᵀ R₁ the transport map 2 → 1,

and likewise for real ones, so the variance is that of φ over n plus that of its twin over m. It is about the fitted
Gaussians' distance as n grows; the bias above is not in it.
"""

from __future__ import annotations

__all__ = ["frechet_distance", "frechet_extrapolated", "frechet_of_moments"]

import math
from typing import NamedTuple

import torch
from torch import Tensor

from latentia.errors import DataError
from latentia.estimate import Estimate
from latentia.metrics.checks import feature_pair

NAME = "frechet_distance"
NEGLIGIBLE = 1e-10  # singular values below this share of the largest carry no map


class _Fit(NamedTuple):
    """A Gaussian fitted to features: mean (D,), R (r, D) with RᵀR the unbiased covariance, features less mean."""

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
    """φ at each of one side's samples; `maps` has rows w with T = Σ w wᵀ/σ."""
    along = own.centered @ maps.T
    through = (along.square() / singular).sum(1)
    phi = 2 * own.centered @ (own.mean - other_mean) + own.centered.square().sum(1) - through
    return phi - phi.mean()


def frechet_distance(real: Tensor, fake: Tensor, *, name: str = NAME) -> Estimate:
    """The distance of the samples' fitted Gaussians, with its standard error by the delta method; see the module.

    Args:
        real: features (n, D), n ≥ 2; below D + 1 the covariance is singular and the standard error too small.
        fake: (m, D), m ≥ 2.
        name: of the estimate.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    first, second = (_fit(x) for x in feature_pair(real, fake, 2, "Fréchet distance"))
    u, singular, vt = torch.linalg.svd(first.factor @ second.factor.T, full_matrices=False)
    value = _distance(first.mean - second.mean, first.factor, second.factor, singular.sum())
    kept = singular > NEGLIGIBLE * singular.max().clamp(min=torch.finfo(singular.dtype).tiny)
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
    """The distance of two Gaussians given by their moments, (D,) and (D, D) each, in float64."""
    first, second = (_root(c.double()) for c in (covariance, other_covariance))
    nuclear = torch.linalg.svdvals(first @ second.T).sum()
    return _distance(mean.double() - other_mean.double(), first, second, nuclear)


def _root(covariance: Tensor) -> Tensor:
    """R with RᵀR the covariance, whose rounding may have made its least eigenvalues negative."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def frechet_extrapolated(
    real: Tensor, fake: Tensor, *, groups: int = 20, name: str = f"{NAME}_extrapolated"
) -> Estimate:
    """The distance with its 1/n bias taken away by the jackknife: one group of each side left out in turn.

    Where d(n) = d + a/n, the mean over groups of d without that group, less d(n), is a/n over (groups − 1).

    Args:
        real: features (n, D), n ≥ 2·groups.
        fake: (m, D), m ≥ 2·groups.
        groups: samples go to them in order, round-robin, so shuffle what is sorted.
        name: of the estimate.

    Raises:
        DataError: as `frechet_distance`; for fewer than two samples for each group.
    """
    x, y = feature_pair(real, fake, 2 * groups, f"extrapolated Fréchet distance with {groups} groups")
    if groups < 2:
        raise DataError(f"the jackknife needs at least 2 groups, and is given {groups}")
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
    """Counts (G,), sums (G, D) and second moments (G, D, D) of groups of centered features, and the center."""

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
        """Mean and unbiased covariance of all samples but this group's."""
        n = self.counts.sum() - self.counts[group]
        mean = (self.sums.sum(0) - self.sums[group]) / n
        products = self.products.sum(0) - self.products[group]
        return mean + self.center, (products - n * torch.outer(mean, mean)) / (n - 1)
