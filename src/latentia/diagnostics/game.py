"""Diagnostics of the game of a GAN: bounds and exact values of the JSD, the discriminator's accuracy, collapse.

Three facts are used:

* any function t(x) gives the bound JSD(p, q) ≥ log 2 − ½ (E_p softplus(−t) + E_q softplus(t)), on data that it was not
  fitted to (Goodfellow et al. 2014, theorem 1);
* where both densities are known, t* = log p/q, and JSD = ½ E_p[log σ(t*)] + ½ E_q[log σ(−t*)] + log 2 exactly;
* a generator that collapses is less varied than the data: its samples lie closer to each other than the data do.

**Calibration.** The logits of a discriminator need not be log-ratios: they may have any scale and offset, after a
hinge loss, or where batch normalization uses other statistics than in training. Accuracies and bounds are therefore
taken from a t + b, with a and b fitted to held-out examples that are used for nothing else (Platt 1999).

A discriminator in training may be far from the best one. `fresh_bound` trains another one from scratch against the
finished generator; its bound is the one to report.
"""

from __future__ import annotations

__all__ = [
    "collapse_alarm",
    "discriminator_estimates",
    "fresh_bound",
    "gap_to_optimum",
    "jensen_shannon_bound",
    "jensen_shannon_of_densities",
    "jensen_shannon_on_grid",
]

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from latentia.data import ToyDistribution
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import regular_grid
from latentia.models import GAN
from latentia.objectives import AdversarialLoss, AdversarialObjective, NonSaturating, Progress

COLLAPSED_BELOW = 0.5
ALARM_SIGMAS = 3.0
FEWEST_FOR_FRESH_BOUND = 40
LogDensity = Callable[[Tensor], Tensor]
Calibration = Callable[[Tensor], Tensor]


def discriminator_estimates(
    train: Tensor, fake: Tensor, held_out: Tensor | None = None, *, neutral: Tensor | float = 0.0
) -> list[Estimate]:
    """Accuracies of a discriminator and, with held-out examples, its value of the game and its bound on the JSD.

    Accuracies and bound use logits that are calibrated on half of the fake examples and of the real ones (held out,
    where given) and report the other half.

    Args:
        train: logits of real training examples, (n,).
        fake: logits of fake examples, (m,).
        held_out: logits of real examples that the discriminator was not fitted to, (k,).
        neutral: the logit of the loss where p = q.

    Returns:
        `game/accuracy_real` and `game/accuracy_fake`; with `held_out` also `game/accuracy_held_out`, `game/jsd_bound`
        and `game/value`, which is E_p[log D] + E_q[log(1 − D)] with D = σ(t − neutral).
    """
    real = train if held_out is None else held_out
    calibration = _calibrate(real[::2], fake[::2])
    rest = slice(1, None, 2) if min(len(real), len(fake)) > 1 else slice(None)
    estimates = [
        _accuracy(calibration(train[rest] if held_out is None else train), real=True, name="game/accuracy_real"),
        _accuracy(calibration(fake[rest]), real=False, name="game/accuracy_fake"),
    ]
    if held_out is not None:
        value = logsigmoid((held_out - neutral).double()), logsigmoid((neutral - fake).double())
        estimates += [
            _accuracy(calibration(held_out[rest]), real=True, name="game/accuracy_held_out"),
            _sum(*value, name="game/value"),
            jensen_shannon_bound(held_out, fake),
        ]
    return estimates


def jensen_shannon_bound(
    real_logits: Tensor, fake_logits: Tensor, *, calibrate: bool = True, name: str = "game/jsd_bound"
) -> Estimate:
    """A lower bound of JSD(p, q) from the logits of examples that the discriminator was not fitted to.

    Args:
        real_logits: (n,), of held-out real examples.
        fake_logits: (m,), of new fake ones.
        calibrate: replace t by a t + b, fitted to half of the examples, and take the bound from the other half.
        name: of the estimate.

    Returns:
        log 2 − cost/2 in nats; a lower bound in expectation, with the standard error of its two means. It is below 0
        for a discriminator whose cost is above that of the constant logit 0.
    """
    real, fake = real_logits.detach().double(), fake_logits.detach().double()
    if calibrate:
        calibration = _calibrate(real[::2], fake[::2])
        real, fake = calibration(real[1::2]), calibration(fake[1::2])
    cost = _sum(softplus(-real), softplus(fake), name=name)
    error = None if cost.stderr is None else cost.stderr / 2
    method = "held-out cross entropy" + (", calibrated on the other half" if calibrate else "")
    return Estimate(math.log(2) - cost.value / 2, name, error, cost.n, kind="lower bound", method=method)


