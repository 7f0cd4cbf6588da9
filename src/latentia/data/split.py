"""The three parts of a data set, and how they are divided.

The validation part is taken from the training examples by a seed, never from the test images. So a model that is chosen
by a validation value has not seen the test set.
"""

from __future__ import annotations

__all__ = ["Part", "Split", "Splits"]

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from latentia.data.batches import Batch, Batches, EpochOrder, PreparedBatches, ShuffledBatches, seed_of
from latentia.data.binarization import Binarization
from latentia.data.examples import Column, Schema
from latentia.errors import DataError, counted, require_count

Part = Literal["train", "validation", "test"]

_FEWEST = 2  # examples of a part that have a standard error
_CHUNK = 10_000
_DTYPES = (torch.uint8, torch.int64, torch.bool, torch.float32, torch.float64)


class Split:
    """A part of a data set, in memory.

    Args:
        x: examples, (N, *event): images of uint8, (N, C, H, W), or int64, bool, float32 or float64 of any shape.
        labels: int64, (N,), or covariates, float32 (N, k), or None.
    """

    def __init__(self, x: Tensor, labels: Tensor | None = None):
        if x.dtype not in _DTYPES or x.dim() < 2 or (x.dtype == torch.uint8 and x.dim() != 4):
            raise DataError(
                f"examples must be uint8 of shape (N, C, H, W), or int64, bool, float32 or float64 of shape (N, …), "
                f"and these are {x.dtype} of shape {tuple(x.shape)}"
            )
        if labels is not None and (len(labels) != len(x) or labels.dim() != 1 + labels.is_floating_point()):
            raise DataError(f"there are {len(x)} examples and labels of shape {tuple(labels.shape)}; give one each")
        self._x, self.labels = x, labels

    @property
    def x(self) -> Tensor:
        """The examples, (N, *event)."""
        return self._x

    def __len__(self) -> int:
        return len(self._x)

    @property
    def classes_of(self) -> Tensor | None:
        """The class of each example, int64 (N,); None without labels, and for covariates."""
        return None if self.labels is None or self.labels.is_floating_point() else self.labels

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one example, such as (C, H, W)."""
        return tuple(self._x.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers of the examples."""
        return self._x.dtype

    def to(self, device: torch.device | str) -> Split:
        """The same examples on another device."""
        return Split(self._x.to(device), None if self.labels is None else self.labels.to(device))

    def in_memory(self) -> Split:
        """The same part with all its examples in memory: itself, unless it is streamed."""
        return self

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All examples in order, (n, *event) at a time with n at most `size`; of streamed ones too."""
        for start in range(0, len(self), size):
            rows = torch.arange(start, min(start + size, len(self)))
            yield self.take(rows).in_memory().x

    def take(self, rows: Tensor) -> Split:
        """The examples at these rows, int64 (n,)."""
        rows = rows.to(self._x.device)
        return Split(self._x[rows], None if self.labels is None else self.labels[rows])

    def batches(self, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True) -> Batches:
        """Batches of examples as they are held, in an order that follows from (seed, epoch).

        Args:
            batch_size: examples of a batch over all processes.
            seed: of the order.
            rank: index of this process; it gets rows rank, rank + world, … of each batch.
            world: number of processes.
            drop_last: leave out the examples of an epoch that do not fill a batch.

        Raises:
            ConfigurationError: for a batch larger than the part, or one that the processes cannot share evenly.
        """
        order = EpochOrder(len(self), batch_size, seed, rank, world, drop_last, self._x.device)
        return ShuffledBatches(self._x, self.labels, order)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: what to train on, what to choose by, what to report on.

    Attributes:
        train: for the parameters.
        validation: taken from the training images, for choices.
        test: for the results.
        classes: the names of the labels, () when there are none.
        content_hash: sha256 over all examples and labels, before binarizing and splitting.
        binarization: how examples become floats.
        columns: of a table; () for other data.
        standardize: whether the model standardizes the examples.
        keeps_missing: whether a model must take missing values, although there may be none.
        covariates: names of the numbers that take the place of labels.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    content_hash: str
    binarization: Binarization
    columns: tuple[Column, ...] = ()
    standardize: bool = False
    keeps_missing: bool = False
    covariates: tuple[str, ...] = ()

    @cached_property
    def schema(self) -> Schema:
        """What a model must know of these data in order to be built."""
        missing, levels = self.keeps_missing, 0
        for part in (self.train, self.validation, self.test):
            for x in part.chunks(_CHUNK):
                if x.dtype == torch.uint8:
                    break
                missing |= bool(x.isnan().any()) if x.is_floating_point() else False
                levels = max(levels, int(x.max()) + 1) if x.dtype == torch.int64 else 0
        return Schema(self.shape, self.classes, self.columns, missing, levels, self.standardize, self.covariates)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, such as (C, H, W)."""
        return self.train.event_shape

    def prepare(self, x: Tensor) -> Tensor:
        """Training examples as a training step sees them, in float32: bytes in [0, 1], other numbers as they are."""
        return self.binarization.step(x)

    def examples(self, part: Part, n: int | None = None, device: torch.device | str = "cpu") -> Batch:
        """The first n examples of a part (None: all), with labels, the same bits at every call.

        Args:
            part: `train`, `validation` or `test`.
            n: how many at most.
            device: where they are wanted.

        Raises:
            ConfigurationError: for an n below 1.
        """
        if n is not None:
            require_count("n", n)
        whole: Split = {"train": self.train, "validation": self.validation, "test": self.test}[part]
        first = whole if n is None or n >= len(whole) else whole.take(torch.arange(n))
        first = first.in_memory().to(device)
        return Batch(self.binarization.fixed(first.x, part), first.labels)

    def batches(
        self,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        steps_per_epoch: int | None = None,
    ) -> Batches:
        """The training examples as a stream of batches of floats; see `Split.batches`.

        Args:
            batch_size: examples of a batch over all processes.
            seed: of the order.
            rank: index of this process.
            world: number of processes.
            device: where the batches are wanted.
            steps_per_epoch: for data without end; here the training examples end an epoch.

        Raises:
            ConfigurationError: for a batch larger than the training part, or one that processes cannot share evenly.
            DataError: for a validation or test part of one example, which has no standard error.
        """
        if len(self.test) < _FEWEST:
            raise DataError(
                f"the test part has {len(self.test)} examples, and an estimate with its standard error takes "
                f"{_FEWEST}; add examples to it, or leave the test part out, so that one is held out of the others"
            )
        if len(self.validation) == 1:
            raise DataError("a validation part of one has no standard error; set data.validation=0, or 2 or more")
        return PreparedBatches(self.train.to(device).batches(batch_size, seed, rank, world), self.prepare)


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Take `count` examples away at random: (the rest, those taken), each in its original order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed_of("hold out", seed)))
    taken, rest = order[:count].sort().values, order[count:].sort().values
    return split.take(rest), split.take(taken)


