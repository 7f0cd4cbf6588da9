"""Compiled networks, in place: the names of weights stay what they are, and so do checkpoints.

What is compiled: the network of every conditional in the game's model, and the modules of players that hold no
conditional (a discriminator). Laws and costs around them stay as they are.
"""

from __future__ import annotations

__all__ = ["compiled", "networks_of"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from latentia.distributions import Conditional
from latentia.training.game import Game


def networks_of(game: Game) -> list[nn.Module]:
    """The networks that compiling speeds up, each once. A prior is none: it gives a law, and no tensor."""
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


@contextmanager
def compiled(game: Game, device: torch.device, warn: Callable[[str], None]) -> Iterator[None]:
    """Compile the game's networks for the length of the block; where there is no compiler, say so and leave them."""
    fault = _fault_of_compiler(device)
    networks = [] if fault else networks_of(game)
    if fault:
        warn(f"compile=true has no effect, the networks run uncompiled: {fault}")
    for network in networks:
        network.compile()
    try:
        yield
    finally:
        for network in networks:
            network._compiled_call_impl = None


def _fault_of_compiler(device: torch.device) -> str | None:
    """Compile next to nothing, and return what went wrong."""
    try:
        torch.compile(lambda x: (x + 1).relu())(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler may run into
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    finally:
        torch._dynamo.reset()
    return None
