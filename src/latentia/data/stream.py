"""Training examples that do not fit in memory: read or made a row at a time, by worker processes a few batches ahead.

The order follows from (seed, epoch) as it does in memory, so a streamed run sees the batches of one that is not. What
is streamed are files (`folder.py`) or anything else with rows: a source of your own gives an object with `shape`, a
length and `read(row)`, such as one that reads a database or makes its images on the fly (`benchmarks/synthetic.py`).
"""

from __future__ import annotations

__all__ = ["StreamedSplit"]

import math
import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from latentia.data.batches import Batch, Batches, EpochOrder
from latentia.data.split import Split
from latentia.errors import DataError

BATCHES_AHEAD_PER_WORKER = 2
MEMORY_SHARE = 0.5


class Rows(Protocol):
    """Examples that are read one at a time, by row; it reaches worker processes pickled or by fork."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, such as (C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def read(self, row: int) -> Tensor:
        """The example of this row, of one of the types that `Split` takes, the same at each call.

        Raises:
            DataError: naming what is damaged; it reaches the user as it is.
        """
        ...


class StreamedSplit(Split):
    """A part of a data set that is never in memory as a whole. It has no `x`; read it with `batches`.

    Args:
        rows: the examples by row.
        labels: int64, one for each example of the part, or None.
        workers: processes that read ahead; 0 reads in this one.
        device: where batches go.
        chosen: which rows the part is, int64 (N,); all if not given. A part of a part shares the rows.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Tensor | None = None,
        workers: int = 2,
        device: torch.device | str = "cpu",
        chosen: Tensor | None = None,
    ):
        self.rows, self.labels, self.workers, self.device = rows, labels, workers, device
        self.chosen = torch.arange(len(rows)) if chosen is None else chosen
        if labels is not None and len(labels) != len(self.chosen):
            raise DataError(f"there are {len(self.chosen)} examples and {len(labels)} labels; give one each")

    @property
    def x(self) -> Tensor:
        """Refused: these examples are not in memory as a whole."""
        raise DataError(
            "these examples are streamed and are never in memory as a whole; "
            "read them with split.batches(...), or set data.stream=false"
        )

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one example, such as (C, H, W)."""
        return self.rows.shape

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers of the examples."""
        return self.rows.read(int(self.chosen[0])).dtype if len(self) else torch.uint8

    def to(self, device: torch.device | str) -> StreamedSplit:
        """The same examples, their batches going to another device."""
        return StreamedSplit(self.rows, self.labels, self.workers, device, self.chosen)

    def in_memory(self) -> Split:
        """All examples read into memory.

        Raises:
            DataError: when memory would not hold them, or one is damaged.
        """
        require_memory(len(self), self.event_shape)
        rows = self.chosen.tolist()
        first = self.rows.read(rows[0]) if rows else torch.empty(0, dtype=torch.uint8)
        x = torch.empty(len(self), *self.event_shape, dtype=first.dtype)
        for place, row in enumerate(rows):
            x[place] = self.rows.read(row)
        return Split(x, self.labels).to(self.device)

    def take(self, rows: Tensor) -> StreamedSplit:
        """The examples at these places of the part, int64 (n,)."""
        labels = None if self.labels is None else self.labels[rows]
        return StreamedSplit(self.rows, labels, self.workers, self.device, self.chosen[rows])

    def batches(self, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True) -> Batches:
        """Batches of bytes in an order that follows from (seed, epoch), as those of a part in memory."""
        return StreamedBatches(self, EpochOrder(len(self), batch_size, seed, rank, world, drop_last))


class StreamedBatches:
    """Batches of a set larger than memory, read by worker processes.

    Batches that are asked for in order come from workers that read ahead; any other restarts the reading from there.
    At most (2 workers + 1) batches are in memory.

    Args:
        split: the examples.
        order: rows of each batch.
    """

    def __init__(self, split: StreamedSplit, order: EpochOrder):
        self._split, self._order = split, order
        self._next_draw = -1
        self._reader: Iterator[Any] | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self._split)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._order.steps_per_epoch

    def batch(self, draw: int) -> Batch:
        """Examples, (b, *event), and labels, of the batch with this number.

        Raises:
            DataError: naming an example that cannot be read.
        """
        if self._reader is None or draw != self._next_draw:
            self.close()
            self._reader = self._read_from(draw)
        x, rows = next(self._reader)
        self._next_draw = draw + 1
        if isinstance(x, DataError):
            self.close()
            raise x
        labels = None if self._split.labels is None else self._split.labels[rows].to(self._split.device)
        return Batch(x.to(self._split.device), labels)

    def close(self) -> None:
        """Stop the workers."""
        reader, self._reader = self._reader, None
        del reader  # the loader's iterator stops its workers when it goes

    def _read_from(self, draw: int) -> Iterator[Any]:
        workers = self._split.workers
        loader = torch.utils.data.DataLoader(
            _Places(self._split.rows, self._split.chosen),
            batch_sampler=_Rows(self._order, draw),
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD_PER_WORKER if workers else None,
            collate_fn=_stack,
            worker_init_fn=_quiet,
            generator=torch.Generator().manual_seed(0),  # or the loader would use the global one and shift the run
        )
        return iter(loader)


class _Rows(torch.utils.data.Sampler[list[int]]):
    """The rows of every batch from a given one on, without end."""

    def __init__(self, order: EpochOrder, first_draw: int):
        self.order, self.first_draw = order, first_draw

    def __iter__(self) -> Iterator[list[int]]:
        draw = self.first_draw
        while True:
            yield self.order.rows(draw).tolist()
            draw += 1


class _Places(torch.utils.data.Dataset[Any]):
    """Examples of a part by place. A damaged one gives its error as a value: raised in a worker, it loses its text."""

    def __init__(self, rows: Rows, chosen: Tensor):
        self.rows, self.chosen = rows, chosen

    def __getitem__(self, place: int) -> tuple[Tensor | DataError, int]:
        try:
            return self.rows.read(int(self.chosen[place])), place
        except DataError as error:
            return error, place


def _quiet(_: int) -> None:
    """Print nothing from the threads of a worker that ends because its run does; what it reads raises in the run."""
    sys.excepthook = lambda *_: None


def _stack(items: list[tuple[Tensor | DataError, int]]) -> tuple[Tensor | DataError, Tensor]:
    x, places = zip(*items, strict=True)
    faults = [one for one in x if isinstance(one, DataError)]
    return faults[0] if faults else torch.stack(x), torch.tensor(places)


def require_memory(count: int, shape: tuple[int, ...]) -> None:
    """See that this machine's memory holds so many images.

    Raises:
        DataError: if they would take too large a part of it.
    """
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return  # not known on this system
    needed, present = count * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > MEMORY_SHARE * present:
        pixels = " × ".join(map(str, shape))
        raise DataError(
            f"{count} images of {pixels} bytes need {needed / 1e9:.1f} GB of this machine's {present / 1e9:.1f} GB; "
            "set data.stream=true to leave training images on disk (with data.validation=N and a smaller test "
            "sub-folder next to train if it is those that are too many), or data.size=N to make the images smaller"
        )
