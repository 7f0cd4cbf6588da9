"""Speed on a GPU, in one go of under six minutes, written to a JSON file after each part.

    LATENTIA_DATA=… .venv/bin/python benchmarks/gpu.py --json gpu.json
    .venv/bin/python benchmarks/gpu.py --accelerator cpu --short --json cpu.json      (every line, on any machine)

The parts: an epoch of the VAE 784-400-20-400-784 on MNIST (goal: 0.10 s) and a DCGAN step (goal: 4 × eager float32),
each plain, compiled, and with CUDA graphs; exact log p(x) of 10 000 images with z in R² (goal: 2 s); five seeds of a
GAN at once over one (goal: 1.3 ×). A part that fails is recorded with its error, and a part that would begin after
`--seconds` is left out. Without LATENTIA_DATA the images are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentia.data import MNIST, Ring
from latentia.likelihood import evaluate_likelihood
from latentia.networks import DCGAN, MLP
from latentia.objectives import NoPenalty
from latentia.recipes import GANRecipe, Recipe, VAERecipe
from latentia.recipes.train import build_games
from latentia.training import RunDirectory, loop, seeded, start_worker
from latentia.training.gradients import traceable_gradients
from latentia.training.loop import TrainState
from latentia.training.progress import ProgressBar
from machine import machine

MIB = 2**20


class Sizes:
    """What is measured: as the goals say, or `--short` for a test of every line."""

    def __init__(self, short: bool):
        self.short = short
        self.images = 256 if short else 60_000
        self.steps = 3 if short else 100
        self.laps = 2 if short else 5
        self.width = 4 if short else 64
        self.hidden = 16 if short else 400
        self.evaluated = 8 if short else 10_000


def data_of(sizes: Sizes, *, binary: bool = True) -> Any:
    """MNIST where LATENTIA_DATA names a folder and the test is not the short one; else random images."""
    if "LATENTIA_DATA" in os.environ and not sizes.short:
        return MNIST(validation=0, binarize="dynamic") if binary else MNIST(validation=0)
    x = torch.rand(sizes.images, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return (x > 0.8).float() if binary else x


def stepper(recipe: Recipe, seeds: list[int] | None = None) -> tuple[Callable[[], object], TrainState]:
    """What makes one step of the engine."""
    worker = start_worker(recipe)
    game, _ = build_games(recipe, seeds, recipe.data.load(), worker)
    game.model.train()
    state = TrainState(game, recipe, RunDirectory(Path(tempfile.mkdtemp())), worker)
    if recipe.compile not in (False, "auto"):
        state.compile_gradients(_Strict(1, quiet=True))

    def step() -> None:
        loop._step(state, stop=False)
        if state.step % recipe.record_every == 0:
            state.check()
            state.costs.collect()

    return step, state


class _Strict(ProgressBar):
    """A warning ends a part: it says that the steps are not what was asked for."""

    def warn(self, text: str) -> None:
        raise RuntimeError(text)


def milliseconds(step: Callable[[], object], sizes: Sizes, device: torch.device) -> dict[str, float]:
    """Of a step: median, least and most over laps of many steps, the device's work finished in each."""
    laps = []
    for lap in range(sizes.laps + 1):
        _wait(device)
        began = time.perf_counter()
        for _ in range(sizes.steps):
            step()
        _wait(device)
        if lap:  # the first one warms up
            laps.append(1e3 * (time.perf_counter() - began) / sizes.steps)
    return {"median": statistics.median(laps), "least": min(laps), "most": max(laps)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ways(base: Recipe, sizes: Sizes) -> dict[str, Any]:
    """Milliseconds of a step in each way; the ways that fail with their errors."""
    cuda = start_worker(base).device.type == "cuda"
    settings: dict[str, dict[str, Any]] = {
        "plain": {"compile": False},
        "compiled": {"compile": True},
        **({"cuda-graphs": {"compile": "cuda-graphs"}} if cuda else {}),
        "bf16, plain": {"compile": False, "precision": "bf16-mixed"},
        "bf16, compiled": {"compile": True, "precision": "bf16-mixed"},
        **({"bf16, cuda-graphs": {"compile": "cuda-graphs", "precision": "bf16-mixed"}} if cuda else {}),
    }
    found: dict[str, Any] = {}
    for name, setting in settings.items():
        with traceable_gradients(), seeded(0):
            try:
                began = time.perf_counter()
                step, state = stepper(base.model_copy(update=setting))
                started = time.perf_counter() - began
                times = milliseconds(step, sizes, state.worker.device)
                found[name] = {**times, "seconds_to_start": started}
            except Exception as error:
                found[name] = {"error": f"{type(error).__name__}: {error}"}
    return found


def vae(options: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """An epoch of the VAE: steps of 128 of 60 000 images."""
    base = VAERecipe(
        data=data_of(sizes), latent=20, network=MLP(hidden=(sizes.hidden,)), accelerator=options.accelerator
    )
    found = ways(base, sizes)
    for row in found.values():
        if "median" in row:
            row["seconds_an_epoch"] = row["median"] * 1e-3 * (60_000 // 128)
    return found


def dcgan(options: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """A step of the DCGAN game, 28×28, batch 128, two Adams."""
    network = DCGAN(width=sizes.width)
    data = data_of(sizes, binary=False)
    base = GANRecipe(data=data, network=network, latent=100, penalty=NoPenalty(), accelerator=options.accelerator)
    found = ways(base, sizes)
    plain = found["plain"].get("median")
    for row in found.values():
        if plain and "median" in row:
            row["speed_over_plain"] = plain / row["median"]
    return found


def likelihood(options: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """Exact log p(x) of images, z in R², MLP 512-512, after a few steps of training."""
    hidden = (sizes.hidden,) if sizes.short else (512, 512)
    recipe = VAERecipe(
        data=data_of(sizes), latent=2, network=MLP(hidden=hidden), accelerator=options.accelerator, compile=False
    )
    step, state = stepper(recipe)
    for _ in range(20 * sizes.steps):
        step()
    model = state.game.model.eval()
    images = recipe.data.load().examples("train", sizes.evaluated).x.to(state.worker.device)
    seconds, estimate = [], None
    for _ in range(2):  # the first one warms up
        _wait(state.worker.device)
        began = time.perf_counter()
        estimate = evaluate_likelihood(model, images, "exact", gaps=0).estimates[0]
        _wait(state.worker.device)
        seconds.append(time.perf_counter() - began)
    return {"images": len(images), "seconds": seconds[-1], "first": seconds[0], "estimate": str(estimate)}


def several_seeds(options: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """Five seeds of the GAN of the ring at once, and one, plain and compiled."""
    base = GANRecipe(data=Ring(), latent=2, network=MLP(hidden=(128, 128, 128)), accelerator=options.accelerator)
    found: dict[str, Any] = {}
    for compiles in (False, True):
        with traceable_gradients(), seeded(0):
            times = []
            for seeds in (None, list(range(5))):
                step, state = stepper(base.model_copy(update={"compile": compiles}), seeds)
                times.append(milliseconds(step, sizes, state.worker.device)["median"])
        found["compiled" if compiles else "plain"] = {"one": times[0], "five": times[1], "ratio": times[1] / times[0]}
    return found


PARTS = {"vae": vae, "dcgan": dcgan, "likelihood": likelihood, "seeds": several_seeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=330.0, help="after which no part begins")
    parser.add_argument("--short", action="store_true", help="tiny sizes: a test of every line")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    sizes, began = Sizes(options.short), time.perf_counter()
    found: dict[str, Any] = {"machine": machine(options.accelerator), "parts": {}}
    for name in options.only:
        if time.perf_counter() - began > options.seconds:
            found["parts"][name] = {"error": "left out: no time"}
            continue
        start = time.perf_counter()
        part: dict[str, Any]
        try:
            part = PARTS[name](options, sizes)
        except Exception as error:
            part = {"error": f"{type(error).__name__}: {error}"}
        part["part_seconds"] = time.perf_counter() - start
        if torch.cuda.is_available():
            part["peak_mib"] = torch.cuda.max_memory_allocated() / MIB
            torch.cuda.reset_peak_memory_stats()
        found["parts"][name] = part
        print(name, json.dumps(part), flush=True)
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
