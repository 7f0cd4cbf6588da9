"""log p(x) of a trained VAE on test images: exact quadrature beside importance sampling with K draws, in one run.

    python benchmarks/likelihood.py RUN [--images 10000] [--importance-images 200] [--draws 5000] [--verify 20] [--json]

The importance estimate is judged by the exact values of the same images. `--verify` checks certificates of that many
images against a grid four times finer. Run it on a machine that does nothing else, and say which.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from torch import Tensor

from latentia.estimate import Estimate, estimates_to_json
from latentia.evaluation import LikelihoodResult, exact_log_likelihood, exact_posterior, importance_log_likelihood
from latentia.evaluation.exact import _Joint
from latentia.evaluation.latent_model import full_precision
from latentia.evaluation.lattice import NODES
from latentia.recipes import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a finished run with z of at most 3 dimensions")
    parser.add_argument("--images", type=int, default=10_000, help="test images to evaluate exactly")
    parser.add_argument("--importance-images", type=int, default=200, help="of them, how many by importance sampling")
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--verify", type=int, default=20, help="images to check against a grid four times finer")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()

    run = Run(chosen.run)
    images = run.recipe.data.prepare_fixed(run.splits.test, "test")[: chosen.images]
    load = os.getloadavg()[0]
    exact = exact_log_likelihood(run.model, images, chosen.tolerance)
    few = images[: chosen.importance_images]
    estimates = [e.named("exact") for e in exact.estimates()]
    for name, defensive in (("importance", 0.0), ("importance_defensive", 0.1)):
        result = importance_log_likelihood(run.model, few, chosen.draws, defensive=defensive)
        estimates += against(name, result, exact.values[: len(few)])
    estimates += verify(run.model, images[: chosen.verify], chosen.tolerance) if chosen.verify else []
    if chosen.json:
        print(estimates_to_json(estimates))
        return
    threads = torch.get_num_threads()
    print(
        f"{threads} threads; load average {load:.2f} at the start; {len(images)} images exactly, {len(few)} by draws\n"
    )
    for estimate in estimates:
        about = ", ".join(f"{key} {estimate.settings[key]}" for key in SHOWN if key in estimate.settings)
        print(f"{estimate.name:32} {estimate!s:>28}   {about}")


SHOWN = ("seconds", "decoder_evaluations", "error", "worst_error", "share_above_k_limit", "draws_stderr", "worst_image")


def against(name: str, result: LikelihoodResult, truth: Tensor) -> list[Estimate]:
    """The estimate, and how far it is off, image by image."""
    off = result.values - truth
    settings = {**result.settings, "worst_image": round(off.abs().max().item(), 3)}
    return [
        result.estimates()[0].named(name),
        Estimate.mean(off, name=f"{name}_less_exact", method="difference", settings=settings),
    ]


def verify(model: object, images: Tensor, tolerance: float) -> list[Estimate]:
    """How far a grid four times finer moves each image, as a part of its certificate."""
    begin = time.monotonic()
    posterior = exact_posterior(model, images, tolerance)
    parts = []
    with full_precision():
        joint = _Joint(posterior.model, images)
        for image in range(len(images)):
            table, rows = posterior._where[image]
            level, tiles = posterior._tables[table].level, posterior._tables[table].tiles[rows]
            axis = torch.arange(4)
            finer = (
                4 * tiles[:, None] + torch.cartesian_prod(*[axis] * tiles.shape[1]).view(1, -1, tiles.shape[1])
            ).flatten(0, 1)
            total = torch.tensor(-torch.inf, dtype=torch.float64)
            for some in finer.split(64):
                prepared = joint.prepare(posterior.lattice.nodes(some, level + 2))
                values = joint.table(prepared, torch.tensor([image]), slice(0, len(some) * NODES)).double()
                total = torch.logaddexp(total, values.logsumexp(-1)[0])
            value = total + posterior.lattice.log_cell(level + 2)
            moved = (value - posterior.likelihood.values[image]).abs()
            parts.append(moved / posterior.likelihood.errors[image])
    part = torch.stack(parts)
    settings = {"seconds": round(time.monotonic() - begin, 2), "images": len(images)}
    worst = part.max().item()
    return [Estimate(worst, "worst_movement_per_certificate", n=len(images), unit="1", settings=settings)]


if __name__ == "__main__":
    main()
