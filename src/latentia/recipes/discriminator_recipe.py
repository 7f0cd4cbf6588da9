"""What all hybrids share: a discriminator that tells two kinds of vectors or images apart, and what it is after."""

from __future__ import annotations

__all__ = ["DiscriminatorRecipe"]

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentia.configuration import OneOf
from latentia.errors import ConfigurationError
from latentia.networks import MLP, Network
from latentia.objectives import R1R2, AdversarialLoss, DiscriminatorOutput, Penalty, Progress, Relativistic, Terms
from latentia.recipes.recipe import Recipe
from latentia.training import Adam, Batch, Cosine, Optimizer, Player

SPECTRAL = "spectral_norm"  # the key of networks that bound their slope themselves
Sides = Callable[[Tensor], tuple[Tensor, Tensor]]


class DiscriminatorRecipe(Recipe):
    """A recipe with a discriminator among its players."""

    discriminator: OneOf[Network] = Field(
        default=MLP(hidden=(256, 256), activation="leaky-relu"), description="discriminator"
    )
    loss: OneOf[AdversarialLoss] = Relativistic()
    penalty: OneOf[Penalty] = R1R2(gamma=0.5)
    discriminator_optimizer: OneOf[Optimizer] = Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine())

    @model_validator(mode="after")
    def _penalty_makes_sense(self) -> Self:
        problems = []
        incompatibility = self.penalty.incompatibility(self.loss)
        if self.penalty.couples_players:
            incompatibility = "it is of a game of two, a generator and a discriminator. Use penalty=r1r2, r1 or none"
        elif (
            self.loss.needs_lipschitz
            and not self.penalty.bounds_slope
            and not getattr(self.discriminator, SPECTRAL, False)
        ):
            text = f"the cost of {self.loss.type_name} has no minimum unless the discriminator's slope is bounded"
            incompatibility = f"{text}. Use penalty=one-centered or clip, or discriminator.spectral_norm=true"
        if incompatibility:
            problems.append(("penalty", incompatibility))
        if problems:
            raise ConfigurationError(problems)
        return self

    def discriminator_player(self, discriminator: nn.Module, score: Callable[[Tensor], Tensor], sides: Sides) -> Player:
        """The discriminator as a player.

        Args:
            discriminator: whose parameters it moves.
            score: its logits, (n, …) → (n,).
            sides: makes of images x, (B, …), what is real and what is not, each (n, …).
        """

        def cost(batch: Batch, progress: Progress) -> Terms:
            with torch.no_grad():
                real, fake = sides(batch.x)
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()  # penalties ask for slopes
            seen = DiscriminatorOutput(real, fake, score(real), score(fake), score)
            loss = self.loss.discriminator(seen.real_logits, seen.fake_logits)
            penalty = torch.zeros_like(loss)
            if self.penalty.applies(progress.step):
                penalty = self.penalty.weight(min(1.0, progress.epoch / self.epochs)) * self.penalty(seen)
            return {"cost": loss + penalty, "loss": loss, "penalty": penalty}

        return Player(
            "discriminator",
            [discriminator],
            cost,
            self.discriminator_optimizer,
            after=lambda: self.penalty.after(discriminator),
        )
