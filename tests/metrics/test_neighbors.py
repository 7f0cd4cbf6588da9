"""Precision, recall, density and coverage against a plain O(N²) program, and the direction in which each moves."""

import numpy as np
import pytest
import torch

from latentia.errors import ConfigurationError
from latentia.metrics import memorization, neighbor_scores
from tests.metrics.known_features import normal


def plain(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """The four scores as their definitions read."""

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radii(a):
        return np.sort(distances(a, a), axis=1)[:, k]  # the 0-th is the point itself

    between = distances(real, fake)
    in_real, in_fake = between < radii(real)[:, None], between < radii(fake)[None]
    return {
        "precision": in_real.any(0).mean(),
        "recall": in_fake.any(1).mean(),
        "density": in_real.sum(0).mean() / k,
        "coverage": in_real.any(1).mean(),
    }


def values(real, fake, **options) -> dict[str, float]:
    return {e.name: e.value for e in neighbor_scores(real, fake, **options)}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("sizes", [(150, 150), (60, 131), (131, 60), (12, 9)])
@pytest.mark.parametrize("dimension", [2, 6, 200])
def test_scores_are_those_of_the_definitions(k, sizes, dimension):
    x, y = normal(sizes[0], 1, dimension=dimension), normal(sizes[1], 2, 0.2, 1.1, dimension)
    assert values(x, y, k=k) == pytest.approx(plain(x.numpy(), y.numpy(), k), rel=1e-12)


def test_scores_are_exact_where_float32_would_decide_wrongly():
    """Points on a line at distances that differ by 1e-9, far from 0."""
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] + 1e4
    gap = (x[1] - x[0]).item()
    for shift, inside in ((1 - 1e-7, 1.0), (1 + 1e-7, 0.0)):
        outermost = x[-1:] + gap * shift
        y = torch.cat([outermost, x[:4] - 50])
        assert neighbor_scores(x, y, k=1).precision.value == pytest.approx(inside / 5)


def integers(points: np.ndarray) -> np.ndarray:
    """All squared distances of integer points (n, D), exactly, (n, n)."""
    return ((points[:, None] - points[None]) ** 2).sum(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 255, 1 / 3])
@pytest.mark.parametrize("kind", ["binary", "lattice", "levels"])
def test_ties_are_decided_as_in_exact_arithmetic(kind, scale, dtype):
    generator = np.random.default_rng(3)
    shape, high = {"binary": ((160, 49), 2), "lattice": ((160, 2), 6), "levels": ((160, 9), 256)}[kind]
    points = generator.integers(0, high, shape)
    x, y = points[:90], points[90:]
    squares = integers(points)
    k = 4
    radii = np.concatenate([np.sort(squares[:90, :90], 1)[:, k], np.sort(squares[90:, 90:], 1)[:, k]])
    in_real, in_fake = squares[:90, 90:] < radii[:90, None], squares[:90, 90:] < radii[90:]
    expected = [in_real.any(0).mean(), in_fake.any(1).mean(), in_real.sum(0).mean() / k, in_real.any(1).mean()]
    found = neighbor_scores(*(torch.tensor(z).to(dtype) * scale + 0.7 for z in (x, y)), k=k, interval=False)
    assert [e.value for e in found] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 255])
def test_authenticity_of_tied_points_is_that_of_exact_arithmetic(scale):
    generator = np.random.default_rng(5)
    points = generator.integers(0, 2, (300, 16))
    train, fake = points[:200], points[200:]
    squares = integers(points)
    own = squares[:200, :200] + 1000 * np.eye(200, dtype=int)
    place = squares[200:, :200].argmin(1)
    expected = (squares[200:, :200].min(1) > own.min(1)[place]).mean()
    (found,) = memorization(torch.tensor(train) * scale, torch.tensor(fake) * scale)
    assert found.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("interval", [True, False])
