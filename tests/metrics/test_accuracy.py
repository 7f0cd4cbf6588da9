"""The classification accuracy score: against Bayes' rule, chance, and what a collapsed model must lose."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import latentia
from latentia.data import Digits
from latentia.errors import DataError, UnsupportedError
from latentia.metrics import Labels, classification_accuracy, score
from latentia.networks import MLP


def two_classes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bytes of 16 normal pixels whose means differ by 2 · 6 in each, with standard deviation 24: |Δ|/σ = 2."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    x = 128 + 24 * torch.randn(count, 1, 4, 4, generator=generator) + 6 * (2 * y[:, None, None, None] - 1)
    return x.clamp(0, 255).round().byte(), y


def test_the_accuracy_is_that_of_bayes_rule():
    found = classification_accuracy(*two_classes(8000, 0), *two_classes(4000, 1))
    bayes = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # Φ(|Δ|/2σ)
    assert found.value < bayes + 5 * (found.stderr or 0)
    assert found.value > bayes - 0.03
    assert found.stderr == pytest.approx(math.sqrt(found.value * (1 - found.value) / 3999), rel=1e-3)


def test_labels_without_meaning_give_chance():
    x, y = two_classes(2000, 0)
    mixed = y[torch.randperm(2000, generator=torch.Generator().manual_seed(2))]
    found = classification_accuracy(x, mixed, *two_classes(2000, 1))
    assert abs(found.value - 0.5) < 5 * (found.stderr or 0) + 0.05


def test_one_image_for_each_class_scores_below_all_of_them():
    digits = Digits().load()
    train, test = digits.train, digits.test
    first = torch.stack([(train.labels == label).nonzero()[0, 0] for label in range(10)]).repeat(100)
    collapsed = classification_accuracy(train.x[first], train.labels[first], test.x, test.labels)
    whole = classification_accuracy(train.x, train.labels, test.x, test.labels)
    assert whole.value > 0.93
    assert collapsed.value < whole.value - 5 * (collapsed.stderr or 0)


def test_it_leaves_the_random_state_and_repeats_itself():
    state = torch.get_rng_state()
    both = [classification_accuracy(*two_classes(300, 0), *two_classes(300, 1), steps=50, seed=3) for _ in range(2)]
    assert both[0] == both[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_have_their_references_and_need_labels():
    digits = Digits().load()
    real, fake = digits.test, digits.validation
    labels = Labels(real.labels, fake.labels, digits.train.labels)
    about = {"metrics": ["classification-accuracy"], "features": "pixels", "train": digits.train.x, "n": 100}
    found = {e.name: e for e in score(real.x, fake.x, labels=labels, **about)}
    assert set(found) == {f"classification_accuracy{end}" for end in ("", "/real_vs_real", "/train_vs_test")}
    assert all(e.value > 0.5 for e in found.values())
    with pytest.raises(UnsupportedError, match="conditional=true"):
        score(real.x, fake.x, **about)
    assert not any("classification" in e.name for e in score(real.x, fake.x, features="pixels", n=100))


@pytest.mark.parametrize(("count", "low"), [(1, 0), (10, -1)])
def test_labels_that_cannot_train_are_refused(count: int, low: int):
    x = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(DataError, match="labels of at least 0"):
        classification_accuracy(x, torch.full((count,), low), *two_classes(10, 0))


def test_runs_that_take_labels_are_scored_and_others_are_not(tmp_path: Path):
    small = {"data": Digits(), "network": MLP(hidden=(16,)), "epochs": 1, "fresh_steps": 0}
    gan = latentia.train(latentia.GANRecipe(conditional=True, **small), tmp_path / "gan", quiet=True)
    names = {e.name for e in latentia.evaluate(gan, metrics="cas", n=60)}
    assert "classification_accuracy" in names
    plain = latentia.train(latentia.GANRecipe(**small), tmp_path / "plain", quiet=True)
    with pytest.raises(UnsupportedError, match="conditional-vae"):
        latentia.evaluate(plain, metrics="cas", n=60)
