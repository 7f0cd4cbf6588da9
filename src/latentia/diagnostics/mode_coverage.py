"""Mode coverage: does a generator find all modes of the data, in the right shares, with samples close to them?

The protocol of PacGAN (Lin et al. 2018, section 4.1), for mixtures whose modes have known centers and one scale each:
2 500 samples; a sample is of *high quality* if it lies within three standard deviations of the nearest center; a mode
is *found* if it has a sample of high quality; the *reverse KL* is KL(counts, 1/K), with the counts of the samples of
high quality by mode.

A finite sample of the data's distribution does not have perfect scores: in the plane, a share of 1 − e^(−9/2) = 98.89 %
lies within three standard deviations, and the reverse KL of n such samples over K modes is about (K − 1)/2n. Each
estimate therefore comes with that of a perfect model, by simulation, and with its spread from sampling. A share of high
quality *above* that of the perfect model shows that the modes are too narrow.

For stacked MNIST (their section 4.2), 26 000 samples are classified digit by digit, one color at a time, and the modes
are the 1 000 numbers. At that size a perfect generator has a KL of about 999/2n = 0.019 from the sampling.
"""

from __future__ import annotations

__all__ = ["mode_coverage", "stacked_coverage"]

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily
from torch.special import xlogy

from latentia.data import ToyDistribution
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.metrics import class_coverage, classify

SAMPLES = 2_500  # of the protocol
STACKED_SAMPLES = 26_000
WITHIN = 3.0
RESAMPLES = 200


def mode_coverage(points: Tensor, toy: ToyDistribution, *, perfect_repeats: int = 200) -> list[Estimate]:
    """Score samples against the modes of a toy distribution.

    Args:
        points: (n, d), independent samples of the model.
        toy: a distribution with modes of equal weight, such as `Ring` or `Grid`.
        perfect_repeats: simulations of a perfect model; 0 leaves its estimates out.

    Returns:
        `modes/found`, `modes/high_quality` (a share, with its standard error), `modes/reverse_kl` (nats, its standard
        error by resampling the counts), `modes/spread` (root mean square of the samples of high quality around their
        centers, relative to the expected one: below 1 the modes are too narrow); then those of a perfect model under
        `modes/perfect/…`, whose standard errors are the spread of *one* evaluation of this size.

    Raises:
        UnsupportedError: for a distribution without modes, or of unequal weights.
    """
    centers, scale = _modes(toy)
    counts, high, spread = _count(points.detach().to(centers), centers, scale)
    settings = {"within": WITHIN, "modes": len(centers)}
    n = len(points)
    estimates = [
        Estimate(float((counts > 0).sum()), "modes/found", n=n, unit="1", method="pacgan", settings=settings),
        Estimate.mean(high.double(), name="modes/high_quality", unit="1", method="pacgan", settings=settings),
    ]
    if counts.sum() > 0:
        distribution = torch.distributions.Multinomial(int(counts.sum()), counts)
        resampled = _reverse_kl(distribution.sample(torch.Size([RESAMPLES])))
        error = resampled.std().item()
        value = _reverse_kl(counts).item()
        estimates.append(Estimate(value, "modes/reverse_kl", error, n, method="pacgan", settings=settings))
        estimates.append(Estimate(spread, "modes/spread", None, int(counts.sum()), "1", method="pacgan"))
    else:  # no sample lies on a mode
        estimates.append(Estimate(math.inf, "modes/reverse_kl", None, n, method="pacgan", settings=settings))
    return estimates + (perfect_coverage(toy, n, perfect_repeats) if perfect_repeats else [])


def perfect_coverage(toy: ToyDistribution, n: int = SAMPLES, repeats: int = 200) -> list[Estimate]:
    """The scores of n samples of the distribution: means over simulations, with the standard deviation of one of them.

    The names are those of `mode_coverage` under `modes/perfect/`. `n` of each estimate is the number of simulations, so
    the error of the mean itself is `stderr/√n`.
    """
    centers, scale = _modes(toy)
    distribution = toy.distribution()
    scores = []
    for _ in range(repeats):
        counts, high, spread = _count(distribution.sample(torch.Size([n])), centers, scale)
        found = (counts > 0).sum().double()
        scores.append(torch.stack([found, high.double().mean(), _reverse_kl(counts), torch.tensor(spread).double()]))
    table = torch.stack(scores)
    settings = {"samples": n, "stderr_of": "one evaluation"}
    return [
        Estimate(mean, f"modes/perfect/{name}", deviation, repeats, unit, method="simulation", settings=settings)
        for name, unit, mean, deviation in zip(
            ("found", "high_quality", "reverse_kl", "spread"),
            ("1", "1", "nats", "1"),
            table.mean(0).tolist(),
            table.std(0).tolist(),
            strict=True,
        )
    ]


def stacked_coverage(images: Tensor, classifier: Callable[[Tensor], Tensor] = classify) -> list[Estimate]:
    """`stacked/found`, the modes found of stacked MNIST, and their KL from equal shares, with that of a perfect model.

    Args:
        images: three digits each, in the channels, (N, 3, H, W) in [0, 1]; the published protocol has N = 26 000.
        classifier: probabilities of the ten digits, (N, 1, H, W) → (N, 10).

    Raises:
        DataError: for images without three channels.
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise DataError(f"stacked digits have three channels, and these images have the shape {tuple(images.shape)}")
    digits = classifier(images.flatten(0, 1).unsqueeze(1)).argmax(1).reshape(-1, 3)
    labels = (digits * torch.tensor([100, 10, 1], device=digits.device)).sum(1)
    return class_coverage(labels, 1000, prefix="stacked/")


def _modes(toy: ToyDistribution) -> tuple[Tensor, Tensor]:
    centers, scale = toy.modes, toy.scale
    distribution = toy.distribution()
    if centers is None or scale is None or not isinstance(distribution, MixtureSameFamily) or len(centers) < 2:
        raise UnsupportedError(f"{toy.type_name} has no modes to count; ring, grid and mixture1d have")
    weights = distribution.mixture_distribution.probs
    if not torch.allclose(weights, weights.mean()):
        raise UnsupportedError(f"the modes of {toy.type_name} have unequal weights, and the protocol needs equal ones")
    return centers, scale


def _count(points: Tensor, centers: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, float]:
    """Samples of high quality by mode, (K,); which ones are, (n,); their relative root mean square distance."""
    distance, nearest = (torch.cdist(points, centers) / scale).min(dim=1)  # in standard deviations, as in PacGAN
    high = distance <= WITHIN
    counts = torch.bincount(nearest[high], minlength=len(centers)).double()
    if not high.any():
        return counts, high, 0.0
    expected = _mean_square_within(points.shape[1])
    return counts, high, math.sqrt(distance[high].double().square().mean().item() / expected)


def _mean_square_within(d: int) -> float:
    """E[r² | r ≤ 3] of a standard normal in Rᵈ: d · P(χ²_{d+2} ≤ 9)/P(χ²_d ≤ 9)."""
    half = torch.tensor(WITHIN**2 / 2, dtype=torch.float64)
    inside = [torch.special.gammainc(torch.tensor(k / 2, dtype=torch.float64), half) for k in (d + 2, d)]
    return d * (inside[0] / inside[1]).item()


def _reverse_kl(counts: Tensor) -> Tensor:
    """KL(counts, equal shares) in nats, (…, K) → (…)."""
    share = counts / counts.sum(-1, keepdim=True)
    return xlogy(share, share * counts.shape[-1]).sum(-1)
