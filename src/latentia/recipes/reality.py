"""The real examples of a game, whether they are images in splits or points drawn from a distribution."""

from __future__ import annotations

__all__ = ["Examples", "Reality", "reality_of"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from latentia.data import Source, Splits, ToyData
from latentia.training import Batch

Which = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Examples:
    """Training examples, to be drawn.

    Attributes:
        draw: the batch of the n-th draw of the run.
        steps_per_epoch: batches of an epoch.
        count: training examples; of a distribution, those that an epoch draws.
        close: lets go of workers.
    """

    draw: Callable[[int], Batch]
    steps_per_epoch: int
    count: int
    close: Callable[[], None] | None = None


class Reality(Protocol):
    """Real examples for training and for looking at."""

    def training(self, batch_size: int, seed: int, rank: int, world: int, steps_per_epoch: int) -> Examples:
        """What to train on; `steps_per_epoch` counts where no data set ends an epoch."""
        ...

    def some(self, which: Which, n: int) -> Batch:
        """At most n examples of a part of the data."""
        ...


@singledispatch
def reality_of(data: Any, source: Any, device: torch.device) -> Reality:  # noqa: ARG001
    """The real examples of loaded data, on a device; `source` is the setting that loaded them."""
    raise TypeError(f"no reality for {type(data).__name__}; register one with reality_of.register")


class ImageReality:
    """Images in splits."""

    def __init__(self, splits: Splits, source: Source, device: torch.device):
        self.splits, self.source, self.device = splits, source, device

    def training(self, batch_size: int, seed: int, rank: int, world: int, steps_per_epoch: int) -> Examples:
        train = self.splits.train.to(self.device)
        batches = train.batches(batch_size, seed, rank, world)

        def draw(number: int) -> Batch:
            images, labels = batches.batch(number)
            return Batch(self.source.prepare_step(images), labels)

        return Examples(draw, batches.steps_per_epoch, len(train), batches.close)

    def some(self, which: Which, n: int) -> Batch:
        whole = getattr(self.splits, which)
        part = whole.take(torch.arange(min(n, len(whole)))).in_memory().to(self.device)
        return Batch(self.source.prepare_fixed(part, which), part.labels)


class ToyReality:
    """Points, every one fresh: the engine's seed of the step decides which."""

    def __init__(self, data: ToyData, device: torch.device):
        self.data, self.device = data, device

    def training(self, batch_size: int, seed: int, rank: int, world: int, steps_per_epoch: int) -> Examples:
        own = batch_size // world

        return Examples(lambda _: Batch(self._sample(own)), steps_per_epoch, batch_size * steps_per_epoch)

    def some(self, which: Which, n: int) -> Batch:
        return Batch(self._sample(n))

    def _sample(self, n: int) -> Tensor:
        return self.data.sample(n).to(self.device)


@reality_of.register
def _(data: ToyData, source: Any, device: torch.device) -> Reality:  # noqa: ARG001
    return ToyReality(data, device)


@reality_of.register
def _(data: Splits, source: Any, device: torch.device) -> Reality:
    return ImageReality(data, source, device)
