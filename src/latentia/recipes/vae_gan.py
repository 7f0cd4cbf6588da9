"""The VAE/GAN: a VAE that measures likeness by what a GAN's discriminator sees (Larsen et al. 2016).

The decoder of the VAE is the generator G of the GAN. In place of a likelihood of pixels stands one of the discriminator's
features φ, log p(φ(x)|z) = log N(φ(x); φ(G(z)), s² I), and the discriminator tells images from both G(z), z ~ p(z), and
G(z), z ~ q(z|x). As in the paper's algorithm 1 everybody moves by a cost of his own:

    encoder     KL(q(z|x), p(z)) − E_q[log p(φ(x)|z)]
    generator   −γ E_q[log p(φ(x)|z)] + the generator's cost on prior samples and reconstructions
    discriminator       the discriminator's cost on images against prior samples and reconstructions

The constant of the Gaussian is left out. Each real image meets a prior sample and a reconstruction, so that half of
what the discriminator sees is real (the paper counts the real ones once, a third).
"""

from __future__ import annotations

__all__ = ["VAEGANRecipe"]

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from latentia.models import VAEGAN
from latentia.objectives import Progress, Terms
from latentia.objectives.objective import rate_of
from latentia.recipes.encoded_gan import EncodedGANRecipe
from latentia.training import Batch, Player


class VAEGANRecipe(EncodedGANRecipe, name="vae-gan"):
    """Train a VAE/GAN on images; docs/hybrids.md gives what it reaches."""

    features: int = Field(
        default=128, ge=1, description="k, features of the discriminator that likeness is measured by"
    )
    scale: float = Field(default=0.1, gt=0, description="s, standard deviation of each feature")
    gamma: float = Field(default=0.05, ge=0, description="γ, the generator's weight of likeness against the game")

    def build_model(self, shape: tuple[int, ...], classes: int = 0) -> VAEGAN:
        body = self.discriminator.encoder(shape, self.features)
        discriminator = nn.Sequential(body, nn.LeakyReLU(0.2), nn.Linear(self.features, 1))
        return VAEGAN(discriminator=discriminator, **self.parts(shape))

    def players(self, model: VAEGAN) -> Sequence[Player]:
        def distortion(x: Tensor, again: Tensor) -> Tensor:
            return (model.features(x) - model.features(again)).square().sum(1) / (2 * self.scale**2)

        def sides(x: Tensor) -> tuple[Tensor, Tensor]:
            """Each image twice; a prior sample and a reconstruction of each."""
            z = torch.cat([model.prior.sample(torch.Size([len(x)])), model.encode(x).sample()])
            return torch.cat([x, x]), model.generate(z)

        def encoder_cost(batch: Batch, _: Progress) -> Terms:
            q = model.encode(batch.x)
            z = q.rsample()
            terms = {"rate": rate_of(q, model.prior, z, "exact"), "distortion": distortion(batch.x, model.generate(z))}
            return {"cost": terms["rate"] + terms["distortion"], **terms}

        def generator_cost(batch: Batch, _: Progress) -> Terms:
            real, fake = sides(batch.x)
            fooling = self.loss.generator(model.score(real), model.score(fake)).unflatten(0, (2, -1)).mean(0)
            likeness = distortion(batch.x, fake[len(batch.x) :])
            return {"cost": self.gamma * likeness + fooling, "fooling": fooling}

        return [
            self.discriminator_player(model.discriminator, model.score, sides),
            Player("encoder", [model.encoder], encoder_cost, self.optimizer),
            Player("generator", [model.generator], generator_cost, self.optimizer),
        ]
