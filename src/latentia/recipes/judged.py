"""What all hybrids share: a judge that tells two kinds of vectors or images apart, and what it is after."""

from __future__ import annotations

__all__ = ["JudgedRecipe"]

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentia.configuration import OneOf
from latentia.errors import ConfigurationError
from latentia.networks import MLP, Network
from latentia.objectives import R1R2, AdversarialLoss, Clock, Penalty, Relativistic, Seen, Terms
from latentia.recipes.recipe import Recipe
from latentia.training import Adam, Batch, Cosine, Optimiser, Player

SPECTRAL = "spectral_norm"  # the key of networks that bound their slope themselves
Sides = Callable[[Tensor], tuple[Tensor, Tensor]]


class JudgedRecipe(Recipe):
    """A recipe with a judge among its players."""

    judge: OneOf[Network] = Field(default=MLP(hidden=(256, 256), activation="leaky-relu"), description="discriminator")
    loss: OneOf[AdversarialLoss] = Relativistic()
    penalty: OneOf[Penalty] = R1R2(gamma=0.5)
    judge_optimiser: OneOf[Optimiser] = Adam(rate=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine())

    @model_validator(mode="after")
    def _penalty_makes_sense(self) -> Self:
        problems = []
        objection = self.penalty.objection(self.loss)
        if self.penalty.couples_players:
            objection = "it is of a game of two, a generator and a discriminator. Use penalty=r1r2, r1 or none"
        elif self.loss.needs_lipschitz and not self.penalty.bounds_slope and not getattr(self.judge, SPECTRAL, False):
            text = f"the cost of {self.loss.type_name} has no minimum unless the judge's slope is bounded"
            objection = f"{text}. Use penalty=one-centred or clip, or judge.spectral_norm=true"
        if objection:
            problems.append(("penalty", objection))
        if problems:
            raise ConfigurationError(problems)
        return self

    def judge_player(self, judge: nn.Module, score: Callable[[Tensor], Tensor], sides: Sides) -> Player:
        """The judge as a player.

        Args:
            judge: whose parameters it moves.
            score: its logits, (n, …) → (n,).
            sides: makes of images x, (B, …), what is real and what is not, each (n, …).
        """

        def cost(batch: Batch, clock: Clock) -> Terms:
            with torch.no_grad():
                real, fake = sides(batch.x)
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()  # penalties ask for slopes
            seen = Seen(real, fake, score(real), score(fake), score)
            loss = self.loss.discriminator(seen.real_logits, seen.fake_logits)
            penalty = torch.zeros_like(loss)
            if self.penalty.applies(clock.step):
                penalty = self.penalty.weight(min(1.0, clock.epoch / self.epochs)) * self.penalty(seen)
            return {"cost": loss + penalty, "loss": loss, "penalty": penalty}

        return Player("judge", [judge], cost, self.judge_optimiser, after=lambda: self.penalty.after(judge))
