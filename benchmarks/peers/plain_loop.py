"""A plain eager loop with the whole set on the device: what a careful user writes in thirty lines."""

from __future__ import annotations

import torch
from common import BATCH, DEVICE, RATE, Timer, binary_images, tell
from examples_loop import VAE
from torch.nn import functional as F


def run(epochs: int) -> tuple[list[float], float]:
    images = torch.from_numpy(binary_images()).to(DEVICE)
    model = VAE().to(DEVICE)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    timer = Timer()
    mean = 0.0
    for _ in range(epochs):
        total = torch.zeros((), device=DEVICE)
        steps = len(images) // BATCH
        for rows in torch.randperm(len(images), device=DEVICE).split(BATCH)[:steps]:
            x = images[rows].float()
            optimiser.zero_grad()
            reconstruction, mu, logvar = model(x)
            bce = F.binary_cross_entropy(reconstruction, x, reduction="sum")
            loss = (bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())) / BATCH
            loss.backward()
            total += loss.detach()
            optimiser.step()
        mean = float(total) / steps
        timer.lap()
    return timer.laps, mean


if __name__ == "__main__":
    tell(run)
