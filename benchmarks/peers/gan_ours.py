"""latentia: its own recipe, game and engine. Arguments are settings of the recipe, `precision=bf16-mixed`."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from gan_common import BATCH, DEVICE, LATENT, WIDTH, Turns

from latentia.configuration import apply_overrides, parse_overrides
from latentia.objectives import Clock, Terms
from latentia.recipes import GANRecipe, Recipe
from latentia.training import Batch, Game, RunDirectory, make_fabric, play


def main() -> None:
    basis = f"data=mnist network=dcgan network.width={WIDTH} latent={LATENT} batch_size={BATCH} penalty=none ema=null"
    words = [*basis.split(), "loss=nonsaturating", f"accelerator={DEVICE}", "checkpoint_every=1000000", *sys.argv[1:]]
    recipe = Recipe.parse(apply_overrides({"type": "gan"}, parse_overrides(words)))
    assert isinstance(recipe, GANRecipe)
    fabric = make_fabric(recipe)
    fabric.launch()
    splits = recipe.data.load()
    torch.manual_seed(0)
    game = recipe.game(recipe.model(splits.shape, 0).to(fabric.device), splits, fabric)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create(recipe.to_mapping(), False)
        play(_in_turns(game, Turns()), recipe, directory, fabric, quiet=True)


def _in_turns(game: Game, turns: Turns) -> Game:
    """The same game, which waits for its turn before each step and has no end in sight."""
    last: dict[str, torch.Tensor] = {}

    def noted(name: str, cost: Callable[[Batch, Clock], Terms]) -> Callable[[Batch, Clock], Terms]:
        def noting(batch: Batch, clock: Clock) -> Terms:
            if name == "discriminator":
                if last:
                    turns.costs = (last["discriminator"].item(), last["generator"].item())
                turns.wait()
            terms = cost(batch, clock)
            last[name] = terms["cost"].detach().mean()
            return terms

        return noting

    players = [dataclasses.replace(player, cost=noted(player.name, player.cost)) for player in game.players]
    return dataclasses.replace(game, players=players, probes=[], steps_per_epoch=10**9)


if __name__ == "__main__":
    main()
