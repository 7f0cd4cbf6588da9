"""Two players on two processes, with a gradient penalty: second derivatives add up over processes as first ones do."""

from pathlib import Path

import pytest
import torch

from latentia.errors import Interrupted, RunError
from latentia.training import RunDirectory
from tests.recipes.pairs import pair

from .toys import interrupt_one, play_duel_on_a_full_disk, play_still_duel


def still_duel(path: Path) -> RunDirectory:
    play_still_duel(path)
    return RunDirectory(path)


def close(one: RunDirectory, other: RunDirectory) -> None:
    a, b = one.records(), other.records()
    assert [(r["step"], r["name"]) for r in a] == [(r["step"], r["name"]) for r in b]
    trained = [(x["value"], y["value"]) for x, y in zip(a, b, strict=True) if "validation" not in x["name"]]
    assert [x for x, _ in trained] == [pytest.approx(y, rel=1e-4, abs=1e-6) for _, y in trained]
    weights = one.weights(), other.weights()
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5) for name in weights[0])


def test_a_gradient_penalty_over_two_processes_is_that_over_one(tmp_path):
    one = still_duel(tmp_path / "one")
    assert (
        max(r["value"] for r in one.records() if r["name"] == "discriminator/penalty") > 0.01
    )  # it has something to add
    outcomes = pair(play_still_duel, tmp_path / "two")
    assert [outcome.step for outcome in outcomes] == [24, 24]
    close(one, RunDirectory(tmp_path / "two"))


def test_a_full_disk_of_the_first_process_stops_both(tmp_path):
    for error in pair(play_duel_on_a_full_disk, tmp_path / "run"):
        assert isinstance(error, RunError), error
        assert "No space left on device" in str(error)


def test_a_signal_to_one_process_stops_both_after_the_same_step(tmp_path):
    one = still_duel(tmp_path / "one")
    for error in pair(interrupt_one, tmp_path / "run"):
        assert isinstance(error, Interrupted), error
        assert "stopped after step 8 of 24" in str(error)
    pair(play_still_duel, tmp_path / "run", True)
    close(one, RunDirectory(tmp_path / "run"))
