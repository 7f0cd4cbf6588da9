"""Training is a game of players.

A player owns parameters, an optimizer and a cost; it moves by a step down the gradient of its own cost, the others held
still. A VAE is a game of one player, a GAN of two, a hybrid of two or three.
"""

from __future__ import annotations

__all__ = ["Game", "Player", "Probe", "cost_of", "networks_of"]

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
class Player:
    """One who moves.

    Attributes:
        name: `vae`, `generator`, `discriminator`, …
        modules: whose parameters are the player's own. Players may share parameters.
        cost: terms of a batch, each (B,), among them `cost`, which the player makes small.
        optimizer: how it steps.
        steps: moves in each step of the game, each on a fresh batch. (Players who move in one step share its batches.)
        after: called after each of its moves (weight clipping).
    """

    name: str
    modules: Sequence[nn.Module]
    cost: Callable[[Batch, Progress], Terms]
    optimizer: Optimizer = field(default_factory=Adam)
    steps: int = 1
    after: Callable[[], None] | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the player moves, each once, in a fixed order."""
        return list(dict.fromkeys(p for module in self.modules for p in module.parameters() if p.requires_grad))


@dataclass(frozen=True)
class Probe:
    """What is measured or drawn while training runs.

    Attributes:
        measure: given the progress and the run's directory, returns estimates that are recorded; may write figures.
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
    """All that the engine needs to play.

    Attributes:
        model: holds every parameter and buffer of the game; what checkpoints save.
        players: in the order of their moves.
        draw: the batch of the n-th draw of the run (and of this process), on the model's device.
        steps_per_epoch: how many steps pass through the training data once.
        data_size: number of training examples.
        validate: estimates on the validation split, with the averaged weights in place where there are any.
        monitor: name of the validated estimate by which the best checkpoint is chosen.
        probes: what else is measured.
        close: called when play has ended, however it ended; lets go of the data's workers.
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
    """The term that the player makes small, (B,).

    Raises:
        ConfigurationError: if there is no cost, or the terms are not of one shape (B,).
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

    A prior is none of them: it gives a distribution, and no tensor.
    """
    found = [module.network for module in game.model.modules() if isinstance(module, Conditional)]
    prior = getattr(game.model, "prior_module", None)
    for player in game.players:
        for module in player.modules:
            parts = list(module.modules())
            if (
                module is not prior
                and not any(isinstance(part, Conditional) for part in parts)
                and not any(n in parts for n in found)
            ):
                found.append(module)
    return list(dict.fromkeys(found))
