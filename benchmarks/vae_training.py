"""One epoch of MNIST, MLP VAE 784-400-20-400-784, batch 128, Adam: latentia beside its peers, in one run.

    make bench                     (or: .venv/bin/python benchmarks/vae_training.py --epochs 4 --json out.json)
    .venv/bin/python benchmarks/vae_training.py --accelerator cuda --json gpu.json   (on a GPU)
    .venv/bin/python benchmarks/vae_training.py --busy 2 --threads 0 --steps 20 --epochs 1 --only short pythae
                                   (next to two busy processes, each peer with the threads that it takes by itself)
    make bench ARGS="--readme README.md"                 (writes the table of the README; on a quiet machine, 5 minutes)

Every peer is a process of its own that trains a ninth of an epoch when its turn comes (`turns.py`); all see the same
binary images. After one epoch to warm up, each trains `--epochs` more. The seconds of an epoch are the sum of its nine
turns, checkpoints and records included: told are the median over the epochs, the least and the most. What is told
against latentia and against the products is the median of the quotients of turns in the same round, with their
quartiles. (Nine turns in a row end an epoch once: the median hardly sees what comes at its end alone. The JSON has the
quotients of whole epochs as well, and every turn.) The loss is the mean −ELBO of the last training epoch, in nats:
equal work, equal result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from machine import machine
from turns import Peer, commands_of, environment, paired_ratios, play_rounds, quartiles, started, warm_up

OURS, LIMIT = "latentia", "the matrix products alone"
PEERS = {
    f"{LIMIT}, MKL": ["floor.py"],
    LIMIT: ["floor.py", "--medium"],
    "hand-written JAX, its steps in a scan": ["jax_scan.py"],
    OURS: ["ours.py"],
    "latentia, a run too short to compile": ["ours.py", "compile=false"],
    "latentia, `matmul=highest compile=false`": ["ours.py", "matmul=highest", "compile=false"],
    "latentia, `precision=bf16-mixed`": ["ours.py", "precision=bf16-mixed"],
    "pythae 0.1.2": ["pythae_trainer.py"],
    "plain loop, the set on the device": ["plain_loop.py"],
    "pytorch/examples loop": ["examples_loop.py"],
}
TURNS = 9  # of an epoch
BEGIN, END = "<!-- vae-training: begin -->", "<!-- vae-training: end -->"


def part_of_epoch(peer: Peer, number: int) -> int:
    """Steps of the turn with this number: nine turns are an epoch, also where nine does not divide its steps."""
    epoch, turn = peer.about["epoch"], number % TURNS
    return epoch * (turn + 1) // TURNS - epoch * turn // TURNS


def epochs_of(turns: Sequence[float]) -> list[float]:
    """Sums over the turns of each epoch."""
    return [sum(turns[start : start + TURNS]) for start in range(0, len(turns), TURNS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="of each peer, after one to warm up")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="0: as each peer chooses")
    parser.add_argument("--busy", type=int, default=0, help="busy processes that run all the time")
    parser.add_argument("--steps", type=int, help="of a turn, and to warm up, in place of parts of epochs; for --busy")
    parser.add_argument("--readme", type=Path, help="a page whose table between the marks is written")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="*", help="parts of peers' names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine(options.accelerator, options.threads)
    commands = commands_of(PEERS, options.only)
    variables = environment(options.threads, options.accelerator)
    with kept_busy(options.busy), started(commands, variables) as peers:
        warm_up(peers, lambda peer: options.steps or peer.about["epoch"])
        play_rounds(peers, TURNS * options.epochs, lambda *turn: options.steps or part_of_epoch(*turn))
    print("\n" + ", ".join(f"{key} {value}" for key, value in about.items()) + "\n")
    whole = {peer.name: peer for peer in peers if peer.error is None}
    print(table(whole) if options.steps is None else table_of_steps(whole))
    for peer in peers:
        if peer.error is not None:
            print(f"{peer.name} did not run: {peer.error}")
    if options.readme:
        write_readme(options.readme, whole, f"{options.threads} threads", options.epochs)
    if options.json:
        told = {peer.name: figures(peer, whole) | {"turns": peer.turns, "error": peer.error} for peer in peers}
        options.json.write_text(json.dumps({"machine": about, "peers": told}, indent=2, allow_nan=False))


def figures(peer: Peer, whole: dict[str, Peer]) -> dict[str, object]:
    """What the JSON has of a peer, beside its turns."""
    if peer.name not in whole:
        return {}
    turns = peer.values("wall")
    told: dict[str, object] = {"epochs": epochs_of(turns), "loss": peer.turns[-1].get("loss")}
    for base in (OURS, LIMIT):
        if base in whole:
            theirs = whole[base].values("wall")
            low, middle, high = quartiles(paired_ratios(turns, theirs))
            epochs = statistics.median(paired_ratios(epochs_of(turns), epochs_of(theirs)))
            told[f"against {base}"] = {"turns": middle, "quartiles": [low, high], "epochs": epochs}
    return told


def table(whole: dict[str, Peer]) -> str:
    """Medians, spread and ratios, the quickest first."""
    lines = [
        "| | seconds an epoch: median (least to most) | against latentia (quartiles) "
        "| against the products (quartiles) | −ELBO, nats |",
        "|---|---|---|---|---|",
    ]
    seconds = {name: epochs_of(peer.values("wall")) for name, peer in whole.items()}
    for name, epochs in sorted(seconds.items(), key=lambda item: statistics.median(item[1])):
        peer = whole[name]
        ratios = []
        for base in (OURS, LIMIT):
            if base in whole:
                low, middle, high = quartiles(paired_ratios(peer.values("wall"), whole[base].values("wall")))
                ratios.append(f"{middle:.2f} × ({low:.2f} to {high:.2f})" if name != base else "1")
            else:
                ratios.append("")
        loss = peer.turns[-1].get("loss")
        spread = f"{statistics.median(epochs):.2f} ({min(epochs):.2f} to {max(epochs):.2f})"
        lines.append(f"| {name} | {spread} | {' | '.join(ratios)} | {'' if loss is None else f'{loss:.1f}'} |")
    return "\n".join(lines)


def table_of_steps(whole: dict[str, Peer]) -> str:
    """Milliseconds of a step on the clock and in CPU time, over the turns."""
    lines = ["| | ms a step: median (least to most) | CPU, ms a step |", "|---|---|---|"]
    for name, peer in whole.items():
        wall, cpu = ([1e3 * value for value in peer.values(what, each_step=True)] for what in ("wall", "cpu"))
        spread = f"{statistics.median(wall):.0f} ({min(wall):.0f} to {max(wall):.0f})"
        lines.append(f"| {name} | {spread} | {statistics.median(cpu):.1f} |")
    return "\n".join(lines)


@contextmanager
def kept_busy(count: int) -> Iterator[None]:
    """So many processes that compute all the time, inside the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def write_readme(page: Path, whole: dict[str, Peer], threads: str, epochs: int) -> None:
    """Put the table between the marks of a page, with when and how it was measured."""
    limit = whole[LIMIT].values("wall")
    rows = []
    for name, peer in whole.items():
        seconds, loss = epochs_of(peer.values("wall")), peer.turns[-1].get("loss")
        ratio = statistics.median(paired_ratios(peer.values("wall"), limit))
        shown = "1" if name == LIMIT else f"{ratio:.2f} ×"
        rows.append((statistics.median(seconds), name, shown, "" if loss is None else f"{loss:.1f}"))
    lines = [
        f"({threads}, medians of {epochs} epochs, {time.strftime('%-d %B %Y')})",
        "",
        "| | seconds | over the products | −ELBO of the last training epoch, nats |",
        "|---|---|---|---|",
        *(f"| {name} | {seconds:.2f} | {ratio} | {loss} |" for seconds, name, ratio, loss in sorted(rows)),
    ]
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
