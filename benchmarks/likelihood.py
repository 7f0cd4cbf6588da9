"""log p(x) of a trained VAE on test images, by every method there is, in one run.

    python benchmarks/likelihood.py RUN [--images 10000] [--few 100] [--draws 5000] [--verify 20] [--out FIGURES.json]
    python benchmarks/likelihood.py RUN --images 0 --simulated 100 [--temperatures 500] [--chains 16]
    python benchmarks/likelihood.py RUN --prove --images N [--tolerance 0.01] [--seconds 600]

For z of at most three dimensions: exact quadrature on `--images` images, and on the first `--few` of them importance
sampling with K draws, from the encoder alone and from its defensive mixture with the prior, and pythae's `get_nll` on
the same weights (for a diagonal q). Each is judged by the exact values of the same images. `--verify` compares so many
images with a grid four times finer, over their tiles and those around.

`--simulated` images are drawn from the model, for bounds from both sides by annealing (bidirectional Monte Carlo), in
any dimension; where there is an exact value it must lie between them.

`--prove` encloses the mean of log p(x) of `--images` images alone, and gives what it costs: the mean width of the
bounds, and the share of the prior's box that was dropped for an image because a bound shows that it holds next to no
mass.

Run it on a machine that does nothing else; processor seconds are given beside those of the progress.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from latentia.estimate import Estimate, estimates_to_json
from latentia.likelihood import (
    LatentModel,
    bidirectional_monte_carlo,
    enclose_log_likelihood,
    exact_log_likelihood,
    exact_posterior,
    importance_log_likelihood,
)
from latentia.likelihood.annealed import Start
from latentia.likelihood.latent_model import full_precision
from latentia.likelihood.lattice import NODES
from latentia.likelihood.quadrature import _Joint
from latentia.objectives.score_table import scorer_for
from latentia.recipes import Run
from machine import machine

TOLERANCE_OF_SIMULATED = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a finished run")
    parser.add_argument("--images", type=int, default=10_000, help="test images to evaluate exactly; 0 for none")
    parser.add_argument("--few", type=int, default=100, help="of them, how many by the other methods")
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--verify", type=int, default=20, help="images to check against a grid four times finer")
    parser.add_argument("--simulated", type=int, default=0, help="images to draw for bounds from both sides")
    parser.add_argument("--temperatures", type=int, default=500)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--start", default="prior", choices=("prior", "encoder"), help="of the chains")
    parser.add_argument("--prove", action="store_true", help="enclose the mean of log p(x), and nothing else")
    parser.add_argument("--seconds", type=float, default=600, help="allowed for that")
    parser.add_argument("--out", help="where to write the figures as JSON")
    chosen = parser.parse_args()

    run = Run(chosen.run)
    about = {"command": "python " + " ".join(sys.argv), **machine(threads=torch.get_num_threads())}
    estimates: list[Estimate] = []
    if chosen.prove:
        images = run.splits.examples("test", chosen.images).x
        estimates += prove(run.model, images, chosen.tolerance, chosen.seconds)
    elif chosen.images:
        images = run.splits.examples("test", chosen.images).x
        estimates += compare(run.model, images, chosen.few, chosen.draws, chosen.tolerance)
        estimates += verify(run.model, images[: chosen.verify], chosen.tolerance) if chosen.verify else []
    if chosen.simulated:
        estimates += simulate(run.model, chosen.simulated, chosen.temperatures, chosen.chains, chosen.start)
    if chosen.out:
        with open(chosen.out, "w") as file:
            json.dump(about | {"estimates": json.loads(estimates_to_json(estimates))}, file, indent=1)
    print("  ".join(f"{key}: {value}" for key, value in about.items()), end="\n\n")
    for estimate in estimates:
        shown = ", ".join(f"{key} {estimate.settings[key]}" for key in SHOWN if key in estimate.settings)
        print(f"{estimate.name:32} {estimate!s:>28}   n {estimate.n}, {shown}")


SHOWN = (
    "worst_image",
    "seconds_per_image",
    "cpu_seconds_per_image",
    "decoder_evaluations",
    "error",
    "worst_error",
    "share_above_k_limit",
    "draws_stderr",
    "temperatures",
    "chains",
    "start",
    "cpu_seconds",
    "wall_seconds",
    "peak_MiB",
    "load",
    "tolerance",
    "median",
    "largest",
    "tiles",
    "pairs",
    "excluded",
)


@contextmanager
def timed(images: int, into: dict[str, Any]) -> Iterator[None]:
    """Seconds for each image, of the progress and of the processor."""
    progress, processor = time.monotonic(), time.process_time()
    yield
    into["seconds_per_image"] = float(f"{(time.monotonic() - progress) / images:.3g}")
    into["cpu_seconds_per_image"] = float(f"{(time.process_time() - processor) / images:.3g}")


def prove(model: Any, images: Tensor, tolerance: float, seconds: float) -> list[Estimate]:
    """Proven bounds of the mean of log p(x), their width, and what they cost."""
    cost, before = {"load": round(os.getloadavg()[0], 1)}, time.process_time()
    found = enclose_log_likelihood(model, images, tolerance, mean=True, seconds=seconds)
    cost |= {"cpu_seconds": round(time.process_time() - before, 1), "tolerance": tolerance}
    cost |= {"wall_seconds": round(found.statistics["seconds"], 1), "excluded": round(found.statistics["excluded"], 6)}
    cost["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    shape = {"median": found.width.median().item(), "largest": found.width.max().item()}
    shape |= {name: found.statistics[name] for name in ("tiles", "pairs")}
    sides = (("lower", found.lower), ("upper", found.upper))
    return [
        *(Estimate.mean(x, name=f"proven_{s}", kind=f"{s} bound", method="enclosure", settings=cost) for s, x in sides),  # pyright: ignore
        Estimate.mean(found.width, name="proven_width", method="enclosure", settings=shape),
    ]


def compare(model: Any, images: Tensor, count: int, draws: int, tolerance: float) -> list[Estimate]:
    """The exact values, and what the other methods make of the first few images."""
    cost: dict[str, Any] = {}
    with timed(len(images), cost):
        exact = exact_log_likelihood(model, images, tolerance)
    estimates = [with_settings(e.named("exact"), cost) for e in exact.estimates()]
    few, truth = images[:count], exact.values[:count]
    for name, defensive in (("importance", 0.0), ("importance_defensive", 0.1)):
        with timed(len(few), cost):
            result = importance_log_likelihood(model, few, draws, defensive=defensive)
        estimates += against(name, result.values, truth, {**result.settings, **cost})
    from peers import pythae_nll

    subject = LatentModel.from_model(model)
    with torch.no_grad():
        served = pythae_nll.serves(subject, few)
    if not served:
        print("pythae's get_nll scores diagonal q and binary images alone: left out", file=sys.stderr)
        return estimates
    with timed(len(few), cost):
        values = pythae_nll.log_likelihoods(subject, few, draws)
    return estimates + against("pythae_get_nll", values, truth, {"draws": draws, **cost})


def against(name: str, values: Tensor, truth: Tensor, settings: dict[str, Any]) -> list[Estimate]:
    """The estimate, and how far it is off, image by image."""
    off = values - truth
    settings = {**settings, "worst_image": round(off.abs().max().item(), 3)}
    return [
        Estimate.mean(values, name=name, kind="lower bound", method="importance sampling", settings=settings),
        Estimate.mean(off, name=f"{name}_less_exact", method="difference", settings=settings),
    ]


def with_settings(estimate: Estimate, more: dict[str, Any]) -> Estimate:
    return replace(estimate, settings={**estimate.settings, **more})


def simulate(model: Any, count: int, temperatures: int, chains: int, start: Start) -> list[Estimate]:
    """Bounds from both sides on images of the model's own, and where it can be had the exact value between them."""
    cost: dict[str, Any] = {}
    with timed(count, cost):
        both = bidirectional_monte_carlo(model, count, temperatures, chains=chains, start=start)
    estimates = [with_settings(e, cost) for e in both.estimates()]
    if LatentModel.from_model(model).latent <= 3:
        exact = exact_log_likelihood(model, both.images, TOLERANCE_OF_SIMULATED).values
        estimates.append(Estimate.mean(exact, name="simulated_log_likelihood_exact", method="quadrature"))
        for name, distance in (("exact_less_lower", exact - both.lower), ("upper_less_exact", both.upper - exact)):
            estimates.append(Estimate.mean(distance, name=name, method="difference"))
    return estimates


