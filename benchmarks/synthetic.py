"""A data set of any size that is made on the fly: what a source of your own needs, in forty lines.

Importing this module makes it known: `data=synthetic data.gigabytes=20` then works as any other source does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from latentia.data import Parts, Source, StreamedSplit, seed_of


@dataclass(frozen=True)
class Blobs:
    """Images by row, each a function of (seed, row): a bright patch of a random color, somewhere, in noise.

    Attributes:
        count: how many.
        seed: of all of them.
        shape: (C, H, W) of each.
    """

    count: int
    seed: int = 0
    shape: tuple[int, int, int] = (3, 64, 64)

    def __len__(self) -> int:
        return self.count

    def read(self, row: int) -> Tensor:
        """The image of this row, uint8 (C, H, W)."""
        draw = torch.Generator().manual_seed(seed_of("blob", self.seed, row))
        image = torch.randint(0, 64, self.shape, dtype=torch.uint8, generator=draw)
        top, left, *color = torch.randint(0, 48, (5,), generator=draw).tolist()
        image[:, top : top + 16, left : left + 16] = torch.tensor(color, dtype=torch.uint8)[:, None, None] * 4
        return image


class Synthetic(Source):
    """As many 3×64×64 images as so many gigabytes hold, never stored, and a thousand more to test on."""

    gigabytes: float = Field(default=20.0, gt=0)
    workers: int = Field(default=2, ge=0)
    seed: int = 0

    def _read(self) -> Parts:
        train = Blobs(round(self.gigabytes * 1e9 / (3 * 64 * 64)), self.seed)
        test = Blobs(1000, self.seed + 1)
        content_hash = hashlib.sha256(repr((train, test)).encode()).hexdigest()  # which determines all 20 GB
        return Parts(StreamedSplit(train, workers=self.workers), StreamedSplit(test), content_hash=content_hash)
