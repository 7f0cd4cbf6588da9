"""latentia: its own recipe, game and engine. Arguments are settings of the recipe, `precision=bf16-mixed`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from gan_common import BATCH, DEVICE, LATENT, STEPS, WIDTH, Gate
from torch import Tensor

from latentia.configuration import apply_overrides, parse_overrides
from latentia.estimate import Estimate
from latentia.objectives import Terms
from latentia.recipes import GANRecipe, Recipe
from latentia.training import RunDirectory, make_fabric, play
from latentia.training.progress import Progress
from latentia.training.records import Tally


class AtTheGate:
    """Waits between two steps of the engine, when all that a step brings is done; keeps each player's last costs."""

    def __init__(self) -> None:
        self.gate = Gate(STEPS, self._costs)
        self._last: dict[str, Tensor] = {}

    def _costs(self) -> dict[str, object]:
        """Read when the clock has stopped: the engine itself waits for no number."""
        return {"costs": [self._last[name].mean().item() for name in ("discriminator", "generator")]}

    def begin(self) -> None:
        """From now on the engine waits; call before it begins."""
        shown, added = Progress.advance, Tally.add

        def add(tally: Tally, step: int, player: str, terms: Terms) -> None:
            added(tally, step, player, terms)
            self._last[player] = terms["cost"].detach()

        def advance(progress: Progress, step: int, latest: Mapping[str, Estimate]) -> None:
            shown(progress, step, latest)
            self.gate.wait()

        # Pyright minds that these have another word for self.
        Tally.add = add  # pyright: ignore[reportAttributeAccessIssue]
        Progress.advance = advance  # pyright: ignore[reportAttributeAccessIssue]
        self.gate.wait()


def main() -> None:
    basis = f"data=mnist network=dcgan network.width={WIDTH} latent={LATENT} batch_size={BATCH} penalty=none ema=null"
    words = [*basis.split(), "loss=nonsaturating", f"accelerator={DEVICE}", "epochs=1000000", *sys.argv[1:]]
    recipe = Recipe.parse(apply_overrides({"type": "gan"}, parse_overrides(words)))
    assert isinstance(recipe, GANRecipe)
    fabric = make_fabric(recipe)
    fabric.launch()
    splits = recipe.data.load()
    torch.manual_seed(0)
    game = recipe.game(recipe.model(splits.shape, 0).to(fabric.device), splits, fabric)
    game.probes = []  # what is measured and drawn at the ends of epochs is no part of a step
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create(recipe.to_mapping(), False)
        AtTheGate().begin()
        play(game, recipe, directory, fabric, quiet=True)


if __name__ == "__main__":
    main()
