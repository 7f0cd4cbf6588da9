"""pythae's own trainer on the same network."""

from __future__ import annotations

import logging
import tempfile
import warnings
from typing import Any

import torch
from common import BATCH, DEVICE, HIDDEN, LATENT, PIXELS, RATE, STEPS, Gate, binary_images
from torch import nn

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

from pythae.data.datasets import DatasetOutput  # noqa: E402
from pythae.models import VAE, VAEConfig  # noqa: E402
from pythae.models.base.base_utils import ModelOutput  # noqa: E402
from pythae.models.nn import BaseDecoder, BaseEncoder  # noqa: E402
from pythae.trainers import BaseTrainer, BaseTrainerConfig  # noqa: E402
from pythae.trainers.training_callbacks import TrainingCallback  # noqa: E402


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        h = self.layers(x.flatten(1))
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS), nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))


class Images(torch.utils.data.Dataset):
    def __init__(self, images: torch.Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> DatasetOutput:
        return DatasetOutput(data=self.images[index])


class AtTheGate(TrainingCallback):
    """Waits between two steps; after an epoch's last, when all that its end brings is done, which `on_log` tells."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.steps = 0
        self.gate = Gate(STEPS + 1, lambda: {"loss": self.loss})

    def on_train_begin(self, training_config: object, **kwargs: object) -> None:
        self.gate.wait()

    def on_train_step_end(self, training_config: object, **kwargs: object) -> None:
        self.steps += 1
        if self.steps % self.gate.epoch:
            self.gate.wait()

    def on_log(self, training_config: object, logs: dict, **kwargs: object) -> None:
        if self.steps % self.gate.epoch:
            raise ValueError(f"an epoch of {self.gate.epoch} steps ended after {self.steps}")
        self.loss = float(logs["train_epoch_loss"])
        self.gate.wait()


def main() -> None:
    images = torch.from_numpy(binary_images()).float().view(-1, 1, 28, 28)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=10**6,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            no_cuda=DEVICE == "cpu",
        )
        data: Any = Images(images)  # of the kind that pythae takes, though not of the class that it names
        callbacks: list[TrainingCallback] = [AtTheGate()]
        BaseTrainer(model=model, train_dataset=data, training_config=settings, callbacks=callbacks).train()


if __name__ == "__main__":
    main()
