"""The training loop.

    for each step:   seed from (seed, rank, step)
      for each player, `steps` times:
        a batch · its terms, and the gradient of their mean cost · sum over processes · clip · optimizer step
      average the weights · record · at the ends of epochs validate and probe · checkpoint when due

A run that stops, by Ctrl-C, SIGTERM or the end of patience, leaves a whole checkpoint; `resume` goes on from the newest
sound one and ends with the same bits as a run that never stopped, on the same machine and number of processes.
Steps are counted from 1: the checkpoint `step-00000007` is the state after the seventh step.
"""

from __future__ import annotations

__all__ = ["fit"]

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentia.errors import (
    ConfigurationError,
    Interrupted,
    LatentiaError,
    RunError,
    first_line,
    how_to_go_on,
)
from latentia.estimate import Estimate
from latentia.networks.products import exact_float32_setting
from latentia.objectives import Progress, Terms
from latentia.training import checkpoint as checkpoints
from latentia.training.checkpoint import Checkpoint
from latentia.training.compiled_adam import compiled_step
from latentia.training.compiling import differing, missing_compiler
from latentia.training.distributed import (
    Stop,
    Worker,
    all_reduce_gradients,
    all_reduce_sum,
    broadcast_weights,
    on_rank_zero,
)
from latentia.training.game import Game, Player
from latentia.training.gradients import GradientFn, compiled_gradients, eager_gradients, traceable_gradients
from latentia.training.loggers import Logs
from latentia.training.optimizers import AveragedWeights
from latentia.training.progress import MetricAccumulator, ProgressBar
from latentia.training.run_directory import RunDirectory
from latentia.training.seeds import seed_everything, seed_of, seeded
from latentia.training.settings import Training

