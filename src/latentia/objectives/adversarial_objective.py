"""The two costs of a GAN's players, put together from a loss, a penalty and an augmentation.

Speed: the discriminator's turn runs the generator once and without a graph; real and fake examples go through the
discriminator together, unless it normalizes over the batch, whose statistics would then mix the two. With
`reuse_fakes` the generator is judged on the very examples that the discriminator has just been shown, by the
discriminator as it has become: the generator runs once a step in place of twice. The costs are the same; the two moves
share a draw.
"""

from __future__ import annotations

__all__ = ["AdversarialObjective"]

from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentia.models import GAN, has_batch_norm
from latentia.objectives.adversarial import AdversarialLoss
from latentia.objectives.augmentation import Augmentation, NoAugmentation
from latentia.objectives.objective import Progress, Terms
from latentia.objectives.penalties import DiscriminatorOutput, NoPenalty, Penalty


@dataclass
class AdversarialObjective:
    """What the two players of a GAN are after.

    Attributes:
        gan: who plays.
        loss: their costs on logits.
        penalty: what is added.
        augmentation: what is done to everything that the discriminator sees.
        epochs: length of the run, for penalties that fall over it.
        reuse_fakes: whether the generator's move takes the fake examples of the discriminator's move before it, in
            place of fresh ones. Under a penalty that couples the players it takes fresh ones all the same.
    """

    gan: GAN
    loss: AdversarialLoss
    penalty: Penalty = field(default_factory=NoPenalty)
    augmentation: Augmentation = field(default_factory=NoAugmentation)
    epochs: float = 1.0
    reuse_fakes: bool = False
    _kept: tuple[Tensor, Tensor | None] | None = field(init=False, repr=False)
    _together: bool = field(init=False, repr=False)  # whether the discriminator may see real and fake in one batch

    def __post_init__(self) -> None:
        self._kept = None
        self._together = not has_batch_norm(self.gan.discriminator)

    def discriminator_cost(self, x: Tensor, labels: Tensor | None, progress: Progress) -> Terms:
        """Terms of real examples x, (B, …), and as many fake ones, each (B/m,) with m the packing.

        `cost` is what is minimized: `loss` and, at its steps, the weighted `penalty`. `real_logit` and `fake_logit` are
        recorded with them.
        """
        applies = self.penalty.applies(progress.step)
        coupled = applies and self.penalty.couples_players
        keeps = self.reuse_fakes and not coupled and self.gan.training and torch.is_grad_enabled()
        with nullcontext() if coupled or keeps else torch.no_grad():
            fake = self._fake(len(x), labels)
        if keeps:
            self._kept, fake = (fake, labels), fake.detach()
        seen = self._look(x, fake, labels, leaves=applies and self.penalty.differentiates_inputs)
        loss = self.loss.discriminator(seen.real_logits, seen.fake_logits)
        if coupled:
            other = self.loss.generator(seen.real_logits, seen.fake_logits)
            penalty = self._weight(progress) * self._coupling(loss, other).expand_as(loss)
        elif applies:
            penalty = self._weight(progress) * self.penalty(seen)
        else:
            penalty = torch.zeros_like(loss)
        return {
            "cost": loss + penalty,
            "loss": loss,
            "penalty": penalty,
            "real_logit": seen.real_logits,
            "fake_logit": seen.fake_logits,
        }

    def generator_cost(self, x: Tensor, labels: Tensor | None, progress: Progress) -> Terms:
        """Terms of as many fake examples as there are real ones, `cost`, each (B/m,)."""
        (fake, fake_labels), self._kept = self._kept or (self._fake(len(x), labels), labels), None
        if self.penalty.couples_players and self.penalty.applies(progress.step):
            seen = self._look(x, fake, labels, leaves=False)
            cost = self.loss.generator(seen.real_logits, seen.fake_logits)
            other = self.loss.discriminator(seen.real_logits, seen.fake_logits)
            return {"cost": cost + self._weight(progress) * self._coupling(other, cost)}
        real_logits = None
        if self.loss.generator_needs_real:
            with torch.no_grad():
                real_logits = self.gan.discriminate(self.augmentation(x), labels)
        return {"cost": self.loss.generator(real_logits, self.gan.discriminate(self.augmentation(fake), fake_labels))}

    def _weight(self, progress: Progress) -> float | Tensor:
        return self.penalty.weight(min(1.0, progress.epoch / self.epochs))

    def _fake(self, n: int, labels: Tensor | None) -> Tensor:
        return self.gan.generate(self.gan.draw_latent(n), labels)

    def _look(self, real: Tensor, fake: Tensor, labels: Tensor | None, *, leaves: bool) -> DiscriminatorOutput:
        """Let the discriminator look at both; with `leaves`, the packs begin their graph."""
        packs = [self.gan.pack(self.augmentation(part)) for part in (real, fake)]
        if leaves:
            packs = [pack.detach().requires_grad_() for pack in packs]
        if self._together:
            twice = None if labels is None else torch.cat([labels, labels])
            both = self.gan.score(torch.cat(packs), twice)
            real_logits, fake_logits = both.chunk(2)
        else:
            real_logits, fake_logits = (self.gan.score(pack, labels) for pack in packs)
        return DiscriminatorOutput(
            packs[0], packs[1], real_logits, fake_logits, lambda points: self.gan.score(points, labels)
        )

    def _coupling(self, discriminator_cost: Tensor, generator_cost: Tensor) -> Tensor:
        """½ ‖v‖² of the game at this batch, a number; only `Consensus` asks for it."""
        players = (
            (discriminator_cost.mean(), list(self.gan.discriminator.parameters())),
            (generator_cost.mean(), list(self.gan.generator.parameters())),
        )
        return self.penalty.of_game(players)
