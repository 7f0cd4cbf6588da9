"""One epoch of MNIST, MLP VAE 784-400-20-400-784, batch 128, Adam: latentia beside its peers, in one run.

    make bench                     (or: .venv/bin/python benchmarks/vae_training.py --repetitions 3 --json out.json)
    .venv/bin/python benchmarks/vae_training.py --accelerator cuda --json gpu.json   (on a GPU)

Every peer is a process of its own; the peers take turns, so that a slow minute of the machine falls on all of them. All
see the same binary images. The loss is the mean −ELBO of the last training epoch, in nats: equal work, equal result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

from machine import machine

PEERS = {
    "the matrix products alone": "floor.py",
    "the matrix products alone, medium": "floor_medium.py",
    "hand-written JAX, an epoch in one scan": "jax_scan.py",
    "latentia": "ours.py",
    "latentia, matmul=medium": "ours_medium.py",
    "latentia, matmul=medium compile=true": "ours_compiled.py",
    "latentia, precision=bf16-mixed": "ours_bf16.py",
    "pythae 0.1.2": "pythae_trainer.py",
    "plain loop, the set on the device": "plain_loop.py",
    "pytorch/examples loop": "examples_loop.py",
}
HERE = Path(__file__).parent


def once(script: str, epochs: int, accelerator: str) -> dict:
    environment = os.environ | {"BENCHMARK_DEVICE": accelerator}
    if accelerator == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    result = subprocess.run(
        [sys.executable, str(HERE / "peers" / script), "--epochs", str(epochs)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if result.returncode:
        return {"error": result.stderr.strip().splitlines()[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="*", help="parts of peers' names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = {n: s for n, s in PEERS.items() if not options.only or any(part in n for part in options.only)}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    losses: dict[str, float | None] = {}
    errors: dict[str, str] = {}
    for repetition in range(options.repetitions):
        for name, script in peers.items():
            print(f"{repetition + 1}/{options.repetitions} {name}", file=sys.stderr)
            told = once(script, options.epochs, options.accelerator)
            if "error" in told:
                errors[name] = told["error"]
                continue
            seconds[name] += told["seconds"]
            losses[name] = told["loss"] if math.isfinite(told["loss"]) else None
    medians = {name: statistics.median(laps) for name, laps in seconds.items() if laps}
    facts = machine(options.accelerator)
    print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()) + "\n")
    print(table(seconds, medians, losses))
    for name, error in errors.items():
        print(f"{name} did not run: {error}")
    if options.json:
        told = {"machine": facts, "seconds": seconds, "medians": medians, "loss": losses, "errors": errors}
        options.json.write_text(json.dumps(told, indent=2, allow_nan=False, default=str))


def table(seconds: dict[str, list[float]], medians: dict[str, float], losses: dict[str, float | None]) -> str:
    """Medians, spread and ratios, the quickest first."""
    ours, limit = medians.get("latentia"), medians.get("the matrix products alone")
    lines = [
        "| | seconds an epoch: median (least to most) | against latentia | against the products | −ELBO, nats |",
        "|---|---|---|---|---|",
    ]
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        laps, loss = seconds[name], losses[name]
        ratios = [f"{median / other:.2f} ×" if other else "" for other in (ours, limit)]
        spread = f"{median:.2f} ({min(laps):.2f} to {max(laps):.2f})"
        lines.append(f"| {name} | {spread} | {' | '.join(ratios)} | {'' if loss is None else f'{loss:.1f}'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
