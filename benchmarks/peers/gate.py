"""A peer's side of `turns.py`: it waits at the gate for a number of steps, makes them, and tells what they took."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")  # "cuda" on a GPU; JAX chooses its own by JAX_PLATFORMS


def wait_for_device() -> None:
    """Let a GPU finish what it was given, so that the progress tells the truth."""
    if DEVICE == "cuda":
        import torch

        torch.cuda.synchronize()


def _end_with_the_driver() -> None:
    """On Linux, be killed when the driver dies, stopped or not; elsewhere the end of the input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Gate:
    """Opens for a number of steps read from standard input, and tells what they took.

    It tells the driver by a pipe whose number is in the environment, so that whatever else prints may print; without
    one, which is to try a peer by hand, it prints.

    Args:
        epoch: steps that pass through the data once.
        telling: what else is told at the end of a turn, after the progress has stopped.
    """

    def __init__(self, epoch: int, telling: Callable[[], dict[str, object]] = dict):
        _end_with_the_driver()
        self.epoch = epoch
        self._telling = telling
        pipe = os.environ.get("BENCHMARK_ANSWERS")
        self._answers = os.fdopen(int(pipe), "w") if pipe else sys.stdout
        self._left = self._steps = 0
        self._began = (0.0, 0.0)
        self._idle_since = time.process_time()
        self._say({"epoch": epoch})

    def _say(self, what: dict[str, object]) -> None:
        print(json.dumps(what), file=self._answers, flush=True)

    def wait(self, steps: int = 1) -> None:
        """Call before each step, or before so many at once; ends the process when no more are asked for."""
        if self._left == 0:
            if self._steps:
                self._tell()
            order = sys.stdin.readline()
            if not order:
                sys.exit(0)
            self._left = self._steps = int(order)
            self._began = (time.perf_counter(), time.process_time())
        self._left -= steps
        if self._left < 0:
            raise ValueError(f"asked for {self._steps} steps, which is no multiple of {steps}")

    def _tell(self) -> None:
        wait_for_device()
        wall, cpu = time.perf_counter(), time.process_time()
        idle = self._began[1] - self._idle_since
        took = {"wall": wall - self._began[0], "cpu": cpu - self._began[1], "idle": idle}
        self._say({"steps": self._steps, **took, **self._telling()})
        self._idle_since = time.process_time()
