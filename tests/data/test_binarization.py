import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentia.data.binarization import _integers_below_255, binarize_dynamic, binarize_static, threshold, to_unit

DRAWS = {
    "dynamic": binarize_dynamic,
    "dynamic, as on a GPU": lambda images: torch.lt(_integers_below_255(images, None), images).float(),
    "static": lambda images: binarize_static(images, seed=5),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_probability_is_gray_over_255(draw):
    """All 256 gray levels at once, each to its standard error, and jointly by chi-square."""
    torch.manual_seed(0)
    n = 20_000
    images = torch.arange(256, dtype=torch.uint8).expand(n, 256)
    share = draw(images).double().mean(0)
    p = torch.arange(256).double() / 255
    assert share[0] == 0
    assert share[255] == 1
    inner = slice(1, 255)
    z = (share - p)[inner] / (p * (1 - p) / n).sqrt()[inner]
    assert z.abs().max() < 5
    assert abs((z**2).sum() - 254) < 5 * math.sqrt(2 * 254)


def test_probability_is_finer_than_one_in_256():
    """P = 128/255 and not 128/256: with 8 million draws the two lie 11 standard errors apart."""
    torch.manual_seed(1)
    n = 8_000_000
    share = binarize_dynamic(torch.full((n,), 128, dtype=torch.uint8)).double().mean().item()
    stderr = 0.5 / math.sqrt(n)
    assert abs(share - 128 / 255) < 5 * stderr
    assert abs(share - 128 / 256) > 5 * stderr


def test_pixels_are_independent():
    torch.manual_seed(2)
    bits = binarize_dynamic(torch.full((40_000, 24), 100, dtype=torch.uint8)).double()
    correlation = torch.corrcoef(bits.T) - torch.eye(24)
    assert correlation.abs().max() < 5 / math.sqrt(40_000)


@given(st.integers(0, 40), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_dynamic_follows_the_generator(count, seed):
    """For sizes that do not fill whole words too; and the global generator serves when none is given."""
    images = torch.randint(0, 256, (count, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    own = binarize_dynamic(images, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    assert torch.equal(own, binarize_dynamic(images))
    assert own.shape == images.shape
    assert own.dtype == torch.float32


def test_dynamic_samples_at_each_call():
    torch.manual_seed(0)
    images = torch.full((10, 100), 128, dtype=torch.uint8)
    assert not torch.equal(binarize_dynamic(images), binarize_dynamic(images))


def test_dynamic_leaves_images_unchanged_and_takes_strided_ones():
    images = torch.randint(0, 256, (8, 3, 5, 4), dtype=torch.uint8).permute(0, 1, 3, 2)
    before = images.clone()
    torch.manual_seed(0)
    strided = binarize_dynamic(images)
    torch.manual_seed(0)
    assert torch.equal(strided, binarize_dynamic(images.contiguous()))
    assert torch.equal(images, before)


def test_static_bits_belong_to_the_images():
    images = torch.randint(0, 256, (500, 1, 7, 7), dtype=torch.uint8)
    whole = binarize_static(images, 3)
    assert torch.equal(whole, binarize_static(images, 3))
    assert torch.equal(whole[:123], binarize_static(images[:123], 3))
    assert not torch.equal(whole, binarize_static(images, 4))


@pytest.mark.parametrize("binarize", [*DRAWS.values(), threshold], ids=[*DRAWS, "threshold"])
def test_binarizing_twice_is_binarizing_once(binarize):
    images = torch.randint(0, 256, (50, 30), dtype=torch.uint8)
    once = binarize(images)
    assert torch.equal(binarize(once.mul(255).byte()), once)


def test_threshold_is_at_128():
    assert threshold(torch.tensor([0, 127, 128, 255], dtype=torch.uint8)).tolist() == [0, 0, 1, 1]


def test_unit_keeps_the_ends():
    unit = to_unit(torch.arange(256, dtype=torch.uint8))
    assert unit[0] == 0
    assert unit[255] == 1
    assert torch.equal((unit * 255).round().byte(), torch.arange(256, dtype=torch.uint8))
