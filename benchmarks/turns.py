"""Peers that take short turns, so that a slow phase of the machine falls on all of them alike.

Neighbors on the host make a virtual machine slow for some seconds to minutes, and not by one factor: products of
matrices suffer less than what is around them. So every peer is a process of its own (its side is `peers/gate.py`), all
are started and warmed up first, and then they go round in turns of a fraction of a second, in an order drawn anew for
each round. A peer that is not on turn is stopped by a signal, with its threads and workers: it can neither disturb the
others nor work ahead. Figures are compared round by round: a ratio is that of two turns a few seconds apart.

What a peer is asked is a number of steps, on its standard input; what it answers, by a pipe, is a line of JSON:
`steps`, `wall` and `cpu` seconds of the turn, `idle` CPU seconds since the turn before, and what else it has to say.
"""

from __future__ import annotations

__all__ = ["Peer", "commands_of", "environment", "paired_ratios", "play_rounds", "quartiles", "started", "warm_up"]

import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PATIENCE = 900.0  # seconds for one answer: a first one may have to compile
LEAVE = 10.0  # seconds to end by themselves, when there are no more turns


@dataclass
class Peer:
    """A process that takes turns.

    Attributes:
        turns: what it has told of each, in order of the rounds.
        about: what it told of itself when it had started.
        error: why it takes no more turns.
    """

    name: str
    process: subprocess.Popen[str]
    answers: IO[str]
    complaints: IO[str]
    turns: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def signal(self, number: int) -> None:
        """Give a signal to the peer and all processes that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def answer(self) -> dict[str, Any] | None:
        """Its next line, after which it is stopped; None if it has died or is too slow, and `error` says so."""
        until = time.monotonic() + PATIENCE
        while True:
            ended = self.process.poll() is not None  # a child of it may hold the pipe open: its end is no sign
            ready, _, _ = select.select([self.answers], [], [], 0.0 if ended else 0.5)
            line = self.answers.readline() if ready else ""
            if line:
                self.signal(signal.SIGSTOP)
                return json.loads(line, parse_constant=lambda _: None)  # what is no number is told as nothing
            if ready or ended or time.monotonic() > until:
                self._give_up()
                return None

    def _give_up(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.poll()
        self.signal(signal.SIGKILL)
        self.complaints.seek(0)
        words = [line for line in self.complaints.read().splitlines() if line.strip()]
        how = f"no answer in {PATIENCE:.0f} s" if code is None else f"exit status {code}"
        self.error = f"{words[-1].strip()} ({how})" if words else how

    def play(self, steps: int) -> dict[str, Any] | None:
        """Let it make so many steps, all others being idle."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        self.signal(signal.SIGCONT)
        return self.answer()

    def values(self, what: str, *, each_step: bool = False) -> list[float]:
        """`wall` or `cpu` seconds of its turns, or of a step in each."""
        return [turn[what] / (turn["steps"] if each_step else 1) for turn in self.turns]


def environment(threads: int, accelerator: str) -> dict[str, str]:
    """Variables for the peers: so many threads (0: what each chooses), on the CPU or a GPU, not all of it for JAX."""
    told = dict(os.environ)
    if threads:
        told |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    told |= {"BENCHMARK_DEVICE": accelerator, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if accelerator == "cpu":
        told["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        told["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return told


def commands_of(peers: Mapping[str, Sequence[str]], only: Sequence[str] | None) -> dict[str, list[str]]:
    """Scripts in `peers/` with their arguments, of all peers or of those whose name has one of these parts."""
    folder = Path(__file__).parent / "peers"
    chosen = {name: words for name, words in peers.items() if not only or any(part in name for part in only)}
    return {name: [str(folder / script), *words] for name, (script, *words) in chosen.items()}


@contextmanager
def started(commands: Mapping[str, Sequence[str]], variables: Mapping[str, str]) -> Iterator[list[Peer]]:
    """Peers by name, each started with Python on the words of its command; at the end, however it comes, all are gone.

    Each is the leader of a process group: Ctrl-C does not reach it, and its workers end with it. Should this process be
    killed, so are the peers, on Linux (`gate.py`).
    """
    peers: list[Peer] = []
    try:
        for name, words in commands.items():
            complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  (no pipe: unread, it would hold up the peer)
            answers, pipe = os.pipe()
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *words],
                stdin=subprocess.PIPE,
                stdout=complaints,
                stderr=complaints,
                text=True,
                env={**variables, "BENCHMARK_ANSWERS": str(pipe)},
                pass_fds=[pipe],
                process_group=0,
            )
            os.close(pipe)
            peers.append(Peer(name, process, os.fdopen(answers), complaints))
        for peer in peers:
            peer.about = peer.answer() or {}
        yield peers
    finally:
        _end(peers)


def _end(peers: Sequence[Peer]) -> None:
    try:
        for peer in peers:
            assert peer.process.stdin is not None
            with suppress(BrokenPipeError):
                peer.process.stdin.close()  # there are no more turns
            peer.signal(signal.SIGCONT)
        until = time.monotonic() + LEAVE
        for peer in peers:
            with suppress(subprocess.TimeoutExpired):
                peer.process.wait(max(0.0, until - time.monotonic()))
    finally:
        for peer in peers:
            peer.signal(signal.SIGKILL)
            peer.process.wait()
            peer.complaints.close()
            peer.answers.close()


def warm_up(peers: Sequence[Peer], steps: Callable[[Peer], int]) -> None:
    """Let every peer compile, and make its first steps, one after another."""
    for peer in peers:
        if peer.error is None:
            print(f"warming up {peer.name}", file=sys.stderr)
            peer.play(steps(peer))


def play_rounds(peers: Sequence[Peer], rounds: int, steps: Callable[[Peer, int], int]) -> None:
    """Turns of so many steps for a peer in a round; the order within each round is random, the same in every call."""
    order = random.Random(0)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        for peer in order.sample(peers, len(peers)):
            if peer.error is None and (told := peer.play(steps(peer, number))) is not None:
                peer.turns.append(told)
    print(file=sys.stderr)


def paired_ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Quotients of what was measured in the same rounds."""
    return [a / b for a, b in zip(one, other, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; of a single value, that one."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