def verify(model: object, images: Tensor, tolerance: float) -> list[Estimate]:
    """How far a grid four times finer, one tile wider all around, moves each image, as a part of its certificate."""
    begin = time.monotonic()
    posterior = exact_posterior(model, images, tolerance)
    parts = []
    with full_precision():
        for image in range(len(images)):
            total = torch.tensor(-torch.inf, dtype=torch.float64)
            for piece, table, rows in posterior._where(image):
                probe = piece.model.decoder(posterior.mean[:2].to(piece.model.device, piece.model.dtype))
                scorer = scorer_for(probe, images[image : image + 1].to(piece.model.device, piece.model.dtype))
                joint = _Joint(piece.model, piece.chart, scorer, has_kinks=False)
                level, tiles = table.level, table.tiles[rows]
                d = tiles.shape[1]
                around = torch.cartesian_prod(*[torch.arange(-1, 2)] * d).view(-1, d)
                wider = torch.unique((tiles[:, None] + around).flatten(0, 1), dim=0)
                within = torch.cartesian_prod(*[torch.arange(4)] * d).view(-1, d)
                finer = (4 * wider[:, None] + within).flatten(0, 1)
                for some in finer.split(64):
                    prepared = joint.prepare(piece.lattice.nodes(some, level + 2))
                    values = joint.table(prepared, slice(None), slice(0, len(some) * NODES)).double()
                    total = torch.logaddexp(total, values.logsumexp(-1)[0] + piece.lattice.log_cell(level + 2))
            moved = (total - posterior.likelihood.values[image]).abs()
            parts.append(moved / posterior.likelihood.errors[image])
    part = torch.stack(parts)
    settings = {"seconds": round(time.monotonic() - begin, 2), "images": len(images)}
    worst = part.max().item()
    return [Estimate(worst, "worst_movement_per_certificate", n=len(images), unit="1", settings=settings)]


if __name__ == "__main__":
    main()
