"""The loop of pytorch/examples' VAE, from its description: an image at a time through PIL, then a plain eager loop."""

from __future__ import annotations

import numpy as np
import torch
from common import BATCH, DEVICE, HIDDEN, LATENT, PIXELS, RATE, Gate, binary_images
from PIL import Image
from torch import nn
from torch.nn import functional as F


class Images(torch.utils.data.Dataset):
    """What torchvision's MNIST with ToTensor does for each image."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index].reshape(28, 28) * 255, mode=None)
        tensor = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(28, 28, 1)
        return tensor.permute(2, 0, 1).contiguous().to(torch.float32).div(255), 0


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.fc3, self.fc4 = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, PIXELS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h = F.relu(self.fc1(x))
        mu, logvar = self.fc21(h), self.fc22(h)
        std = torch.exp(0.5 * logvar)
        z = mu + torch.randn_like(std) * std
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


def main() -> None:
    loader = torch.utils.data.DataLoader(Images(binary_images()), batch_size=BATCH, shuffle=True)
    model = VAE().to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    loss_of_epoch: float | None = None
    gate = Gate(len(loader), lambda: {"loss": loss_of_epoch})
    while True:
        total = 0.0
        for images, _ in loader:
            gate.wait()
            data = images.to(DEVICE)
            optimizer.zero_grad()
            reconstruction, mu, logvar = model(data.view(-1, PIXELS))
            bce = F.binary_cross_entropy(reconstruction, data.view(-1, PIXELS), reduction="sum")
            loss = bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            loss.backward()
            total += loss.item()
            optimizer.step()
        loss_of_epoch = total / len(loader.dataset)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
