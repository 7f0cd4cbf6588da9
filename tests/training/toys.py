"""A game of two players small enough to be played hundreds of times, and a helper that plays it."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from latentia.data import Batch
from latentia.data.batches import EpochOrder
from latentia.estimate import Estimate
from latentia.objectives import Progress
from latentia.training import (
    Adam,
    Cosine,
    Game,
    Player,
    RunDirectory,
    Training,
    Worker,
    checkpoint,
    fit,
    seeded,
    start_worker,
)
from latentia.training.loop import Outcome

COUNT = 96


class AdversarialObjective(nn.Module):
    """A generator with buffers, and a discriminator."""

    def __init__(self, norm: bool = True):
        super().__init__()
        middle = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.generator = nn.Sequential(nn.Linear(2, 8), middle, nn.Tanh(), nn.Linear(8, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1))


def duel(
    worker: Worker,
    batch_size: int = 16,
    noise: bool = True,
    seen: Callable[[int], object] = lambda _: None,
    **fields: Any,
) -> Game:
    """The non-saturating game with a gradient penalty on the data.

    Args:
        worker: which process of how many.
        batch_size: over all processes.
        noise: whether z is drawn; else it is a function of x, and the game draws nothing.
        seen: called with the number of each draw.
        **fields: of the game, to put in place of these.
    """
    with seeded(1):
        data = torch.randn(COUNT, 2) * torch.tensor([1.0, 0.3]) + torch.tensor([2.0, -1.0])
    with seeded(2):
        model = AdversarialObjective(norm=noise)
    order = EpochOrder(COUNT, batch_size, 3, worker.rank, worker.world_size)

    def draw(number: int) -> Batch:
        seen(number)
        return Batch(data[order.rows(number)])

    def fake(x: Tensor) -> Tensor:
        return model.generator(torch.randn_like(x) if noise else x.flip(1))

    def discriminator(batch: Batch, progress: Progress) -> dict[str, Tensor]:
        x = batch.x.clone().requires_grad_()
        real = model.discriminator(x)[:, 0]
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        penalty = slope.square().sum(1)
        loss = softplus(-real) + softplus(model.discriminator(fake(batch.x).detach())[:, 0])
        return {"cost": loss + 0.1 * penalty, "loss": loss, "penalty": penalty}

    def generator(batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"cost": softplus(-model.discriminator(fake(batch.x))[:, 0])}

    def validate(progress: Progress) -> list[Estimate]:
        z = torch.randn(64, 2)
        return [Estimate.mean((model.generator(z) - data[:64]).square().sum(1), name="validation/cost")]

    game = Game(
        model=model,
        players=[
            Player(
                "discriminator",
                [model.discriminator],
                discriminator,
                Adam(lr=0.02, schedule=Cosine(warm_up=0.2)),
                steps=2,
            ),
            Player("generator", [model.generator], generator, Adam(lr=0.01)),
        ],
        draw=draw,
        steps_per_epoch=order.steps_per_epoch,
        data_size=COUNT,
        validate=validate,
    )
    for name, value in fields.items():
        setattr(game, name, value)
    return game


def play_duel(path: Path, *, resume: bool = False, noise: bool = True, seen=None, change=None, **settings) -> Outcome:
    """Play the duel in a run directory at `path`; `change` may alter the game first."""
    training = Training(**{"epochs": 4, "batch_size": 16, "record_every": 4, "checkpoint_every": 0.5, **settings})
    worker = start_worker(training)
    game = duel(worker, training.batch_size, noise, seen or (lambda _: None))
    if change is not None:
        change(game)
    with ExitStack() as stack:
        directory = RunDirectory(path)
        if worker.rank == 0:
            opened = RunDirectory.open(path, {"settings": training.to_mapping()}, resume=resume)
            directory = stack.enter_context(opened)
            directory.begin(shape=[2], classes=[], data_hash="", devices=worker.world_size, parameters=1)
        if worker.world_size > 1:
            torch.distributed.barrier()
        return fit(game, training, directory, worker, resume=resume, quiet=True)


def same_run(a: Path, b: Path) -> None:
    """Two runs ended with the same bits, and recorded the same, save the time of day."""
    one, two = RunDirectory(a), RunDirectory(b)
    assert (a / "weights.safetensors").read_bytes() == (b / "weights.safetensors").read_bytes()
    first, second = ([{**r, "seconds": 0} for r in run.records()] for run in (one, two))
    assert first == second
    assert len({(r["step"], r["name"]) for r in first}) == len(first)


def fill_the_disk_at_step_9(setattr: Callable[[Any, str, Any], object]) -> None:
    """Checkpoints are written at steps 0, 3, 6 and 9; the fourth finds no room."""
    save, calls = checkpoint.save_file, itertools.count()

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        if next(calls) == 3:
            path.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path)

    setattr(checkpoint, "save_file", full)


def play_duel_on_a_full_disk(path: Path) -> Outcome:
    """The first process alone cannot write its checkpoint of step 9."""
    fill_the_disk_at_step_9(setattr)
    return play_duel(path)


def interrupt_one(path: Path) -> Outcome:
    """The second process alone gets a SIGTERM, in step 7."""
    rank = int(os.environ["RANK"])
    return play_duel(path, noise=False, seen=lambda n: rank == 1 and n == 13 and signal.raise_signal(signal.SIGTERM))


def play_still_duel(path: Path, resume: bool = False) -> Outcome:
    """The duel that draws nothing."""
    return play_duel(path, noise=False, resume=resume)
