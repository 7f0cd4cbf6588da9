"""BiGAN, or ALI: a GAN of pairs, with an encoder (Donahue et al. 2017; Dumoulin et al. 2017).

The discriminator tells (x, E(x)) from (G(z), z); generator and encoder play together against it. Where they win, the
two joint laws are one, and E inverts G.
"""

from __future__ import annotations

__all__ = ["BiGAN", "BiGANRecipe"]

from typing import cast

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from latentia.configuration import OneOf
from latentia.data import Digits, Source, Splits
from latentia.networks import MLP, Network
from latentia.objectives import Clock, NonSaturating, Terms
from latentia.recipes.reality import reality_of
from latentia.recipes.recipe import Recipe
from latentia.training import Adam, Batch, Game, Optimiser, Player


class BiGAN(nn.Module):
    """Generator (B, d) → (B, *shape), encoder the other way, and a judge of pairs, flattened and put side by side."""

    def __init__(self, generator: nn.Module, encoder: nn.Module, judge: nn.Module, latent: int):
        super().__init__()
        self.generator, self.encoder, self.judge, self.latent = generator, encoder, judge, latent

    def generate(self, z: Tensor) -> Tensor:
        """G(z), images in [0, 1]."""
        return torch.sigmoid(self.generator(z).float())

    def score(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits of pairs, (B,)."""
        return self.judge(torch.cat([x.flatten(1), z], dim=1)).squeeze(-1)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draw n images, (n, *shape)."""
        return self.generate(torch.randn(n, self.latent, device=next(self.parameters()).device))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """G(E(x))."""
        return self.generate(self.encoder(x))


class BiGANRecipe(Recipe, name="bigan"):
    """Train a BiGAN on images."""

    data: OneOf[Source] = Digits()
    latent: int = Field(default=16, ge=1, description="dimension of z")
    network: OneOf[Network] = Field(default=MLP(hidden=(256, 256)), description="of generator and encoder")
    judge: OneOf[Network] = Field(default=MLP(hidden=(256, 256), activation="leaky-relu"), description="of pairs")
    optimiser: OneOf[Optimiser] = Adam(rate=5e-4, beta1=0.5)
    ema: float | None = Field(default=0.999, gt=0, lt=1, description="decay of averaged weights; null for none")

    def model(self, shape: tuple[int, ...], classes: int = 0) -> BiGAN:
        pair = (torch.Size(shape).numel() + self.latent,)
        encoder = self.network.encoder(shape, self.latent)
        return BiGAN(self.network.decoder(self.latent, shape), encoder, self.judge.encoder(pair, 1), self.latent)

    def game(self, model: nn.Module, splits: Splits, fabric: Fabric) -> Game:
        gan, loss = cast(BiGAN, model), NonSaturating()
        reality = reality_of(splits, self.data, fabric.device)
        examples = reality.training(self.batch_size, self.seed, fabric.global_rank, fabric.world_size, 1)

        def logits(batch: Batch) -> tuple[Tensor, Tensor]:
            z = torch.randn(len(batch.x), self.latent, device=batch.x.device)
            return gan.score(batch.x, gan.encoder(batch.x)), gan.score(gan.generate(z), z)

        def judge_cost(batch: Batch, _: Clock) -> Terms:
            return {"cost": loss.discriminator(*logits(batch))}

        def pair_cost(batch: Batch, _: Clock) -> Terms:
            encoded, generated = logits(batch)  # each side is to look like the other
            return {"cost": loss.generator(None, generated) + loss.generator(None, -encoded)}

        players = [
            Player("judge", [gan.judge], judge_cost, self.optimiser),
            Player("pair", [gan.generator, gan.encoder], pair_cost, self.optimiser),
        ]
        return Game(gan, players, examples.draw, examples.steps_per_epoch, examples.count, close=examples.close)
