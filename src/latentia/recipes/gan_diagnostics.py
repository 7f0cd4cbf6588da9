"""Diagnostics and pictures of a GAN in training, and its final estimates."""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latentia.data import Batch, Part, Source, Splits, StackedMNIST, ToyData, ToyDistribution, write_image_grid
from latentia.diagnostics import (
    collapse_alarm,
    discriminator_estimates,
    fresh_bound,
    gap_to_optimum,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
    mode_coverage,
    stacked_coverage,
)
from latentia.diagnostics.game import FEWEST_FOR_FRESH_BOUND
from latentia.diagnostics.mode_coverage import SAMPLES, STACKED_SAMPLES
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.files import atomic_write
from latentia.models import GAN
from latentia.objectives import AdversarialObjective, Progress
from latentia.training import seed_of, seeded

MEASURED = 1000  # examples for each measurement during training
SNAPSHOT_IMAGES = 64
SNAPSHOT_POINTS = 2000
SNAPSHOT_GRID = 100  # logits along a side
HELD_OUT = 20_000  # test examples, at most
COUNTED, COUNTED_AT_ONCE = 200_000, 20_000  # generated points whose histogram stands for a density
FINEST_GRID = 400  # spacings along a side, at most, when the JSD is integrated


@dataclass
class Diagnostics:
    """The state of the game, measured with the weights that the run would end with (averaged, if `ema` is set).

    Attributes:
        gan: the model.
        objective: the costs of its players.
        real: the real examples.
        toy: the distribution of the data, where it is a toy distribution.
    """

    gan: GAN
    objective: AdversarialObjective
    real: Splits | ToyData
    toy: ToyDistribution | None

    def measure(self, progress: Progress, path: Path) -> list[Estimate]:
        """Costs, gradient norms, accuracies, bound on the JSD, diversity; for toy data also modes and exact values."""
        gan, multiple = self.gan, self.gan.packing
        train, held_out = (self._whole_packs(self._real_batch(part, MEASURED)) for part in ("train", "validation"))
        estimates = self._costs(train, progress)
        if len(held_out.x) // multiple < 4:
            held_out = train  # without validation data the bound, which needs held-out data, is left out
        with torch.no_grad():
            fake = gan.sample(len(held_out.x), held_out.labels)
            on_fake = gan.discriminate(fake, held_out.labels)
            on_train = gan.discriminate(train.x, train.labels)
            on_held_out = None if held_out is train else gan.discriminate(held_out.x, held_out.labels)
            neutral = self._neutral(on_train, on_fake)
            estimates += discriminator_estimates(on_train, on_fake, on_held_out, neutral=neutral)
            estimates += collapse_alarm(fake, held_out.x)
        return estimates + (self._toy(self.toy) if self.toy is not None else [])

    def _neutral(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The best logit where p = q, or midway between the means if a constant is free."""
        if self.objective.loss.shift_invariant:
            return (real_logits.mean() + fake_logits.mean()) / 2
        even = torch.zeros((), device=real_logits.device)
        return self.objective.loss.optimal_logit(even, even)

    def _costs(self, train: Batch, progress: Progress) -> list[Estimate]:
        """Both costs and the norms of their gradients on one batch."""
        estimates = []
        players: tuple[tuple[str, Callable[..., dict[str, Tensor]], nn.Module], ...] = (
            ("discriminator", self.objective.discriminator_cost, self.gan.discriminator),
            ("generator", self.objective.generator_cost, self.gan.generator),
        )
        for player, cost_of, network in players:
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
        estimates = _coverage(gan, toy, perfect_repeats=0)
        if gan.has_density:
            real, fake = self._real_batch("validation", MEASURED).x, gan.sample(MEASURED)
            estimates += _exact_game(gan, self.objective, toy, real, fake)
        return estimates

    def _real_batch(self, part: Part, n: int) -> Batch:
        return self.real.examples(part, n, next(self.gan.parameters()).device)

    def _whole_packs(self, batch: Batch) -> Batch:
        count = len(batch.x) // self.gan.packing * self.gan.packing
        return Batch(batch.x[:count], None if batch.labels is None else batch.labels[:count])


@dataclass
class Snapshots:
    """Samples from latents that stay the same through the run.

    Attributes:
        gan: the model.
        real: real points to show as well, for toy distributions.
        seed: of the run.
        writes: whether this process writes the file.
    """

    gan: GAN
    real: Splits | ToyData
    seed: int
    writes: bool = True

    @torch.no_grad()
    def draw(self, progress: Progress, path: Path) -> Sequence[Estimate]:
        """Write figures/snapshot-epoch-0010.png for images; for points, an .npz of points and logits.

        The .npz holds `fake` and `real`, (n, d); and in the plane `first` and `second`, the axes of a grid around both,
        and `logits`, (len(first), len(second)), the discriminator's on that grid (of single points), with the
        generator's `log_density` and its `density_kind`; see `log_density_on_grid`.
        """
        if not self.writes:
            return []
        name = path / "figures" / f"snapshot-epoch-{round(progress.epoch):04d}"
        gan = self.gan
        device = next(gan.parameters()).device
        with seeded(seed_of("snapshots", self.seed), device):
            if gan.makes_images:
                labels = torch.arange(SNAPSHOT_IMAGES, device=device) % gan.classes if gan.classes else None
                images = gan.sample(SNAPSHOT_IMAGES, labels)
                shown = images if images.shape[1] in (1, 3) else images[:, :1]
                write_image_grid(name.with_suffix(".png"), shown)
            else:
                self._points(name.with_suffix(".npz"))
        return []

    def _points(self, path: Path) -> None:
        gan = self.gan
        device = next(gan.parameters()).device
        fake, real = gan.sample(SNAPSHOT_POINTS), self.real.examples("validation", SNAPSHOT_POINTS, device).x
        arrays, about = {"fake": fake, "real": real}, {}
        if gan.shape == (2,) and gan.packing == 1:
            low, high = real.min(0).values, real.max(0).values
            margin = 0.15 * (high - low)
            first, second = (
                torch.linspace(a, b, SNAPSHOT_GRID, device=real.device)
                for a, b in zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
            )
            logits = gan.discriminate(torch.cartesian_prod(first, second)).reshape(SNAPSHOT_GRID, SNAPSHOT_GRID)
            log_density, kind = log_density_on_grid(gan, first, second)
            arrays |= {"first": first, "second": second, "logits": logits, "log_density": log_density}
            about = {"density_kind": np.asarray(kind)}
        with atomic_write(path) as temporary:
            plain = {key: value.cpu().numpy() for key, value in arrays.items()}
            np.savez_compressed(temporary, allow_pickle=False, **plain, **about)


@torch.no_grad()
def log_density_on_grid(gan: GAN, first: Tensor, second: Tensor) -> tuple[Tensor, str]:
    """The generator's log density in the plane, as means over the cells around the points of a grid.

    Args:
        gan: makes points of the plane.
        first: centers of the cells along the first coordinate, evenly spaced.
        second: along the second.

    Returns:
        log q in nats, (len(first), len(second)), and its kind: `exact` from a flow's density at sixteen points of each
        cell, or `estimate` from the histogram of 200 000 samples (−inf in cells without any).
    """
    step = torch.stack([first[1] - first[0], second[1] - second[0]])
    if gan.has_density:
        share = (torch.arange(4, device=first.device) + 0.5) / 4 - 0.5
        offsets = torch.cartesian_prod(share, share) * step
        grid = torch.cartesian_prod(first, second)
        log_q = torch.logsumexp(torch.stack([gan.log_prob(grid + offset) for offset in offsets]), 0) - np.log(16)
        return log_q.reshape(len(first), len(second)), "exact"
    counts = torch.zeros(len(first) * len(second), dtype=torch.float64, device=first.device)
    low = torch.stack([first[0], second[0]]) - step / 2
    for _ in range(COUNTED // COUNTED_AT_ONCE):
        place = ((gan.sample(COUNTED_AT_ONCE) - low) / step).floor().long()
        inside = (place >= 0).all(1) & (place[:, 0] < len(first)) & (place[:, 1] < len(second))
        index = place[inside, 0] * len(second) + place[inside, 1]
        counts += torch.bincount(index, minlength=len(counts))
    return (counts / (COUNTED * float(step.prod()))).log().float().reshape(len(first), len(second)), "estimate"


def _coverage(gan: GAN, toy: ToyDistribution, *, perfect_repeats: int) -> list[Estimate]:
    """Mode coverage by the published protocol; empty for a distribution without modes."""
    try:
        return mode_coverage(gan.sample(SAMPLES).cpu(), toy, perfect_repeats=perfect_repeats)
    except UnsupportedError:
        return []


def _exact_game(
    gan: GAN, objective: AdversarialObjective, toy: ToyDistribution, real: Tensor, fake: Tensor
) -> list[Estimate]:
    """What known densities give: JSD, the value of the game at D*, and the gap of the discriminator to D*."""
    divergence = jensen_shannon_of_densities(toy.distribution().log_prob, gan.log_prob, real, fake)
    error = None if divergence.stderr is None else 2 * divergence.stderr
    value = 2 * divergence.value - 2 * float(np.log(2))
    estimates = [
        divergence,
        Estimate(value, "game/value_at_optimum", error, divergence.n, method="2 JSD − log 4"),
    ]
    try:
        return estimates + gap_to_optimum(gan, objective.loss, toy, real, fake)
    except UnsupportedError:  # a loss whose best discriminator does not follow from the densities
        return estimates


def final_gan_estimates(
    gan: GAN,
    real: Splits | ToyData,
    data: Source | ToyDistribution,
    *,
    build: Callable[[], nn.Module],
    steps: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Estimates of a trained GAN on test data: fresh bound, diversity, modes with a perfect model's, exact JSD.

    Args:
        gan: the model.
        real: the real examples.
        data: the setting of the data.
        build: makes an untrained discriminator.
        steps: of the fresh discriminator; 0 for none.
        seed: of the run.
        progress: see `fresh_bound`.
    """
    device = next(gan.parameters()).device
    estimates = []
    with seeded(seed_of("conclude", seed), device):
        test = real.examples("test", HELD_OUT, device)
        if steps and len(test.x) >= FEWEST_FOR_FRESH_BOUND:
            labels = test.labels if gan.classes else None
            estimates += fresh_bound(gan, build, test.x, labels, steps=steps, progress=progress)
        if len(test.x) >= 4:
            fake = gan.sample(len(test.x), test.labels if gan.classes else None)
            estimates += [e for e in collapse_alarm(fake, test.x) if e.name == "game/diversity"]
        if isinstance(data, ToyDistribution):
            estimates += _coverage(gan, data, perfect_repeats=200)
            if gan.has_density:
                fake = gan.sample(len(test.x))
                log_p, log_q = data.distribution().log_prob, gan.log_prob
                estimates.append(jensen_shannon_of_densities(log_p, log_q, test.x, fake))
                estimates += _integrated(gan, data, torch.cat([test.x, fake]))
        if isinstance(data, StackedMNIST):
            estimates += stacked_coverage(torch.cat([gan.sample(MEASURED) for _ in range(STACKED_SAMPLES // MEASURED)]))
    return [estimate.named(f"test/{estimate.name}") for estimate in estimates]


def _integrated(gan: GAN, toy: ToyDistribution, points: Tensor) -> list[Estimate]:
    """JSD by the trapezoid rule on a grid around all points, as fine as the narrowest mode; nothing where that fails.

    The Monte Carlo estimate, `game/jsd`, is reported in any case.
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
