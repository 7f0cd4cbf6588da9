"""The costs of an adversarial game, for the GAN and for every hybrid.

A discriminator compares real and fake examples: images and samples (GAN, VAE/GAN), pairs of an image and a latent
(BiGAN), draws of the prior and latents of images (adversarial autoencoder). `AdversarialObjective` puts together its
cost from a loss, a penalty and an augmentation, and the cost of what makes the fake examples.

Speed: the discriminator's step makes fake examples without a graph. Where `joint` is set, real and fake examples go
through the discriminator in one batch; a discriminator with batch normalization must see them separately, since its
statistics would mix the two. Both costs take fake examples that are made elsewhere: with `reuse_fakes` of the recipe
the generator's step takes those of the discriminator's step before it, and scores them with the updated discriminator,
so that the generator runs once a step instead of twice.
"""

from __future__ import annotations

__all__ = ["AdversarialObjective"]

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from latentia.data import Batch
from latentia.errors import UnsupportedError
from latentia.models import GAN
from latentia.networks.network import has_batch_norm
from latentia.objectives.augmentation import Augmentation
from latentia.objectives.gan_losses import AdversarialLoss
from latentia.objectives.objective import Progress, Terms
from latentia.objectives.penalties import DiscriminatorOutput, NoPenalty, Penalty

Examples = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
Score = Callable[[Tensor, Tensor | None], Tensor]


@dataclass
class AdversarialObjective:
    """The costs of a discriminator and of what it competes with.

    Attributes:
        discriminator: the module that is trained against the fake examples.
        examples: from a batch x, (B, …), and its labels, (B,) or None, to real and fake examples, (n, …) each.
        score: the logits of prepared examples, with their labels or None: (m, …) → (m,).
        loss: the costs as functions of the logits.
        penalty: what is added to the discriminator's cost.
        prepare: from examples, (n, …), to the discriminator's input, (m, …): augmentation and packing.
        generator: what makes the fake examples; needed by penalties that couple the players.
        epochs: length of the run, for penalties whose weight decreases over it.
        joint: whether the discriminator takes real and fake examples in one batch.
    """

    discriminator: nn.Module
    examples: Examples
    score: Score
    loss: AdversarialLoss
    penalty: Penalty = field(default_factory=NoPenalty)
    prepare: Callable[[Tensor], Tensor] = lambda x: x
    generator: nn.Module | None = None
    epochs: float = 1.0
    joint: bool = False

    @classmethod
    def of_gan(
        cls,
        gan: GAN,
        loss: AdversarialLoss,
        penalty: Penalty | None = None,
        augmentation: Augmentation | None = None,
        *,
        epochs: float = 1.0,
    ) -> AdversarialObjective:
        """The costs of a GAN's discriminator and generator; the arguments are the attributes of the class.

        Args:
            gan: whose generator makes as many fake examples as there are real ones.
            loss: see the class.
            penalty: none if not given.
            augmentation: applied to real and fake examples; none if not given.
            epochs: see the class.
        """
        return cls(
            discriminator=gan.discriminator,
            examples=lambda x, labels: (x, gan.generate(gan.draw_latent(len(x)), labels)),
            score=gan.score,
            loss=loss,
            penalty=penalty or NoPenalty(),
            prepare=gan.pack if augmentation is None else lambda x: gan.pack(augmentation(x)),
            generator=gan.generator,
            epochs=epochs,
            joint=not has_batch_norm(gan.discriminator),
        )

    def discriminator_cost(
        self, x: Tensor, labels: Tensor | None, progress: Progress, fakes: Batch | None = None
    ) -> Terms:
        """Terms of a batch x, (B, …), each (m,), with m the number of the discriminator's inputs.

        `cost` is minimized: the sum of `loss` and, in the steps where it applies, the weighted `penalty`. `real_logit`
        and `fake_logit` are recorded with them. With `fakes`, these are the fake examples, and x the real ones.
        """
        applies = self.penalty.applies(progress.step)
        coupled = applies and self.penalty.couples_players
        with nullcontext() if coupled else torch.no_grad():
            real, fake = self.examples(x, labels) if fakes is None else (x, fakes.x)
        seen = self._compare(real, fake, labels, leaves=applies and self.penalty.differentiates_inputs)
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

    def generator_cost(self, x: Tensor, labels: Tensor | None, progress: Progress, fakes: Batch | None = None) -> Terms:
        """`cost`, (m,), of fake examples for a batch x, (B, …): of new ones, or of `fakes` with their labels."""
        if fakes is not None:
            real, (fake, fake_labels) = x, fakes
        else:
            (real, fake), fake_labels = self.examples(x, labels), labels
        if self.penalty.couples_players and self.penalty.applies(progress.step):
            seen = self._compare(real, fake, labels, leaves=False)
            cost = self.loss.generator(seen.real_logits, seen.fake_logits)
            other = self.loss.discriminator(seen.real_logits, seen.fake_logits)
            return {"cost": cost + self._weight(progress) * self._coupling(other, cost)}
        return {"cost": self.fooling_cost(real, fake, labels, fake_labels)}

    def fooling_cost(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None, fake_labels: Tensor | None = None
    ) -> Tensor:
        """The generator's loss on given examples, (n, …) each, without a penalty: (m,)."""
        real_logits = None
        if self.loss.generator_needs_real:
            with torch.no_grad():
                real_logits = self.score(self.prepare(real), labels)
        return self.loss.generator(real_logits, self.score(self.prepare(fake), fake_labels))

    def _weight(self, progress: Progress) -> float | Tensor:
        return self.penalty.weight(min(1.0, progress.epoch / self.epochs))

    def _compare(self, real: Tensor, fake: Tensor, labels: Tensor | None, *, leaves: bool) -> DiscriminatorOutput:
        """Score both kinds of examples; with `leaves`, the inputs are leaves of the logits' graph."""
        real, fake = self.prepare(real), self.prepare(fake)
        if leaves:
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        if self.joint:
            twice = None if labels is None else torch.cat([labels, labels])
            real_logits, fake_logits = self.score(torch.cat([real, fake]), twice).chunk(2)
        else:
            real_logits, fake_logits = (self.score(part, labels) for part in (real, fake))
        return DiscriminatorOutput(real, fake, real_logits, fake_logits, lambda points: self.score(points, labels))

    def _coupling(self, discriminator_cost: Tensor, generator_cost: Tensor) -> Tensor:
        """½ ‖v‖² of the game at this batch, a number; only `Consensus` uses it."""
        if self.generator is None:
            raise UnsupportedError("this penalty is for a game of discriminator and generator; use penalty=r1 or none")
        players = (
            (discriminator_cost.mean(), list(self.discriminator.parameters())),
            (generator_cost.mean(), list(self.generator.parameters())),
        )
        return self.penalty.of_game(players)
