"""A fresh discriminator, trained from scratch against a finished generator, and the bound that it certifies.

The player of the game learned against generators that are gone, was held down by its penalty, and saw the training
data. A fresh one is fitted to held-out data and to new samples by plain cross entropy, its length of training is chosen
on a second part of the held-out data, and its bound, JSD(p, q) ≥ log 2 − cost/2, is taken on a third part that has
served for nothing else.
"""

from __future__ import annotations

__all__ = ["fresh_bound"]

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from latentia.diagnostics.game import accuracy, jensen_shannon_bound
from latentia.errors import DataError
from latentia.estimate import Estimate
from latentia.models import GAN
from latentia.objectives import AdversarialObjective, NonSaturating
from latentia.objectives.objective import Progress

SMALLEST = 40


def fresh_bound(
    gan: GAN,
    build: Callable[[], nn.Module],
    real: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    rate: float = 1e-3,
    looks: int = 10,
) -> list[Estimate]:
    """Train a fresh discriminator and report its bound and its accuracies.

    Args:
        gan: the finished model, on the data's device; it is not changed.
        build: makes an untrained discriminator of single examples.
        real: held-out data, (N, *shape), N ≥ 40: half to fit, a quarter to choose by, a quarter to report on.
        labels: (N,), for a class-conditional model: fake examples get the labels of real ones, and the bound is on the
            JSD of the distributions of (x, label).
        steps: of Adam.
        batch_size: real and fake examples of a step, at most.
        rate: of Adam.
        looks: how often the choosing part is looked at.

    Returns:
        `fresh/jsd_bound` (a lower bound, in nats), `fresh/accuracy_real`, `fresh/accuracy_fake`.

    Raises:
        DataError: for too few data.
    """
    if len(real) < SMALLEST:
        raise DataError(f"a fresh discriminator needs {SMALLEST} held-out examples at least, and there are {len(real)}")
    rows = torch.randperm(len(real), device=real.device)
    fit, choose, report = rows.tensor_split([len(real) // 2, 3 * len(real) // 4])
    device = next(gan.generator.parameters()).device
    discriminator = build().to(device)
    fresh = gan.with_discriminator(discriminator).eval()
    objective = AdversarialObjective.of_gan(fresh, NonSaturating())
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=rate)
    best, state = -float("inf"), None
    for step in range(steps):
        at = fit[torch.randint(len(fit), (min(batch_size, len(fit)),), device=fit.device)]
        discriminator.train()
        cost = objective.discriminator_cost(real[at], _at(labels, at), Progress())["cost"].mean()
        discriminator.eval()
        gradients = torch.autograd.grad(cost, list(discriminator.parameters()))
        for parameter, gradient in zip(discriminator.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if (step + 1) % max(1, steps // looks) == 0 or step + 1 == steps:
            bound = _bound(fresh, real[choose], _at(labels, choose), calibrate=False)[0].value
            if bound > best:
                best, state = bound, {name: value.clone() for name, value in discriminator.state_dict().items()}
    discriminator.load_state_dict(cast(dict[str, Tensor], state))
    return _bound(fresh, real[report], _at(labels, report), calibrate=False)


@torch.no_grad()
def _bound(gan: GAN, real: Tensor, labels: Tensor | None, *, calibrate: bool) -> list[Estimate]:
    logits = torch.cat([gan.discriminate(x, y) for x, y in _pieces(real, labels)])
    fakes = [gan.discriminate(gan.sample(len(x), y), y) for x, y in _pieces(real, labels)]
    fake = torch.cat(fakes)
    return [
        jensen_shannon_bound(logits, fake, calibrate=calibrate, name="fresh/jsd_bound"),
        accuracy(logits, real=True, name="fresh/accuracy_real"),
        accuracy(fake, real=False, name="fresh/accuracy_fake"),
    ]


def _pieces(x: Tensor, labels: Tensor | None, size: int = 1000) -> list[tuple[Tensor, Tensor | None]]:
    parts = x.split(size)
    return list(zip(parts, labels.split(size) if labels is not None else [None] * len(parts), strict=True))


def _at(labels: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if labels is None else labels[rows]
