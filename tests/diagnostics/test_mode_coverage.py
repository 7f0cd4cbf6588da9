"""Mode coverage of a perfect model, of collapsed ones, and the direction of each estimate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from latentia.data import Dirac, Grid, Mixture1D, Moons, Ring, ToyDistribution
from latentia.diagnostics import mode_coverage, stacked_coverage
from latentia.diagnostics.mode_coverage import SAMPLES, STACKED_SAMPLES, perfect_coverage
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate

PERFECT_SHARE = 1 - math.exp(-9 / 2)


def figures(points: torch.Tensor, toy: ToyDistribution, **options: int) -> dict[str, Estimate]:
    return {e.name.removeprefix("modes/"): e for e in mode_coverage(points, toy, **options)}


@pytest.mark.parametrize("toy", [Ring(), Grid()], ids=["ring", "grid"])
def test_a_perfect_model_scores_what_theory_says(toy: ToyDistribution):
    torch.manual_seed(0)
    got = {e.name.removeprefix("modes/perfect/"): e for e in perfect_coverage(toy, repeats=200)}
    modes = len(toy.modes)  # pyright: ignore
    of_mean = {name: e.stderr / math.sqrt(200) for name, e in got.items()}  # pyright: ignore
    assert got["found"].value == modes
    assert abs(got["high_quality"].value - PERFECT_SHARE) < 5 * of_mean["high_quality"]
    spread_of_one = math.sqrt(PERFECT_SHARE * (1 - PERFECT_SHARE) / SAMPLES)
    assert got["high_quality"].stderr == pytest.approx(spread_of_one, rel=5 / math.sqrt(2 * 200))
    assert abs(got["spread"].value - 1) < 5 * of_mean["spread"] + 1e-3
    # 2n · KL is about χ² with K − 1 degrees of freedom; the next term of the expansion is of order 1/n².
    floor = (modes - 1) / (2 * SAMPLES * PERFECT_SHARE)
    assert abs(got["reverse_kl"].value - floor) < 5 * of_mean["reverse_kl"] + 10 * floor**2


def test_samples_of_the_distribution_agree_with_a_perfect_model():
    torch.manual_seed(1)
    got = figures(Grid().distribution().sample(torch.Size([SAMPLES])), Grid())
    for name in ("found", "high_quality", "reverse_kl", "spread"):
        perfect = got[f"perfect/{name}"]
        assert abs(got[name].value - perfect.value) <= 5 * perfect.stderr  # pyright: ignore


def test_a_collapse_to_one_mode():
    torch.manual_seed(0)
    points = Ring().modes[2] + 0.01 * torch.randn(1000, 2)
    got = figures(points, Ring(), perfect_repeats=0)
    assert got["found"].value == 1
    assert got["reverse_kl"].value == pytest.approx(math.log(8))
    assert got["high_quality"].agrees_with(PERFECT_SHARE)


def test_lost_modes_cost_the_log_of_their_share():
    centers = Grid().modes[:5].repeat(100, 1)
    got = figures(centers, Grid(), perfect_repeats=0)
    assert got["found"].value == 5
    assert got["reverse_kl"].value == pytest.approx(math.log(5))
    assert got["high_quality"].value == 1


def test_a_collapse_of_variance_is_seen_above_the_perfect_share():
    torch.manual_seed(0)
    centers = Ring().modes.repeat(500, 1)
    narrow = figures(centers + 0.003 * torch.randn_like(centers), Ring(), perfect_repeats=0)
    wide = figures(centers + 0.02 * torch.randn_like(centers), Ring(), perfect_repeats=0)
    assert narrow["high_quality"].value > PERFECT_SHARE
    assert narrow["spread"].value == pytest.approx(0.3, abs=0.02)
    assert wide["high_quality"].value < 0.8
    assert wide["spread"].value > 1.2


def test_points_between_the_modes_lower_quality_alone():
    torch.manual_seed(0)
    points = Ring().distribution().sample(torch.Size([2000]))
    points[:500] *= 0.5
    got = figures(points, Ring(), perfect_repeats=0)
    assert got["high_quality"].agrees_with(0.75 * PERFECT_SHARE)
    assert got["found"].value == 8


def test_nothing_on_any_mode():
    got = figures(torch.zeros(50, 2), Ring(), perfect_repeats=0)
    assert (got["found"].value, got["high_quality"].value, got["reverse_kl"].value) == (0, 0, math.inf)


def test_one_dimension():
    torch.manual_seed(0)
    toy = Mixture1D()
    got = figures(toy.distribution().sample(torch.Size([4000])), toy, perfect_repeats=0)
    assert got["high_quality"].agrees_with(0.9973002)
    assert got["spread"].value == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("toy", [Moons(), Dirac()], ids=["moons", "dirac"])
def test_distributions_without_modes_are_refused(toy: ToyDistribution):
    with pytest.raises(UnsupportedError, match="no modes"):
        mode_coverage(torch.zeros(10, 2), toy)


def test_unequal_weights_are_refused():
    with pytest.raises(UnsupportedError, match="unequal"):
        mode_coverage(torch.zeros(10, 1), Mixture1D(weights=(1.0, 2.0, 1.0)))


def by_gray(images: Tensor) -> Tensor:
    """A classifier of images whose gray is their digit in tenths."""
    return one_hot((images[:, 0, 0, 0] * 10).round().long(), 10).float()


def images_of(labels: Tensor) -> Tensor:
    digits = torch.stack([labels // 100, labels // 10 % 10, labels % 10], 1)
    return (digits / 10).reshape(-1, 3, 1, 1).expand(-1, 3, 8, 8)


def test_stacked_digits_are_counted_as_numbers():
    labels = torch.tensor([0, 7, 120, 999, 345, 345])
    got = {e.name: e.value for e in stacked_coverage(images_of(labels), by_gray)}
    assert got["stacked/found"] == 5
    with pytest.raises(DataError, match="three channels"):
        stacked_coverage(torch.zeros(2, 1, 8, 8), by_gray)


def test_a_perfect_stacked_generator_has_the_expected_kl():
    torch.manual_seed(0)
    got = {e.name: e for e in stacked_coverage(images_of(torch.randint(1000, (STACKED_SAMPLES,))), by_gray)}
    assert got["stacked/found"].value == 1000
    spread = (2 * 999) ** 0.5 / (2 * STACKED_SAMPLES)  # of χ² with 999 degrees of freedom over 2n
    assert abs(got["stacked/kl"].value - 0.0196) < 5 * spread
    assert got["stacked/kl_perfect"].value == pytest.approx(0.0192, abs=1e-4)
