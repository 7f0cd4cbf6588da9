"""What the game of a GAN looks like from outside the players' costs.

Three facts carry this module (item 3d of the notes):

* any function t(x) whatever certifies JSD(p, q) ≥ log 2 − ½ (E_p softplus(−t) + E_q softplus(t)), on data that it was
  not fitted to;
* where both densities are known, t* = log p/q, and JSD = ½ E_p[log σ(t*)] + ½ E_q[log σ(−t*)] + log 2 exactly;
* a generator that collapses is less varied than the data: its samples lie closer to each other than the data do.

A player's own discriminator may be far from the best one, and its cost then says little. `fresh_bound` trains another
one from scratch against the finished generator: that bound is the one to trust.
"""

from __future__ import annotations

__all__ = [
    "accuracy",
    "collapse_alarm",
    "gap_to_optimum",
    "jensen_shannon_bound",
    "jensen_shannon_of_densities",
    "jensen_shannon_on_grid",
    "players_value",
]

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from latentia.data import ToyDistribution
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import regular_grid
from latentia.models import GAN
from latentia.objectives import AdversarialLoss

COLLAPSED_BELOW = 0.5
ALARM_SIGMAS = 3.0
LogDensity = Callable[[Tensor], Tensor]


def accuracy(logits: Tensor, *, real: bool, name: str) -> Estimate:
    """The share of examples on the right side of logit 0, from logits (B,)."""
    right = logits > 0 if real else logits <= 0
    return Estimate.mean(right.double(), name=name, unit="1", method="share of examples")


def players_value(real_logits: Tensor, fake_logits: Tensor, name: str = "game/value") -> Estimate:
    """E_p[log D] + E_q[log(1 − D)], what the discriminator makes of the game, from logits (n,) and (m,)."""
    return _sum(logsigmoid(real_logits.double()), logsigmoid(-fake_logits.double()), name=name)


def jensen_shannon_bound(
    real_logits: Tensor, fake_logits: Tensor, *, calibrate: bool = True, name: str = "game/jsd_bound"
) -> Estimate:
    """A certified lower bound of JSD(p, q) from the logits of examples that the discriminator was not fitted to.

    Args:
        real_logits: (n,), of held-out real examples.
        fake_logits: (m,), of fresh fake ones.
        calibrate: first fit t ← a t + b to half of the examples and certify by the other half. That makes the logits of
            any loss count, though they estimate no log-ratio, or do so only up to a constant.
        name: of the estimate.

    Returns:
        log 2 − cost/2 in nats; a lower bound in expectation, with the standard error of its two means. It may be below
        0, where the discriminator is worse than none.
    """
    real, fake = real_logits.detach().double(), fake_logits.detach().double()
    if calibrate:
        slope, offset = _fit_line(real[::2], fake[::2])
        real, fake = slope * real[1::2] + offset, slope * fake[1::2] + offset
    cost = _sum(softplus(-real), softplus(fake), name=name)
    error = None if cost.stderr is None else cost.stderr / 2
    method = "held-out cross entropy" + (", calibrated on the other half" if calibrate else "")
    return Estimate(math.log(2) - cost.value / 2, name, error, cost.n, kind="lower bound", method=method)


def collapse_alarm(fake: Tensor, real: Tensor) -> list[Estimate]:
    """How varied samples are beside real data, by mean distances of pairs.

    Each sample enters one pair, so that the pairs are independent.

    Args:
        fake: (n, …), samples of the model.
        real: (m, …), data.

    Returns:
        `game/diversity`, the ratio of mean pairwise distances with its standard error, and `game/collapse_alarm`,
        1 if that ratio is below ½ by three standard errors, else 0.
    """
    fakes, reals = (_pair_distances(x) for x in (fake, real))
    ratio = (fakes.mean() / reals.mean()).item()
    relative = [(d.std() / d.mean().clamp(min=1e-30) / math.sqrt(len(d))).item() for d in (fakes, reals)]
    error = ratio * math.hypot(*relative) if ratio > 0 else 0.0
    alarm = float(ratio + ALARM_SIGMAS * error < COLLAPSED_BELOW)
    settings = {"alarm_below": COLLAPSED_BELOW, "sigmas": ALARM_SIGMAS}
    return [
        Estimate(ratio, "game/diversity", error, len(fakes), "1", method="ratio of mean pairwise distances"),
        Estimate(alarm, "game/collapse_alarm", None, len(fakes), "1", method="threshold", settings=settings),
    ]


@torch.no_grad()
def jensen_shannon_of_densities(
    log_p: LogDensity, log_q: LogDensity, real: Tensor, fake: Tensor, name: str = "game/jsd"
) -> Estimate:
    """JSD(p, q) from both densities, averaged over draws of either: unbiased, with its standard error, in nats."""
    on_real = logsigmoid((log_p(real) - log_q(real)).double())
    on_fake = logsigmoid((log_q(fake) - log_p(fake)).double())
    both = _sum(on_real, on_fake, name=name)
    error = None if both.stderr is None else both.stderr / 2
    return Estimate(math.log(2) + both.value / 2, name, error, both.n, method="monte carlo with exact densities")


