"""The adversarial autoencoder: a VAE's rate replaced by a game in the latent space (Makhzani et al. 2016).

An encoder and decoder make the distortion −log p(x|z) small; a discriminator tells codes of the prior from codes of images, and
the encoder plays against it, so that the aggregate posterior comes to be the prior.
"""

from __future__ import annotations

__all__ = ["AdversarialAutoencoderRecipe"]

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from latentia.data import Splits
from latentia.models import VAE
from latentia.objectives import Progress, Terms
from latentia.recipes.discriminator_recipe import DiscriminatorRecipe
from latentia.recipes.vae import VAERecipe
from latentia.training import Batch, Game, Player, Worker


class AdversarialAutoencoderRecipe(DiscriminatorRecipe, VAERecipe, name="adversarial-autoencoder"):
    """Train an adversarial autoencoder; a `VAERecipe` whose `objective` is not used but for validation.

    The discriminator's loss comes to about log 2 (relativistic; twice that for the other log losses) where it can no longer
    tell the codes of images from the prior's. docs/hybrids.md gives what it reaches.
    """

    latent: int = Field(default=8, ge=1, description="dimension of z")
    strength: float = Field(default=10.0, gt=0, description="nats of distortion that one nat of the game is worth")

    def build_model(self, shape: tuple[int, ...], classes: int = 0) -> VAE:
        vae = VAERecipe.build_model(self, shape, classes)
        vae.discriminator = self.discriminator.encoder((self.latent,), 1)
        return vae

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        vae = cast(VAE, model)
        discriminator = cast(nn.Module, vae.discriminator)
        game = VAERecipe.build_game(self, model, splits, worker)

        def score(z: Tensor) -> Tensor:
            return discriminator(z).squeeze(-1)

        def codes(x: Tensor) -> tuple[Tensor, Tensor]:
            return vae.prior.sample(torch.Size([len(x)])), vae.encode(x).rsample()

        def cost(batch: Batch, _: Progress) -> Terms:
            real, z = codes(batch.x)
            distortion = -vae.decode(z).log_prob(batch.x)
            fooling = self.loss.generator(score(real), score(z))
            return {"cost": distortion + self.strength * fooling, "distortion": distortion, "fooling": fooling}

        autoencoder = [module for name, module in vae.named_children() if name != "discriminator"]
        game.players = [
            self.discriminator_player(discriminator, score, codes),
            Player("autoencoder", autoencoder, cost, self.optimizer),
        ]
        return game
