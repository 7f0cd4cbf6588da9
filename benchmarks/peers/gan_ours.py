"""latentia: its own recipe, game and engine. Arguments are settings of the recipe, `precision=bf16-mixed`.

Threads wait for one another, and memory is kept, as in the command line.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from latentia.threads import keep_memory, training_environment

os.environ.update(training_environment() | os.environ)

import torch
from engine_gate import gate_engine
from gan_common import BATCH, DEVICE, LATENT, STEPS, WIDTH, Gate
from torch import Tensor

from latentia.configuration import apply_overrides, parse_overrides
from latentia.objectives import Terms
from latentia.recipes import GANRecipe, Recipe
from latentia.training import RunDirectory, fit, start_worker
from latentia.training.progress import MetricAccumulator


def last_costs() -> Callable[[], dict[str, object]]:
    """What tells the players' mean costs at the last step; they are read then, for the engine waits for no number."""
    last: dict[str, Tensor] = {}
    added = MetricAccumulator.add

    def add(tally: MetricAccumulator, step: int, player: str, terms: Terms) -> None:
        added(tally, step, player, terms)
        last[player] = terms["cost"].detach()

    MetricAccumulator.add = add  # pyright: ignore[reportAttributeAccessIssue]  (it has another word for self)
    return lambda: {"costs": [last[player].mean().item() for player in ("discriminator", "generator")]}


def main() -> None:
    keep_memory()
    basis = f"data=mnist network=dcgan network.width={WIDTH} latent={LATENT} batch_size={BATCH} penalty=none ema=null"
    words = [*basis.split(), "loss=nonsaturating", f"accelerator={DEVICE}", "epochs=1000000", *sys.argv[1:]]
    recipe = Recipe.parse(apply_overrides({"type": "gan"}, parse_overrides(words)))
    assert isinstance(recipe, GANRecipe)
    worker = start_worker(recipe)
    splits = recipe.data.load()
    torch.manual_seed(0)
    game = recipe.build_game(recipe.build_model(splits.shape, 0).to(worker.device), splits, worker)
    game.probes = []  # what is measured and drawn at the ends of epochs is no part of a step
    with (
        tempfile.TemporaryDirectory() as folder,
        RunDirectory.open(Path(folder) / "run", recipe.to_mapping()) as directory,
    ):
        gate_engine(Gate(STEPS, last_costs()), lambda *_: None)
        fit(game, recipe, directory, worker, quiet=True)


if __name__ == "__main__":
    main()