@torch.no_grad()
def jensen_shannon_on_grid(
    log_p: LogDensity, log_q: LogDensity, box: Sequence[tuple[float, float]], spacing: float, name: str = "jsd"
) -> Estimate:
    """JSD(p, q) in R¹ or R² by the trapezoid rule; its certificate is what halving the spacing still changes.

    Args:
        log_p: density, (n, d) → (n,), in nats.
        log_q: the other.
        box: (low, high) of each axis, around the mass of both.
        spacing: of the finer grid; about the smallest scale of either density.
        name: of the estimate.

    Raises:
        UnsupportedError: if either density has more than 10⁻³ of its mass off the grid.
    """
    lows, highs = zip(*box, strict=True)
    values, masses = [], []
    for step in (2 * spacing, spacing):
        value, mass = 0.0, torch.zeros(2, dtype=torch.float64)
        for points, log_weight in regular_grid(lows, highs, step).blocks():
            p, q = log_p(points.float()).double(), log_q(points.float()).double()
            weight = log_weight.exp()
            middle = torch.logaddexp(p, q) - math.log(2)
            value += (weight * (_times(p, p - middle) + _times(q, q - middle))).sum().item() / 2
            mass += torch.stack([(weight * p.exp()).sum(), (weight * q.exp()).sum()])
        values.append(value)
        masses.append(mass)
    off = (1 - masses[-1]).abs().max().item()
    if off > 1e-3:
        raise UnsupportedError(
            f"the grid misses or miscounts {off:.2g} of a density's mass; take a smaller spacing or a wider box, or "
            "use jensen_shannon_of_densities"
        )
    settings = {"error": abs(values[1] - values[0]) + off * math.log(2), "spacing": spacing}
    return Estimate(values[1], name, kind="exact", method="trapezoid rule", settings=settings)


@torch.no_grad()
def gap_to_optimum(gan: GAN, loss: AdversarialLoss, toy: ToyDistribution, real: Tensor, fake: Tensor) -> list[Estimate]:
    """How far the discriminator is from the best one at these samples, half of them of either distribution.

    Both logits go through σ first, so that gaps lie in [0, 1]; for the classic losses it is the gap of D to D*.

    Args:
        gan: with a generator of known density.
        loss: whose best logit is meant.
        toy: the distribution of the data.
        real: (n, d) draws of the data.
        fake: (n, d) draws of the generator.

    Returns:
        `game/gap_to_optimum`, its mean over the samples, and `game/largest_gap`, over the same.

    Raises:
        UnsupportedError: if the generator's density is not known, the best logit is not, or examples are packed.
    """
    if gan.packing > 1:
        raise UnsupportedError("the best discriminator of packs is not that of single examples; use packing=1")
    points = torch.cat([real, fake])
    best = loss.optimal_logit(toy.distribution().log_prob(points).double(), gan.log_prob(points).double())
    logits = gan.discriminate(points).double()
    if loss.shift_invariant:
        logits = logits - (logits - best).median()
    gap = (torch.sigmoid(logits) - torch.sigmoid(best)).abs()
    return [
        Estimate.mean(gap, name="game/gap_to_optimum", unit="1", method="mean over samples"),
        Estimate(gap.max().item(), "game/largest_gap", None, len(gap), "1", method="maximum over samples"),
    ]


def _times(log_density: Tensor, difference: Tensor) -> Tensor:
    """p · difference, 0 where p is."""
    return torch.where(log_density > -700, log_density.exp() * difference, 0.0)


def _sum(a: Tensor, b: Tensor, name: str) -> Estimate:
    """E[a] + E[b] from independent samples."""
    parts = [Estimate.mean(values) for values in (a, b)]
    errors = [part.stderr for part in parts]
    error = None if None in errors else math.hypot(*(e for e in errors if e is not None))
    return Estimate(parts[0].value + parts[1].value, name, error, len(a) + len(b), method="mean over held-out examples")


def _pair_distances(x: Tensor) -> Tensor:
    """Distances of disjoint pairs, (n/2,)."""
    flat = x.detach().flatten(1).double()
    flat = flat[torch.randperm(len(flat), device=flat.device)[: len(flat) // 2 * 2]]
    return (flat[::2] - flat[1::2]).norm(dim=1)


def _fit_line(real: Tensor, fake: Tensor, steps: int = 30) -> tuple[Tensor, Tensor]:
    """a, b of least cross entropy of a t + b, by Newton's method with a little ridge (Platt scaling)."""
    logits = torch.cat([real, fake])
    middle, scale = logits.median(), logits.std().clamp(min=1e-12)
    t = (logits - middle) / scale
    features = torch.stack([t, torch.ones_like(t)], dim=1)
    target = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    weight = torch.cat([torch.full_like(real, 1 / len(real)), torch.full_like(fake, 1 / len(fake))])
    line = torch.zeros(2, dtype=t.dtype, device=t.device)
    ridge = 1e-4 * torch.eye(2, dtype=t.dtype, device=t.device)
    for _ in range(steps):
        probability = torch.sigmoid(features @ line)
        slope = features.T @ (weight * (probability - target)) + ridge @ line
        curvature = (features * (weight * probability * (1 - probability)).unsqueeze(1)).T @ features + ridge
        step = torch.linalg.solve(curvature, slope)
        line = line - step * (1.0 / max(1.0, step.norm().item()))
    return line[0] / scale, line[1] - line[0] * middle / scale
