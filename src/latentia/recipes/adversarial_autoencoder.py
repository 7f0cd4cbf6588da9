"""The adversarial autoencoder: a VAE's rate replaced by a game in the latent space (Makhzani et al. 2016).

An encoder and decoder make the distortion −log p(x|z) small; a discriminator tells codes of the prior from codes of
images, and the encoder plays against it, so that the aggregate posterior comes to be the prior.
"""

from __future__ import annotations

__all__ = ["AdversarialAutoencoderRecipe"]

from typing import cast

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from latentia.configuration import OneOf
from latentia.data import Splits
from latentia.models import VAE
from latentia.networks import MLP, Network
from latentia.objectives import AdversarialLoss, Clock, NonSaturating, Terms
from latentia.recipes.vae import VAERecipe
from latentia.training import Adam, Batch, Game, Optimiser, Player


class AdversarialAutoencoderRecipe(VAERecipe, name="adversarial-autoencoder"):
    """Train an adversarial autoencoder; a `VAERecipe` whose `objective` is not used but for validation.

    The judge's cost comes to about 2 log 2 = 1.386 where it can no longer tell the codes of images from the prior's.
    """

    loss: OneOf[AdversarialLoss] = NonSaturating()
    judge: OneOf[Network] = Field(default=MLP(hidden=(128, 128)), description="the discriminator of codes")
    judge_optimiser: OneOf[Optimiser] = Adam(rate=5e-4, beta1=0.5)
    strength: float = Field(default=10.0, gt=0, description="nats of distortion that one nat of the game is worth")

    def model(self, shape: tuple[int, ...], classes: int = 0) -> VAE:
        vae = super().model(shape, classes)
        vae.judge = self.judge.encoder((self.latent,), 1)
        return vae

    def game(self, model: nn.Module, splits: Splits, fabric: Fabric) -> Game:
        vae = cast(VAE, model)
        judge = cast(nn.Module, vae.judge)
        game = super().game(model, splits, fabric)

        def logits(z: Tensor) -> Tensor:
            return judge(z).squeeze(-1)

        def codes_of(x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                return vae.prior.sample(torch.Size([len(x)])), vae.encode(x).rsample()

        def judge_cost(batch: Batch, _: Clock) -> Terms:
            real, fake = codes_of(batch.x)
            return {"cost": self.loss.discriminator(logits(real), logits(fake))}

        def autoencoder_cost(batch: Batch, _: Clock) -> Terms:
            z = vae.encode(batch.x).rsample()
            distortion = -vae.decode(z).log_prob(batch.x)
            with torch.no_grad():
                real = logits(vae.prior.sample(torch.Size([len(z)])))
            fooling = self.loss.generator(real, logits(z))
            return {"cost": distortion + self.strength * fooling, "distortion": distortion, "fooling": fooling}

        autoencoder = [module for name, module in vae.named_children() if name != "judge"]
        game.players = [
            Player("judge", [judge], judge_cost, self.judge_optimiser),
            Player("autoencoder", autoencoder, autoencoder_cost, self.optimiser),
        ]
        return game
