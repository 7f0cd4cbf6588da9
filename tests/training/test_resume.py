"""A run that stops, however it stops, goes on as if it had not."""

import signal

import pytest
import torch

from latentia.errors import Interrupted
from latentia.training import RunDirectory, Training, seed_of, start_worker
from latentia.training.loop import TrainState

from .toys import duel, play_duel, same_run

SETTINGS = [
    {},
    {"ema": 0.9, "clip": 0.5},
    {"keep": "best", "checkpoints": 1, "ema": 0.5},
    {"patience": 1, "keep": "best", "epochs": 12},
    {"record_every": 1000, "checkpoint_every": 0.3},
    {"record_every": 5, "checkpoint_every": 10.0, "validate_every": 2},
]


def failing_at(number):
    def seen(n):
        if n == number:
            raise MemoryError("no more")

    return seen


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_exception_at_any_step(tmp_path, settings):
    whole = play_duel(tmp_path / "whole", **settings)
    for draw in (0, 1, 7, 12, 19, 30, 2 * whole.step - 1):
        torn = tmp_path / f"torn-{draw}"
        with pytest.raises(MemoryError):
            play_duel(torn, seen=failing_at(draw), **settings)
        resumed = play_duel(torn, resume=True, **settings)
        assert (resumed.step, resumed.stopped_early) == (whole.step, whole.stopped_early)
        same_run(tmp_path / "whole", torn)


def test_early_stopping_did_stop_early(tmp_path):
    outcome = play_duel(tmp_path / "run", patience=1, keep="best", epochs=30)
    assert outcome.stopped_early
    assert outcome.step < 30 * 6
    figures = [
        (r["value"], r["step"]) for r in RunDirectory(tmp_path / "run").records() if r["name"] == "validation/cost"
    ]
    best = min(figures)
    assert figures[-1][1] == outcome.step > best[1]
    assert f"step-{best[1]:08d}" in {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "record_every": 5, "checkpoint_every": 2.0}], ids=str)
def test_a_signal_saves_and_leaves(tmp_path, number, settings):
    before = signal.getsignal(number)
    play_duel(tmp_path / "whole", **settings)
    with pytest.raises(Interrupted, match=r"stopped after step 8 of 24, saved in .*latentia resume"):
        play_duel(tmp_path / "torn", seen=lambda n: n == 13 and signal.raise_signal(number), **settings)  # in step 7
    assert signal.getsignal(number) is before
    assert (tmp_path / "torn" / "checkpoints" / "step-00000008").is_dir()
    assert not (tmp_path / "torn" / "weights.safetensors").exists()
    play_duel(tmp_path / "torn", resume=True, **settings)
    same_run(tmp_path / "whole", tmp_path / "torn")


def test_a_second_signal_leaves_at_once(tmp_path):
    def seen(n):
        if n == 13:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("went on after the second Ctrl-C")

    with pytest.raises(KeyboardInterrupt):
        play_duel(tmp_path / "torn", seen=seen)
    play_duel(tmp_path / "torn", resume=True)
    play_duel(tmp_path / "whole")
    same_run(tmp_path / "whole", tmp_path / "torn")


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        outcome = play_duel(tmp_path / "run", seen=lambda _: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.step == 24


def test_resuming_an_ended_run_changes_nothing(tmp_path):
    first = play_duel(tmp_path / "run", epochs=2)
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    records = RunDirectory(tmp_path / "run").records()
    assert play_duel(tmp_path / "run", resume=True, epochs=2).step == first.step
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == weights
    assert RunDirectory(tmp_path / "run").records() == records


def test_a_table_comes_back_from_its_checkpoint_bit_by_bit(tmp_path):
    """All that changes in play is in the checkpoint, once a few steps have been played."""
    play_duel(tmp_path / "run", epochs=1, ema=0.9)
    training = Training(epochs=1, batch_size=16, ema=0.9)
    worker = start_worker(training)
    state = TrainState(duel(worker), training, RunDirectory(tmp_path / "run"), worker)
    state.restore(bar=_Silent())
    for name, optimizer in state.optimizers.items():
        own = optimizer.state_dict()["state"]
        assert len(own) == len(state.parameters[name])
        assert all(entry["step"] == (12 if name == "discriminator" else 6) for entry in own.values())
        assert all(float(entry["exp_avg_sq"].sum()) > 0 for entry in own.values())
    assert int(state.game.model.state_dict()["generator.1.num_batches_tracked"]) == 18  # both players call it
    assert state.average is not None
    assert not torch.equal(
        state.average.state["generator.0.weight"], state.game.model.state_dict()["generator.0.weight"]
    )


class _Silent:
    def say(self, text):
        pass

    warn = say


def test_the_seeds_of_ranks_and_steps_do_not_meet():
    seeds = {seed_of("step", seed, rank, step) for seed in range(3) for rank in range(8) for step in range(4000)}
    assert len(seeds) == 3 * 8 * 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
