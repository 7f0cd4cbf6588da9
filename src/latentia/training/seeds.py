"""Random numbers as a function of (seed, rank, step).

Before each step, torch's generators are seeded with `seed_of("step", seed, rank, step)`. A run that is killed and
resumed at step s then samples what it would have sampled: no random state is carried from one step to the next.
"""

from __future__ import annotations

__all__ = ["seed_of", "seeded"]

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
    """Sample from `seed` inside the block; the caller's generators are as before at its end."""
    device = torch.device("cpu") if device is None else device
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        seed_everything(seed, device)
        yield