_DEAD_LOADER = "DataLoader worker"  # how torch's message begins, which a signal handler may raise anywhere
_CURE = "try a lower lr, clip=1, or precision=32-true"


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        step: steps finished in all.
        seconds: wall time of this call.
        total_seconds: wall time of the run, summed over the calls that resumed it.
        stopped_early: whether patience ran out.
        latest: the last value of every recorded name.
    """

    step: int
    seconds: float
    total_seconds: float
    stopped_early: bool
    latest: dict[str, Estimate] = field(default_factory=dict)


def fit(
    game: Game,
    training: Training,
    directory: RunDirectory,
    worker: Worker,
    *,
    resume: bool = False,
    quiet: bool = False,
    warnings: Sequence[str] = (),
) -> Outcome:
    """Train a game to its end and leave its weights in the run directory, and in the model.

    The caller's random state and precision of matrix products are as before when it returns or raises.

    Args:
        game: the players and their data. Its model is on the worker's device.
        training: how long and how. `compile=auto` is decided by `latentia.train`, and counts as false here.
        directory: where records, checkpoints and weights go; held by the first process.
        worker: this process.
        resume: go on from the newest sound checkpoint, if there is one.
        quiet: show no progress bar.
        warnings: lines to show before training.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
        ConfigurationError: for settings that the game cannot meet.
        RunError: if a number is not finite, a cost fails, a process of the data has ended, or the disk fails.
    """
    started = time.perf_counter()
    state = TrainState(game, training, directory, worker)
    with ExitStack() as stack:
        stack.enter_context(_dead_loaders_reported(directory.path))
        stack.enter_context(_matmul_precision(training.matmul))
        stack.enter_context(seeded(0, worker.device))
        bar = stack.enter_context(ProgressBar(state.total, quiet=quiet, mute=worker.rank > 0))
        if game.close is not None:
            stack.callback(game.close)
        for warning in warnings:
            bar.warn(warning)
        broadcast_weights(worker, game.model)
        if resume:
            state.restore(bar)
        if training.compile not in (False, "auto"):
            stack.enter_context(traceable_gradients())
            state.compile_gradients(bar)
        loggers = training.loggers if worker.rank == 0 else ()
        logs = Logs(loggers, directory.path, training.to_mapping(), state.step, bar.warn)
        stack.callback(logs.close)
        _loop(state, bar, _recorder(state, logs))
        _finish(state, bar)
    stopped_early = state.step < state.total
    return Outcome(state.step, time.perf_counter() - started, state.seconds, stopped_early, state.latest)


class TrainState:
    """Everything that changes while a game is trained, and how it is saved and restored.

    Attributes:
        step: steps finished.
        best: the lowest value on validation data so far.
        best_step: its step, 0 for none.
        since_best: validations since.
        ended: whether patience has run out.
        latest: the last value of every recorded name.
        records: how many records have been written.

    Raises:
        ConfigurationError: for a player without parameters, or settings that the game cannot meet.
    """

    def __init__(self, game: Game, training: Training, directory: RunDirectory, worker: Worker):
        self.game, self.training, self.directory, self.worker = game, training, directory, worker
        self.parameters = {player.name: player.parameters for player in game.players}
        for name, parameters in self.parameters.items():
            if not parameters:
                cure = "give its networks some, and do not freeze all of them"
                raise ConfigurationError(f"the {name} has no parameters to learn; {cure}")
        if training.keep == "best" and game.validate is None:
            raise ConfigurationError(
                [("keep", "keep=best needs a validation split, and there is none; set data.validation, or keep=last")]
            )
        self.gradients: dict[str, GradientFn] = {
            p.name: eager_gradients(p, self.parameters[p.name], worker) for p in game.players
        }
        self.optimizers = {p.name: p.optimizer.build(self.parameters[p.name]) for p in game.players}
        self.optimizer_steps: dict[str, Callable[[], Any]] = {n: o.step for n, o in self.optimizers.items()}
        self.average = AveragedWeights(game.model, training.ema) if training.ema else None
        self.costs = MetricAccumulator(partial(all_reduce_sum, worker))
        self.batches_per_step = max(player.steps for player in game.players)
        self.step = self.records = 0
        self.best, self.best_step, self.since_best = math.inf, 0, 0
        self.ended = False
        self.latest: dict[str, Estimate] = {}
        self._seconds_before, self._started = 0.0, time.perf_counter()

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.training.epochs * self.game.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Wall time of the run: of this call, and of those before it up to the checkpoints they left."""
        return self._seconds_before + time.perf_counter() - self._started

    @property
    def progress(self) -> Progress:
        """The time of the run, as costs see it."""
        return Progress(self.step, self.step / self.game.steps_per_epoch, self.game.data_size)

    def compile_gradients(self, bar: ProgressBar) -> None:
        """Compile every player's gradients and compare them with the eager ones; if that fails, all stay eager."""
        failures = [*filter(None, [missing_compiler(self.worker.device)])]
        compiled: dict[str, GradientFn] = {}

        def complain(text: str) -> None:
            failures.append(text)
            if self.gradients is compiled:  # it failed later, on a step of another kind
                bar.warn(f"{text}; they run uncompiled from here on")

        for p in self.game.players:
            graphs = self.training.compile == "cuda-graphs"
            compiled[p.name] = compiled_gradients(
                p, self.parameters[p.name], self.worker, bar.say, complain, cuda_graphs=graphs
            )
        if not failures:
            try:
                number = self.step * self.batches_per_step
                problem = differing(self.game, compiled, self.gradients, self.progress, number, self.worker)
                failures += [problem] if problem else []
            except Exception as error:  # of the cost or the data, which the first step meets again and reports
                failures.append(first_line(error))
        if all_reduce_sum(self.worker, torch.tensor([float(len(failures))])) == 0:
            self.gradients = compiled
            for name, optimizer in self.optimizers.items():
                self.optimizer_steps[name] = compiled_step(optimizer) or optimizer.step
            return
        reason = "; ".join(failures) or "compiling failed in another process"
        bar.warn(f"compile has no effect, all steps run uncompiled: {reason}")
        with suppress(RunError):  # a directory without the record of a run
            on_rank_zero(self.worker, lambda: self.directory.add_to_environment(compile=False))

    def averaged(self) -> AbstractContextManager[None]:
        """A block with the averaged weights in the model, where there are any."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def check(self) -> None:
        """See that all costs since the last record and all weights are finite.

        Raises:
            RunError: naming the step, the player and its terms, or the weights.
        """
        self.costs.settle()
        bad = self.costs.first_not_finite()
        if bad is not None:
            step, player, names = bad
            terms = " and ".join(map(repr, names))
            what = f"step {step}: the {player}'s {terms} {'are' if names[1:] else 'is'} not finite"
        else:
            name = self._first_not_finite()
            if name is None:
                return
            what = f"step {self.step}: {name} is not finite, though the costs were: a gradient overflowed"
        raise RunError(f"{what}; {checkpoints.describe_last(self.directory.checkpoints)}; {_CURE}")

    def _first_not_finite(self) -> str | None:
        """The first parameter or tensor of an optimizer that is not finite, or buffer that is NaN."""
        model, state = self.game.model, {}
        for player, optimizer in self.optimizers.items():
            for name, value in checkpoints.optimizer_tensors(optimizer).items():
                state[f"the {player}'s optimizer state {name}"] = value
        finite = {f"the parameter {name}": value for name, value in model.named_parameters()} | state
        numbers = {f"the buffer {name}": value for name, value in model.named_buffers()}
        # A number that is not finite makes the sum so, and sums are quick. The reverse does not hold: then look again.
        sums = [value.detach().sum().to(self.worker.device).float() for value in (finite | numbers).values()]
        if bool(torch.stack(sums).isfinite().all()):
            return None
        bad = (name for name, value in finite.items() if not value.isfinite().all())
        nan = (name for name, value in numbers.items() if value.isnan().any())  # an infinity may be meant: a mask
        return next(itertools.chain(bad, nan), None)

    def save(self) -> None:
        """Write a checkpoint, once all that it would hold is seen to be finite.

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
        rows, tensors["costs"] = self.costs.state()
        progress = {
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "since_best": self.since_best,
            "ended": self.ended,
            "seconds": self.seconds,
            "records": self.records,
            "costs": rows,
        }
        folder = self.directory.checkpoints
        self.directory.check_held()
        self.directory.sync_records()
        checkpoints.write_checkpoint(folder, Checkpoint(self.step, tensors, progress))
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
            try:
                self._take(saved, bar)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                if isinstance(error, LatentiaError):
                    raise
                raise self._of_another_model(saved.step, error) from None
            bar.say(f"going on after step {saved.step} of {self.total}")
        kept, complaints = on_rank_zero(self.worker, lambda: self.directory.rewind_records(self.step))
        if kept < self.records:
            complaints.append(
                f"metrics.jsonl: {self.records - kept} of the {self.records} records up to here are missing"
            )
        for complaint in complaints:
            bar.warn(complaint)
        self.records = kept

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
        progress: dict[str, Any] = saved.progress
        self.costs.restore(progress["costs"], saved.tensors["costs"])
        self.step, self.ended, self.records = saved.step, progress["ended"], progress["records"]
        self._seconds_before = progress["seconds"]
        self.best = math.inf if progress["best"] is None else progress["best"]
        self.best_step, self.since_best = progress["best_step"], progress["since_best"]
        if self.training.keep == "best" and self.best_step not in (0, self.step):
            complaint = on_rank_zero(self.worker, self._fault_of_best)
            if complaint is not None:
                bar.warn(f"{complaint}; the best weights will be chosen among those of the steps to come")
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
        """Load weights into the model.

        Raises:
            RunError: if they are of another model.
        """
        try:
            self.game.model.load_state_dict(state)
        except RuntimeError as error:
            first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
            raise self._of_another_model(step, first) from None

    def _of_another_model(self, step: int, reason: object) -> RunError:
        cure = f"remove {self.directory.checkpoints} to begin again, or give another --out"
        return RunError(f"the checkpoint of step {step} is of another model: {reason}; {cure}")


