"""Batches by number: `batch(draw)` is the batch of that draw, whoever asks and whenever.

As a batch is a function of (seed, draw), a run that resumes at draw 4 711 goes on with the batch that it would have
had. Images that fit in memory are one uint8 tensor on the device and are gathered by row; a larger set is read from
its files by worker processes, a few batches ahead (`stream.py`).
"""

from __future__ import annotations

__all__ = ["Batches", "ShuffledBatches"]

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from latentia.data.order import EpochOrder

if TYPE_CHECKING:
    from latentia.data.split import Split


class Batches(Protocol):
    """What the engine asks of a training set."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        ...

    def batch(self, draw: int) -> tuple[Tensor, Tensor | None]:
        """Images, uint8 (b, C, H, W), and labels, int64 (b,) or None, of the draw with this number, counted from 0."""
        ...

    def close(self) -> None:
        """Let go of workers, if there are any."""
        ...


class ShuffledBatches:
    """Batches of a split in memory, on the device where the split is.

    Every image comes once an epoch, save the last few that do not fill a batch when `drop_last` is set.

    Args:
        split: the images.
        batch_size: images of a batch over all processes.
        seed: of the order.
        rank: which process this is; it gets rows rank, rank + world, … of each batch.
        world: how many processes there are.
        drop_last: leave out the images of an epoch that do not fill a batch.

    Raises:
        ConfigurationError: for a batch larger than the split, or one that the processes cannot share evenly.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True):
        self._images, self._labels = split.images, split.labels
        self._order = EpochOrder(len(split), batch_size, seed, rank, world, drop_last, split.images.device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self._order.steps_per_epoch

    def batch(self, draw: int) -> tuple[Tensor, Tensor | None]:
        """Images, uint8 (b, C, H, W), and labels, int64 (b,) or None, of the draw with this number, counted from 0."""
        rows = self._order.rows(draw)
        return self._images.index_select(0, rows), None if self._labels is None else self._labels.index_select(0, rows)

    def close(self) -> None:
        """Nothing to let go of."""
