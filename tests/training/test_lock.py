"""Two processes do not train in one run directory, and one that is killed leaves no lock behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from latentia.errors import RunError
from latentia.networks import MLP
from latentia.recipes import VAERecipe, train
from latentia.training.checkpoint import find_checkpoints, read_checkpoint, write_checkpoint
from latentia.training.lock import LOCK_FILE, locked
from tests.cli.test_commands import latentia
from tests.recipes.pairs import start, train_here

PATIENCE = 90.0
LONG = VAERecipe(epochs=100_000, batch_size=64, network=MLP(hidden=(16,)))


def hold_with_a_child(folder: Path) -> None:
    with locked(folder):
        child = os.fork()
        if child:
            (folder / "child").write_text(f"{child}.")
        time.sleep(PATIENCE)


def wait_for(what, path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not what(path):
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.02)


def test_a_second_process_is_told_who_trains_there_and_a_killed_one_leaves_nothing(tmp_path: Path):
    run = tmp_path / "run"
    other = start(train_here, LONG, run)
    try:
        wait_for(find_checkpoints, run / "checkpoints")
        result = latentia("train", "vae", "--out", "run", "--resume", "--quiet", cwd=tmp_path)
        assert result.returncode == 2
        message = " ".join(result.stderr.split())
        for part in (f"is being trained by process {other.process.pid} on", f"kill {other.process.pid}", "--resume"):
            assert part in message
        assert "Traceback" not in result.stderr
        assert other.process.is_alive()
        assert other.process.pid is not None
        os.kill(other.process.pid, signal.SIGKILL)
    finally:
        other.result()
    with locked(run):  # the file is there, and nobody holds it
        assert json.loads((run / LOCK_FILE).read_text())["process"] == os.getpid()


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path):
    """A forked worker of the data may outlive a process that is killed."""
    note = tmp_path / "child"
    other = start(hold_with_a_child, tmp_path)
    try:
        wait_for(lambda path: path.exists() and path.read_text().endswith("."), note)
        with pytest.raises(RunError, match="is being trained by process"), locked(tmp_path):
            pass
        assert other.process.pid is not None
        os.kill(other.process.pid, signal.SIGKILL)
        other.process.join(PATIENCE)
        with locked(tmp_path):
            os.kill(int(note.read_text().rstrip(".")), 0)  # the child is still there
    finally:
        os.kill(int(note.read_text().rstrip(".")), signal.SIGKILL)
        other.process.kill()


def test_one_process_does_not_train_twice_in_one_directory(tmp_path: Path):
    with locked(tmp_path), pytest.raises(RunError, match="another call"), locked(tmp_path / ".." / tmp_path.name):
        pass
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    def refuse(*_) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.warns(RuntimeWarning, match="no other process trains there"), locked(tmp_path):
        pass


def test_the_time_of_training_is_summed_over_resumes(tmp_path: Path):
    recipe = VAERecipe(epochs=2, batch_size=256, network=MLP(hidden=(16,)))
    spent = train(recipe, tmp_path / "run", quiet=True).environment["training_seconds"]
    folder = tmp_path / "run" / "checkpoints"
    saved = read_checkpoint(find_checkpoints(folder)[-1])
    assert 0 < saved.progress["seconds"] <= spent
    shutil.rmtree(find_checkpoints(folder)[-1])
    write_checkpoint(folder, replace(saved, progress={**saved.progress, "seconds": 1000.0}))
    again = train(recipe, tmp_path / "run", resume=True, quiet=True).environment
    assert 1000 < again["training_seconds"] < 1000 + PATIENCE
    assert again["seed"] == 0  # nothing is forgotten
