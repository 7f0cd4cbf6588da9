"""pythae's own trainer on the same network."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings

import torch
from common import BATCH, DEVICE, HIDDEN, LATENT, PIXELS, RATE, binary_images, tell, wait
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


class Laps(TrainingCallback):
    def __init__(self) -> None:
        self.laps: list[float] = []

    def on_epoch_begin(self, training_config: object, **kwargs: object) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, training_config: object, **kwargs: object) -> None:
        wait()
        self.laps.append(time.perf_counter() - self.began)

    def on_log(self, training_config: object, logs: dict, **kwargs: object) -> None:
        self.loss = float(logs["train_epoch_loss"])


def run(epochs: int) -> tuple[list[float], float]:
    images = torch.from_numpy(binary_images()).float().view(-1, 1, 28, 28)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    laps = Laps()
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            no_cuda=DEVICE == "cpu",
        )
        BaseTrainer(model=model, train_dataset=Images(images), training_config=settings, callbacks=[laps]).train()
    return laps.laps, laps.loss


if __name__ == "__main__":
    tell(run)
