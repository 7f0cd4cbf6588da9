"""In what order a data set is gone through: a pure function of (seed, epoch), whatever the number of processes."""

from __future__ import annotations

__all__ = ["EpochOrder", "seed_of"]

import hashlib

import torch
from torch import Tensor

from latentia.errors import ConfigurationError


def seed_of(*parts: int | str) -> int:
    """One 63-bit seed from several numbers and words, well mixed and the same everywhere.

    Examples:
        >>> seed_of("order", 0, 1) == seed_of("order", 0, 1), seed_of("order", 0, 1) == seed_of("order", 1, 0)
        (True, False)
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class EpochOrder:
    """Which rows a process draws at each draw.

    Epoch e is one random permutation of all rows, cut into batches of `batch_size`; the process of rank r gets the rows
    r, r + world, r + 2 world, … of each batch. So two processes together see the batches that one would see.

    Args:
        count: number of rows.
        batch_size: rows of a batch over all processes.
        seed: of the order.
        rank: which process this is.
        world: how many there are.
        drop_last: leave out the rows of an epoch that do not fill a batch.
        device: where the rows are wanted.

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
                f"a batch of {batch_size} is larger than the training set of {count} images; "
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
        """This process's rows at the given draw, int64; draws count from 0 over all epochs."""
        epoch, step = divmod(draw, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
            order = torch.randperm(self.count, generator=generator).to(self.device)
            batches = order.split(self.batch_size)[: self.steps_per_epoch]
            self._rows = [batch[self.rank :: self.world].contiguous() for batch in batches]
            self._epoch = epoch
        return self._rows[step]
