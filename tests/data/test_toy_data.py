"""A toy distribution as data to train on, and MNIST's digits in stacks of three."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from latentia.data import Grid, Ring, Spiral, StackedMNIST, ToyData, ToyDistribution
from latentia.data.idx import read_idx


@pytest.mark.parametrize(
    "toy", [member() for member in ToyDistribution.members().values()], ids=lambda toy: toy.type_name
)
def test_every_distribution_loads(toy: ToyDistribution):
    data = toy.load()
    assert isinstance(data, ToyData)
    assert data.sample(5).shape == (5, *data.shape)
    assert data.sample(5).dtype == torch.float32
    assert data.classes == ()
    assert data.content_hash == toy.load().content_hash


def test_the_hash_knows_the_setting():
    hashes = {toy.load().content_hash for toy in (Ring(), Ring(sigma=0.02), Grid(), Spiral())}
    assert len(hashes) == 4


def test_a_mixture_draws_its_weights_and_its_modes():
    torch.manual_seed(0)
    points = Grid(side=2).load().sample(8000)
    distance, mode = torch.cdist(points, Grid(side=2).modes).min(1)
    counts = torch.bincount(mode, minlength=4).double()
    assert ((counts - 2000).abs() < 5 * (8000 * 0.25 * 0.75) ** 0.5).all()
    square = distance.square() / 0.05**2  # χ² of two degrees of freedom: mean 2, variance 4
    assert abs(square.mean() - 2) < 5 * 2 / 8000**0.5


def write_mnist(folder: Path) -> None:
    for name, count in (("train", 60), ("t10k", 30)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.repeat(labels[:, None], 28 * 28, 1).reshape(count, 28, 28)  # each digit in its own gray
        header = (0x00000803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = (0x00000801).to_bytes(4, "big") + count.to_bytes(4, "big")
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_stacks_spell_their_label(tmp_path: Path):
    write_mnist(tmp_path)
    assert read_idx(tmp_path / "train-images-idx3-ubyte", dimensions=3).shape == (60, 28, 28)
    splits = StackedMNIST(folder=tmp_path, count=3000, validation=500).load()
    assert splits.shape == (3, 28, 28)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2500, 500, 10_000)
    assert len(splits.classes) == 1000
    for split in (splits.train, splits.test):
        digits = split.images[:, :, 0, 0].long()  # the gray is the digit
        assert split.labels is not None
        assert torch.equal((digits * torch.tensor([100, 10, 1])).sum(1), split.labels)
        assert torch.equal(split.images.amin((2, 3)), split.images.amax((2, 3)))
    counts = torch.bincount(splits.test.labels // 100, minlength=10).double()  # pyright: ignore
    assert ((counts - 1000).abs() < 5 * 900**0.5).all()


def test_stacks_follow_from_their_seed(tmp_path: Path):
    write_mnist(tmp_path)
    first, same, other = (
        StackedMNIST(folder=tmp_path, count=50, validation=5, stack_seed=seed).load() for seed in (0, 0, 1)
    )
    assert first.content_hash == same.content_hash
    assert first.content_hash != other.content_hash
