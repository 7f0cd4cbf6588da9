"""Training images that do not fit in memory: read or made a row at a time, by worker processes a few batches ahead.

The order follows from (seed, epoch) as it does in memory, so a streamed run sees the batches of one that is not. What
is streamed are files (`ImageFiles`) or whatever else has rows: a source of your own gives an object with `shape`, a
length and `read(row)`, such as one that reads a database or makes its images on the fly (`benchmarks/memory.py`).
"""

from __future__ import annotations

__all__ = ["ImageFiles", "ImageRows", "StreamedBatches", "StreamedSplit"]

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latentia.data.batches import Batches
from latentia.data.image_files import Reading, read_image, require_memory
from latentia.data.order import EpochOrder
from latentia.data.split import Split
from latentia.errors import DataError

BATCHES_AHEAD_PER_WORKER = 2


class ImageRows(Protocol):
    """Images that are had one at a time, by row; it reaches worker processes pickled or by fork."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def read(self, row: int) -> Tensor:
        """The image of this row, uint8 (C, H, W), the same at each call.

        Raises:
            DataError: naming what is damaged; it reaches the user as it is.
        """
        ...


@dataclass(frozen=True)
class ImageFiles:
    """One image a file.

    Attributes:
        files: where they are.
        reading: how a file becomes a (C, H, W) tensor.
    """

    files: tuple[Path, ...]
    reading: Reading

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.reading.shape

    def __len__(self) -> int:
        return len(self.files)

    def read(self, row: int) -> Tensor:
        """The file of this row, uint8 (C, H, W)."""
        return read_image(self.files[row], self.reading)


class StreamedSplit(Split):
    """A part of a data set that is never in memory together. It has no `images`; draw them with `batches`.

    Args:
        source: the images by row.
        labels: int64, one for each image of the part, or None.
        workers: processes that read ahead; 0 reads in this one.
        device: where batches go.
        rows: which rows of the source the part is, int64 (N,); all if not given. A part of a part shares the source.
    """

    def __init__(
        self,
        source: ImageRows,
        labels: Tensor | None = None,
        workers: int = 2,
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
    ):
        rows = torch.arange(len(source)) if rows is None else rows
        if labels is not None and len(labels) != len(rows):
            raise DataError(f"there are {len(rows)} images and {len(labels)} labels; give one per image")
        for name, value in {
            "source": source,
            "labels": labels,
            "workers": workers,
            "device": device,
            "rows": rows,
        }.items():
            object.__setattr__(self, name, value)

    source: ImageRows
    workers: int
    device: torch.device | str
    rows: Tensor

    def __getattr__(self, name: str) -> Any:
        if name == "images":
            raise DataError(
                "these images are streamed and are never in memory together; "
                "draw them with split.batches(...), or set data.stream=false"
            )
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.source.shape

    def to(self, device: torch.device | str) -> StreamedSplit:
        """The same images, their batches going to another device."""
        return StreamedSplit(self.source, self.labels, self.workers, device, self.rows)

    def in_memory(self) -> Split:
        """All images read into memory.

        Raises:
            DataError: when memory would not hold them, or an image is damaged.
        """
        require_memory(len(self), self.image_shape)
        images = torch.empty(len(self), *self.image_shape, dtype=torch.uint8)
        for place, row in enumerate(self.rows.tolist()):
            images[place] = self.source.read(row)
        return Split(images, self.labels).to(self.device)

    def take(self, rows: Tensor) -> StreamedSplit:
        """The images at these places of the part, int64 (n,)."""
        labels = None if self.labels is None else self.labels[rows]
        return StreamedSplit(self.source, labels, self.workers, self.device, self.rows[rows])

    def batches(self, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True) -> Batches:
        """Batches of this split in an order that follows from (seed, epoch); see `StreamedBatches`."""
        return StreamedBatches(self, batch_size, seed, rank, world, drop_last)


class StreamedBatches:
    """Batches of a set larger than memory, read by worker processes; see `ShuffledBatches`.

    Draws asked for in order come from workers that read ahead; any other draw starts the reading anew from there. At
    most (2 workers + 1) batches are in memory.

    Args:
        split: the images.
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
            DataError: naming an image that cannot be read.
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
            _Places(self._split.source, self._split.rows),
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


class _Places(torch.utils.data.Dataset[Any]):
    """Images of a part by place. A damaged one gives its error as a value: raised in a worker, it loses its wording."""

    def __init__(self, source: ImageRows, rows: Tensor):
        self.source, self.rows = source, rows

    def __getitem__(self, place: int) -> tuple[Tensor | DataError, int]:
        try:
            return self.source.read(int(self.rows[place])), place
        except DataError as error:
            return error, place


def _stack(items: list[tuple[Tensor | DataError, int]]) -> tuple[Tensor | DataError, Tensor]:
    images, places = zip(*items, strict=True)
    faults = [image for image in images if isinstance(image, DataError)]
    return faults[0] if faults else torch.stack(images), torch.tensor(places)