_Record = Callable[[Sequence[Estimate]], None]


def _loop(state: TrainState, bar: ProgressBar, record: _Record) -> None:
    game, training = state.game, state.training
    per_epoch = game.steps_per_epoch
    checkpoint_every = max(1, round(training.checkpoint_every * per_epoch))
    validate_every = training.validate_every * per_epoch
    set_training_mode(game.model)
    bar.begin(state.step)
    with Stop() as stop:
        if state.step == 0:  # so that even a run stopped at once goes on from the same weights
            state.save()
        while state.step < state.total and not state.ended:
            stopping = _step(state, stop.asked)
            last = state.step == state.total
            epoch_ends = state.step % per_epoch == 0
            improved = False
            if epoch_ends or state.step % training.record_every == 0:
                state.check()
                record(state.costs.collect())
            if epoch_ends:
                _probe(state, record)
                if last or state.step % validate_every == 0:
                    improved = _validate(state, record)
            if stopping or last or improved or state.ended or state.step % checkpoint_every == 0:
                state.save()
            bar.advance(state.step, state.latest)
            if stopping and not last and not state.ended:
                raise Interrupted(
                    f"stopped after step {state.step} of {state.total}, saved in {state.directory.path}; "
                    f"{how_to_go_on(state.directory.path)}"
                )


