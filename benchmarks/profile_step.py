"""Where the time of one training step goes, part by part: CPU milliseconds a step, on one thread.

    .venv/bin/python benchmarks/profile_step.py                 (--steps 600 --json out.json; settings as key=value)

The real engine plays the MNIST VAE of `vae_training.py` (784-400-20-400-784, batch 128, Adam). Functions along its path
are wrapped in clocks; each part is charged with its own time, less that of the parts within it. CPU time
is counted, not wall time, so that neighbors on the machine change little. The matrix products alone, same shapes,
are timed between the steps: the last lines compare.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch

from latentia.configuration import apply_overrides, parse_overrides
from latentia.data import MNIST
from latentia.data.batches import ShuffledBatches
from latentia.data.binarization import Binarization
from latentia.distributions import Bernoulli, Conditional
from latentia.distributions.gaussians import DiagonalGaussian
from latentia.networks import MLP
from latentia.objectives import elbo
from latentia.recipes import VAERecipe
from latentia.training import RunDirectory, loop, start_worker
from latentia.training.loop import TrainState
from latentia.training.optimizers import Optimizer
from latentia.training.progress import MetricAccumulator, ProgressBar

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from floor import products_of_a_step

WARM_UP = 50  # steps before the clocks count
RECIPE = VAERecipe(data=MNIST(binarize="threshold", validation=0), latent=20, network=MLP(hidden=(400,)))


class Parts:
    """Clocks that may be nested: each part is charged with its own time alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = ["the loop"]
        self._since = time.process_time()

    def _charge(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def clocked(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def within(*args: Any, **kwargs: Any) -> Any:
            self._charge()
            self._running.append(name)
            try:
                return call(*args, **kwargs)
            finally:
                self._charge()
                self._running.pop()

        return within

    def restart(self) -> None:
        self._charge()
        self.seconds.clear()

    def read(self) -> dict[str, float]:
        self._charge()
        return dict(self.seconds)

    def progress(self, stack: ExitStack, owner: Any, attribute: str, name: str) -> None:
        """Put a progress around a method or function for as long as the stack lives."""
        stack.enter_context(mock.patch.object(owner, attribute, self.clocked(name, getattr(owner, attribute))))


def profile(steps: int, settings: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Milliseconds a step of each part, and of the matrix products alone."""
    parts, alone = Parts(), products_of_a_step()
    laps: list[float] = []
    played = 0
    step = loop._step

    def watched_step(state: TrainState, stop: bool) -> bool:
        nonlocal played
        played += 1
        if played == WARM_UP:
            parts.restart()
        if played % 10 == 0:  # the same in between, charged to nobody
            began = time.process_time()
            alone()
            laps.append(time.process_time() - began)
        return step(state, stop)

    recipe = VAERecipe.parse(apply_overrides(RECIPE.to_mapping(), settings))
    splits = recipe.data.load()
    worker = start_worker(recipe)
    model = recipe.build_model(splits.shape, 0)
    game = recipe.build_game(model, splits, worker)
    recipe = recipe.model_copy(update={"epochs": -(-(steps + WARM_UP) // game.steps_per_epoch)})
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for owner, attribute, name in (
            (loop, "seed_everything", "seed"),
            (ShuffledBatches, "batch", "order and gather"),
            (Binarization, "step", "bytes to floats"),
            (Conditional, "emit", "networks, forward"),
            (DiagonalGaussian, "rsample", "draw of z"),
            (type(Bernoulli().distribution(torch.zeros(1, 1, 1, 1))), "log_prob", "likelihood"),
            (elbo, "rate_of", "KL"),
            (type(recipe.objective), "__call__", "objective, the rest"),
            (torch.autograd, "grad", "backward"),
            (MetricAccumulator, "add", "tally"),
            (MetricAccumulator, "settle", "tally"),
            (Optimizer, "set_lr", "optimizer"),
            (torch.optim.Adam, "step", "optimizer"),
            (TrainState, "check", "check that all is finite"),
            (TrainState, "save", "checkpoints"),
            (RunDirectory, "append_records", "records"),
            (ProgressBar, "advance", "progress"),
        ):
            parts.progress(stack, owner, attribute, name)
        stack.enter_context(mock.patch.object(loop, "_step", watched_step))
        directory = stack.enter_context(RunDirectory.open(Path(folder) / "run", recipe.to_mapping()))
        loop.fit(game, recipe, directory, worker, quiet=True)
    seconds = parts.read()
    seconds["the loop"] -= sum(laps[WARM_UP // 10 - 1 :])
    return {name: 1e3 * s / (played - WARM_UP) for name, s in seconds.items()}, 1e3 * statistics.median(laps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("settings", nargs="*", help="of the recipe, such as matmul=medium or data.binarize=dynamic")
    options = parser.parse_args()
    milliseconds, products = profile(options.steps, parse_overrides(options.settings))
    whole = sum(milliseconds.values())
    print(f"{torch.get_num_threads()} thread, torch {torch.__version__}, {torch.get_float32_matmul_precision()}\n")
    print("| part | CPU ms a step | share |\n|---|---|---|")
    for name, value in sorted(milliseconds.items(), key=lambda item: -item[1]):
        print(f"| {name} | {value:.3f} | {value / whole:.1%} |")
    print(f"| **all** | **{whole:.3f}** | |")
    print(f"| the matrix products alone | {products:.3f} | {products / whole:.1%} |")
    print(f"\n{whole / products:.2f} × the matrix products alone")
    if options.json:
        options.json.write_text(json.dumps({"parts": milliseconds, "all": whole, "products": products}, indent=2))


if __name__ == "__main__":
    main()
