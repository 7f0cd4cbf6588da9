"""The engine: one loop that plays a game of players.

    for each step:   seed from (seed, rank, step)
      for each player, `times` times:
        draw a batch · zero its gradients · its terms · mean · backward · sum over processes · clip · step
      average the weights · record · at the ends of epochs validate and probe · checkpoint when due

A run that stops, by Ctrl-C, SIGTERM or the end of patience, leaves a whole checkpoint; `resume` goes on from the newest
sound one and ends with the same bits as a run that never stopped, on the same machine and number of processes.
"""

from __future__ import annotations

__all__ = ["Interrupted", "Outcome", "play"]

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor

from latentia.errors import RunError
from latentia.estimate import Estimate
from latentia.objectives import Clock
from latentia.training import checkpoint as checkpoints
from latentia.training.ema import AveragedWeights
from latentia.training.game import Game, Player
from latentia.training.interruption import Stop
from latentia.training.processes import sum_over_processes, sum_tensor
from latentia.training.progress import Progress
from latentia.training.records import Tally
from latentia.training.run_directory import RunDirectory
from latentia.training.seeds import seed_everything, seed_of, seeded
from latentia.training.settings import Training


class Interrupted(RunError):
    """The run was asked to stop, and has saved where it is."""


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        step: steps played in all.
        seconds: wall time of this call.
        stopped_early: whether patience ran out.
        latest: the last value of every recorded name.
    """

    step: int
    seconds: float
    stopped_early: bool
    latest: dict[str, Estimate] = field(default_factory=dict)


@dataclass
class _Table:
    """The game in progress: everything that changes while it is played."""

    game: Game
    training: Training
    directory: RunDirectory
    fabric: Fabric
    optimisers: dict[str, torch.optim.Optimizer]
    average: AveragedWeights | None
    step: int = 0
    best: float = math.inf
    best_step: int = 0
    since_best: int = 0
    ended: bool = False
    latest: dict[str, Estimate] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.training.epochs * self.game.steps_per_epoch

    @property
    def clock(self) -> Clock:
        return Clock(self.step, self.step / self.game.steps_per_epoch, self.game.data_size)


def play(
    game: Game,
    training: Training,
    directory: RunDirectory,
    fabric: Fabric,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Play a game to its end and leave its weights in the run directory.

    Args:
        game: who plays, on what data. Its model is on the fabric's device.
        training: how long and how.
        directory: where records, checkpoints and weights go; it must exist.
        fabric: launched already.
        resume: go on from the newest sound checkpoint, if there is one.
        quiet: show no progress bar.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
        RunError: if a cost is not finite, or the disk fails.
    """
    table = _Table(
        game,
        training,
        directory,
        fabric,
        {player.name: player.optimiser.build(player.parameters) for player in game.players},
        AveragedWeights(game.model, training.ema) if training.ema else None,
    )
    started = time.perf_counter()
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(training.matmul)
    try:
        with Progress(table.total, quiet=quiet or fabric.global_rank > 0) as progress, seeded(0, fabric.device):
            if resume:
                _restore(table, progress)
            _loop(table, progress)
            _finish(table, progress)
    finally:
        torch.set_float32_matmul_precision(matmul)
    stopped_early = table.step < table.total
    return Outcome(table.step, time.perf_counter() - started, stopped_early, table.latest)


def _loop(table: _Table, progress: Progress) -> None:
    game, training, fabric = table.game, table.training, table.fabric
    tallies = {player.name: Tally(player.name) for player in game.players}
    per_epoch = game.steps_per_epoch
    checkpoint_every = max(1, round(training.checkpoint_every * per_epoch))
    validate_every = training.validate_every * per_epoch
    game.model.train()
    progress.begin(table.step)
    with Stop() as stop:
        while table.step < table.total and not table.ended:
            seed_everything(seed_of("step", training.seed, fabric.global_rank, table.step), fabric.device)
            leaving = stop.asked
            for player in game.players:
                leaving = _move(table, player, tallies[player.name], leaving)
            table.step += 1
            if table.average is not None:
                table.average.update(table.step)
            last = table.step == table.total
            epoch_ends = table.step % per_epoch == 0
            due = last or table.step % checkpoint_every == 0
            if leaving or due or epoch_ends or table.step % training.record_every == 0:
                _record(table, _close(table, tallies))
            if epoch_ends:
                _probe(table)
                if table.step % validate_every == 0 or last:
                    _validate(table)
            if leaving or due or table.ended:
                _save(table)
            if leaving:
                raise Interrupted(
                    f"stopped after step {table.step} of {table.total}, saved in {table.directory.path}; "
                    "go on with --resume"
                )
            progress.advance(table.step, table.latest)


def _move(table: _Table, player: Player, tally: Tally, leaving: bool) -> bool:
    """One turn of one player; returns whether any process wants to leave."""
    fabric, training = table.fabric, table.training
    optimiser = table.optimisers[player.name]
    parameters = player.parameters
    player.optimiser.set_rate(optimiser, table.step / table.total)
    for turn in range(player.times):
        batch = table.game.draw(table.step * player.times + turn)
        for parameter in parameters:
            parameter.grad = None
        with fabric.autocast():
            terms = player.cost(batch, table.clock)
        # The mean over the global batch: every process divides by its size, and the gradients are summed.
        mean = terms["cost"].sum() / (len(terms["cost"]) * fabric.world_size)
        fabric.backward(mean, inputs=parameters)
        leaving = sum_over_processes(fabric, parameters, leaving)
        if training.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        optimiser.step()
        if player.after is not None:
            player.after()
        tally.add(table.step, terms)
    return leaving


