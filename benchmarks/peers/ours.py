"""latentia: its own engine, recipe and objective, records and checkpoints included, as a user runs it."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

from common import BATCH, DEVICE, HIDDEN, LATENT, tell

import latentia
from latentia.data import MNIST
from latentia.networks import MLP


def run_with(**settings: object) -> object:
    def run(epochs: int) -> tuple[list[float], float]:
        recipe = latentia.VAERecipe(
            data=MNIST(binarise="threshold", validation=0),
            latent=LATENT,
            network=MLP(hidden=(HIDDEN,)),
            batch_size=BATCH,
            epochs=epochs,
            accelerator=DEVICE,
            **settings,  # pyright: ignore[reportArgumentType]
        )
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            run = latentia.train(recipe, Path(folder) / "run", quiet=True)
            ends = {r["epoch"]: r["seconds"] for r in run.records if r["name"] == "vae/cost" and r["epoch"] % 1 == 0}
            costs = {r["step"]: r["value"] for r in run.records if r["name"] == "vae/cost"}
        marks = [began, *ends.values()]
        return [b - a for a, b in itertools.pairwise(marks)], mean_of_last_epoch(costs, epochs)

    return run


def mean_of_last_epoch(costs: dict[int, float], epochs: int) -> float:
    """Mean cost over the last epoch's steps, as the peers tell it; a record is the mean since the one before."""
    whole = max(costs)
    steps = [step for step in costs if step >= whole - whole // epochs]  # from the end of the epoch before
    sums = [
        (after - before) * costs[after] for before, after in itertools.pairwise([0, *steps] if epochs == 1 else steps)
    ]
    return sum(sums) / (whole // epochs)


if __name__ == "__main__":
    tell(run_with())  # pyright: ignore[reportArgumentType]