def _step(state: TrainState, stop: bool) -> bool:
    """One step of the game; returns whether any process is asked to stop."""
    worker = state.worker
    seed_everything(seed_of("step", state.training.seed, worker.rank, state.step), worker.device)
    for player in state.game.players:
        stop = _step_player(state, player, stop)
    state.step += 1
    if state.average is not None:
        state.average.update(state.step)
    return stop


def _step_player(state: TrainState, player: Player, stop: bool) -> bool:
    """All steps of one player in a step of the game."""
    worker, progress = state.worker, state.progress
    optimizer, parameters = state.optimizers[player.name], state.parameters[player.name]
    player.optimizer.set_lr(optimizer, state.step / state.total)
    for turn in range(player.steps):
        terms = _terms(state, player, state.step * state.batches_per_step + turn, progress)
        state.costs.add(state.step + 1, player.name, terms)
        stop = all_reduce_gradients(worker, parameters, stop)
        if state.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, state.training.clip)
        state.optimizer_steps[player.name]()
        for parameter in parameters:  # freed now, the next gradients get the same memory, in the cache of the same core
            parameter.grad = None
        if player.after is not None:
            player.after()
    return stop


def _terms(state: TrainState, player: Player, number: int, progress: Progress) -> Terms:
    """The terms of a batch, their gradients in place; a failure becomes an error that says how to go on."""
    doing = "its batch could not be made"
    try:
        batch = state.game.draw(number)
        doing = f"the cost of the {player.name} could not be computed"
        return state.gradients[player.name](batch, progress)
    except (ConnectionError, EOFError) as error:  # the other end of a pipe
        time.sleep(0.2)  # torch's signal handler raises here, if it is to name the process that has ended
        raise RunError(
            f"a process that loads data has ended ({error}); {how_to_go_on(state.directory.path)}"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, LatentiaError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if _DEAD_LOADER in reason:
            raise  # `fit` reports it, wherever it comes up
        if isinstance(error, torch.OutOfMemoryError) or "allocate" in reason:
            raise RunError(
                f"step {state.step + 1}: out of memory ({reason}); set a smaller batch_size or network"
            ) from error
        if state.worker.world_size == 1:
            state.check()  # names the first number that is not finite, where that is the reason
        last = checkpoints.describe_last(state.directory.checkpoints)
        cure = _CURE if state.step else "check that the networks and the data fit together"
        raise RunError(f"step {state.step + 1}: {doing}: {reason}; {last}; {cure}") from error


def _recorder(state: TrainState, logs: Logs) -> _Record:
    """What writes estimates to the records, in the first process."""

    def write(estimates: Sequence[Estimate]) -> int:
        written = state.directory.append_records(
            {
                "step": state.step,
                "epoch": round(state.progress.epoch, 4),
                "seconds": round(time.time(), 3),
                "name": estimate.name,
                "value": estimate.value,
                "stderr": estimate.stderr,
                "kind": estimate.kind,
            }
            for estimate in estimates
        )
        logs.record(state.step, estimates)
        return written

    def record(estimates: Sequence[Estimate]) -> None:
        state.latest.update({estimate.name: estimate for estimate in estimates})
        state.records += on_rank_zero(state.worker, lambda: write(estimates))

    return record


def _validate(state: TrainState, record: _Record) -> bool:
    """Measure on the validation split; returns whether these weights are the best so far, and are to be kept."""
    game, training = state.game, state.training
    if game.validate is None:
        return False
    validate, seed = game.validate, seed_of("validation", training.seed)
    with torch.no_grad():
        estimates = _measure(state, lambda: validate(state.progress), seed, "validation")
    record(estimates)
    chosen = {estimate.name: estimate for estimate in estimates}.get(game.monitor)
    if chosen is None:
        if training.keep == "best":
            raise RunError(f"keep=best needs {game.monitor!r}, which the validation does not give; set keep=last")
        return False
    if chosen.value < state.best:
        state.best, state.best_step, state.since_best = chosen.value, state.step, 0
        return training.keep == "best"
    state.since_best += 1
    state.ended = training.patience is not None and state.since_best >= training.patience
    return False


def _probe(state: TrainState, record: _Record) -> None:
    epoch = state.step // state.game.steps_per_epoch
    for number, probe in enumerate(state.game.probes):
        if probe.due(epoch):
            measure = partial(probe.measure, state.progress, state.directory.path)
            record(_measure(state, measure, seed_of("probe", state.training.seed, number), "a probe"))


def _measure(state: TrainState, measure: Callable[[], Sequence[Estimate]], seed: int, what: str) -> list[Estimate]:
    """Estimates made by the first process, with the averaged weights, in evaluation mode, from a given seed."""

    def here() -> list[Estimate]:
        model = state.game.model
        model.eval()
        try:
            with state.averaged(), seeded(seed, state.worker.device):
                return list(measure())
        except (ValueError, RuntimeError) as error:  # a number that is not finite
            if isinstance(error, LatentiaError):
                raise
            last = checkpoints.describe_last(state.directory.checkpoints)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunError(f"after step {state.step}, {what} failed: {reason}; {last}; {_CURE}") from error
        finally:
            set_training_mode(model)

    return on_rank_zero(state.worker, here)


def _finish(state: TrainState, bar: ProgressBar) -> None:
    """Leave the weights that the run ends with: the last, or the best on validation data; averaged where asked."""
    model = state.game.model
    if state.training.keep == "best" and state.best_step:
        path = state.directory.checkpoints / f"step-{state.best_step:08d}"
        best = on_rank_zero(state.worker, lambda: checkpoints.read_checkpoint(path))
        state.load_model(best.part("ema" if state.average is not None else "model"), best.step)
        bar.say(f"kept the weights of step {state.best_step}: {state.game.monitor} {state.best:.4f}")
    elif state.average is not None:
        model.load_state_dict(state.average.state)
    model.eval()
    on_rank_zero(state.worker, lambda: state.directory.write_weights(model.state_dict()))


def set_training_mode(model: nn.Module) -> None:
    """Training mode, except for parts whose parameters are all frozen: their statistics of batches stay as they are."""
    model.train()
    for part in model.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


@contextmanager
def _dead_loaders_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if _DEAD_LOADER not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"a process that loads data has ended ({reason}); {how_to_go_on(path)}") from error


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(exact_float32_setting() if name == "auto" else name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
