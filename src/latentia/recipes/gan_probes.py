"""What is measured and drawn while a GAN trains, and at its end."""

from __future__ import annotations

__all__ = ["Diagnostics", "Snapshots", "conclude_gan"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latentia.data import ToyDistribution, write_image_grid
from latentia.diagnostics.discriminator_bound import SMALLEST, fresh_bound
from latentia.diagnostics.game import (
    accuracy,
    collapse_alarm,
    gap_to_optimum,
    jensen_shannon_bound,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
    players_value,
)
from latentia.diagnostics.mode_coverage import PROTOCOL_SAMPLES, mode_coverage
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.models import GAN
from latentia.objectives import AdversarialObjective, Progress
from latentia.recipes.reality import Reality
from latentia.training import Batch, seed_of, seeded

LOOKED_AT = 1000
PICTURED = 64
POINTS_PICTURED = 2000
LEVELS = 100
HELD_OUT_POINTS = 20_000
FINEST_GRID = 400  # spacings along a side, at most, when the JSD is integrated


@dataclass
class Diagnostics:
    """The state of the game, seen with the weights that the run would end with (averaged, where it averages).

    Attributes:
        gan: who plays.
        duel: their costs.
        reality: the real examples.
        toy: the distribution of the data, where it is a toy distribution.
    """

    gan: GAN
    duel: AdversarialObjective
    reality: Reality
    toy: ToyDistribution | None

    def measure(self, progress: Progress, path: Path) -> list[Estimate]:
        """Costs, accuracies, the certified bound, gradient norms, diversity; for toy distributions modes and what is exact."""
        gan, multiple = self.gan, self.gan.packing
        train, held_out = (self._whole_packs(self.reality.some(which, LOOKED_AT)) for which in ("train", "validation"))
        estimates = self._costs(train, progress)
        if len(held_out.x) // multiple < 4:
            held_out = train  # a run without validation data; the bound is then not on held-out data and is left out
        with torch.no_grad():
            fake = gan.sample(len(held_out.x), held_out.labels)
            on_fake = gan.discriminate(fake, held_out.labels)
            on_train = gan.discriminate(train.x, train.labels)
            neutral = self._neutral(on_train, on_fake)
            on_train, on_fake = on_train - neutral, on_fake - neutral
            estimates += [
                accuracy(on_train, real=True, name="game/accuracy_real"),
                accuracy(on_fake, real=False, name="game/accuracy_fake"),
            ]
            if held_out is not train:
                on_held_out = gan.discriminate(held_out.x, held_out.labels) - neutral
                estimates += [
                    accuracy(on_held_out, real=True, name="game/accuracy_held_out"),
                    players_value(on_held_out, on_fake),
                    jensen_shannon_bound(on_held_out, on_fake),
                ]
            estimates += collapse_alarm(fake, held_out.x)
        return estimates + (self._toy(self.toy) if self.toy is not None else [])

    def _neutral(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The logit that says neither real nor fake: the best one where p = q, or midway if a constant is free."""
        if self.duel.loss.shift_invariant:
            return (real_logits.mean() + fake_logits.mean()) / 2
        even = torch.zeros((), device=real_logits.device)
        return self.duel.loss.optimal_logit(even, even)

    def _costs(self, train: Batch, progress: Progress) -> list[Estimate]:
        """Both costs and the norms of their gradients on one batch."""
        estimates = []
        turns: tuple[tuple[str, Callable[..., dict[str, Tensor]], nn.Module], ...] = (
            ("discriminator", self.duel.discriminator_cost, self.gan.discriminator),
            ("generator", self.duel.generator_cost, self.gan.generator),
        )
        for player, cost_of, network in turns:
            cost = cost_of(train.x, train.labels, progress)["cost"]
            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(cost.mean(), parameters, allow_unused=True)
            norm = torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt().item()
            estimates += [
                Estimate.mean(cost, name=f"game/{player}_cost", unit="1", method="mean over training examples"),
                Estimate(norm, f"game/{player}_gradient_norm", None, len(cost), "1", method="one batch"),
            ]
        return estimates

    @torch.no_grad()
    def _toy(self, toy: ToyDistribution) -> list[Estimate]:
        gan = self.gan
        estimates = coverage(gan, toy, perfect_repeats=0)
        if gan.has_density:
            real, fake = self.reality.some("validation", LOOKED_AT).x, gan.sample(LOOKED_AT)
            estimates += exact_game(gan, self.duel, toy, real, fake)
        return estimates

    def _whole_packs(self, batch: Batch) -> Batch:
        count = len(batch.x) // self.gan.packing * self.gan.packing
        return Batch(batch.x[:count], None if batch.labels is None else batch.labels[:count])


@dataclass
class Snapshots:
    """Samples from noise that stays the same through the run.

    Attributes:
        gan: who generates.
        reality: real points to show beside, for toy distributions.
        seed: of the run.
        writes: whether this process writes the file.
    """

    gan: GAN
    reality: Reality
    seed: int
    writes: bool = True

    @torch.no_grad()
    def draw(self, progress: Progress, path: Path) -> Sequence[Estimate]:
        """Write figures/snapshot-epoch-0010.png for images; for points, an .npz of points and logits.

        The .npz holds `fake` and `real`, (n, d); and in the plane `first` and `second`, the axes of a grid around both,
        and `logits`, (len(first), len(second)), the discriminator's on that grid (of single points).
        """
        if not self.writes:
            return []
        name = path / "figures" / f"snapshot-epoch-{round(progress.epoch):04d}"
        gan = self.gan
        device = next(gan.parameters()).device
        with seeded(seed_of("snapshots", self.seed), device):
            if gan.makes_images:
                labels = torch.arange(PICTURED, device=device) % gan.classes if gan.classes else None
                images = gan.sample(PICTURED, labels)
                shown = images if images.shape[1] in (1, 3) else images[:, :1]
                write_image_grid(name.with_suffix(".png"), shown)
            else:
                self._points(name.with_suffix(".npz"))
        return []

    def _points(self, path: Path) -> None:
        gan = self.gan
        fake, real = gan.sample(POINTS_PICTURED), self.reality.some("validation", POINTS_PICTURED).x
        arrays = {"fake": fake, "real": real}
        if gan.shape == (2,) and gan.packing == 1:
            low, high = real.min(0).values, real.max(0).values
            margin = 0.15 * (high - low)
            first, second = (
                torch.linspace(a, b, LEVELS, device=real.device)
                for a, b in zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
            )
            logits = gan.discriminate(torch.cartesian_prod(first, second)).reshape(LEVELS, LEVELS)
            arrays |= {"first": first, "second": second, "logits": logits}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, **{key: value.cpu().numpy() for key, value in arrays.items()})


def coverage(gan: GAN, toy: ToyDistribution, *, perfect_repeats: int) -> list[Estimate]:
    """Mode coverage by the published protocol, or nothing where the distribution has no modes to count."""
    try:
        return mode_coverage(gan.sample(PROTOCOL_SAMPLES).cpu(), toy, perfect_repeats=perfect_repeats)
    except UnsupportedError:
        return []


def exact_game(
    gan: GAN, duel: AdversarialObjective, toy: ToyDistribution, real: Tensor, fake: Tensor
) -> list[Estimate]:
    """What only known densities tell: JSD, the value of the game at D*, and the gap of the discriminator to D*."""
    divergence = jensen_shannon_of_densities(toy.distribution().log_prob, gan.log_prob, real, fake)
    error = None if divergence.stderr is None else 2 * divergence.stderr
    value = 2 * divergence.value - 2 * float(np.log(2))
    estimates = [
        divergence,
        Estimate(value, "game/value_at_optimum", error, divergence.n, method="2 JSD − log 4 (item 3d)"),
    ]
    try:
        return estimates + gap_to_optimum(gan, duel.loss, toy, real, fake)
    except UnsupportedError:  # a loss whose best discriminator is not given by the densities
        return estimates


def conclude_gan(
    gan: GAN, reality: Reality, toy: ToyDistribution | None, *, build: Callable[[], nn.Module], steps: int, seed: int
) -> list[Estimate]:
    """The figures of a finished GAN on test data: fresh bound, diversity, modes beside a perfect model's, exact JSD.

    Args:
        gan: the model.
        reality: the real examples.
        toy: the distribution of the data, where it is a toy distribution.
        build: makes an untrained discriminator.
        steps: of the fresh discriminator; 0 for none.
        seed: of the run.
    """
    device = next(gan.parameters()).device
    estimates = []
    with seeded(seed_of("conclude", seed), device):
        test = reality.some("test", HELD_OUT_POINTS)
        if steps and len(test.x) >= SMALLEST:
            estimates += fresh_bound(gan, build, test.x, test.labels if gan.classes else None, steps=steps)
        if len(test.x) >= 4:
            fake = gan.sample(len(test.x), test.labels if gan.classes else None)
            estimates += [e for e in collapse_alarm(fake, test.x) if e.name == "game/diversity"]
        if toy is not None:
            estimates += coverage(gan, toy, perfect_repeats=200)
            if gan.has_density:
                fake = gan.sample(len(test.x))
                log_p, log_q = toy.distribution().log_prob, gan.log_prob
                estimates.append(jensen_shannon_of_densities(log_p, log_q, test.x, fake))
                estimates += _integrated(gan, toy, torch.cat([test.x, fake]))
    return [estimate.named(f"test/{estimate.name}") for estimate in estimates]


def _integrated(gan: GAN, toy: ToyDistribution, points: Tensor) -> list[Estimate]:
    """JSD by the trapezoid rule on a grid around all points, as fine as the narrowest mode; nothing where that fails.

    (The Monte Carlo figure, `game/jsd`, stands in any case.)
    """
    low, high = points.min(0).values, points.max(0).values
    margin = 0.1 * (high - low)
    box = list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))
    scale = toy.scale
    narrowest = 0.0 if scale is None else scale.min().item()
    spacing = max(narrowest, max(b - a for a, b in box) / FINEST_GRID)
    try:
        return [
            jensen_shannon_on_grid(toy.distribution().log_prob, gan.log_prob, box, spacing, name="game/jsd_integrated")
        ]
    except UnsupportedError:
        return []
