"""Diagnostics against Gaussians whose divergence is known, and against generators that collapse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from latentia.data import Ring
from latentia.diagnostics import (
    collapse_alarm,
    discriminator_estimates,
    fresh_bound,
    gap_to_optimum,
    jensen_shannon_bound,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
)
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.models import GAN, Flow
from latentia.networks import MLP
from latentia.objectives import Hinge, Minimax, Relativistic, Wasserstein

# JSD(N(0, 1), N(μ, 1)) in nats
KNOWN = [(0.5, 0.030311), (1.0, 0.111421), (2.0, 0.336831), (4.0, 0.632720)]
N = 20_000


def normal(mean: float) -> Distribution:
    return Independent(Normal(torch.full((1,), mean), torch.ones(1)), 1)


def log_ratio(mean: float, x: Tensor) -> Tensor:
    """log N(x; 0, 1) − log N(x; mean, 1)."""
    return (mean**2 / 2 - mean * x).squeeze(-1)


@pytest.mark.parametrize(("mean", "truth"), KNOWN)
def test_the_best_discriminator_s_bound_is_tight(mean: float, truth: float):
    torch.manual_seed(0)
    real, fake = torch.randn(N, 1), mean + torch.randn(N, 1)
    bound = jensen_shannon_bound(log_ratio(mean, real), log_ratio(mean, fake), calibrate=False)
    assert bound.kind == "lower bound"
    assert bound.agrees_with(truth)
    held_out = log_ratio(mean, real)
    found = {e.name: e for e in discriminator_estimates(held_out, log_ratio(mean, fake), held_out)}
    assert found["game/value"].agrees_with(2 * truth - math.log(4))
    best = torch.distributions.Normal(0, 1).cdf(torch.tensor(mean / 2)).item()
    for name in ("real", "fake", "held_out"):
        assert abs(found[f"game/accuracy_{name}"].value - best) < 0.02


@pytest.mark.parametrize(("mean", "truth"), KNOWN)
def test_calibration_undoes_a_scale_and_a_shift(mean: float, truth: float):
    torch.manual_seed(1)
    real, fake = (5 - 0.1 * log_ratio(mean, x) for x in (torch.randn(N, 1), mean + torch.randn(N, 1)))
    bound = jensen_shannon_bound(real, fake)
    assert bound.at_most(truth)
    assert abs(bound.value - truth) < 5 * (bound.stderr or 0) + 1e-3  # the fit's own loss is of order 1/N
    assert jensen_shannon_bound(real, fake, calibrate=False).value < 0


@pytest.mark.parametrize("seed", range(5))
def test_any_function_bounds_from_below(seed: int):
    torch.manual_seed(seed)
    discriminator = MLP(hidden=(16,)).encoder((1,), 1)
    with torch.no_grad():
        real, fake = discriminator(torch.randn(N, 1)).squeeze(-1), discriminator(1 + torch.randn(N, 1)).squeeze(-1)
    for calibrate in (False, True):
        assert jensen_shannon_bound(real, fake, calibrate=calibrate).at_most(KNOWN[1][1])


@pytest.mark.parametrize(("mean", "truth"), KNOWN)
def test_both_densities_give_the_divergence(mean: float, truth: float):
    torch.manual_seed(2)
    p, q = normal(0.0), normal(mean)
    drawn = jensen_shannon_of_densities(p.log_prob, q.log_prob, p.sample(torch.Size([N])), q.sample(torch.Size([N])))
    assert drawn.agrees_with(truth)
    integrated = jensen_shannon_on_grid(p.log_prob, q.log_prob, [(-9, 13)], 0.25)
    assert abs(integrated.value - truth) < integrated.error + 1e-6  # the table has six digits


def test_the_grid_in_the_plane():
    p, q = (Independent(Normal(torch.tensor([mean, 0.0]), torch.ones(2)), 1) for mean in (0.0, 1.0))
    assert jensen_shannon_on_grid(p.log_prob, q.log_prob, [(-8, 9), (-8, 8)], 0.5).value == pytest.approx(
        0.111421, abs=1e-6
    )


def test_a_grid_that_misses_mass_is_refused():
    p, q = normal(0.0), normal(5.0)
    with pytest.raises(UnsupportedError, match="wider box"):
        jensen_shannon_on_grid(p.log_prob, q.log_prob, [(-6, 6)], 0.1)


@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
def test_accuracies_and_bound_use_one_calibrated_cut(shift: float):
    """Logits that separate real from fake, all on one side of 0: the accuracies agree with the bound of log 2."""
    torch.manual_seed(0)
    real, fake = shift + 1 + 0.1 * torch.randn(2000), shift - 1 + 0.1 * torch.randn(2000)
    found = {e.name: e.value for e in discriminator_estimates(real, fake, real)}
    assert found["game/accuracy_real"] == found["game/accuracy_fake"] == found["game/accuracy_held_out"] == 1
    assert 0.68 < found["game/jsd_bound"] < math.log(2)


def test_without_held_out_examples_there_is_no_bound():
    torch.manual_seed(0)
    names = {e.name for e in discriminator_estimates(torch.randn(50), torch.randn(50))}
    assert names == {"game/accuracy_real", "game/accuracy_fake"}


def test_diversity_of_the_data_s_own_distribution_is_one():
    torch.manual_seed(0)
    ratio, alarm = collapse_alarm(torch.randn(4000, 3), torch.randn(4000, 3))
    assert ratio.agrees_with(1.0)
    assert alarm.value == 0


def test_diversity_measures_the_scale():
    torch.manual_seed(0)
    ratio, alarm = collapse_alarm(0.7 * torch.randn(4000, 3), torch.randn(4000, 3))
    assert ratio.agrees_with(0.7)
    assert alarm.value == 0


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_a_collapse_sounds_the_alarm(scale: float):
    torch.manual_seed(0)
    ratio, alarm = collapse_alarm(1 + scale * torch.randn(500, 1, 8, 8), torch.randn(500, 1, 8, 8))
    assert ratio.agrees_with(scale)
    assert alarm.value == 1


def test_too_few_samples_for_certainty_sound_no_alarm():
    fake = torch.zeros(6, 6)
    fake[0, 0] = math.sqrt(2)  # distances 0, 0 and √2 whatever the pairs; between the rows of 1 all are √2
    ratio, alarm = collapse_alarm(fake, torch.eye(6))
    assert ratio.value == pytest.approx(1 / 3)
    assert ratio.stderr == pytest.approx(1 / 3)
    assert alarm.value == 0


class Optimal(torch.nn.Module):
    """The best discriminator of a flow's game on the ring, plus a constant."""

    def __init__(self, gan: GAN, shift: float):
        super().__init__()
        self.gan = [gan]
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        gan = self.gan[0]
        points = gan.center + gan.spread * x
        return (Ring().distribution().log_prob(points) - gan.log_prob(points) + self.shift).unsqueeze(-1)


