"""Training is a game of players: each has parameters, a cost and an optimizer, and steps down its own cost's gradient.

A VAE is a game of one player, a GAN of two, a hybrid of two or three.
"""

from __future__ import annotations

__all__ = ["Game", "Player", "Probe", "Shared"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from latentia.data import Batch
from latentia.distributions import Conditional
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.objectives import Progress, Terms
from latentia.training.optimizers import Adam, Optimizer


@dataclass
class Shared:
    """Examples that one player makes in its step and a later player of the same step takes: the fakes of a GAN.

    The first one's cost gets their values; the gradient of the second one's cost goes through them to its parameters.
    They are made outside of both costs, so that each cost may be compiled as one program.

    Attributes:
        make: examples for a batch, (B, …), differentiable by the parameters of the player that takes them.
        kept: the last examples, with their graph and the labels of their batch, until they are taken.
    """

    make: Callable[[Batch], Tensor]
    kept: Batch | None = None

    def take(self, batch: Batch) -> Batch:
        """The kept examples, which are then forgotten; new ones for this batch if there are none."""
        taken, self.kept = self.kept or Batch(self.make(batch), batch.labels), None
        return taken


@dataclass
class Player:
    """A trainable party: parameters, a cost and an optimizer.

    Attributes:
        name: `vae`, `generator`, `discriminator`, …
        modules: the modules whose parameters it trains. Players may share parameters.
        cost: terms of a batch, each (B,), among them `cost`, whose mean the player minimizes. It is called with the
            batch and the progress, and by a player that makes or takes shared examples with these as a third argument.
        optimizer: how it steps.
        steps: its steps in each step of the game, each on another batch. (The players of one step share its batches.)
        after: called after each of its steps (weight clipping).
        makes: examples that it makes for each of its batches and a later player takes.
        takes: examples that it takes from an earlier player, in place of new ones.
    """

    name: str
    modules: Sequence[nn.Module]
    cost: Callable[..., Terms]
    optimizer: Optimizer = field(default_factory=Adam)
    steps: int = 1
    after: Callable[[], None] | None = None
    makes: Shared | None = None
    takes: Shared | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the player trains, each once, in a fixed order."""
        return list(dict.fromkeys(p for module in self.modules for p in module.parameters() if p.requires_grad))


@dataclass(frozen=True)
class Probe:
    """A measurement or picture made during training.

    Attributes:
        measure: given the progress and the run's directory, returns estimates to record; may write pictures.
        every: epochs between calls.
        epochs: if given, the epochs after which it is called, in place of `every`.
    """

    measure: Callable[[Progress, Path], Sequence[Estimate]]
    every: int = 1
    epochs: tuple[int, ...] | None = None

    def due(self, epoch: int) -> bool:
        """Whether it is called after this many epochs."""
        return epoch in self.epochs if self.epochs is not None else epoch % self.every == 0


@dataclass
class Game:
    """All that `fit` needs.

    Attributes:
        model: holds every parameter and buffer of the game; what checkpoints save.
        players: in the order of their steps.
        draw: the n-th batch of the run (of this process's share), on the model's device.
        steps_per_epoch: how many steps pass through the training data once.
        data_size: number of training examples.
        validate: estimates on the validation split, with the averaged weights in place where there are any.
        monitor: name of the validated estimate whose lowest value is the best.
        probes: what else is measured.
        close: called when training has ended, however it ended; stops the data's workers.
    """

    model: nn.Module
    players: Sequence[Player]
    draw: Callable[[int], Batch]
    steps_per_epoch: int
    data_size: int
    validate: Callable[[Progress], Sequence[Estimate]] | None = None
    monitor: str = "validation/cost"
    probes: Sequence[Probe] = ()
    close: Callable[[], None] | None = None


def cost_of(terms: Terms, player: str) -> Tensor:
    """The term `cost`, (B,).

    Raises:
        ConfigurationError: if there is none, or the terms are not all of one shape (B,).
    """
    cost = terms.get("cost")
    if cost is None or cost.dim() != 1 or any(term.shape != cost.shape for term in terms.values()):
        shapes = ", ".join(f"{name} {tuple(term.shape)}" for name, term in terms.items())
        raise ConfigurationError(
            f"the {player} gives the terms {shapes or 'none'}; give one number for each example, all of one shape "
            "(B,), among them `cost`"
        )
    return cost


def networks_of(game: Game) -> list[nn.Module]:
    """The networks of the players, each once: those of conditionals, and modules that hold none (a discriminator).

    A prior is left out: it gives a distribution, not a tensor.
    """
    found = [module.network for module in game.model.modules() if isinstance(module, Conditional)]
    prior = getattr(game.model, "prior_module", None)
    for player in game.players:
        for module in player.modules:
            parts = list(module.modules())
            if (
                module is not prior
                and not any(isinstance(part, Conditional) for part in parts)
                and not any(network in parts for network in found)
            ):
                found.append(module)
    return list(dict.fromkeys(found))
