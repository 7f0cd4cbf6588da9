"""Training images that do not fit in memory: files, read by worker processes a few batches ahead.

The order follows from (seed, epoch) as it does in memory, so a streamed run sees the batches of one that is not.
"""

from __future__ import annotations

__all__ = ["StreamedBatches", "StreamedSplit"]

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentia.data.batches import Batches
from latentia.data.image_files import Reading, read_image, read_images
from latentia.data.order import EpochOrder
from latentia.data.split import Split
from latentia.errors import DataError

BATCHES_AHEAD_PER_WORKER = 2


class StreamedSplit(Split):
    """A part of a data set that stays on disk. It has no `images`; draw them with `batches`.

    Args:
        files: one image each.
        labels: int64, (N,), or None.
        reading: how a file becomes a (C, H, W) tensor.
        workers: processes that read ahead; 0 reads in this one.
        device: where batches go.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Tensor | None,
        reading: Reading,
        workers: int = 2,
        device: torch.device | str = "cpu",
    ):
        if labels is not None and len(labels) != len(files):
            raise DataError(f"there are {len(files)} image files and {len(labels)} labels; give one per image")
        for name, value in {
            "files": tuple(files),
            "labels": labels,
            "reading": reading,
            "workers": workers,
            "device": device,
        }.items():
            object.__setattr__(self, name, value)

    files: tuple[Path, ...]
    reading: Reading
    workers: int
    device: torch.device | str

    def __getattr__(self, name: str) -> Any:
        if name == "images":
            raise DataError(
                "these images are streamed from files and are never in memory together; "
                "draw them with split.batches(...), or set data.stream=false"
            )
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def __len__(self) -> int:
        return len(self.files)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.reading.shape

    def to(self, device: torch.device | str) -> StreamedSplit:
        """The same files, their batches going to another device."""
        return StreamedSplit(self.files, self.labels, self.reading, self.workers, device)

    def in_memory(self) -> Split:
        """All files read into memory."""
        return Split(read_images(self.files, self.reading), self.labels).to(self.device)

    def take(self, rows: Tensor) -> StreamedSplit:
        """The files at these rows, int64 (n,)."""
        labels = None if self.labels is None else self.labels[rows]
        return StreamedSplit(
            [self.files[row] for row in rows.tolist()], labels, self.reading, self.workers, self.device
        )

    def batches(self, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True) -> Batches:
        """Batches of this split in an order that follows from (seed, epoch); see `StreamedBatches`."""
        return StreamedBatches(self, batch_size, seed, rank, world, drop_last)


class StreamedBatches:
    """Batches of a set larger than memory, read from image files by worker processes; see `ShuffledBatches`.

    Draws asked for in order come from workers that read ahead; any other draw starts the reading anew from there. At
    most (2 workers + 1) batches are in memory.

    Args:
        split: the files.
        batch_size: images of a batch over all processes.
        seed: of the order.
        rank: which process this is.
        world: how many processes there are.
        drop_last: leave out the images of an epoch that do not fill a batch.
    """

    def __init__(
        self, split: StreamedSplit, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True
    ):
        self._split = split
        self._order = EpochOrder(len(split), batch_size, seed, rank, world, drop_last)
        self._next_draw = -1
        self._reader: Iterator[Any] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self._order.steps_per_epoch

    def batch(self, draw: int) -> tuple[Tensor, Tensor | None]:
        """Images, uint8 (b, C, H, W), and labels, int64 (b,) or None, of the draw with this number, counted from 0.

        Raises:
            DataError: naming a file that cannot be read.
        """
        if self._reader is None or draw != self._next_draw:
            self.close()
            self._reader = self._read_from(draw)
        images, rows = next(self._reader)
        self._next_draw = draw + 1
        if isinstance(images, DataError):
            self.close()
            raise images
        labels = None if self._split.labels is None else self._split.labels[rows].to(self._split.device)
        return images.to(self._split.device), labels

    def close(self) -> None:
        """Stop the workers."""
        reader, self._reader = self._reader, None
        del reader  # the loader's iterator stops its workers when it goes

    def _read_from(self, draw: int) -> Iterator[Any]:
        workers = self._split.workers
        loader = torch.utils.data.DataLoader(
            _Files(self._split.files, self._split.reading),
            batch_sampler=_Rows(self._order, draw),
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD_PER_WORKER if workers else None,
            collate_fn=_stack,
            generator=torch.Generator().manual_seed(
                0
            ),  # its own, or it would draw from the global one and shift the run
        )
        return iter(loader)


class _Rows(torch.utils.data.Sampler[list[int]]):
    """The rows of every draw from a given one on, without end."""

    def __init__(self, order: EpochOrder, first_draw: int):
        self.order, self.first_draw = order, first_draw

    def __iter__(self) -> Iterator[list[int]]:
        draw = self.first_draw
        while True:
            yield self.order.rows(draw).tolist()
            draw += 1


class _Files(torch.utils.data.Dataset[Any]):
    """Image files by row. A damaged file gives its error as a value: raised in a worker, it would lose its wording."""

    def __init__(self, files: tuple[Path, ...], reading: Reading):
        self.files, self.reading = files, reading

    def __getitem__(self, row: int) -> tuple[Tensor | DataError, int]:
        try:
            return read_image(self.files[row], self.reading), row
        except DataError as error:
            return error, row


def _stack(items: list[tuple[Tensor | DataError, int]]) -> tuple[Tensor | DataError, Tensor]:
    images, rows = zip(*items, strict=True)
    faults = [image for image in images if isinstance(image, DataError)]
    return faults[0] if faults else torch.stack(images), torch.tensor(rows)
