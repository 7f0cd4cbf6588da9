"""One epoch of MNIST, MLP VAE 784-400-20-400-784, batch 128, Adam: latentia beside its peers, in one run.

    make bench                     (or: .venv/bin/python benchmarks/vae_training.py --repetitions 3 --json out.json)

Every peer is a process of its own; the peers take turns, so that a slow minute of the machine falls on all of them. All
see the same binary images. The loss is the mean −ELBO of the last training epoch, in nats: equal work, equal result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

PEERS = {
    "the matrix products alone": "floor.py",
    "the matrix products alone, medium": "floor_medium.py",
    "hand-written JAX, an epoch in one scan": "jax_scan.py",
    "latentia": "ours.py",
    "latentia, matmul=medium": "ours_medium.py",
    "latentia, matmul=medium compile=true": "ours_compiled.py",
    "pythae 0.1.2": "pythae_trainer.py",
    "pytorch/examples loop": "examples_loop.py",
}
HERE = Path(__file__).parent


def once(script: str, epochs: int) -> dict:
    result = subprocess.run(
        [sys.executable, str(HERE / "peers" / script), "--epochs", str(epochs)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        return {"error": result.stderr.strip().splitlines()[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="parts of peers' names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = {n: s for n, s in PEERS.items() if not options.only or any(part in n for part in options.only)}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    losses: dict[str, float] = {}
    errors: dict[str, str] = {}
    for repetition in range(options.repetitions):
        for name, script in peers.items():
            print(f"{repetition + 1}/{options.repetitions} {name}", file=sys.stderr)
            told = once(script, options.epochs)
            if "error" in told:
                errors[name] = told["error"]
                continue
            seconds[name] += told["seconds"]
            losses[name] = told["loss"]
    medians = {name: statistics.median(laps) for name, laps in seconds.items() if laps}
    ours = medians.get("latentia")
    print(f"\n{os.cpu_count()} cores, {platform.processor() or platform.machine()}, {platform.system()}\n")
    print("| | seconds an epoch: median (least to most) | against latentia | −ELBO, nats |\n|---|---|---|---|")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        laps = seconds[name]
        ratio = f"{median / ours:.2f} ×" if ours else ""
        loss = "" if losses[name] != losses[name] else f"{losses[name]:.1f}"
        print(f"| {name} | {median:.2f} ({min(laps):.2f} to {max(laps):.2f}) | {ratio} | {loss} |")
    for name, error in errors.items():
        print(f"{name} did not run: {error}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "loss": losses, "errors": errors}, indent=2))


if __name__ == "__main__":
    main()
