"""Randomness as a function of (seed, rank, step).

Before each step the engine seeds torch's generators with `seed_of("step", seed, rank, step)`. A run that is killed and
resumed at step s draws from then on what it would have drawn: nothing random is carried from one step to the next.
"""

from __future__ import annotations

__all__ = ["seed_everything", "seed_of", "seeded"]

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from latentia.data import seed_of


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and the device's own."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the caller's generators as they were."""
    device = device or torch.device("cpu")
    with torch.random.fork_rng(
        devices=[] if device.type == "cpu" else [device], device_type="cuda" if device.type == "cpu" else device.type
    ):
        seed_everything(seed, device)
        yield
