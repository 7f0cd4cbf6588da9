"""A step of the DCGAN game, 28×28×1, width 64, z in R^100, batch 128, two Adams: latentia beside its peers, in one run.

    .venv/bin/python benchmarks/gan_training.py                       (--only latentia, --threads 1, --json out.json, …)
    .venv/bin/python benchmarks/gan_training.py --accelerator cuda --steps 100 --warm-up 100 --json gpu.json  (on a GPU)

Every peer is a process of its own that plays a few steps when its turn comes; the turns go round, so that a slow minute
of the machine falls on all of them. Networks, initial law of the weights, batches and costs are the same. Told are the
milliseconds of a step, on the clock and of all its threads together, as medians over the turns with the least and the
most, and both players' costs at the end of it: equal work, like results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from machine import machine

LOOP = "plain eager float32 loop"
PEERS: dict[str, list[str]] = {
    LOOP: ["gan_loop.py"],
    f"{LOOP}, its DataLoader": ["gan_loop.py", "--loader"],
    "latentia": ["gan_ours.py"],
    "latentia, reuse_fakes=true": ["gan_ours.py", "reuse_fakes=true"],
    "latentia, bfloat16": ["gan_ours.py", "precision=bf16-mixed"],
    "latentia, bfloat16, reuse_fakes=true": ["gan_ours.py", "precision=bf16-mixed", "reuse_fakes=true"],
    "latentia, compile=true, reuse_fakes=true": ["gan_ours.py", "compile=true", "reuse_fakes=true"],
    "hand-written JAX, one compiled step": ["gan_jax.py"],
    "the convolutions and products alone": ["gan_floor.py"],
    "the convolutions and products alone, bfloat16": ["gan_floor.py", "--bf16"],
}
HERE = Path(__file__).parent


@dataclass
class Peer:
    """A process that takes turns, and what it has told."""

    name: str
    process: subprocess.Popen[str]
    turns: list[dict] = field(default_factory=list)
    error: str | None = None

    def play(self, steps: int) -> dict | None:
        orders, answers, complaints = self.process.stdin, self.process.stdout, self.process.stderr
        if orders is None or answers is None or complaints is None:
            raise TypeError("a peer is started with pipes")
        try:
            orders.write(f"{steps}\n")
            orders.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.error = (complaints.read().strip().splitlines() or ["no word"])[-1]
            return None
        return json.loads(line)

    def take_turn(self, steps: int) -> None:
        told = self.play(steps)
        if told is not None:
            self.turns.append(told)

    def middle(self, what: str) -> float:
        return statistics.median(turn[what] for turn in self.turns)

    def spread(self, what: str) -> str:
        values = [1e3 * turn[what] for turn in self.turns]
        return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def started(name: str, threads: int, accelerator: str) -> Peer:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["BENCHMARK_DEVICE"] = accelerator
    if accelerator == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    script, *words = PEERS[name]
    command = [sys.executable, "-W", "ignore", str(HERE / "peers" / script), *words]
    pipe = subprocess.PIPE
    return Peer(name, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9, help="turns of each peer")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before the first turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="*", help="parts of peers' names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine(options.accelerator, options.threads)
    peers = []
    for name in PEERS:
        if not options.only or any(part in name for part in options.only):
            print(f"warming up {name}", file=sys.stderr)
            peers.append(started(name, options.threads, options.accelerator))
            peers[-1].play(options.warm_up)
    for repetition in range(options.repetitions):
        print(f"turn {repetition + 1} of {options.repetitions}", file=sys.stderr)
        for peer in peers:
            if peer.error is None:
                peer.take_turn(options.steps)
    for peer in peers:
        peer.process.communicate()  # there are no more turns, and the peer ends
    print("\n" + "; ".join(f"{key} {value}" for key, value in about.items()) + "\n")
    print("| | ms a step: median (least to most) | CPU ms a step | speed against the loop | costs of D, G |")
    print("|---|---|---|---|---|")
    whole = {peer.name: peer for peer in peers if peer.error is None}
    for peer in sorted(whole.values(), key=lambda peer: peer.middle("wall")):
        ratios = [f"{whole[LOOP].middle(what) / peer.middle(what):.2f} ×" for what in ("wall", "cpu") if LOOP in whole]
        against = f"{ratios[0]} ({ratios[1]} in CPU time)" if ratios else ""
        costs = ", ".join(f"{cost:.2f}" for cost in peer.turns[-1]["costs"] if cost == cost)
        print(f"| {peer.name} | {peer.spread('wall')} | {peer.spread('cpu')} | {against} | {costs} |")
    for peer in peers:
        if peer.error is not None:
            print(f"{peer.name} did not run: {peer.error}")
    if options.json:
        told = {peer.name: {"turns": peer.turns, "error": peer.error} for peer in peers}
        options.json.write_text(json.dumps({"machine": about, "steps": options.steps, "peers": told}, indent=2))


if __name__ == "__main__":
    main()
