"""What every peer of the DCGAN benchmark shares: the game's sizes, its images, and how peers take turns."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

SIDE, LATENT, WIDTH, BATCH = 28, 100, 64, 128
RATE, BETA1, BETA2, EPSILON = 2e-4, 0.5, 0.999, 1e-8
START = SIDE // 4  # side of the feature maps next to the code, of 2 × WIDTH channels
SLOPE = 0.2  # of the leaky rectifiers
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")  # "cuda" on a GPU; JAX chooses its own by JAX_PLATFORMS


def images() -> np.ndarray:
    """MNIST's 60 000 training images, uint8, (N, 28, 28)."""
    from latentia.data import MNIST

    return MNIST(validation=0).load().train.images.numpy()[:, 0]


class Turns:
    """Peers are processes that wait for a number of steps on standard input, play them, and say what they took.

    Attributes:
        costs: the players' mean costs at the last step, in nats; the discriminator's over real and fake summed.
    """

    def __init__(self) -> None:
        self.costs: tuple[float, float] = (float("nan"), float("nan"))
        self._left = self._steps = 0
        self._began = (0.0, 0.0)

    def wait(self) -> None:
        """Call before each step; ends the process when no more are asked for."""
        if self._left == 0:
            if DEVICE == "cuda":  # what was given to the GPU is to be done before the clock is read
                import torch

                torch.cuda.synchronize()
            if self._steps:
                now = (time.perf_counter(), time.process_time())
                wall, cpu = (after - before for after, before in zip(now, self._began, strict=True))
                told = {"wall": wall / self._steps, "cpu": cpu / self._steps, "costs": self.costs}
                print(json.dumps(told), flush=True)
            order = sys.stdin.readline()
            if not order:
                sys.exit(0)
            self._left = self._steps = int(order)
            self._began = (time.perf_counter(), time.process_time())
        self._left -= 1