def flow_gan() -> GAN:
    torch.manual_seed(0)
    generator = Flow(transforms=2, hidden=(16,)).decoder(2, (2,))
    return GAN(generator, MLP(hidden=(8,)).encoder((2,), 1), latent=2, shape=(2,))


def test_the_best_discriminator_has_no_gap():
    gan = flow_gan()
    real, fake = Ring().distribution().sample(torch.Size([300])), gan.sample(300)
    for shift, loss, closed in [(0.0, Minimax(), True), (2.0, Minimax(), False), (2.0, Relativistic(), True)]:
        best = gan.with_discriminator(Optimal(gan, shift))
        mean, largest = gap_to_optimum(best, loss, Ring(), real, fake)
        assert (largest.value < 1e-5) == closed
        assert mean.value <= largest.value
    assert gap_to_optimum(gan, Hinge(), Ring(), real, fake)[0].value > 0.01
    with pytest.raises(UnsupportedError, match="wasserstein"):
        gap_to_optimum(gan, Wasserstein(), Ring(), real, fake)


class Shift(torch.nn.Module):
    """z ↦ z + mean."""

    def __init__(self, mean: float):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor([mean]))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.mean


def shifted(mean: float) -> GAN:
    network = MLP(hidden=(32, 32))
    return GAN(Shift(mean), network.encoder((1,), 1), latent=1, shape=(1,))


@pytest.mark.parametrize(("mean", "truth"), [(0.0, 0.0), *KNOWN[1:3]])
def test_a_fresh_discriminator_comes_near_the_truth_from_below(mean: float, truth: float):
    torch.manual_seed(0)
    gan = shifted(mean)
    before = [p.clone() for p in gan.parameters()]
    bound, on_real, on_fake = fresh_bound(
        gan, lambda: MLP(hidden=(32,)).encoder((1,), 1), torch.randn(8000, 1), steps=150, lr=1e-2
    )
    assert bound.at_most(truth)
    assert bound.value > 0.9 * truth - 5 * (bound.stderr or 0)
    best = torch.distributions.Normal(0, 1).cdf(torch.tensor(mean / 2)).item()  # accuracy of the best cut
    assert on_real.at_most(best + 0.1) or not mean
    assert on_fake.value > best - 0.1 or not mean
    assert all(torch.equal(a, b) for a, b in zip(before, gan.parameters(), strict=True))


class Offset(torch.nn.Module):
    """A discriminator whose evaluation mode shifts all logits, as batch normalization may."""

    def __init__(self):
        super().__init__()
        self.network = MLP(hidden=(16,)).encoder((1,), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + (0.0 if self.training else 5.0)


def test_a_fresh_discriminator_is_calibrated_and_reports_its_progress():
    torch.manual_seed(0)
    seen: list[tuple[int, int]] = []
    bound, on_real, on_fake = fresh_bound(
        shifted(2.0), Offset, torch.randn(4000, 1), steps=100, lr=1e-2, progress=lambda *done: seen.append(done)
    )
    assert seen == [(step, 100) for step in range(1, 101)]
    assert bound.value > 0.8 * 0.336831
    best = torch.distributions.Normal(0, 1).cdf(torch.tensor(1.0)).item()
    assert abs(on_real.value - best) < 0.05
    assert abs(on_fake.value - best) < 0.05


def test_a_fresh_discriminator_finds_nothing_between_equal_distributions():
    torch.manual_seed(0)
    gan = shifted(0.0)
    found = [
        fresh_bound(gan, lambda: MLP(hidden=(8,)).encoder((1,), 1), torch.randn(80, 1), steps=20)[0].value
        for _ in range(20)
    ]
    mean = Estimate.mean(torch.tensor(found, dtype=torch.float64))
    assert mean.at_most(0.0)
    assert min(found) > -0.357


def test_a_fresh_discriminator_needs_data():
    with pytest.raises(DataError, match="40"):
        fresh_bound(shifted(1.0), lambda: MLP(hidden=(4,)).encoder((1,), 1), torch.randn(10, 1))
