"""What every peer shares: the data, the shape of the VAE, and how a result is told."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np

PIXELS, HIDDEN, LATENT, BATCH = 784, 400, 20, 128
RATE = 1e-3
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")  # "cuda" on a GPU; JAX chooses its own by JAX_PLATFORMS


def wait() -> None:
    """Let a GPU finish what it was given, so that the clock tells the truth."""
    if DEVICE == "cuda":
        import torch

        torch.cuda.synchronize()


def binary_images() -> np.ndarray:
    """MNIST's 60 000 training images, cut at half: uint8 in {0, 1}, (N, 784). Every peer sees these."""
    from latentia.data import MNIST

    splits = MNIST(binarise="threshold", validation=0).load()
    return (splits.train.images.numpy().reshape(-1, PIXELS) > 127).astype(np.uint8)


def tell(run: Callable[[int], tuple[list[float], float]]) -> None:
    """Run a peer for `--epochs` after one epoch to warm up, and print seconds of each epoch and the last loss."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    seconds, loss = run(epochs + 1)
    print(json.dumps({"seconds": seconds[1:], "warm_up": seconds[0], "loss": loss}))


class Timer:
    """Seconds between calls."""

    def __init__(self) -> None:
        self.laps: list[float] = []
        self._at = time.perf_counter()

    def lap(self) -> None:
        wait()
        now = time.perf_counter()
        self.laps.append(now - self._at)
        self._at = now
