r"""Scores by a classifier: an inception-type score, and the number and shares of classes among samples.

    inception score = exp E_x KL(p(y|x), p(y)),       p(y) = E_x p(y|x)             (Salimans et al. 2016)

It lies between 1 and the number of classes. It is high where the classifier is certain of each sample and all classes
are equally frequent; it uses no real data and ignores variety within a class. A classifier that is never certain gives
real images less than the number of classes (the shipped one 7.5 of 10 on MNIST), so compare it with the value of real
images. The estimate from n samples is too low, by the relative bias (1/2n) Σ_y Var p(y|x)/p(y), which is reported and
not subtracted. Only the classes of the Inception network give the "inception score"; a digit classifier gives
`inception_score/classifier`.

*Class coverage* counts the classes among samples and measures KL(observed shares, expected shares) in nats. A perfect
model with n samples of K classes scores about (K − 1)/2n, and twice that where the expected shares are counted on n
real images, so that value is reported too.
"""

from __future__ import annotations

__all__ = ["Classes", "InceptionScore", "class_coverage", "inception_score"]

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.special import entr, xlogy

from latentia.errors import DataError
from latentia.estimate import Estimate
from latentia.metrics.metric import BOTH, COVERAGE, Metric, MetricInputs


class InceptionScore(Metric):
    """The inception-type score, by the classes of the features."""

    higher_is_better: ClassVar[dict[str, int]] = {"inception_score": 1}
    measures: ClassVar[dict[str, str]] = {"inception_score": BOTH}
    needs_classes: ClassVar[bool] = True

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        return [inception_score(inputs.probabilities()[1], name=inputs.features.score_name)]


class Classes(Metric):
    """The number of classes among samples, and the KL of their shares from those of the real images."""

    higher_is_better: ClassVar[dict[str, int]] = {"classes/found": 1, "classes/kl": -1, "classes/kl_perfect": 0}
    measures: ClassVar[dict[str, str]] = dict.fromkeys(higher_is_better, COVERAGE)
    aliases: ClassVar[tuple[str, ...]] = ("class-coverage",)
    needs_classes: ClassVar[bool] = True

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        real, fake = inputs.probabilities()
        counts = real.argmax(1).bincount(minlength=real.shape[1]).double()
        return class_coverage(fake.argmax(1), real.shape[1], counts + 0.5, reference=len(real))


def inception_score(probabilities: Tensor, *, name: str = "inception_score") -> Estimate:
    """exp of the mean KL(p(y|x), p(y)) over all samples, with its standard error by the delta method.

    Args:
        probabilities: p(y|x), (N, K), N ≥ 2, rows that sum to 1.
        name: of the estimate.

    Raises:
        DataError: for rows that are not distributions, or fewer than two rows.
    """
    p = _distributions(probabilities)
    mean = p.mean(0)
    divergence = (xlogy(p, p) - xlogy(p, mean)).sum(1)
    score = math.exp(divergence.mean().item())
    bias = -score * (p.var(0) / mean.clamp(min=1e-300)).sum().item() / (2 * len(p))
    settings = {"interval": "delta method", "bias": bias, "classes": p.shape[1]}
    error = score * divergence.std().item() / math.sqrt(len(p))
    return Estimate(score, name, error, len(p), "1", method="mean divergence", settings=settings)


def class_coverage(
    labels: Tensor,
    classes: int,
    shares: Tensor | None = None,
    *,
    reference: int | None = None,
    prefix: str = "classes/",
) -> list[Estimate]:
    """Number of classes among samples, and the divergence of their shares from the expected ones.

    Args:
        labels: the class of each sample, int64 (N,).
        classes: K.
        shares: the expected shares, (K,), positive; equal if not given.
        reference: the number of images M on which the shares were counted, where they are estimates; the standard error
            and `classes/kl_perfect` then include their noise.
        prefix: of the names.

    Returns:
        `classes/found` (which grows with N), `classes/kl` in nats with its standard error by the delta method, and
        `classes/kl_perfect`, the value (K − 1)(1/N + 1/M)/2 that a perfect model scores on average.

    Raises:
        DataError: for labels outside 0 … K − 1, or shares that are not a distribution.
    """
    if labels.numel() < 2 or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"labels must be at least 2 numbers from 0 to {classes - 1}; these are {tuple(labels.shape)}")
    wanted = torch.full((classes,), 1 / classes, dtype=torch.float64) if shares is None else shares.double().cpu()
    if wanted.shape != (classes,) or bool((wanted <= 0).any()):
        raise DataError(f"the shares must be {classes} positive numbers, and have the shape {tuple(wanted.shape)}")
    wanted = wanted / wanted.sum()
    counts = torch.bincount(labels.flatten().cpu(), minlength=classes).double()
    n = int(counts.sum())
    found = counts / n
    ratio = torch.where(found > 0, (found / wanted).clamp(min=1e-300).log(), 0.0)
    kl = max(0.0, -entr(found).sum().item() - xlogy(found, wanted).sum().item())
    occupied = int((counts > 0).sum())
    rate, own = 1 / n, 0.0 if reference is None else 1 / reference
    # Where the shares are equal, the first-order terms are noise of size (K − 1)(1/n + 1/m), and the second order
    # dominates. The derivative with respect to the expected shares is −found/wanted.
    noise = (occupied - 1) * (rate + own)
    first = max(0.0, (found * ratio.square()).sum().item() - kl * kl - noise) * rate
    first += max(0.0, (found.square() / wanted).sum().item() - 1 - noise) * own
    variance = first + (occupied - 1) * (rate + own) ** 2 / 2
    settings = {"classes": classes, "interval": "delta method", "bias": noise / 2}
    perfect = (classes - 1) * (rate + own) / 2
    return [
        Estimate(float(occupied), f"{prefix}found", None, n, "1", method="classifier", settings={"classes": classes}),
        Estimate(kl, f"{prefix}kl", math.sqrt(variance), n, "nats", method="classifier", settings=settings),
        Estimate(perfect, f"{prefix}kl_perfect", None, n, "nats", method="(K − 1)(1/N + 1/M)/2"),
    ]


def _distributions(probabilities: Tensor) -> Tensor:
    p = probabilities.detach().double()
    if p.dim() != 2 or len(p) < 2 or p.shape[1] < 2:
        raise DataError(f"probabilities must be (N, K) with N and K at least 2; they have the shape {tuple(p.shape)}")
    if not bool(torch.isfinite(p).all()) or bool((p < 0).any()) or bool(((p.sum(1) - 1).abs() > 1e-3).any()):
        raise DataError(
            "the rows of probabilities must be distributions: at least 0, with the sum 1; give softmax, not logits"
        )
    return p / p.sum(1, keepdim=True)
