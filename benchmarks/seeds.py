"""One seed against five at once: time of a training step, the two sides in turns, medians.

    .venv/bin/python benchmarks/seeds.py                     (--seeds 5 --steps 200 --only ring --json out.json)
    .venv/bin/python benchmarks/seeds.py --progress cpu         (CPU time on one thread, for a machine that is not
    quiet)

The real engine makes the steps: draws, costs, backward passes, optimizers, averages, records of the costs. What is
measured at the ends of epochs is left out, for it costs each seed what it costs alone. The ratio is the time of a step
with all seeds over that of a step with one; of seeds trained in turn it is their number. Each case is measured as it is
written and with `compile=true`, all four sides in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from latentia.data import MNIST, Grid, Ring
from latentia.networks import MLP
from latentia.recipes import GANRecipe, Recipe, VAERecipe, mode_covering_gan
from latentia.recipes.train import build_games
from latentia.training import RunDirectory, loop, start_worker
from latentia.training.gradients import traceable_gradients
from latentia.training.loop import TrainState
from latentia.training.progress import ProgressBar
from machine import machine

WARM_UP = 20
NARROW = MLP(hidden=(64, 64), activation="leaky-relu")


def cases() -> dict[str, Recipe]:
    ring = mode_covering_gan(Ring())
    return {
        "ring, Fourier 128-128-128, RpGAN + R1 + R2": ring,
        "grid, Fourier 128-128-128, RpGAN + R1 + R2": mode_covering_gan(Grid()),
        "ring, MLP 128-128-128, RpGAN + R1 + R2": changed(ring, MLP(hidden=(128, 128, 128), activation="leaky-relu")),
        "ring, MLP 64-64, RpGAN + R1 + R2": changed(ring, NARROW),
        "MNIST VAE 784-400-20-400-784": VAERecipe(
            data=MNIST(binarize="dynamic", validation=0), latent=20, network=MLP(hidden=(400,))
        ),
    }


def changed(recipe: GANRecipe, network: MLP) -> GANRecipe:
    return recipe.model_copy(update={"network": network})


def stepper(recipe: Recipe, seeds: list[int] | None, compiles: bool, folder: Path) -> Callable[[], object]:
    """What makes one step of the engine: of one run, or of several seeds at once."""
    recipe = recipe.model_copy(update={"accelerator": "cpu"})
    worker = start_worker(recipe)
    splits = recipe.data.load()
    game, _ = build_games(recipe, seeds, splits, worker)
    game.model.train()
    state = TrainState(game, recipe, RunDirectory(folder), worker)
    if compiles:
        state.compile_gradients(ProgressBar(1, quiet=True))

    def step() -> None:
        loop._step(state, stop=False)
        if state.step % recipe.record_every == 0:
            state.check()
            state.costs.collect()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="parts of the cases' names")
    parser.add_argument("--progress", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, help="of torch; by default 1 for --progress cpu, else torch's own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    progress = time.perf_counter if options.progress == "wall" else time.process_time
    if options.threads or options.progress == "cpu":
        torch.set_num_threads(options.threads or 1)
    found = {}
    where = ", ".join(f"{key} {value}" for key, value in machine(threads=torch.get_num_threads()).items())
    print(f"{where}, torch {torch.__version__}, {options.progress} time\n")
    print(f"| | one seed, ms a step | {options.seeds} at once, ms a step | ratio | in turn |\n|---|---|---|---|---|")
    chosen = {n: r for n, r in cases().items() if not options.only or any(part in n for part in options.only)}
    for name, recipe in chosen.items():
        with tempfile.TemporaryDirectory() as folder, traceable_gradients():
            counts = {"one": None, "together": list(range(options.seeds))}
            sides = {
                (side, compiles): stepper(recipe, seeds, compiles, Path(folder))
                for compiles in (False, True)
                for side, seeds in counts.items()
            }
            laps: dict[tuple[str, bool], list[float]] = {side: [] for side in sides}
            for number in range(WARM_UP + options.steps):
                for side, step in sides.items():
                    began = progress()
                    step()
                    if number >= WARM_UP:
                        laps[side].append(1e3 * (progress() - began))
        for compiles in (False, True):
            row = name + ", compiled" * compiles
            found[row] = told(row, laps["one", compiles], laps["together", compiles], options.seeds)
    if options.json:
        options.json.write_text(json.dumps({"machine": where, "progress": options.progress, "cases": found}, indent=1))


def told(name: str, one: list[float], together: list[float], seeds: int) -> dict[str, object]:
    """Print a row of the table, and return what it is made of."""
    first, second = statistics.median(one), statistics.median(together)
    low, middle, high = statistics.quantiles([b / a for a, b in zip(one, together, strict=True)], n=4)
    print(f"| {name} | {first:.2f} | {second:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {seeds} |", flush=True)
    return {"one_ms": first, "together_ms": second, "ratio": middle, "laps_ms": {"one": one, "together": together}}


if __name__ == "__main__":
    sys.exit(main())
