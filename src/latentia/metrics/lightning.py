"""Scores of samples while any LightningModule trains. Lightning is an optional dependency.

from latentia.metrics.lightning import ScoreSamples

trainer = Trainer(callbacks=[ScoreSamples(lambda module, n: module.generator(torch.randn(n, 64)), images, n=2000)])
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.metrics.features import Features
from latentia.metrics.metric import Metric
from latentia.metrics.torchmetrics import SampleQuality

try:
    from pytorch_lightning import Callback, LightningModule, Trainer
except ImportError as error:
    raise ConfigurationError("latentia.metrics.lightning needs Lightning: pip install pytorch-lightning") from error


class ScoreSamples(Callback):
    """Scores samples against real images at the end of validation, or of each epoch where there is no validation.

    Values are logged under their names, standard errors under "NAME/stderr", so that other callbacks can use them
    (`EarlyStopping(monitor="kernel_distance/random-convolutional")`). With several processes, each samples its share,
    with random numbers that differ, and all log the scores of the whole. The random state of training does not change.

    Args:
        sample: gives n images (n, C, H, W), uint8 or floats in [0, 1], from the module and n.
        real: the images to compare with, (N, C, H, W), uint8 or floats in [0, 1]; validation images, not test images.
        n: samples in all.
        metrics: members of `latentia.metrics.Metric` or their names.
        features: a member of `Features` or its name.
        every_n_epochs: how often.
        batch_size: samples at a time.
        seed: of the samples, with the epoch and the process.

    Attributes:
        estimates: the last scores, with their standard errors.

    Raises:
        ConfigurationError: a number below 1.
        DataError: images that are no images, from `sample` or in `real`.
    """

    def __init__(
        self,
        sample: Callable[[Any, int], Tensor],
        real: Tensor,
        n: int = 2000,
        metrics: Sequence[Metric | str] = ("frechet", "kernel", "neighbors"),
        features: Features | str | None = None,
        every_n_epochs: int = 1,
        batch_size: int = 256,
        seed: int = 0,
    ):
        for name, value in (("n", n), ("every_n_epochs", every_n_epochs), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigurationError([(name, f"give at least 1 (given: {value})")])
        self.sample = sample
        self.n = n
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.seed = seed
        self.estimates: list[Estimate] = []
        self._quality = SampleQuality(metrics, features, reset_real=False)
        self._real: Tensor | None = real

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._score(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            self._score(trainer, pl_module)

    def _score(self, trainer: Trainer, module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        rank, processes = trainer.global_rank, trainer.world_size
        if self.n < processes:
            raise ConfigurationError([("n", f"give at least one sample for each process (given: {self.n})")])
        quality = self._quality
        if self._real is not None:  # features of the real images are needed once
            quality.update(self._real[rank::processes], real=True)
            self._real = None
        left = len(range(rank, self.n, processes))
        training = module.training
        module.eval()
        with torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed((self.seed * 1_000_003 + trainer.current_epoch) * processes + rank)
            while left:
                images = self.sample(module, min(left, self.batch_size))
                if not isinstance(images, Tensor) or not 0 < len(images) <= left:
                    raise DataError(f"`sample` gives (n, C, H, W) images for the n asked, here {_said(images)}")
                quality.update(images.cpu(), real=False)
                left -= len(images)
        module.train(training)
        with quality.sync_context(should_sync=processes > 1):
            self.estimates = quality.estimates()
        quality.reset()
        values = {estimate.name: estimate.value for estimate in self.estimates}
        values |= {f"{e.name}/stderr": e.stderr for e in self.estimates if e.stderr is not None}
        module.log_dict({name: torch.tensor(value) for name, value in values.items()}, rank_zero_only=False)


def _said(images: object) -> str:
    return f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
