import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentia.integration import RunningMean, monte_carlo


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=2, max_size=6))
def test_merging_blocks_changes_nothing(blocks):
    running = RunningMean()
    for block in blocks:
        running.add(torch.tensor(block, dtype=torch.float64))
    values = torch.tensor([v for block in blocks for v in block], dtype=torch.float64)
    assert torch.allclose(running.mean, values.mean(), atol=1e-11)
    assert torch.allclose(running.stderr, values.std() / math.sqrt(len(values)), atol=1e-10)


def test_means_of_arrays():
    values = torch.arange(12.0).reshape(6, 2)
    running = RunningMean((2,)).add(values[:2]).add(values[2:])
    assert torch.equal(running.mean, torch.tensor([5.0, 6.0], dtype=torch.float64))
    assert running.n == 6


def test_estimate_seed_and_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = monte_carlo(torch.randn, 100_000, seed=1, name="zero")
    again = monte_carlo(torch.randn, 100_000, seed=1, name="zero")
    other = monte_carlo(torch.randn, 100_000, seed=2, name="zero")
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert first.value != other.value
    assert first.n == 100_000
    assert first.settings["seed"] == 1
    assert first.agrees_with(0.0)
    assert not first.agrees_with(0.1)


def test_the_standard_error_covers_the_truth_as_often_as_it_says():
    draws = [monte_carlo(torch.rand, 1000, seed=seed) for seed in range(200)]
    inside = sum(draw.agrees_with(0.5, sigmas=1.0) for draw in draws)
    assert abs(inside - 200 * 0.6827) < 5 * math.sqrt(200 * 0.6827 * 0.3173)


def test_infinite_values_give_an_infinite_mean_without_a_standard_error():
    result = monte_carlo(lambda count: torch.full((count,), torch.inf), 10, seed=0)
    assert result.value == math.inf
    assert result.stderr is None


def test_one_draw_has_no_standard_error():
    with pytest.raises(ValueError, match="n >= 2"):
        monte_carlo(torch.randn, 1, seed=0)
