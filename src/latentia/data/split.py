"""Images in memory: one uint8 tensor, its labels, and the three parts of a data set.

The validation part is taken from the training images by a seed, never from the test images; so a model chosen by a
validation figure has not seen the test set.
"""

from __future__ import annotations

__all__ = ["Split", "Splits", "hold_out", "hold_out_by_class", "seed_of", "sha256_of"]

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentia.data.batches import Batches, ShuffledBatches
from latentia.data.order import seed_of
from latentia.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """A part of a data set, whole in memory.

    Attributes:
        images: uint8, (N, C, H, W).
        labels: int64, (N,), or None.
    """

    images: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise DataError(
                "images must be uint8 of shape (N, C, H, W), "
                f"and these are {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"there are {len(self.images)} images and labels of shape {tuple(self.labels.shape)}; "
                "give one per image"
            )

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> Split:
        """The same images on another device."""
        return Split(self.images.to(device), None if self.labels is None else self.labels.to(device))

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
        rows = rows.to(self.images.device)
        return Split(self.images[rows], None if self.labels is None else self.labels[rows])

    def batches(self, batch_size: int, seed: int, rank: int = 0, world: int = 1, drop_last: bool = True) -> Batches:
        """Batches of this split in an order that follows from (seed, epoch); see `ShuffledBatches`."""
        return ShuffledBatches(self, batch_size, seed, rank, world, drop_last)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: what to train on, what to choose by, what to report on.

    Attributes:
        train: for the parameters.
        validation: taken from the training images, for choices.
        test: for the figures.
        classes: the names of the labels, () when there are none.
        content_hash: sha256 over all images and labels, before binarizing and splitting.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    content_hash: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W)."""
        return self.train.image_shape


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Take `count` images away at random: (the rest, those taken), each in its original order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed_of("hold out", seed)))
    taken, rest = order[:count].sort().values, order[count:].sort().values
    return split.take(rest), split.take(taken)


def hold_out_by_class(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Take a fraction of every class away at random: (the rest, those taken), each in its original order.

    Without labels, all images count as one class. Each class gives the nearest whole number of images.
    """
    labels = torch.zeros(len(split), dtype=torch.int64) if split.labels is None else split.labels
    generator = torch.Generator().manual_seed(seed_of("hold out by class", seed))
    is_taken = torch.zeros(len(split), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        chosen = torch.randperm(len(rows), generator=generator)[: round(fraction * len(rows))]
        is_taken[rows[chosen]] = True
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
