"""No step waits for the device: between two records nothing asks a tensor for its numbers, and none is made of numbers.

On a GPU each such call stops the queue of kernels until all before it have run. Here, on a CPU, the calls are counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from latentia.data import Batch, Digits, Ring, binarization
from latentia.networks import DCGAN, MLP
from latentia.objectives import IWAE, R1, Clip, NoPenalty, OneCentered, Wasserstein
from latentia.recipes import GANRecipe, Recipe, VAERecipe
from latentia.training import RunDirectory, fit, loop, start_worker

# What the dispatcher sees: a number read from a tensor, a shape that depends on values, a tensor of Python's numbers.
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "lift_fresh", "_unique2"}
# What it does not see where the tensor lies on the CPU already.
METHODS = ("cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__")

GAMES: dict[str, Recipe] = {
    "vae": VAERecipe(data=Digits(binarize="dynamic"), network=MLP(hidden=(16,)), epochs=1, ema=0.9, clip=1.0),
    "iwae": VAERecipe(data=Digits(binarize="dynamic"), network=MLP(hidden=(16,)), epochs=1, objective=IWAE(k=3)),
    "dcgan": GANRecipe(data=Digits(), network=DCGAN(width=4), epochs=1, penalty=NoPenalty(), reuse_fakes=True),
    "r1": GANRecipe(data=Digits(), network=MLP(hidden=(16,)), epochs=1, penalty=R1(every=4)),
    "packed clip": GANRecipe(
        data=Digits(), network=MLP(hidden=(16,)), epochs=1, loss=Wasserstein(), penalty=Clip(), packing=2
    ),
    "conditional": GANRecipe(data=Digits(), network=MLP(hidden=(16,)), epochs=1, conditional=True),
    "wasserstein": GANRecipe(
        data=Ring(), network=MLP(hidden=(8,)), steps_per_epoch=12, epochs=1, loss=Wasserstein(), penalty=OneCentered()
    ),
}


class Calls(TorchDispatchMode):
    """Counts the calls that would wait for a device, while it is entered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._inside = False
        for name in METHODS:
            monkeypatch.setattr(torch.Tensor, name, self._counted(name, getattr(torch.Tensor, name)))

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._inside:
                self.counts[name] += 1
            return method(tensor, *args, **kwargs)

        return counted

    def __enter__(self) -> Calls:
        self._inside = True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inside = False
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in WAITING:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def calls_in_steps(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, folder: Any, change: Callable[[Batch], object] = id
) -> tuple[Counter[str], int]:
    """What the steps of a short run call, and how many steps there were; `change` is called in each cost."""
    # what a GPU draws by; the CPU's own way looks for rare bytes with numpy
    monkeypatch.setattr(binarization, "_bytes_below_255", binarization._integers_below_255)
    worker = start_worker(recipe)
    splits = recipe.data.load()
    game = recipe.build_game(recipe.build_model(splits.shape, len(splits.classes)), splits, worker)
    player = game.players[0]
    cost = player.cost
    first = dataclasses.replace(player, cost=lambda batch, *rest: (change(batch), cost(batch, *rest))[1])
    game = dataclasses.replace(game, players=[first, *game.players[1:]], probes=[], validate=None)
    calls, step, steps = Calls(monkeypatch), loop._step, 0

    def watched(*args: Any) -> bool:
        nonlocal steps
        steps += 1
        with calls:
            return step(*args)

    monkeypatch.setattr(loop, "_step", watched)
    with RunDirectory.open(folder / "run", recipe.to_mapping()) as directory:
        fit(game, recipe, directory, worker, quiet=True)
    return calls.counts, steps


@pytest.mark.parametrize("recipe", GAMES.values(), ids=GAMES)
def test_no_step_waits_for_the_device(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    counts, steps = calls_in_steps(recipe, monkeypatch, tmp_path)
    assert steps >= 10
    assert not counts


@pytest.mark.parametrize(
    ("waits", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: bool(x.sum() > 0), "__bool__"),
        (lambda x: x.cpu(), "cpu"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x.sum() + torch.tensor(1.0), "lift_fresh"),
    ],
    ids=["item", "bool", "cpu", "nonzero", "tensor of numbers"],
)
def test_the_count_sees_who_waits(
    waits: Callable[[torch.Tensor], object], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    counts, steps = calls_in_steps(GAMES["vae"], monkeypatch, tmp_path, lambda batch: waits(batch.x))
    assert counts[name] == steps
