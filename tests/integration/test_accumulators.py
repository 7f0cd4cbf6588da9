import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentia.integration import LogSumExp, RunningMean

BLOCKS = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=6)


@given(BLOCKS)
def test_streaming_changes_nothing(blocks):
    total, running = LogSumExp(), RunningMean()
    for block in blocks:
        total.add(torch.tensor(block, dtype=torch.float64))
        running.add(torch.tensor(block, dtype=torch.float64))
    values = torch.tensor([term for block in blocks for term in block], dtype=torch.float64)
    assert torch.allclose(total.value, values.logsumexp(0), rtol=1e-14, atol=1e-13)
    assert torch.allclose(running.mean, values.mean(), atol=1e-11)
    stderr = values.std() / math.sqrt(len(values)) if len(values) > 1 else torch.tensor(torch.nan).double()
    assert torch.allclose(running.stderr, stderr, atol=1e-10, equal_nan=True)


def test_a_batch_keeps_its_sums_apart_and_large_terms_do_not_overflow():
    terms = torch.tensor([[1e5, 1e5], [-1e5, -1e5]], dtype=torch.float64)
    total = LogSumExp((2,)).add(terms).add(terms)
    expected = torch.tensor([1e5, -1e5], dtype=torch.float64) + torch.tensor(4.0, dtype=torch.float64).log()
    assert torch.allclose(total.value, expected, rtol=1e-15)


def test_the_log_of_an_empty_sum_is_minus_infinity():
    empty = torch.full((3,), -torch.inf)
    assert LogSumExp().value.item() == -torch.inf
    assert LogSumExp().add(empty).value.item() == -torch.inf
    assert LogSumExp().add(empty).add(torch.zeros(1)).value.item() == 0.0


def test_float32_terms_are_summed_in_float64():
    terms = torch.zeros(2**20, dtype=torch.float32)
    total = LogSumExp()
    for block in terms.split(1000):
        total.add(block)
    assert abs(total.value.item() - 20 * torch.tensor(2.0, dtype=torch.float64).log().item()) < 1e-13


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_terms_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or"):
        LogSumExp().add(torch.tensor([0.0, bad]))


def test_means_of_arrays():
    values = torch.arange(12.0).reshape(6, 2)
    running = RunningMean((2,)).add(values[:2]).add(values[2:])
    assert torch.equal(running.mean, torch.tensor([5.0, 6.0], dtype=torch.float64))
    assert running.n == 6


def test_the_standard_error_covers_the_truth_as_often_as_it_says():
    torch.manual_seed(0)
    draws = [RunningMean().add(torch.rand(1000)).estimate() for _ in range(200)]
    inside = sum(draw.agrees_with(0.5, sigmas=1.0) for draw in draws)
    assert abs(inside - 200 * 0.6827) < 5 * math.sqrt(200 * 0.6827 * 0.3173)


def test_infinite_values_give_an_infinite_mean_without_a_standard_error():
    result = RunningMean().add(torch.full((10,), torch.inf)).estimate()
    assert result.value == math.inf
    assert result.stderr is None
