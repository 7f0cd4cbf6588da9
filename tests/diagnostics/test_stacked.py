"""Stacked digits: labels from a classifier of single digits, and the floor that sampling sets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from latentia.diagnostics.stacked import STACKED_SAMPLES, stacked_coverage, stacked_labels
from latentia.errors import DataError


def by_gray(images: Tensor) -> Tensor:
    """A classifier of images whose gray is their digit in tenths."""
    return one_hot((images[:, 0, 0, 0] * 10).round().long(), 10).float()


def images_of(labels: Tensor) -> Tensor:
    digits = torch.stack([labels // 100, labels // 10 % 10, labels % 10], 1)
    return (digits / 10).reshape(-1, 3, 1, 1).expand(-1, 3, 8, 8)


def test_labels_are_spelled_red_green_blue():
    labels = torch.tensor([0, 7, 120, 999, 345])
    assert torch.equal(stacked_labels(images_of(labels), by_gray), labels)
    with pytest.raises(DataError, match="three channels"):
        stacked_labels(torch.zeros(2, 1, 8, 8), by_gray)


def test_a_perfect_generator_scores_the_published_floor():
    torch.manual_seed(0)
    got = {e.name: e for e in stacked_coverage(images_of(torch.randint(1000, (STACKED_SAMPLES,))), by_gray)}
    assert got["stacked/found"].value == 1000
    spread = (2 * 999) ** 0.5 / (2 * STACKED_SAMPLES)  # of χ² with 999 degrees of freedom over 2n
    assert abs(got["stacked/kl"].value - 0.0196) < 5 * spread
    assert got["stacked/kl_perfect"].value == pytest.approx(0.0192, abs=1e-4)
