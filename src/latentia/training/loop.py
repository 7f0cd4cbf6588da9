"""The engine: one loop that plays a game of players.

    for each step:   seed from (seed, rank, step)
      for each player, `steps` times:
        draw a batch · its terms, and the gradient of their mean cost · sum over processes · clip · step
      average the weights · record · at the ends of epochs validate and probe · checkpoint when due

A run that stops, by Ctrl-C, SIGTERM or the end of patience, leaves a whole checkpoint; `resume` goes on from the newest
sound one and ends with the same bits as a run that never stopped, on the same machine and number of processes.
Steps are counted from 1: checkpoint `step-00000007` is what the seventh step left.
"""

from __future__ import annotations

__all__ = ["Interrupted", "Outcome", "fit"]

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from latentia.errors import LatentiaError, RunError
from latentia.estimate import Estimate
from latentia.training import checkpoint as checkpoints
from latentia.training.distributed import Worker, all_reduce_gradients, broadcast_weights, on_rank_zero
from latentia.training.event_files import EventFiles
from latentia.training.game import Game, Player
from latentia.training.gradients import gradients_traced
from latentia.training.interruption import Interrupted, Stop
from latentia.training.progress_bar import ProgressBar
from latentia.training.run_directory import RunDirectory
from latentia.training.seeds import seed_everything, seed_of, seeded
from latentia.training.settings import Training
from latentia.training.state import TrainState


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        step: steps played in all.
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
) -> Outcome:
    """Play a game to its end and leave its weights in the run directory, and in the model.

    The caller's random state and precision of matrix products are as before when it returns or raises.

    Args:
        game: who plays, on what data. Its model is on the worker's device.
        training: how long and how.
        directory: where records, checkpoints and weights go; it must exist.
        worker: launched already.
        resume: go on from the newest sound checkpoint, if there is one.
        quiet: show no progress bar.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
        ConfigurationError: for settings that the game cannot meet.
        RunError: if a cost is not finite, or the disk fails.
    """
    started = time.perf_counter()
    table = TrainState(game, training, directory, worker)
    with ExitStack() as stack:
        stack.enter_context(_matmul_precision(training.matmul))
        stack.enter_context(seeded(0, worker.device))
        bar = stack.enter_context(ProgressBar(table.total, quiet=quiet, mute=worker.rank > 0))
        if game.close is not None:
            stack.callback(game.close)
        if training.compile:
            stack.enter_context(gradients_traced())
            table.compile_moves(bar)
        broadcast_weights(worker, game.model)
        if resume:
            table.restore(bar)
        event_files = on_rank_zero(worker, lambda: _event_files(table))
        if event_files is not None:
            stack.callback(event_files.close)
        _loop(table, bar, _recorder(table, event_files))
        _finish(table, bar)
    stopped_early = table.step < table.total
    return Outcome(table.step, time.perf_counter() - started, table.seconds, stopped_early, table.latest)


Record = Callable[[Sequence[Estimate]], None]


def _loop(table: TrainState, bar: ProgressBar, record: Record) -> None:
    game, training = table.game, table.training
    per_epoch = game.steps_per_epoch
    checkpoint_every = max(1, round(training.checkpoint_every * per_epoch))
    validate_every = training.validate_every * per_epoch
    game.model.train()
    bar.begin(table.step)
    with Stop() as stop:
        if table.step == 0:  # so that even a run stopped at once goes on from the same weights
            table.save()
        while table.step < table.total and not table.ended:
            leaving = _step(table, stop.asked)
            last = table.step == table.total
            epoch_ends = table.step % per_epoch == 0
            improved = False
            if epoch_ends or table.step % training.record_every == 0:
                table.check()
                record(table.tally.close())
            if epoch_ends:
                _probe(table, record)
                if last or table.step % validate_every == 0:
                    improved = _validate(table, record)
            if leaving or last or improved or table.ended or table.step % checkpoint_every == 0:
                table.save()
            bar.advance(table.step, table.latest)
            if leaving and not last and not table.ended:
                raise Interrupted(
                    f"stopped after step {table.step} of {table.total}, saved in {table.directory.path}; "
                    "go on with --resume"
                )


def _step(table: TrainState, leaving: bool) -> bool:
    """One step of the game; returns whether any process wants to leave."""
    worker = table.worker
    seed_everything(seed_of("step", table.training.seed, worker.rank, table.step), worker.device)
    for player in table.game.players:
        leaving = _move(table, player, leaving)
    table.step += 1
    if table.average is not None:
        table.average.update(table.step)
    return leaving