def fresh_bound(
    gan: GAN,
    build: Callable[[], nn.Module],
    real: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    evaluations: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Train a discriminator from scratch against a finished generator, and report its bound and its accuracies.

    The discriminator of the game was trained against earlier generators, under a penalty, on the training data. This
    one is fitted to held-out data and new samples by plain cross entropy. A second part of the held-out data chooses
    how long it trains and calibrates its logits; a third part, used for nothing else, gives the bound.

    Args:
        gan: the finished model, on the data's device; it does not change.
        build: makes an untrained discriminator of single examples.
        real: held-out data, (N, *shape), N ≥ 40: half to fit, a quarter to choose and calibrate, a quarter to report.
        labels: (N,), for a class-conditional model: fake examples get the labels of real ones, and the bound is on the
            JSD of the distributions of (x, label).
        steps: of Adam.
        batch_size: real and fake examples of a step, at most.
        lr: learning rate of Adam.
        evaluations: how often the second part is evaluated.
        progress: called after each step with the steps done and their total.

    Returns:
        `fresh/jsd_bound` (a lower bound, in nats), `fresh/accuracy_real`, `fresh/accuracy_fake`.

    Raises:
        DataError: for too few data.
    """
    if len(real) < FEWEST_FOR_FRESH_BOUND:
        raise DataError(f"a fresh discriminator needs {FEWEST_FOR_FRESH_BOUND} held-out examples (given: {len(real)})")
    rows = torch.randperm(len(real), device=real.device)
    fit, choose, report = rows.tensor_split([len(real) // 2, 3 * len(real) // 4])
    device = next(gan.generator.parameters()).device
    discriminator = build().to(device)
    fresh = gan.with_discriminator(discriminator).eval()
    objective = AdversarialObjective.of_gan(fresh, NonSaturating())
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=lr)

    def logits(part: Tensor) -> tuple[Tensor, Tensor]:
        return _logits(fresh, real[part], _at(labels, part))

    lowest, state, calibration = math.inf, {}, None
    for step in range(1, steps + 1):
        at = fit[torch.randint(len(fit), (min(batch_size, len(fit)),), device=fit.device)]
        discriminator.train()
        cost = objective.discriminator_cost(real[at], _at(labels, at), Progress())["cost"].mean()
        discriminator.eval()
        gradients = torch.autograd.grad(cost, list(discriminator.parameters()))
        for parameter, gradient in zip(discriminator.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if step % max(1, steps // evaluations) == 0 or step == steps:
            on_real, on_fake = logits(choose)
            line = _calibrate(on_real, on_fake)
            cost = -jensen_shannon_bound(line(on_real), line(on_fake), calibrate=False).value
            if cost < lowest or calibration is None:
                lowest, calibration = cost, line
                state = {name: value.clone() for name, value in discriminator.state_dict().items()}
        if progress is not None:
            progress(step, steps)
    discriminator.load_state_dict(state)
    on_real, on_fake = (cast(Calibration, calibration)(values) for values in logits(report))
    bound = jensen_shannon_bound(on_real, on_fake, calibrate=False, name="fresh/jsd_bound")
    return [
        replace(bound, settings={"steps": steps}),
        _accuracy(on_real, real=True, name="fresh/accuracy_real"),
        _accuracy(on_fake, real=False, name="fresh/accuracy_fake"),
    ]


def collapse_alarm(fake: Tensor, real: Tensor) -> list[Estimate]:
    """The variety of samples relative to real data, by mean distances of pairs.

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
    """JSD(p, q) from both densities, averaged over draws of each: unbiased, with its standard error, in nats."""
    on_real = logsigmoid((log_p(real) - log_q(real)).double())
    on_fake = logsigmoid((log_q(fake) - log_p(fake)).double())
    both = _sum(on_real, on_fake, name=name)
    error = None if both.stderr is None else both.stderr / 2
    return Estimate(math.log(2) + both.value / 2, name, error, both.n, method="monte carlo with exact densities")


@torch.no_grad()
def jensen_shannon_on_grid(
    log_p: LogDensity, log_q: LogDensity, box: Sequence[tuple[float, float]], spacing: float, name: str = "jsd"
) -> Estimate:
    """JSD(p, q) in R¹ or R² by the trapezoid rule; its error is estimated by halving the spacing.

    Args:
        log_p: density, (n, d) → (n,), in nats.
        log_q: the other.
        box: (low, high) of each axis, containing the mass of both.
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
    return Estimate(values[1], name, kind="numerical", method="trapezoid rule", settings=settings)


@torch.no_grad()
def gap_to_optimum(gan: GAN, loss: AdversarialLoss, toy: ToyDistribution, real: Tensor, fake: Tensor) -> list[Estimate]:
    """The distance of the discriminator from the best one at samples of both distributions.

    Both logits go through σ first, so that gaps lie in [0, 1]; for the classic losses it is the gap of D to D*.

    Args:
        gan: with a generator of known density.
        loss: which defines the best logit.
        toy: the distribution of the data.
        real: (n, d), draws of the data.
        fake: (n, d), draws of the generator.

    Returns:
        `game/gap_to_optimum`, its mean over the samples, and `game/largest_gap`, its maximum.

    Raises:
        UnsupportedError: if the generator's density is not known, the best logit is not, or examples are packed.
    """
    if gan.packing > 1:
        raise UnsupportedError("the best discriminator of packs differs from that of single examples; use packing=1")
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


def _accuracy(logits: Tensor, *, real: bool, name: str) -> Estimate:
    """The share of examples on the right side of logit 0, from logits (B,)."""
    right = logits > 0 if real else logits <= 0
    return Estimate.mean(right.double(), name=name, unit="1", method="share of examples")


@torch.no_grad()
def _logits(gan: GAN, real: Tensor, labels: Tensor | None, size: int = 1000) -> tuple[Tensor, Tensor]:
    """Logits of real examples, and of as many new fake ones with the same labels, (N,) each."""
    parts = real.split(size)
    pieces = list(zip(parts, [None] * len(parts) if labels is None else labels.split(size), strict=True))
    on_real = torch.cat([gan.discriminate(x, y) for x, y in pieces])
    on_fake = torch.cat([gan.discriminate(gan.sample(len(x), y), y) for x, y in pieces])
    return on_real, on_fake


def _at(labels: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if labels is None else labels[rows]


def _calibrate(real: Tensor, fake: Tensor, steps: int = 30) -> Calibration:
    """The line a t + b of lowest cross entropy on these logits, (n,) and (m,), by Newton's method with a small ridge.

    As in Platt 1999, the targets are (n + 1)/(n + 2) and 1/(m + 2), which bounds the logits of examples that a few
    separate perfectly.
    """
    real, fake = real.detach().double(), fake.detach().double()
    logits = torch.cat([real, fake])
    middle, scale = logits.median(), logits.std().clamp(min=1e-12)
    t = (logits - middle) / scale
    features = torch.stack([t, torch.ones_like(t)], dim=1)
    ones, zeros = torch.ones_like(real), torch.ones_like(fake)
    target = torch.cat([ones * (len(real) + 1) / (len(real) + 2), zeros / (len(fake) + 2)])
    weight = torch.cat([ones / len(real), zeros / len(fake)])
    line = torch.zeros(2, dtype=t.dtype, device=t.device)
    ridge = 1e-4 * torch.eye(2, dtype=t.dtype, device=t.device)
    for _ in range(steps):
        probability = torch.sigmoid(features @ line)
        slope = features.T @ (weight * (probability - target)) + ridge @ line
        curvature = (features * (weight * probability * (1 - probability)).unsqueeze(1)).T @ features + ridge
        step = torch.linalg.solve(curvature, slope)
        line = line - step * (1.0 / max(1.0, step.norm().item()))
    return lambda values: line[0] * ((values.detach().double() - middle) / scale) + line[1]
