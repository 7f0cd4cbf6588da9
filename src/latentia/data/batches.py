"""Batches by number: `batch(draw)` is the batch with that number, whoever asks for it and whenever.

A batch is a function of (seed, draw), so a run that resumes at draw 4 711 continues with the batch that it would have
had. Images in memory are one uint8 tensor on the device, gathered by row. A larger set is read from its files by
worker processes, a few batches ahead (`stream.py`). Points of a toy distribution are new at every draw.
"""

from __future__ import annotations

__all__ = ["Batch", "seed_of"]

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from latentia.errors import ConfigurationError


class Batch(NamedTuple):
    """Examples x, (B, …), and their labels, int64 (B,), or None. Training gets floats that the networks take.

    Of data with covariates, `labels` are these, float32 (B, k).
    """

    x: Tensor
    labels: Tensor | None = None


class Batches(Protocol):
    """A stream of training batches: all that the training loop asks of data."""

    @property
    def size(self) -> int:
        """Number of training examples; for a distribution, the number sampled in an epoch."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def batch(self, draw: int) -> Batch:
        """The batch with this number, counted from 0 over all epochs."""
        ...

    def close(self) -> None:
        """Stop the workers, if there are any."""
        ...


def seed_of(*parts: int | str) -> int:
    """One 63-bit seed from several numbers and words, well mixed and the same on every machine.

    Examples:
        >>> seed_of("order", 0, 1) == seed_of("order", 0, 1), seed_of("order", 0, 1) == seed_of("order", 1, 0)
        (True, False)
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class EpochOrder:
    """The rows of each batch: a pure function of (seed, epoch), for any number of processes.

    Epoch e is one random permutation of all rows, cut into batches of `batch_size`. The process of rank r gets the rows
    r, r + world, r + 2 world, … of each batch, so that two processes together see the batches that one would see.

    Args:
        count: number of rows.
        batch_size: rows of a batch over all processes.
        seed: of the order.
        rank: index of this process.
        world: number of processes.
        drop_last: leave out the rows of an epoch that do not fill a batch.
        device: where the row numbers are wanted.

    Raises:
        ConfigurationError: for a batch larger than the set, or one that the processes cannot share evenly.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        device: torch.device | str = "cpu",
    ):
        if batch_size < 1 or not 0 <= rank < world:
            raise ConfigurationError(
                f"no batches of {batch_size} for rank {rank} of {world}; give batch_size of at least 1"
            )
        if batch_size > count:
            raise ConfigurationError(
                f"a batch of {batch_size} is larger than the training set of {count} examples; "
                f"set batch_size={count} or smaller"
            )
        ends = [batch_size] if drop_last or count % batch_size == 0 else [batch_size, count % batch_size]
        if any(end % world for end in ends):
            raise ConfigurationError(
                f"{world} processes cannot share batches of {' and '.join(map(str, ends))} evenly; "
                f"choose a batch_size that {world} divides" + (", and drop_last=true" if len(ends) > 1 else "")
            )
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world, self.device = rank, world, device
        self.steps_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        self._epoch = -1
        self._rows: list[Tensor] = []

    def rows(self, draw: int) -> Tensor:
        """This process's rows of the batch with this number, int64; numbers count from 0 over all epochs."""
        epoch, step = divmod(draw, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
            order = torch.randperm(self.count, generator=generator).to(self.device)
            batches = order.split(self.batch_size)[: self.steps_per_epoch]
            self._rows = [batch[self.rank :: self.world].contiguous() for batch in batches]
            self._epoch = epoch
        return self._rows[step]


@dataclass(frozen=True)
class ShuffledBatches:
    """Batches of examples in memory, on their device: every example once an epoch, in a new order.

    Attributes:
        x: examples, (N, …).
        labels: int64, (N,), or None.
        order: rows of each batch.
    """

    x: Tensor
    labels: Tensor | None
    order: EpochOrder

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.x)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.order.steps_per_epoch

    def batch(self, draw: int) -> Batch:
        """The batch with this number."""
        rows = self.order.rows(draw)
        return Batch(self.x.index_select(0, rows), None if self.labels is None else self.labels.index_select(0, rows))

    def close(self) -> None:
        """Nothing to stop."""


@dataclass(frozen=True)
class PreparedBatches:
    """Batches of examples made into floats for the networks.

    Attributes:
        raw: batches of examples as they are held.
        prepare: examples to floats, by torch's global generator where it is random.
    """

    raw: Batches
    prepare: Callable[[Tensor], Tensor]

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.raw.size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.raw.steps_per_epoch

    def batch(self, draw: int) -> Batch:
        """The batch with this number."""
        x, labels = self.raw.batch(draw)
        return Batch(self.prepare(x), labels)

    def close(self) -> None:
        """Stop the workers, if there are any."""
        self.raw.close()


@dataclass(frozen=True)
class SampledBatches:
    """New samples at every draw: the state of torch's global generator, which the loop seeds by step, decides which.

    Attributes:
        sample: n samples on the training device, (n, …).
        batch_size: samples of a batch over all processes.
        world: number of processes.
        steps_per_epoch: batches that are counted as an epoch.
    """

    sample: Callable[[int], Tensor]
    batch_size: int
    world: int
    steps_per_epoch: int

    @property
    def size(self) -> int:
        """Number of samples in an epoch."""
        return self.batch_size * self.steps_per_epoch

    def batch(self, draw: int) -> Batch:
        """This process's share of a batch."""
        return Batch(self.sample(self.batch_size // self.world))

    def close(self) -> None:
        """Nothing to stop."""
