"""Augmentation: the range of each change, separate draws for the images, and gradients."""

from __future__ import annotations

import pytest
import torch

from latentia.errors import DataError
from latentia.objectives import DiffAugment, NoAugmentation

OFF = {"brightness": 0.0, "translation": 0.0, "cutout": 0.0}


def test_everything_off_is_the_identity():
    images = torch.rand(3, 2, 9, 12)
    assert torch.equal(DiffAugment(**OFF)(images), images)
    assert NoAugmentation()(images) is images


def test_brightness_adds_one_number_to_each_image():
    torch.manual_seed(0)
    images = torch.rand(2000, 1, 8, 8)
    added = DiffAugment(**{**OFF, "brightness": 1.0})(images) - images
    per_image = added.mean((1, 2, 3))
    torch.testing.assert_close(added, per_image.reshape(-1, 1, 1, 1).expand_as(added), rtol=0, atol=1e-5)
    assert per_image.abs().max() <= 0.5
    assert per_image.abs().max() > 0.49
    assert abs(per_image.mean()) < 5 * per_image.std() / 2000**0.5


def test_translation_moves_by_whole_pixels_both_ways():
    torch.manual_seed(0)
    images = torch.zeros(3000, 2, 16, 24)
    images[:, :, 8, 12] = 1
    moved = DiffAugment(**{**OFF, "translation": 0.125})(images)
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved.sum((2, 3)), torch.ones(3000, 2))
    place = moved[:, 0].flatten(1).argmax(1)
    rows, columns = place // 24 - 8, place % 24 - 12
    assert sorted(rows.unique().tolist()) == list(range(-2, 3))
    assert sorted(columns.unique().tolist()) == list(range(-3, 4))
    counts = torch.bincount(rows + 2).double()
    assert ((counts - 600).abs() < 5 * 600**0.5).all()


def test_translation_fills_with_zeros():
    torch.manual_seed(0)
    moved = DiffAugment(**{**OFF, "translation": 0.25})(torch.ones(50, 1, 8, 8))
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert (moved.sum((1, 2, 3)) >= 36).all()


@pytest.mark.parametrize(("side", "size"), [(8, 4), (9, 4), (12, 6)])
def test_cutout_clears_a_rectangle(side: int, size: int):
    torch.manual_seed(0)
    kept = DiffAugment(**{**OFF, "cutout": 0.5})(torch.ones(2000, 1, side, side))
    gone = (kept == 0).sum((1, 2, 3))
    assert gone.max() == size**2
    assert gone.min() == (size // 2) ** 2
    assert len(gone.unique()) > 2


def test_gradients_pass_to_the_images():
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    DiffAugment()(images).sum().backward()
    assert images.grad is not None
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}


def test_points_are_refused():
    with pytest.raises(DataError, match="augmentation=none"):
        DiffAugment().check((2,))
