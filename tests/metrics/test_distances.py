"""Fréchet, kernel and sliced Wasserstein distances against closed forms, torchmetrics, POT and plain sums."""

import math

import numpy as np
import ot
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from latentia.metrics import (
    frechet_distance,
    kernel_distance,
    sliced_wasserstein,
)
from latentia.metrics.frechet import frechet_extrapolated, frechet_of_moments
from tests.metrics.known_features import normal


class Given(torch.nn.Module):
    """Passes features through torchmetrics as if they were images."""

    num_features = 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_frechet_is_torchmetrics():
    real, fake = normal(300, 1), normal(200, 2, shift=0.3, scale=1.4)
    oracle = FrechetInceptionDistance(feature=Given(), normalize=True, input_img_size=(1, 2, 3)).set_dtype(
        torch.float64
    )
    oracle.update(real, real=True)
    oracle.update(fake, real=False)
    assert frechet_distance(real, fake).value == pytest.approx(oracle.compute().item(), rel=1e-9)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    mean, scale = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.5, 2.0, 3.0])
    truth = (mean.square() + (1 - scale).square()).sum().item()
    found = frechet_of_moments(torch.zeros(3), torch.eye(3), mean, torch.diag(scale.square()))
    assert found == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("n", [3, 10, 40])
def test_frechet_of_a_set_with_itself_is_zero_with_fewer_samples_than_features_too(n):
    x = normal(n, 3, dimension=20)
    assert frechet_distance(x, x).value < 1e-12 * x.square().sum().item()


def test_frechet_with_few_samples_equals_the_formula_in_high_precision():
    """The product of two singular covariances, whose root the usual programs take with an error of 1e-4."""
    import mpmath

    x, y = normal(4, 1, dimension=7), normal(5, 2, shift=0.4, dimension=7)
    with mpmath.workdps(60):
        a, b = (mpmath.matrix((z - z.mean(0)).numpy().tolist()) for z in (x, y))
        product = (a.T * a / 3) * (b.T * b / 4)
        root = sum(
            mpmath.sqrt(mpmath.re(v)) for v in mpmath.eig(product, left=False, right=False) if mpmath.re(v) > 1e-40
        )
        traces = sum((z - z.mean(0)).square().sum().item() / (len(z) - 1) for z in (x, y))
        truth = (x.mean(0) - y.mean(0)).square().sum().item() + traces - 2 * float(root)
    assert frechet_distance(x, y).value == pytest.approx(truth, abs=1e-12)


def test_frechet_does_not_change_when_features_are_shifted_and_turned():
    x, y = normal(100, 1), normal(120, 2, scale=1.3)
    turn = torch.linalg.qr(normal(6, 5)).Q
    moved = frechet_distance(x @ turn + 100, y @ turn + 100)
    plain = frechet_distance(x, y)
    assert moved.value == pytest.approx(plain.value, rel=1e-9)
    assert moved.stderr == pytest.approx(plain.stderr, rel=1e-9)


def test_frechet_grows_with_the_shift_by_its_square():
    x = normal(500, 1)
    assert frechet_distance(x, x + 2.0).value == pytest.approx(6 * 4.0, rel=1e-12)


def repeated(metric, shift, scale, n=100, repeats=200):
    table = [metric(normal(n, 10_000 + r), normal(n, 20_000 + r, shift, scale)) for r in range(repeats)]
    return np.array([[e.value, e.stderr] for e in table])


def covers(table, truth):
    return np.mean(np.abs(table[:, 0] - truth) < 1.96 * table[:, 1])


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.2, 1.3), (0.6, 0.7)])
def test_extrapolated_frechet_is_unbiased_and_its_interval_holds_the_truth(shift, scale):
    table = repeated(frechet_extrapolated, shift, scale)
    truth = 6 * (shift**2 + (1 - scale) ** 2)
    assert abs(table[:, 0].mean() - truth) < 4 * table[:, 0].std() / math.sqrt(len(table)) + 0.3 / 100
    assert 0.90 <= covers(table, truth) <= (1.0 if shift == 0 else 0.985)


def test_plain_frechet_is_biased_upwards_by_a_constant_over_n():
    truth = 6 * (0.2**2 + 0.3**2)
    biases = [repeated(frechet_distance, 0.2, 1.3, n)[:, 0].mean() - truth for n in (60, 240)]
    assert biases[1] > 0
    assert 3 < biases[0] / biases[1] < 5.5


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_kernel_distance_is_the_plain_sum_and_block_size_is_rounding(degree):
    x, y = normal(37, 1), normal(29, 2, shift=0.5)

    def kernel(a, b):
        return (a @ b.T / 6 + 1) ** degree

    xx, yy = ((kernel(z, z).sum() - kernel(z, z).trace()) / (len(z) * (len(z) - 1)) for z in (x, y))
    truth = (xx + yy - 2 * kernel(x, y).mean()).item()
    found = [kernel_distance(x, y, degree=degree, block=b) for b in (1, 10, 1000)]
    for estimate in found:
        assert estimate.value == pytest.approx(truth, rel=1e-11, abs=1e-12)
        assert estimate.stderr == pytest.approx(found[0].stderr, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance_is_torchmetrics_on_one_subset_of_all():
    x, y = normal(100, 1), normal(100, 2, shift=0.5)
    oracle = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=100, normalize=True).set_dtype(
        torch.float64
    )
    oracle.update(x, real=True)
    oracle.update(y, real=False)
    assert kernel_distance(x, y).value == pytest.approx(oracle.compute()[0].item(), rel=1e-5)  # it computes in float32


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.2)])
def test_kernel_distance_has_the_standard_error_it_states(shift, scale):
    table = repeated(kernel_distance, shift, scale)
    big = kernel_distance(normal(2500, 1), normal(2500, 2, shift, scale))
    truth = 0.0 if shift == 0 else big.value
    slack = 4 * math.hypot(table[:, 0].std() / math.sqrt(len(table)), big.stderr)
    assert abs(table[:, 0].mean() - truth) < slack
    assert 0.90 <= covers(table, truth) <= (1.0 if shift == 0 else 0.98)
    assert table[:, 1].mean() == pytest.approx(table[:, 0].std(), rel=0.2)


def test_sliced_wasserstein_is_pot_in_the_mean_over_directions():
    x, y = normal(80, 1), normal(60, 2, shift=0.5, scale=1.5)
    found = sliced_wasserstein(x, y, directions=500)
    oracle = [ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=500, seed=s) for s in range(12)]
    spread = np.std(oracle) * math.sqrt(1 + 1 / 12)
    assert abs(found.value - np.mean(oracle)) < 5 * spread


def test_sliced_wasserstein_of_a_shift_is_known():
    x = normal(400, 1)
    shift = torch.tensor([3.0, 0, 0, 0, 0, 4.0])
    found = sliced_wasserstein(x, x + shift, directions=2000)
    assert abs(found.value - 5 / math.sqrt(6)) < 5 * found.stderr
    assert found.stderr < 0.05


def test_sliced_wasserstein_states_its_standard_error():
    """Over fresh samples and fresh directions alike."""
    pairs = ((normal(400, 1000 + r), normal(400, 2000 + r, 0.5, 1.5), r) for r in range(60))
    table = np.array(
        [[e.value, e.stderr] for e in (sliced_wasserstein(x, y, directions=32, seed=r) for x, y, r in pairs)]
    )
    assert table[:, 0].std() * 0.8 < table[:, 1].mean() < table[:, 0].std() * 1.4


def test_a_set_is_at_sliced_distance_zero_from_itself():
    x = normal(64, 1)
    assert sliced_wasserstein(x, x).value == 0.0