def _close(table: _Table, tallies: dict[str, Tally]) -> list[Estimate]:
    def reduce(value: Tensor) -> Tensor:
        return sum_tensor(table.fabric, value)

    def where() -> str:
        kept = checkpoints.find_checkpoints(table.directory.checkpoints)
        return f"The last good checkpoint is {kept[-1]}." if kept else "There is no checkpoint before it."

    return [estimate for tally in tallies.values() for estimate in tally.close(reduce, where)]


def _record(table: _Table, estimates: Sequence[Estimate]) -> None:
    table.latest.update({estimate.name: estimate for estimate in estimates})
    if table.fabric.is_global_zero:
        table.directory.append_records(
            {
                "step": table.step,
                "epoch": round(table.clock.epoch, 4),
                "seconds": round(time.time(), 3),
                "name": estimate.name,
                "value": estimate.value,
                "stderr": estimate.stderr,
                "kind": estimate.kind,
            }
            for estimate in estimates
        )


def _with_averaged_weights(table: _Table) -> AbstractContextManager[None]:
    return table.average.in_place() if table.average is not None else nullcontext()


def _validate(table: _Table) -> None:
    game, training = table.game, table.training
    if game.validate is None:
        return
    game.model.eval()
    with (
        _with_averaged_weights(table),
        seeded(seed_of("validation", training.seed), table.fabric.device),
        torch.no_grad(),
    ):
        estimates = list(game.validate(table.clock))
    game.model.train()
    _record(table, estimates)
    chosen = table.latest.get(game.better_when_lower)
    if chosen is None:
        return
    if chosen.value < table.best:
        table.best, table.best_step, table.since_best = chosen.value, table.step, 0
        if training.keep == "best":
            _save(table)
    else:
        table.since_best += 1
        table.ended = training.patience is not None and table.since_best >= training.patience


def _probe(table: _Table) -> None:
    epoch = table.step // table.game.steps_per_epoch
    for number, probe in enumerate(table.game.probes):
        if probe.due(epoch):
            seed = seed_of("probe", table.training.seed, number)
            table.game.model.eval()
            with _with_averaged_weights(table), seeded(seed, table.fabric.device):
                estimates = probe.measure(table.clock, table.directory.path)
            table.game.model.train()
            _record(table, estimates)


def _save(table: _Table) -> None:
    if table.fabric.is_global_zero:
        tensors = {f"model.{name}": value for name, value in table.game.model.state_dict().items()}
        for name, optimiser in table.optimisers.items():
            state = checkpoints.optimiser_tensors(optimiser)
            tensors.update({f"optimiser.{name}.{key}": value for key, value in state.items()})
        if table.average is not None:
            tensors.update({f"ema.{name}": value for name, value in table.average.state.items()})
        progress = {
            "best": table.best if math.isfinite(table.best) else None,
            "best_step": table.best_step,
            "since_best": table.since_best,
            "ended": table.ended,
        }
        folder = table.directory.checkpoints
        checkpoints.write_checkpoint(folder, checkpoints.Checkpoint(table.step, tensors, progress))
        spare = [table.best_step] if table.training.keep == "best" else []
        checkpoints.prune(folder, table.training.checkpoints, spare)
    table.fabric.barrier()


def _restore(table: _Table, progress: Progress) -> None:
    saved, complaints = checkpoints.newest_sound(table.directory.checkpoints)
    for complaint in complaints:
        progress.say(f"{complaint}; going back to an older one")
    if saved is None:
        progress.say("there is no sound checkpoint; starting from the beginning")
        if table.fabric.is_global_zero:
            table.directory.forget_records_after(-1)
        return
    _load_model(table, saved.part("model"), saved.step)
    for name, optimiser in table.optimisers.items():
        checkpoints.restore_optimiser(optimiser, saved.part(f"optimiser.{name}"))
    if table.average is not None:
        table.average.state = {
            name: value.to(table.average.state[name].device) for name, value in saved.part("ema").items()
        }
    table.step = saved.step
    best = saved.progress["best"]
    table.best = math.inf if best is None else best
    table.best_step, table.since_best = saved.progress["best_step"], saved.progress["since_best"]
    table.ended = saved.progress["ended"]
    if table.fabric.is_global_zero:
        table.directory.forget_records_after(saved.step)
    table.fabric.barrier()
    progress.say(f"going on after step {saved.step} of {table.total}")


def _load_model(table: _Table, state: dict[str, Tensor], step: int) -> None:
    try:
        table.game.model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
        raise RunError(
            f"the checkpoint of step {step} is of another model: {first}. "
            f"Remove {table.directory.checkpoints} to start anew"
        ) from None


def _finish(table: _Table, progress: Progress) -> None:
    """Leave the weights that the run ends with: the last, or the best on validation data; averaged where asked."""
    if table.training.keep == "best" and table.best_step:
        path = table.directory.checkpoints / f"step-{table.best_step:08d}"
        best = checkpoints.read_checkpoint(path)
        _load_model(table, best.part("ema" if table.average is not None else "model"), best.step)
        progress.say(f"kept the weights of step {table.best_step}: {table.game.better_when_lower} {table.best:.4f}")
    elif table.average is not None:
        table.game.model.load_state_dict(table.average.state)
    table.game.model.eval()
    if table.fabric.is_global_zero:
        table.directory.write_weights(table.game.model.state_dict())
    table.fabric.barrier()
