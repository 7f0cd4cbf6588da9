"""Stacked MNIST: three digits in the three colors of one image, so that there are a thousand modes to find.

The test of mode coverage of Metz et al. 2017 and Lin et al. 2018 (PacGAN, section 4.2). The label is the number that
the three digits spell, red, green, blue.
"""

from __future__ import annotations

__all__ = ["StackedMNIST"]

from pathlib import Path

import torch
from pydantic import Field

from latentia.data.mnist import MNIST
from latentia.data.order import seed_of
from latentia.data.source import Parts, Source
from latentia.data.split import Split


class StackedMNIST(Source, name="stacked-mnist"):
    """Images of 3×28×28, each of three MNIST digits drawn at random; 1 000 classes.

    Attributes:
        folder: where MNIST's files are; see `MNIST`.
        count: how many training images to stack (PacGAN: 128 000); 10 000 test images are stacked from the test digits.
        stack_seed: of the draws. Every digit is drawn afresh, with replacement.
    """

    folder: Path | None = None
    count: int = Field(default=128_000, ge=1)
    stack_seed: int = 0

    def _read(self, folder: Path | None) -> Parts:
        digits = MNIST(folder=self.folder)._read(folder)
        assert digits.test is not None  # MNIST is published with one
        classes = tuple(f"{number:03d}" for number in range(1000))
        return Parts(self._stack(digits.train, self.count, "train"), self._stack(digits.test, 10_000, "test"), classes)

    def _stack(self, digits: Split, count: int, part: str) -> Split:
        generator = torch.Generator().manual_seed(seed_of("stack", self.stack_seed, part))
        rows = torch.randint(len(digits), (count, 3), generator=generator)
        assert digits.labels is not None
        labels = (digits.labels[rows] * torch.tensor([100, 10, 1])).sum(1)
        return Split(digits.images.squeeze(1)[rows], labels)
