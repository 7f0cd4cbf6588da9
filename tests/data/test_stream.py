"""A streamed set of any size takes the memory of a few batches; rows of your own need three things."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from latentia.data import StreamedSplit
from latentia.errors import DataError

SHAPE = (3, 16, 16)
BATCH = 32
BATCH_BYTES = BATCH * 3 * 16 * 16


@dataclass(frozen=True)
class Counted:
    """Images made on the fly: each pixel of row r is r modulo 251."""

    count: int
    broken: int | None = None
    shape: tuple[int, int, int] = SHAPE

    def __len__(self) -> int:
        return self.count

    def read(self, row: int) -> Tensor:
        if row == self.broken:
            raise DataError(f"row {row} is damaged")
        return torch.full(self.shape, row % 251, dtype=torch.uint8)


def live_image_bytes() -> int:
    """Bytes of all uint8 tensors that are reachable, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and thing.dtype == torch.uint8:
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_does_not_grow_with_steps(workers: int) -> None:
    """3 million images of 768 bytes, 2.3 GB, of which a hundred batches are drawn and let go."""
    split = StreamedSplit(Counted(3_000_000), workers=workers)
    batches = split.batches(BATCH, seed=0)
    before = live_image_bytes()
    seen = []
    for draw in range(100):
        images, labels = batches.batch(draw)
        assert images.shape == (BATCH, *SHAPE)
        assert labels is None
        if draw % 20 == 10:
            seen.append(live_image_bytes() - before)
    batches.close()
    assert min(seen) >= BATCH_BYTES, "the count must see the batch in hand"
    assert max(seen) <= (2 * workers + 2) * BATCH_BYTES
    assert max(seen) - min(seen) <= 2 * BATCH_BYTES


def test_parts_of_a_source_share_it() -> None:
    split = StreamedSplit(Counted(100), labels=torch.arange(100), workers=0)
    part = split.take(torch.arange(50, 100)).take(torch.tensor([3, 1]))
    assert part.rows is split.rows
    assert part.chosen.tolist() == [53, 51]
    held = part.in_memory()
    assert held.x[:, 0, 0, 0].tolist() == [53, 51]
    assert held.labels is not None
    assert held.labels.tolist() == [53, 51]
    images, labels = split.take(torch.arange(40, 80)).batches(40, seed=1).batch(0)
    assert labels is not None
    assert images[:, 0, 0, 0].tolist() == labels.tolist()
    assert sorted(labels.tolist()) == list(range(40, 80))


def test_what_memory_cannot_hold_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="GB of this machine"):
        StreamedSplit(Counted(10**12), workers=0, chosen=torch.zeros(1, dtype=torch.int64).expand(10**12)).in_memory()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_error_of_a_row_is_kept(workers: int) -> None:
    batches = StreamedSplit(Counted(BATCH, broken=7), workers=workers).batches(BATCH, seed=0)
    with pytest.raises(DataError, match=r"^row 7 is damaged$"):
        batches.batch(0)
    batches.close()


def test_labels_must_be_as_many() -> None:
    with pytest.raises(DataError, match="10 examples and 9 labels"):
        StreamedSplit(Counted(10), labels=torch.zeros(9, dtype=torch.int64))
