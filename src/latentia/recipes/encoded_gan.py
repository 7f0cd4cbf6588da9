"""What the recipes of GANs with an encoder share: networks, data, and the figure that shows whether G inverts E."""

from __future__ import annotations

__all__ = ["EncodedGANRecipe"]

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import nn

from latentia.configuration import OneOf
from latentia.data import Digits, Source, Splits
from latentia.distributions import Diagonal, Posterior
from latentia.estimate import Estimate
from latentia.models import EncodedGAN
from latentia.networks import MLP, Network
from latentia.recipes.discriminator_recipe import DiscriminatorRecipe
from latentia.recipes.reality import reality_of
from latentia.training import Adam, Batch, Cosine, Game, Optimizer, Player, Worker

MEASURED = 10_000


class EncodedGANRecipe(DiscriminatorRecipe):
    """A generator and an encoder of images, with a discriminator.

    Recorded on validation images and told of test images is `reconstruction_error`, the mean squared error of a pixel
    of G(E(x)), E(x) the mean of q(z|x), averaged over images.
    """

    data: OneOf[Source] = Digits()
    latent: int = Field(default=16, ge=1, description="dimension of z")
    network: OneOf[Network] = Field(default=MLP(hidden=(256, 256)), description="of generator and encoder")
    posterior: OneOf[Posterior] = Diagonal()
    optimizer: OneOf[Optimizer] = Field(
        default=Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine()), description="of generator and encoder"
    )
    ema: float | None = Field(default=0.99, gt=0, lt=1, description="decay of averaged weights; null for none")

    @abstractmethod
    def players(self, model: Any) -> Sequence[Player]:
        """The players, in the order of their moves."""

    def parts(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What every such model is made of, but for its discriminator."""
        (numbers,) = self.posterior.parameter_shape((self.latent,))
        return {
            "generator": self.network.decoder(self.latent, shape),
            "encoder": self.network.encoder(shape, numbers),
            "latent": self.latent,
            "image_shape": shape,
            "posterior": self.posterior,
        }

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        reality = reality_of(splits, self.data, worker.device)
        examples = reality.training(self.batch_size, self.seed, worker.rank, worker.world_size, 1)
        held_out = reality.some("validation", MEASURED)
        return Game(
            model=model,
            players=self.players(model),
            draw=examples.draw,
            steps_per_epoch=examples.steps_per_epoch,
            data_size=examples.count,
            validate=(lambda _: self._measure(model, held_out, "validation")) if len(held_out.x) > 1 else None,
            monitor="validation/reconstruction_error",
            close=examples.close,
        )

    def final_estimates(self, model: nn.Module, splits: Splits) -> list[Estimate]:
        device = next(model.parameters()).device
        return self._measure(model, reality_of(splits, self.data, device).some("test", MEASURED), "test")

    def _measure(self, model: nn.Module, batch: Batch, split: str) -> list[Estimate]:
        again = torch.cat([cast(EncodedGAN, model).reconstruct(x) for x in batch.x.split(1000)])
        errors = (again - batch.x).square().flatten(1).mean(1)
        return [Estimate.mean(errors, name=f"{split}/reconstruction_error", unit="1", method="mean over images")]
