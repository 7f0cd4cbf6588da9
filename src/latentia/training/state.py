"""The game in bar: everything that changes while it is played, and how that is saved and brought back."""

from __future__ import annotations

__all__ = ["TrainState"]

import itertools
import math
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate
from latentia.objectives import Progress
from latentia.training import checkpoint as checkpoints
from latentia.training.checkpoint import Checkpoint
from latentia.training.distributed import Worker, all_reduce_sum, on_rank_zero
from latentia.training.ema import AveragedWeights
from latentia.training.game import Game
from latentia.training.gradients import Move, compiled, plain
from latentia.training.progress_bar import ProgressBar
from latentia.training.records import MetricAccumulator
from latentia.training.run_directory import RunDirectory
from latentia.training.settings import Training


class TrainState:
    """Game, optimizers, averages and counts of a run.

    Attributes:
        step: steps finished.
        best: the best validation figure so far; best_step: when, 0 for never; since_best: validations since.
        ended: whether patience has run out.
        latest: the last value of every recorded name.

    Raises:
        ConfigurationError: for a player with nothing to learn, or settings that the game cannot meet.
    """

    def __init__(self, game: Game, training: Training, directory: RunDirectory, worker: Worker):
        self.game, self.training, self.directory, self.worker = game, training, directory, worker
        self.parameters = {player.name: player.parameters for player in game.players}
        for name, parameters in self.parameters.items():
            if not parameters:
                raise ConfigurationError(f"the {name} has no parameters to learn; give its networks some")
        if training.keep == "best" and game.validate is None:
            raise ConfigurationError(
                [("keep", "keep=best needs a validation split, and there is none; set data.validation, or keep=last")]
            )
        self.moves: dict[str, Move] = {p.name: plain(p, self.parameters[p.name], worker) for p in game.players}
        self.optimizers = {p.name: p.optimizer.build(self.parameters[p.name]) for p in game.players}
        self.average = AveragedWeights(game.model, training.ema) if training.ema else None
        self.tally = MetricAccumulator(partial(all_reduce_sum, worker))
        self.draws = max(player.steps for player in game.players)
        self.step = 0
        self.best, self.best_step, self.since_best = math.inf, 0, 0
        self.ended = False
        self.latest: dict[str, Estimate] = {}
        self._before, self._started = 0.0, time.perf_counter()

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.training.epochs * self.game.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Wall time of the run: of this call, and of those before it up to the checkpoints they left."""
        return self._before + time.perf_counter() - self._started

    @property
    def progress(self) -> Progress:
        """What costs are told of the time."""
        return Progress(self.step, self.step / self.game.steps_per_epoch, self.game.data_size)

    def compile_moves(self, bar: ProgressBar) -> None:
        """Have every player's move compiled when it is first made."""
        for p in self.game.players:
            self.moves[p.name] = compiled(p, self.parameters[p.name], self.worker, bar.say, bar.warn)

    def averaged(self) -> AbstractContextManager[None]:
        """A block with the averaged weights in the model, where there are any."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def check(self) -> None:
        """See that all costs since the last record and all weights are finite.

        Raises:
            RunError: naming the step, the player and its terms, or the weights.
        """
        self.tally.settle()
        bad = self.tally.bad()
        if bad is not None:
            step, player, names = bad
            terms = " and ".join(map(repr, names))
            what = f"step {step}: the {player}'s {terms} {'are' if names[1:] else 'is'} not finite"
        else:
            name = self._unsound()
            if name is None:
                return
            what = f"step {self.step}: {name} is not finite, though the costs were: a gradient overflowed"
        kept = checkpoints.find_checkpoints(self.directory.checkpoints)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint before it"
        raise RunError(f"{what}; {last}. Try a lower optimizer.lr, clip=1, or precision=32-true")

    def _unsound(self) -> str | None:
        """The first parameter or tensor of an optimizer that is not finite, or buffer that is not a number."""
        model, state = self.game.model, {}
        for player, optimizer in self.optimizers.items():
            for name, value in checkpoints.optimizer_tensors(optimizer).items():
                state[f"the {player}'s optimizer state {name}"] = value
        finite = {f"the parameter {name}": value for name, value in model.named_parameters()} | state
        numbers = {f"the buffer {name}": value for name, value in model.named_buffers()}
        # A number that is not finite makes a sum so, and sums are quick. The reverse does not hold, so then look again.
        sums = [value.detach().sum().to(self.worker.device).float() for value in (finite | numbers).values()]
        if bool(torch.stack(sums).isfinite().all()):
            return None
        bad = (name for name, value in finite.items() if not value.isfinite().all())
        no_number = (name for name, value in numbers.items() if value.isnan().any())  # an infinity may be meant: a mask
        return next(itertools.chain(bad, no_number), None)

    def save(self) -> None:
        """Write a checkpoint, once all that it would hold is seen to be sound.

        Raises:
            RunError: if something is not finite, or the disk fails.
        """
        self.check()
        on_rank_zero(self.worker, self._write)

    def _write(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.game.model.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            state = checkpoints.optimizer_tensors(optimizer)
            tensors.update({f"optimizer.{name}.{key}": value for key, value in state.items()})
        if self.average is not None:
            tensors.update({f"ema.{name}": value for name, value in self.average.state.items()})
        rows, tensors["tally.table"] = self.tally.state()
        bar = {
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "since_best": self.since_best,
            "ended": self.ended,
            "seconds": self.seconds,
            "tally": rows,
        }
        folder = self.directory.checkpoints
        checkpoints.write_checkpoint(folder, Checkpoint(self.step, tensors, bar))
        spare = [self.best_step] if self.training.keep == "best" else []
        checkpoints.prune(folder, self.training.checkpoints, spare)

    def restore(self, bar: ProgressBar) -> None:
        """Go on from the newest sound checkpoint; without any, from the beginning.

        Raises:
            RunError: if the checkpoint is of another model.
        """
        saved, complaints = on_rank_zero(self.worker, self._newest_sound)
        for complaint in complaints:
            bar.warn(f"{complaint}; going back to an older one")
        if saved is None:
            bar.say("there is no sound checkpoint; starting from the beginning")
        else:
            self._take(saved, bar)
            bar.say(f"going on after step {saved.step} of {self.total}")
        on_rank_zero(self.worker, lambda: self.directory.forget_records_after(self.step))

    def _newest_sound(self) -> tuple[Checkpoint | None, list[str]]:
        saved, complaints = checkpoints.newest_sound(self.directory.checkpoints)
        for path in complaints:
            checkpoints.set_aside(path)
        return saved, list(complaints.values())

    def _take(self, saved: Checkpoint, bar: ProgressBar) -> None:
        self.load_model(saved.part("model"), saved.step)
        for name, optimizer in self.optimizers.items():
            checkpoints.restore_optimizer(optimizer, saved.part(f"optimizer.{name}"))
        if self.average is not None:
            self.average.load(saved.part("ema"))
        about: dict[str, Any] = saved.progress
        self.tally.restore(about["tally"], saved.tensors["tally.table"])
        self.step, self.ended = saved.step, about["ended"]
        self._before = about.get("seconds", 0.0)  # not in checkpoints of before
        self.best = math.inf if about["best"] is None else about["best"]
        self.best_step, self.since_best = about["best_step"], about["since_best"]
        if self.training.keep == "best" and self.best_step not in (0, self.step):
            complaint = on_rank_zero(self.worker, self._fault_of_best)
            if complaint is not None:
                bar.warn(f"{complaint}; the best weights are now to be found among those of steps to come")
                self.best, self.best_step, self.since_best = math.inf, 0, 0

    def _fault_of_best(self) -> str | None:
        path = self.directory.checkpoints / f"step-{self.best_step:08d}"
        try:
            checkpoints.read_checkpoint(path)
        except RunError as error:
            if path.exists():
                checkpoints.set_aside(path)
            return str(error)
        return None

    def load_model(self, state: dict[str, Tensor], step: int) -> None:
        """Put weights into the model.

        Raises:
            RunError: if they are another model's.
        """
        try:
            self.game.model.load_state_dict(state)
        except RuntimeError as error:
            first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
            raise RunError(
                f"the checkpoint of step {step} is of another model: {first}. "
                f"Remove {self.directory.checkpoints} to start anew"
            ) from None
