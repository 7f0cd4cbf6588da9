"""A step of the DCGAN game, 28×28×1, width 64, z in R^100, batch 128, two Adams: latentia beside its peers, in one run.

    .venv/bin/python benchmarks/gan_training.py                       (--only latentia, --threads 1, --json out.json, …)
    .venv/bin/python benchmarks/gan_training.py --accelerator cuda --steps 100 --warm-up 100 --json gpu.json  (on a GPU)

Every peer is a process of its own that plays a few steps when its turn comes (`turns.py`). Networks, initial
distribution of the weights, batches and costs are the same. Told are the milliseconds of a step, on the progress and
of all its threads together, as medians over the turns with the least and the most; the speed against the plain loop,
the median of the quotients of turns in the same round, with their quartiles; and both players' costs at the end: equal
work, like results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

from machine import machine
from turns import Peer, commands_of, environment, paired_ratios, play_rounds, quartiles, started, warm_up

LOOP = "plain eager float32 loop"
OURS = "latentia"
PEERS: dict[str, list[str]] = {
    LOOP: ["gan_loop.py"],
    f"{LOOP}, its DataLoader": ["gan_loop.py", "--loader"],
    "hand-written JAX, one compiled step": ["gan_jax.py"],
    "the convolutions and products alone": ["gan_floor.py"],
    "the convolutions and products alone, bfloat16": ["gan_floor.py", "--bf16"],
    OURS: ["gan_ours.py"],
} | {
    f"{OURS}, {settings}": ["gan_ours.py", *settings.split()]
    for settings in (
        "reuse_fakes=true",
        "compile=true",
        "reuse_fakes=true compile=true",
        "precision=bf16-mixed",
        "precision=bf16-mixed reuse_fakes=true",
        "precision=bf16-mixed compile=true",
        "precision=bf16-mixed reuse_fakes=true compile=true",
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each peer")
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before the first turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="*", help="parts of peers' names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine(options.accelerator, options.threads)
    commands = commands_of(PEERS, options.only)
    with started(commands, environment(options.threads, options.accelerator)) as peers:
        warm_up(peers, lambda _: options.warm_up)
        play_rounds(peers, options.rounds, lambda *_: options.steps)
    print("\n" + "; ".join(f"{key} {value}" for key, value in about.items()) + "\n")
    print(table({peer.name: peer for peer in peers if peer.error is None}))
    for peer in peers:
        if peer.error is not None:
            print(f"{peer.name} did not run: {peer.error}")
    if options.json:
        told = {peer.name: {"turns": peer.turns, "error": peer.error} for peer in peers}
        text = json.dumps({"machine": about, "steps": options.steps, "peers": told}, indent=2, allow_nan=False)
        options.json.write_text(text)


def spread(peer: Peer, what: str) -> str:
    values = [1e3 * value for value in peer.values(what, each_step=True)]
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def speed(peer: Peer, base: Peer) -> str:
    """How many times as quick as another."""
    low, middle, high = quartiles(paired_ratios(base.values("wall"), peer.values("wall")))
    cpu = statistics.median(paired_ratios(base.values("cpu"), peer.values("cpu")))
    return f"{middle:.2f} × ({low:.2f} to {high:.2f}; {cpu:.2f} × in CPU time)"


def table(whole: dict[str, Peer]) -> str:
    """Medians, spread and ratios, the quickest first."""
    lines = [
        "| | ms a step: median (least to most) | CPU ms a step | speed against the loop (quartiles) | costs of D, G |",
        "|---|---|---|---|---|",
    ]
    for peer in sorted(whole.values(), key=lambda peer: statistics.median(peer.values("wall"))):
        against = speed(peer, whole[LOOP]) if LOOP in whole else ""
        costs = ", ".join(f"{cost:.2f}" for cost in peer.turns[-1].get("costs") or () if cost is not None)
        lines.append(f"| {peer.name} | {spread(peer, 'wall')} | {spread(peer, 'cpu')} | {against} | {costs} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
