"""Peak of resident memory, beyond what the imports take: training, exact likelihood, and a set larger than memory.

    LATENTIA_DATA=… .venv/bin/python benchmarks/memory.py --run RUN --json out.json      (--only stream --steps 100, …)

RUN is the directory of an MNIST run with z in R². Each part is a process of its own. The third trains a VAE from
`Synthetic`, a set of 20 GB that is made on the fly; it samples resident memory, its own and that of the worker
processes, while it runs. `Synthetic` is also what a source of your own may look like. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MIB = 2**20


def status(field: str) -> float:
    """A line of this process's memory in MiB: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def with_workers() -> float:
    """Resident memory of this process and of its children in MiB, pages that they share counted once."""
    family = [str(os.getpid()), *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    total = 0
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # a worker that has just gone
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def forget_peak() -> float:
    """Start the highest mark anew from here, and return what is resident now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def told(before: float, began: float, **more: Any) -> dict[str, Any]:
    peak = status("VmHWM")
    return {"imports": before, "peak": peak, "beyond": peak - before, "seconds": time.perf_counter() - began, **more}


def training(_: argparse.Namespace) -> dict[str, Any]:
    """One epoch of the MNIST VAE 784-400-20-400-784, records and checkpoints included."""
    import latentia
    from latentia.data import MNIST
    from latentia.networks import MLP

    recipe = latentia.VAERecipe(
        data=MNIST(binarize="dynamic"), latent=20, network=MLP(hidden=(400,)), epochs=1, accelerator="cpu"
    )
    before, began = forget_peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = latentia.train(recipe, Path(folder) / "run", quiet=True)
        megabytes = sum(part.x.numel() for part in (run.splits.train, run.splits.validation, run.splits.test)) / MIB
    return told(before, began, data=megabytes)


def likelihood(options: argparse.Namespace) -> dict[str, Any]:
    """log p(x) of the test images of a run, exactly."""
    from latentia.likelihood import evaluate_likelihood
    from latentia.recipes import Run

    before, began = forget_peak(), time.perf_counter()
    run = Run(options.run)
    images = run.splits.examples("test", options.limit).x
    estimate = evaluate_likelihood(run.model, images, "exact", gaps=0).estimates[0]
    return told(before, began, images=len(images), estimate=str(estimate))


def streaming(options: argparse.Namespace) -> dict[str, Any]:
    """A few hundred steps of a VAE on 20 GB of images that are made on the fly."""
    import dataclasses

    import torch

    from latentia.data import Batch
    from latentia.networks import MLP
    from latentia.recipes import VAERecipe
    from latentia.training import RunDirectory, fit, start_worker
    from synthetic import Synthetic

    source = Synthetic(gigabytes=options.gigabytes, workers=options.workers, validation=1000, binarize="dynamic")
    recipe = VAERecipe(data=source, network=MLP(hidden=(128,)), latent=8, batch_size=128, epochs=1, accelerator="cpu")
    samples: list[tuple[int, float]] = []
    before, began = forget_peak(), time.perf_counter()

    worker = start_worker(recipe)
    splits = source.load()
    torch.manual_seed(0)
    game = recipe.build_game(recipe.build_model(splits.shape, 0), splits, worker)
    draw = game.draw

    def watched(number: int) -> Batch:
        if number % options.every == 0:
            samples.append((number, with_workers()))
        return draw(number)

    game = dataclasses.replace(game, draw=watched, steps_per_epoch=options.steps, validate=None)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunDirectory.open(Path(folder) / "run", recipe.to_mapping()) as directory,
    ):
        fit(game, recipe, directory, worker, quiet=True)
    settled = [value for step, value in samples if step >= options.steps // 4]
    growth = {"first": samples[0][1], "settled": settled[0], "last": settled[-1], "most": max(settled)}
    size = len(splits.train) * 3 * 64 * 64 / 1e9
    return told(before, began, gigabytes=size, steps=options.steps, workers=options.workers, samples=samples, **growth)


PARTS = {"training": training, "likelihood": likelihood, "stream": streaming}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="directory of an MNIST run with z in R², for the likelihood")
    parser.add_argument("--limit", type=int, default=10_000, help="test images of the likelihood")
    parser.add_argument("--steps", type=int, default=300, help="of the stream")
    parser.add_argument("--every", type=int, default=10, help="steps between samples of resident memory")
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    results: dict[str, Any] = {}
    print("| | after the imports, MiB | peak, MiB | beyond the imports, MiB | |\n|---|---|---|---|---|", flush=True)
    for part in options.only:
        if part == "likelihood" and options.run is None:
            print("likelihood: give the run with --run", file=sys.stderr)
            continue
        print(f"measuring {part}", file=sys.stderr)
        command = [sys.executable, __file__, "--part", part, *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result = results[part] = json.loads(done.stdout.splitlines()[-1])
        figures = [f"{result[key]:.0f}" for key in ("imports", "peak", "beyond")]
        print(f"| {part} | {' | '.join(figures)} | {_note(result)} |", flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=2))


def _note(result: dict[str, Any]) -> str:
    if "samples" in result:
        marks = ", ".join(f"{name} {result[name]:.0f}" for name in ("first", "settled", "last", "most"))
        return f"{result['gigabytes']:.1f} GB in {result['steps']} steps; with the workers: {marks} MiB"
    if "images" in result:
        return f"{result['images']} images: {result['estimate']}"
    return f"of it the data {result['data']:.0f} MiB"


if __name__ == "__main__":
    main()
