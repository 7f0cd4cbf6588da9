"""A plain eager loop with the whole set on the device: what a careful user writes in thirty lines."""

from __future__ import annotations

import torch
from common import BATCH, DEVICE, RATE, STEPS, Gate, binary_images
from examples_loop import VAE
from torch.nn import functional as F


def main() -> None:
    images = torch.from_numpy(binary_images()).to(DEVICE)
    model = VAE().to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    loss_of_epoch: float | None = None
    gate = Gate(STEPS, lambda: {"loss": loss_of_epoch})
    while True:
        total = torch.zeros((), device=DEVICE)
        for rows in torch.randperm(len(images), device=DEVICE).split(BATCH)[:STEPS]:
            gate.wait()
            x = images[rows].float()
            optimizer.zero_grad()
            reconstruction, mu, logvar = model(x)
            bce = F.binary_cross_entropy(reconstruction, x, reduction="sum")
            loss = (bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())) / BATCH
            loss.backward()
            total += loss.detach()
            optimizer.step()
        loss_of_epoch = float(total) / STEPS


if __name__ == "__main__":
    main()
