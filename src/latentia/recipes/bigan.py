"""BiGAN, or ALI: a GAN of pairs, with an encoder (Donahue et al. 2017; Dumoulin et al. 2017).

A discriminator tells the pairs (x, z), z ~ q(z|x), from the pairs (G(z), z), z ~ p(z); generator and encoder play together
against it. Where they win, the two joint distributions are one: G has the distribution of the data, and q(z|x) is its posterior.
"""

from __future__ import annotations

__all__ = ["BiGANRecipe"]

from collections.abc import Sequence

import torch
from torch import Tensor

from latentia.models import BiGAN
from latentia.objectives import Progress, Terms
from latentia.recipes.encoded_gan import EncodedGANRecipe
from latentia.training import Batch, Player


class BiGANRecipe(EncodedGANRecipe, name="bigan"):
    """Train a BiGAN on images.

    `posterior=fixed posterior.scale=1e-3` makes the encoder a function, as Donahue et al. have it; Dumoulin et al. draw
    z from a learned Gaussian, which is the default. docs/hybrids.md gives what it reaches.
    """

    def build_model(self, shape: tuple[int, ...], classes: int = 0) -> BiGAN:
        pair = torch.Size(shape).numel() + self.latent
        return BiGAN(discriminator=self.discriminator.encoder((pair,), 1), **self.parts(shape))

    def players(self, model: BiGAN) -> Sequence[Player]:
        def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
            """(x, z ~ q(z|x)) and (G(z), z ~ p(z))."""
            z = model.prior.sample(torch.Size([len(x)]))
            return model.pair(x, model.encode(x).rsample()), model.pair(model.generate(z), z)

        def cost(batch: Batch, _: Progress) -> Terms:
            encoded, generated = pairs(batch.x)
            # the discriminator's own cost with the roles exchanged: for the classic loss, non-saturating on both sides
            return {"cost": self.loss.discriminator(model.score(generated), model.score(encoded))}

        return [
            self.discriminator_player(model.discriminator, model.score, pairs),
            Player("pair", [model.generator, model.encoder], cost, self.optimizer),
        ]
