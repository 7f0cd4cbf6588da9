import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentia.integration import LogSumExp


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=6))
def test_streaming_changes_nothing(blocks):
    total = LogSumExp()
    for block in blocks:
        total.add(torch.tensor(block, dtype=torch.float64))
    everything = torch.tensor([term for block in blocks for term in block], dtype=torch.float64)
    assert torch.allclose(total.value, everything.logsumexp(0), rtol=1e-14, atol=1e-13)


def test_a_batch_keeps_its_sums_apart_and_large_terms_do_not_overflow():
    terms = torch.tensor([[1e5, 1e5], [-1e5, -1e5]], dtype=torch.float64)
    total = LogSumExp((2,)).add(terms).add(terms)
    expected = torch.tensor([1e5, -1e5], dtype=torch.float64) + torch.tensor(4.0, dtype=torch.float64).log()
    assert torch.allclose(total.value, expected, rtol=1e-15)


def test_nothing_is_minus_infinity():
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