def hold_out_by_class(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Take a fraction of every class away at random: (the rest, those taken), each in its original order.

    Each class gives the nearest whole number of examples. The classes that are too small to give one are counted
    together as one class, and so are all examples without labels. If that gives fewer than two examples, two of all
    are taken.

    Raises:
        DataError: if there are fewer than three examples, so that none is left to train on.
    """
    if len(split) <= _FEWEST:
        raise DataError(
            f"{counted(len(split), 'example')} in all, of which {_FEWEST} would be the test part; give at least "
            f"{_FEWEST + 1}, and many more to train on"
        )
    labels = torch.zeros(len(split), dtype=torch.int64) if split.classes_of is None else split.classes_of
    counts = labels.bincount()
    sizes = counts[labels]
    is_small = (sizes * fraction).round() == 0
    generator = torch.Generator().manual_seed(seed_of("hold out by class", seed))
    is_taken = torch.zeros(len(split), dtype=torch.bool)
    pooled = torch.where(is_small, len(counts), labels)  # comes last, so that it does not change the other classes
    for label in pooled.unique():
        rows = (pooled == label).nonzero().squeeze(1)
        chosen = torch.randperm(len(rows), generator=generator)[: round(fraction * len(rows))]
        is_taken[rows[chosen]] = True
    if is_taken.sum() < _FEWEST:
        is_taken.zero_()[torch.randperm(len(split), generator=generator)[:_FEWEST]] = True
    return split.take((~is_taken).nonzero().squeeze(1)), split.take(is_taken.nonzero().squeeze(1))


def sha256_of(splits: Iterable[Split]) -> str:
    """Sha256 over the shapes, examples and labels of some splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.x, split.labels):
            if tensor is not None:
                # bytes of images and labels are hashed as they always were; other types are named
                named = "" if tensor.dtype in (torch.uint8, torch.int64) else str(tensor.dtype)
                digest.update(f"{named}{tuple(tensor.shape)!r}".encode())
                digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
