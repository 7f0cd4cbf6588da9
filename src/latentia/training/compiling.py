"""When a run's steps are compiled: `compile=auto`, and the test of compiled steps before the first one counts.

Compiling takes seconds to a minute, and saves time at each step: the calls of small operations, and reading and
writing what they pass on. Both are estimated from the operations of one step and not from clocks, so that the same
command decides alike on every machine and at every load. What was decided is kept in environment.json.
"""

from __future__ import annotations

__all__ = ["keep_programs", "worth_compiling"]

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from latentia.files import cache_folder
from latentia.objectives import Progress, Terms
from latentia.training.distributed import Worker
from latentia.training.ensemble import put_back
from latentia.training.game import Game, Player
from latentia.training.gradients import GradientFn, eager_gradients
from latentia.training.seeds import seed_of, seeded
from latentia.training.settings import Training

FEWEST_STEPS = 1000  # of a run whose operations are counted at all
SAVED_PER_OPERATION = 6e-6  # seconds; measured, see docs/speed.md
SAVED_PER_NUMBER = 1e-10  # seconds for each number that an operation writes
LARGE_MAPS = 1_000_000  # numbers that the convolutions of a player's step write
SECONDS_TO_COMPILE = 5.0, 0.1  # for each player, and for each operation of its step
_GRADIENT = "gradient "
MARGIN = 2.0  # how many times the seconds of compiling must be saved


def worth_compiling(game: Game, training: Training, worker: Worker) -> bool:
    """Whether compiling would save at least twice its own time over the run.

    On a processor a step with large convolutions is not compiled: they stay as they are, and nothing else was saved.

    The run's state and random numbers are as before. A cost that fails is not compiled: training reports it.
    """
    steps = training.epochs * game.steps_per_epoch
    if steps < FEWEST_STEPS:
        return False
    saved = spent = 0.0
    try:
        with seeded(seed_of("compile", training.seed), worker.device), put_back(game.model):
            batch = game.draw(0)
            for player in game.players:
                compute = eager_gradients(player, player.parameters, worker)
                with _Counting() as counted:
                    compute(batch, Progress(0, 0.0, game.data_size))
                if counted.convolved > LARGE_MAPS and worker.device.type == "cpu":
                    return False
                each = SAVED_PER_OPERATION * counted.operations + SAVED_PER_NUMBER * counted.numbers
                saved += steps * player.steps * each
                spent += SECONDS_TO_COMPILE[0] + SECONDS_TO_COMPILE[1] * counted.operations
    except Exception:  # whatever a cost or the data may raise: training meets it again and says what it is
        return False
    return saved > MARGIN * spent


def missing_compiler(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device here; None if something can."""
    if device.type == "cpu":
        names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "cl"]
        return None if any(shutil.which(name) for name in names) else f"there is no C++ compiler ({' or '.join(names)})"
    return None if find_spec("triton") else "there is no Triton"


def keep_programs() -> None:
    """Keep compiled programs in latentia's cache, unless the user has named a folder.

    torch keeps them under the temporary folder, which is empty after a restart, and decides on the folder when its
    compiler is imported, as by the first step in a process: call it before.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))


def differing(
    game: Game,
    compiled: Mapping[str, GradientFn],
    eager: Mapping[str, GradientFn],
    first: Progress,
    number: int,
    worker: Worker,
) -> str | None:
    """Compute a step and the next one in both ways, changing nothing; why they are not the same, or None if they are.

    Terms and gradients must agree to rounding, with the same random numbers: in float32 terms to a thousandth of their
    norm and gradients to five thousandths, in bfloat16 both to a twentieth. An activation near the kink of a rectifier
    may round to its other side, which changes a gradient of n such terms by n^(−1/2): a DCGAN of width 64 differs by
    2·10⁻³, and with smooth activations by 4·10⁻⁶. Numbers that are not finite are not compared; training reports them.

    Args:
        game: what is trained.
        compiled: gradients by player, compiled at their first call.
        eager: the same, operation by operation.
        first: the progress of the step.
        number: of its first batch.
        worker: this process.
    """
    of_terms, of_gradients = (1e-3, 5e-3) if worker.precision == "32-true" else (0.05, 0.05)
    for progress in (first, Progress(first.step + 1, first.epoch, first.data_size)):  # a lazy penalty skips some steps
        found: list[dict[str, Tensor]] = []
        for way in (eager, compiled):
            with seeded(seed_of("compile", progress.step), worker.device), put_back(game.model):
                batch = game.draw(number)
                found.append(
                    {
                        f"the {player.name}'s {name}": value
                        for player in game.players
                        for name, value in _numbers(player, way[player.name](batch, progress)).items()
                    }
                )
        for name, plain in found[0].items():
            off = (found[1][name] - plain).norm() / plain.norm().clamp(min=1e-6)
            if off > (of_gradients if _GRADIENT in name else of_terms):
                return f"{name} of the compiled step is off by {off:.1g} of its norm"
    return None


def _numbers(player: Player, terms: Terms) -> dict[str, Tensor]:
    gradients = {f"{_GRADIENT}{i}": p.grad for i, p in enumerate(player.parameters) if p.grad is not None}
    found = {name: value.detach().double().clone() for name, value in {**terms, **gradients}.items()}
    for parameter in player.parameters:
        parameter.grad = None
    return found


class _Counting(TorchDispatchMode):
    """Counts operations and the numbers that they write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.numbers = self.convolved = 0

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        outputs: Sequence[Any] = result if isinstance(result, tuple | list) else [result]
        written = sum(output.numel() for output in outputs if isinstance(output, Tensor))
        self.numbers += written
        self.convolved += written * (function is torch.ops.aten.convolution.default)
        return result
