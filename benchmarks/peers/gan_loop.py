"""The loop of pytorch/examples' DCGAN, from its description: plain layers, float32, one step written out.

The networks are those of latentia's DCGAN, layer by layer, which is checked before the first step. With `--loader`, the
images come as the example's do, one at a time through PIL to a normalized tensor, from a DataLoader of two workers;
without, a batch is rows of one tensor in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch
from gan_common import BATCH, BETA1, BETA2, DEVICE, LATENT, RATE, SIDE, SLOPE, START, STEPS, WIDTH, Gate, images
from PIL import Image
from torch import Tensor, nn

from latentia.networks import DCGAN


def discriminator() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 4, 2, 1),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * WIDTH),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Flatten(),
        nn.Linear(2 * WIDTH * START**2, 1),
        nn.Sigmoid(),
    )


def generator() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(LATENT, 2 * WIDTH * START**2, bias=False),
        nn.Unflatten(1, (2 * WIDTH, START, START)),
        nn.BatchNorm2d(2 * WIDTH),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1),
        nn.Tanh(),
    )


def take_weights(net: nn.Sequential, ours: nn.Module) -> None:
    values = ours.state_dict().values()
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    """Both, with latentia's initial weights; fails unless they compute what latentia's do."""
    torch.manual_seed(0)
    ours = DCGAN(width=WIDTH).encoder((1, SIDE, SIDE), 1), DCGAN(width=WIDTH).decoder(LATENT, (1, SIDE, SIDE))
    net_d, net_g = discriminator(), generator()
    for net, module in zip((net_d, net_g), ours, strict=True):
        take_weights(net, module)
    with torch.no_grad():  # ours are in [0, 1] and give logits, the example's in [−1, 1] through tanh and sigmoid
        x, z = torch.rand(BATCH, 1, SIDE, SIDE), torch.randn(BATCH, LATENT)
        torch.testing.assert_close(net_d(2 * x - 1), ours[0](x).sigmoid())
        torch.testing.assert_close(net_g(z), ours[1](z).tanh(), atol=1e-5, rtol=1e-5)
    return net_d.to(DEVICE), net_g.to(DEVICE)


class Images(torch.utils.data.Dataset):
    """An image at a time: PIL, tensor in [0, 1], mean and deviation ½."""

    def __init__(self) -> None:
        self.images = images()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index])
        tensor = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(SIDE, SIDE, 1)
        tensor = tensor.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        mean, deviation = (torch.as_tensor([value]).view(-1, 1, 1) for value in (0.5, 0.5))
        return tensor.sub(mean).div(deviation), 0


def from_loader() -> Iterator[Tensor]:
    loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True)
    while True:
        for x, _ in loader:
            yield x.to(DEVICE)


def from_memory() -> Iterator[Tensor]:
    x = torch.from_numpy(images()).unsqueeze(1).float().div(255).sub(0.5).div(0.5).to(DEVICE)
    while True:
        for rows in torch.randperm(len(x), device=DEVICE).split(BATCH)[: len(x) // BATCH]:
            yield x[rows]


def main() -> None:
    net_d, net_g = networks()
    criterion = nn.BCELoss()
    optimizer_d = torch.optim.Adam(net_d.parameters(), lr=RATE, betas=(BETA1, BETA2))
    optimizer_g = torch.optim.Adam(net_g.parameters(), lr=RATE, betas=(BETA1, BETA2))
    costs: tuple[float, float] | None = None
    gate = Gate(STEPS, lambda: {"costs": costs})
    batches = from_loader() if "--loader" in sys.argv else from_memory()
    while True:
        gate.wait()
        real = next(batches)
        ones, zeros = torch.ones(len(real), device=DEVICE), torch.zeros(len(real), device=DEVICE)
        net_d.zero_grad()
        cost_real = criterion(net_d(real).view(-1), ones)
        cost_real.backward()
        fake = net_g(torch.randn(len(real), LATENT, device=DEVICE))
        cost_fake = criterion(net_d(fake.detach()).view(-1), zeros)
        cost_fake.backward()
        optimizer_d.step()
        net_g.zero_grad()
        cost = criterion(net_d(fake).view(-1), ones)
        cost.backward()
        optimizer_g.step()
        costs = (cost_real.item() + cost_fake.item(), cost.item())


if __name__ == "__main__":
    main()