@pytest.mark.parametrize("block", [1, 7, 64, 5000])
def test_block_size_changes_nothing(block, interval):
    x, y = normal(90, 1), normal(70, 2, 0.3)
    found = neighbor_scores(x, y, k=3, block=block, interval=interval)
    whole = neighbor_scores(x, y, k=3)
    assert [e.value for e in found] == [e.value for e in whole]
    assert [e.stderr for e in found] == ([e.stderr for e in whole] if interval else [None] * 4)


def test_distances_of_any_scale_serve():
    x, y = normal(60, 1), normal(60, 2, 0.4)
    reference = values(x, y)
    for scale in (1e-30, 1e25):
        assert values(x * scale, y * scale) == pytest.approx(reference)


REAL = normal(400, 1)
MODES = torch.where(torch.arange(400)[:, None] % 4 == 0, 30.0, 0.0)  # a quarter of the real samples lie apart
CASES = {  # fake samples; what must be high (above 0.8) and low (below 0.3)
    "the distribution itself": (REAL, normal(400, 2), {"precision", "recall", "coverage"}, set()),
    "collapsed": (REAL, normal(400, 3, scale=0.05), {"precision"}, {"recall", "coverage"}),
    "noisy": (REAL, normal(400, 4, scale=8.0), {"recall"}, {"precision", "coverage"}),
    "far away": (REAL, normal(400, 5, shift=50.0), set(), {"precision", "recall", "density", "coverage"}),
    "memorized": (REAL, REAL.clone(), {"precision", "recall", "coverage"}, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_each_score_moves_the_right_way(case):
    real, fake, high, low = CASES[case]
    found = values(real, fake)
    for name in high:
        assert found[name] > 0.8, found
    for name in low:
        assert found[name] < 0.3, found


def test_a_dropped_mode_lowers_recall_and_coverage_by_its_share():
    found = values(REAL + MODES, normal(400, 6))
    assert found["precision"] > 0.8
    assert found["coverage"] == pytest.approx(0.75 * 0.97, abs=0.05)
    assert found["recall"] < 0.78


def test_equal_distributions_have_density_one_and_the_known_coverage():
    table = torch.tensor(
        [[e.value for e in neighbor_scores(normal(200, 2 * s), normal(200, 2 * s + 1), k=3)] for s in range(60)]
    )
    mean, error = table.mean(0), table.std(0) / 60**0.5
    assert abs(mean[2] - 1) < 5 * error[2]
    assert abs(mean[3] - (1 - 0.5**3)) < 5 * error[3] + 0.005  # of order 1/n


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.2)])
def test_intervals_hold_the_expectation_at_this_size(shift, scale):
    scores = [neighbor_scores(normal(200, 100 + s), normal(200, 500 + s, shift, scale)) for s in range(120)]
    table = np.array([[[e.value, e.stderr] for e in each] for each in scores])
    mean = table[:, :, 0].mean(0)
    held = (np.abs(table[:, :, 0] - mean) < 1.96 * table[:, :, 1]).mean(0)
    assert (held >= 0.88).all(), held
    assert (table[:, :, 1].mean(0) < 2.2 * table[:, :, 0].std(0)).all()


def test_too_few_samples_have_scores_without_standard_errors():
    assert all(e.stderr is None for e in neighbor_scores(normal(20, 1), normal(20, 2)))
    assert all(e.stderr is not None for e in neighbor_scores(normal(30, 1), normal(30, 2)))


def test_k_must_be_at_least_one():
    with pytest.raises(ConfigurationError, match="give at least 1"):
        neighbor_scores(REAL, REAL, k=0)


def test_memory_does_not_grow_with_the_square(monkeypatch):
    """No tensor of more than a block's rows by the other set's is made."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    x, y = normal(3000, 1, dimension=3), normal(3000, 2, dimension=3)
    with Watch():
        neighbor_scores(x, y, k=2, block=250)
    assert largest <= 3_200_000  # 100 000 pairs in 31 columns; the whole matrix has 9 000 000