def _move(table: TrainState, player: Player, leaving: bool) -> bool:
    """All moves of one player in a step."""
    worker, progress, move = table.worker, table.progress, table.moves[player.name]
    optimizer, parameters = table.optimizers[player.name], table.parameters[player.name]
    player.optimizer.set_lr(optimizer, table.step / table.total)
    for turn in range(player.steps):
        batch = table.game.draw(table.step * table.draws + turn)
        terms = move(batch, progress)
        table.tally.add(table.step + 1, player.name, terms)
        leaving = all_reduce_gradients(worker, parameters, leaving)
        if table.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, table.training.clip)
        optimizer.step()
        if player.after is not None:
            player.after()
    return leaving


def _event_files(table: TrainState) -> EventFiles | None:
    return EventFiles(table.directory.path / "tensorboard", table.step) if table.training.tensorboard else None


def _recorder(table: TrainState, event_files: EventFiles | None) -> Record:
    """What writes estimates down, in the first process."""

    def write(estimates: Sequence[Estimate]) -> None:
        table.directory.append_records(
            {
                "step": table.step,
                "epoch": round(table.progress.epoch, 4),
                "seconds": round(time.time(), 3),
                "name": estimate.name,
                "value": estimate.value,
                "stderr": estimate.stderr,
                "kind": estimate.kind,
            }
            for estimate in estimates
        )
        if event_files is not None:
            event_files.write(table.step, estimates)

    def record(estimates: Sequence[Estimate]) -> None:
        table.latest.update({estimate.name: estimate for estimate in estimates})
        on_rank_zero(table.worker, lambda: write(estimates))

    return record


def _validate(table: TrainState, record: Record) -> bool:
    """Measure on the validation split; returns whether these are the best weights so far, and are to be kept."""
    game, training = table.game, table.training
    if game.validate is None:
        return False
    validate, seed = game.validate, seed_of("validation", training.seed)
    with torch.no_grad():
        estimates = _measure(table, lambda: validate(table.progress), seed, "validation")
    record(estimates)
    chosen = {estimate.name: estimate for estimate in estimates}.get(game.monitor)
    if chosen is None:
        if training.keep == "best":
            raise RunError(f"keep=best needs the figure {game.monitor!r}, which the validation does not give")
        return False
    if chosen.value < table.best:
        table.best, table.best_step, table.since_best = chosen.value, table.step, 0
        return training.keep == "best"
    table.since_best += 1
    table.ended = training.patience is not None and table.since_best >= training.patience
    return False


def _probe(table: TrainState, record: Record) -> None:
    epoch = table.step // table.game.steps_per_epoch
    for number, probe in enumerate(table.game.probes):
        if probe.due(epoch):
            measure = partial(probe.measure, table.progress, table.directory.path)
            record(_measure(table, measure, seed_of("probe", table.training.seed, number), "a probe"))


def _measure(table: TrainState, measure: Callable[[], Sequence[Estimate]], seed: int, what: str) -> list[Estimate]:
    """Estimates made by the first process, with the averaged weights, in evaluation mode, from a seed of their own."""

    def here() -> list[Estimate]:
        model = table.game.model
        model.eval()
        try:
            with table.averaged(), seeded(seed, table.worker.device):
                return list(measure())
        except LatentiaError:
            raise
        except ValueError as error:  # an estimate that is not a number
            raise RunError(f"after step {table.step}, {what} failed: {error}. Try a lower optimizer.lr") from error
        finally:
            model.train()

    return on_rank_zero(table.worker, here)


def _finish(table: TrainState, bar: ProgressBar) -> None:
    """Leave the weights that the run ends with: the last, or the best on validation data; averaged where asked."""
    model = table.game.model
    if table.training.keep == "best" and table.best_step:
        path = table.directory.checkpoints / f"step-{table.best_step:08d}"
        best = on_rank_zero(table.worker, lambda: checkpoints.read_checkpoint(path))
        table.load_model(best.part("ema" if table.average is not None else "model"), best.step)
        bar.say(f"kept the weights of step {table.best_step}: {table.game.monitor} {table.best:.4f}")
    elif table.average is not None:
        model.load_state_dict(table.average.state)
    model.eval()
    on_rank_zero(table.worker, lambda: table.directory.write_weights(model.state_dict()))


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
