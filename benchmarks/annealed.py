"""Leapfrog steps a second of annealed importance sampling, latentia beside a hand-written JAX of the same, in turns.

    python benchmarks/annealed.py [--images 64] [--temperatures 10] [--turns 9]     one thread, CPU time

A decoder 20-400-784 with Bernoulli pixels, chains from the prior. Both take 5 to 10 leapfrog steps a temperature, at
random, so that a turn is counted as 7.5. Step sizes are given: latentia's pilot chains are not part of this.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

import jax
import jax.numpy as jnp
import torch
from torch import nn

from latentia.data import MNIST5k
from latentia.likelihood import LatentModel
from latentia.likelihood.annealed import LEAPFROG, _Walk
from latentia.networks import MLP
from latentia.recipes import VAERecipe
from machine import machine
from peers import annealed_jax
from turns import paired_ratios, quartiles

STEP = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--temperatures", type=int, default=10)
    parser.add_argument("--turns", type=int, default=9)
    chosen = parser.parse_args()
    recipe = VAERecipe(data=MNIST5k(binarize="threshold"), latent=20, network=MLP(hidden=(400,)))
    splits = recipe.data.load()
    torch.manual_seed(0)
    model = recipe.build_model(splits.shape, 0).eval()
    x = splits.examples("test", chosen.images).x
    betas = torch.linspace(0, 1, chosen.temperatures + 1, dtype=torch.float64)
    first, last = [m for m in model.likelihood.modules() if isinstance(m, nn.Linear)]
    weights = tuple(
        jnp.asarray(value.detach().numpy()) for value in (first.weight.T, first.bias, last.weight.T, last.bias)
    )
    rows, steps = jnp.asarray(x.flatten(1).numpy()), jnp.full(chosen.temperatures, STEP)
    at, keys = jnp.asarray(betas.numpy(), jnp.float32), iter(jax.random.split(jax.random.key(0), chosen.turns + 1))
    subject = LatentModel.from_model(model)

    def by_jax() -> None:
        annealed_jax.log_weights(weights, rows, at, steps, next(keys), chains=chosen.chains)[0].block_until_ready()

    def by_latentia() -> None:
        with subject.evaluating():
            walk = _Walk(subject, x, chosen.chains, "prior")
            walk.forward(betas, torch.full((chosen.temperatures, chosen.images), STEP))

    peers: dict[str, Callable[[], None]] = {"hand-written JAX": by_jax, "latentia": by_latentia}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(chosen.turns + 1):  # the first one compiles
        for name, run in peers.items():
            begin = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - begin)
    leapfrogs = chosen.images * chosen.chains * chosen.temperatures * 0.75 * LEAPFROG
    print(", ".join(f"{key} {value}" for key, value in machine(threads=1).items()))
    for name, turns in seconds.items():
        low, middle, high = quartiles(paired_ratios(seconds["hand-written JAX"], turns))
        speed = leapfrogs / statistics.median(turns)
        print(f"{name:20} {speed:10,.0f} leapfrog steps a CPU second; {middle:.2f} × JAX ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
