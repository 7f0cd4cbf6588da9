"""The three parts of a data set, and how they are divided.

The validation part is taken from the training images by a seed, never from the test images. So a model that is chosen
by a validation value has not seen the test set.
"""

from __future__ import annotations

__all__ = ["Part", "Split", "Splits"]

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from latentia.data.batches import Batch, Batches, EpochOrder, PreparedBatches, ShuffledBatches, seed_of
from latentia.data.binarization import Binarization
from latentia.errors import DataError

Part = Literal["train", "validation", "test"]

_FEWEST = 2  # images of a part that have a standard error


class Split:
    """A part of a data set, in memory.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N,), or None.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None):
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise DataError(
                "images must be uint8 of shape (N, C, H, W), "
                f"and these are {images.dtype} of shape {tuple(images.shape)}"
            )
        if labels is not None and labels.shape != images.shape[:1]:
            raise DataError(
                f"there are {len(images)} images and labels of shape {tuple(labels.shape)}; give one per image"
            )
        self._images, self.labels = images, labels

    @property
    def images(self) -> Tensor:
        """uint8, (N, C, H, W)."""
        return self._images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self._images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> Split:
        """The same images on another device."""
        return Split(self._images.to(device), None if self.labels is None else self.labels.to(device))

    def in_memory(self) -> Split:
        """The same part with all its images in memory: itself, unless it is streamed."""
        return self

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All images in order, uint8 (n, C, H, W) at a time with n at most `size`; of streamed ones too."""
        for start in range(0, len(self), size):
            rows = torch.arange(start, min(start + size, len(self)))
            yield self.take(rows).in_memory().images

    def take(self, rows: Tensor) -> Split:
        """The images at these rows, int64 (n,)."""
        rows = rows.to(self._images.device)
        return Split(self._images[rows], None if self.labels is None else self.labels[rows])

    def batches(self, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True) -> Batches:
        """Batches of bytes in an order that follows from (seed, epoch).

        Args:
            batch_size: images of a batch over all processes.
            seed: of the order.
            rank: index of this process; it gets rows rank, rank + world, … of each batch.
            world: number of processes.
            drop_last: leave out the images of an epoch that do not fill a batch.

        Raises:
            ConfigurationError: for a batch larger than the part, or one that the processes cannot share evenly.
        """
        order = EpochOrder(len(self), batch_size, seed, rank, world, drop_last, self._images.device)
        return ShuffledBatches(self._images, self.labels, order)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set of images: what to train on, what to choose by, what to report on.

    Attributes:
        train: for the parameters.
        validation: taken from the training images, for choices.
        test: for the results.
        classes: the names of the labels, () when there are none.
        content_hash: sha256 over all images and labels, before binarizing and splitting.
        binarization: how bytes become floats.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    content_hash: str
    binarization: Binarization

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W)."""
        return self.train.image_shape

    def prepare(self, images: Tensor) -> Tensor:
        """Training images, uint8 (B, C, H, W), as a training step sees them: float32 in [0, 1]."""
        return self.binarization.step(images)

    def examples(self, part: Part, n: int | None = None, device: torch.device | str = "cpu") -> Batch:
        """The first n examples of a part (None: all), with labels, the same bits at every call.

        Args:
            part: `train`, `validation` or `test`.
            n: how many at most.
            device: where they are wanted.
        """
        whole: Split = {"train": self.train, "validation": self.validation, "test": self.test}[part]
        first = whole if n is None or n >= len(whole) else whole.take(torch.arange(n))
        first = first.in_memory().to(device)
        return Batch(self.binarization.fixed(first.images, part), first.labels)

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
            steps_per_epoch: for data without end; here the training images end an epoch.

        Raises:
            ConfigurationError: for a batch larger than the training part, or one that processes cannot share evenly.
            DataError: for a validation or test part of one image, which has no standard error.
        """
        if len(self.test) < _FEWEST:
            raise DataError(
                f"the test part has {len(self.test)} images, and an estimate with its standard error takes {_FEWEST}; "
                "add images to it, or leave the test part out, so that one is held out of the training images"
            )
        if len(self.validation) == 1:
            raise DataError("a validation part of one image has no standard error; set data.validation=0, or 2 or more")
        return PreparedBatches(self.train.to(device).batches(batch_size, seed, rank, world), self.prepare)


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Take `count` images away at random: (the rest, those taken), each in its original order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed_of("hold out", seed)))
    taken, rest = order[:count].sort().values, order[count:].sort().values
    return split.take(rest), split.take(taken)


def hold_out_by_class(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Take a fraction of every class away at random: (the rest, those taken), each in its original order.

    Each class gives the nearest whole number of images. The classes that are too small to give one are counted
    together as one class, and so are all images without labels. If that gives fewer than two images, two of all
    images are taken.

    Raises:
        DataError: if there are fewer than three images, so that none is left to train on.
    """
    if len(split) <= _FEWEST:
        raise DataError(
            f"there are {len(split)} images in all, and {_FEWEST} of them would be the test part; give at least "
            f"{_FEWEST + 1}, and many more to train on"
        )
    labels = torch.zeros(len(split), dtype=torch.int64) if split.labels is None else split.labels
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
    """Sha256 over the shapes, images and labels of some splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.images, split.labels):
            if tensor is not None:
                digest.update(repr(tuple(tensor.shape)).encode())
                digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
