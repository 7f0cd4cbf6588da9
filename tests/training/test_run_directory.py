"""The run directory: held by one process, and read back whatever happened to its files."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from latentia.data import Digits
from latentia.errors import ConfigurationError, RunError
from latentia.networks import MLP
from latentia.recipes import Run, VAERecipe, train
from latentia.training import RunDirectory
from latentia.training.checkpoint import find_checkpoints, read_checkpoint, write_checkpoint
from latentia.training.run_directory import LOCK_FILE
from tests.cli.test_commands import latentia
from tests.recipes.pairs import start, train_here

from .toys import play_duel, same_run

PATIENCE = 90.0
LONG = VAERecipe(data=Digits(binarize="dynamic"), epochs=100_000, batch_size=64, network=MLP(hidden=(16,)))
SHORT = VAERecipe(data=Digits(binarize="dynamic"), epochs=2, batch_size=256, network=MLP(hidden=(16,)))


def held(folder: Path, resume: bool = False) -> Any:
    return RunDirectory.open(folder, {}, resume=resume)


def wait_for(what: Callable[[Path], object], path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not what(path):
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.02)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Any]:
    """A process that trains in `run` and has written a checkpoint."""
    other = start(train_here, LONG, tmp_path / "run")
    try:
        wait_for(find_checkpoints, tmp_path / "run" / "checkpoints")
        yield other
    finally:
        other.process.kill()


# The lock


def test_a_locked_run_names_its_holder_and_a_killed_holder_leaves_no_lock(tmp_path: Path, training: Any):
    run, process = tmp_path / "run", training.process
    result = latentia("train", "vae", "--out", "run", "--resume", "--quiet", cwd=tmp_path)
    assert result.returncode == 2
    message = " ".join(result.stderr.split())
    for part in (f"is being trained by process {process.pid} on", f"kill {process.pid}", "latentia resume"):
        assert part in message
    assert "Traceback" not in result.stderr
    assert f"process {process.pid} on" in Run(run).status
    with pytest.raises(RunError, match=f"being trained by process {process.pid} .*wait"):
        RunDirectory(run).weights()
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    training.result()
    assert Run(run).status.startswith("stopped after step")
    with RunDirectory.open(run, LONG.to_mapping(), resume=True):  # the file is there, and nobody holds it
        assert json.loads((run / LOCK_FILE).read_text())["process"] == os.getpid()
        assert RunDirectory(run).holder() == "this process"
        assert RunDirectory(run).holder() == "this process"  # asking does not release the lock


def test_a_lock_file_that_is_removed_stops_the_run_that_held_it(tmp_path: Path, training: Any):
    (tmp_path / "run" / LOCK_FILE).unlink()
    error = training.result()
    assert isinstance(error, RunError)
    assert ".lock was removed" in str(error)
    assert "latentia resume" in str(error)


def test_a_run_directory_that_is_moved_stops_the_run(tmp_path: Path, training: Any):
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    error = training.result()
    assert isinstance(error, RunError)
    assert "was moved or removed" in str(error)
    assert not (tmp_path / "run").exists()
    assert find_checkpoints(tmp_path / "elsewhere" / "checkpoints")


def hold_with_a_child(folder: Path) -> None:
    with held(folder):
        child = os.fork()
        if child:
            (folder.parent / "child").write_text(f"{child}.")
        time.sleep(PATIENCE)


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path):
    """A forked worker of the data may outlive a process that is killed."""
    note, folder = tmp_path / "child", tmp_path / "run"
    other = start(hold_with_a_child, folder)
    try:
        wait_for(lambda path: path.exists() and path.read_text().endswith("."), note)
        with pytest.raises(RunError, match="is being trained by process"), held(folder):
            pass
        assert other.process.pid is not None
        os.kill(other.process.pid, signal.SIGKILL)
        other.process.join(PATIENCE)
        with held(folder):
            os.kill(int(note.read_text().rstrip(".")), 0)  # the child is still there
    finally:
        os.kill(int(note.read_text().rstrip(".")), signal.SIGKILL)
        other.process.kill()


def test_one_process_does_not_train_twice_in_one_directory(tmp_path: Path):
    with held(tmp_path), pytest.raises(RunError, match="another call"), held(tmp_path / ".." / tmp_path.name):
        pass
    with held(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.warns(RuntimeWarning, match="no other process trains there"), held(tmp_path):
        pass


# Opening


def test_a_folder_is_made_by_the_run_that_begins_and_removed_if_none_does(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path / "a" / "b") as directory:
        directory.begin(data_hash="x", devices=1)
    assert (tmp_path / "a" / "b" / "recipe.yaml").exists()


def test_what_a_kill_leaves_at_the_very_start_is_not_in_the_way(tmp_path: Path):
    recipe = {"a": [1, 2], "b": {"c": "é"}}
    (tmp_path / ".lock").write_text("half")
    with RunDirectory.open(tmp_path, recipe) as directory:
        directory.begin()
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8")) == recipe
    with RunDirectory.open(tmp_path, recipe, resume=True):
        pass


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir], ids=["no folder", "empty folder"])
def test_resuming_nothing_is_refused(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "run")
    with pytest.raises(RunError, match="leave --resume out"):
        train(SHORT, tmp_path / "run", resume=True, quiet=True)
    with pytest.raises(RunError, match="--out"):
        train(SHORT, resume=True, quiet=True)


def test_differing_recipes_are_listed_by_dotted_keys(tmp_path: Path):
    old = {"a": 1, "b": {"c": 2, "d": 3}, "e": 0}
    with RunDirectory.open(tmp_path, old) as directory:
        directory.begin()
    new = {"a": 1, "b": {"c": 5, "d": 3, "f": 1}, "e": {"g": 1}}
    message = r"b\.c: 2 there, 5 here; b\.f: None there, 1 here; e: 0 there, {'g': 1} here"
    with pytest.raises(RunError, match=message), RunDirectory.open(tmp_path, new, resume=True):
        pass


def test_a_directory_without_a_run(tmp_path: Path):
    directory = RunDirectory(tmp_path)
    for read, word in [
        (directory.recipe, "`train` wrote"),
        (directory.weights, "`latentia resume "),
        (directory.environment, "latentia resume"),
    ]:
        with pytest.raises(RunError, match=word):
            read()
    assert (directory.records(), directory.evaluations(), directory.holder()) == ([], {}, None)


def test_a_folder_of_runs_names_them(tmp_path: Path):
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "recipe.yaml").write_text("type: vae\n")
    with pytest.raises(RunError, match=r"the runs in it are .*seed-0, .*seed-1"):
        RunDirectory(tmp_path).recipe()


# Records


RECORDS = [
    {"step": 1, "name": "a", "value": 1.5, "stderr": None, "epoch": 0.5, "seconds": 1.0},
    {"step": 2, "name": "a", "value": math.inf, "stderr": math.inf, "epoch": 1.0, "seconds": 2.0},
]


def test_records_come_back(tmp_path: Path):
    directory = RunDirectory(tmp_path)
    for record in RECORDS:
        assert directory.append_records([record]) == 1
    assert directory.records() == RECORDS
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "name": "a", "val')  # a crash in the middle of a line
    assert directory.records() == RECORDS
    assert directory.rewind_records(1) == (1, [])
    directory.append_records(RECORDS[1:])
    assert directory.records() == RECORDS


DAMAGED_LINES = {
    "byte above 127": b'{"step": 1, "name": "\xff", "value": 1.0}',
    "number": b"5",
    "null": b"null",
    "empty": b"{}",
    "list": b"[1]",
    "cut": b'{"st',
    "no number": b'{"step": 1, "name": "a", "value": "x"}',
    "another step": b'{"step": "1", "name": "a", "value": 1}',
    "no epoch": b'{"step": 1, "name": "a", "value": 1, "seconds": 0}',
    "not a number": b'{"step": 1, "name": "a", "value": "nan", "epoch": 1, "seconds": 0}',
    "a negative error": b'{"step": 1, "name": "a", "value": 1, "stderr": -1, "epoch": 1, "seconds": 0}',
    "no time": b'{"step": 1, "name": "a", "value": 1, "seconds": {}}',
    "digits": b'{"step": 1, "name": "a", "value": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("line", DAMAGED_LINES.values(), ids=DAMAGED_LINES)
def test_damaged_records_are_left_out_said_and_no_obstacle(tmp_path: Path, line: bytes, capsys: Any):
    play_duel(tmp_path / "whole", epochs=2)
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "torn", epochs=2, seen=stop_at(21))
    path = tmp_path / "torn" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], line + b"\n", *lines[1:]]))
    with pytest.warns(RuntimeWarning, match=r"metrics.jsonl: 1 damaged line left out \(line 2\)"):
        assert len(RunDirectory(tmp_path / "torn").records()) == len(lines)
    play_duel(tmp_path / "torn", epochs=2, resume=True)
    assert "metrics.jsonl: 1 damaged line left out (line 2)" in capsys.readouterr().err
    same_run(tmp_path / "whole", tmp_path / "torn")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\n")])
def test_lost_records_are_counted_and_no_obstacle(tmp_path: Path, damage: Callable[[Path], Any], capsys: Any):
    play_duel(tmp_path / "whole", epochs=2)
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "torn", epochs=2, seen=stop_at(21))
    damage(tmp_path / "torn" / "metrics.jsonl")
    with pytest.warns(RuntimeWarning, match=r"metrics.jsonl: \d+ of the \d+ records up to step 9 are missing"):
        RunDirectory(tmp_path / "torn").records()
    play_duel(tmp_path / "torn", epochs=2, resume=True)
    assert "records up to here are missing" in " ".join(capsys.readouterr().err.split())
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "torn")]
    assert weights[0] == weights[1]


def stop_at(number: int) -> Callable[[int], None]:
    def seen(n: int) -> None:
        if n == number:
            raise MemoryError

    return seen


# Damage and its cures


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SHORT, tmp_path_factory.mktemp("ended") / "run", quiet=True).path


BAD_JSON = (b"", b"{", b"5", b"[]", b'{"shape": "x"}', b'{"devices": null}', b"\xff", b"[" * 50_000)


@pytest.mark.parametrize("content", [None, *BAD_JSON], ids=range(9))
def test_a_damaged_environment_is_written_again_by_resuming(ended: Path, tmp_path: Path, content: bytes | None):
    path = shutil.copytree(ended, tmp_path / "run")
    file = path / "environment.json"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(RunError, match=r"environment\.json.*latentia resume"):
        _ = Run(path).model
    again = train(SHORT, path, resume=True, quiet=True)
    assert again.environment["data_hash"] == Run(ended).environment["data_hash"]
    assert torch.equal(
        again.model.encode(torch.zeros(1, 1, 8, 8)).mean, Run(ended).model.encode(torch.zeros(1, 1, 8, 8)).mean
    )


@pytest.mark.parametrize(
    "content", [b"", b"a: [1", b"just words", b"\xff", b"type: &a [*a]", b"[" * 30_000], ids=range(6)
)
def test_a_damaged_recipe_is_cured_as_its_message_says(ended: Path, tmp_path: Path, content: bytes, capfd: Any):
    path = shutil.copytree(ended, tmp_path / "run")
    (path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"recipe\.yaml is damaged.*remove it and go on with --resume"):
        Run(path)
    with pytest.raises(RunError, match=r"recipe\.yaml is damaged"):
        train(SHORT, path, resume=True, quiet=True)
    (path / "recipe.yaml").unlink()
    assert train(SHORT, path, resume=True, quiet=True).recipe == SHORT
    assert "written again from the settings given now" in " ".join(capfd.readouterr().err.split())


def test_an_environment_of_other_shapes_is_not_believed(ended: Path, tmp_path: Path):
    path = shutil.copytree(ended, tmp_path / "run")
    file = path / "environment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shape": [1, 4, 4]}))
    with pytest.raises(RunError, match=r"environment\.json is damaged.*latentia resume"):
        _ = Run(path).model
    train(SHORT, path, resume=True, quiet=True)
    assert Run(path).environment == Run(ended).environment | {
        "training_seconds": Run(path).environment["training_seconds"]
    }


def test_a_recipe_that_was_changed_is_said_until_it_is_taken_over(ended: Path, tmp_path: Path, capfd: Any):
    path = shutil.copytree(ended, tmp_path / "run")
    file = path / "recipe.yaml"
    file.write_text(file.read_text().replace("record_every: 50", "record_every: 51"))
    with pytest.warns(RuntimeWarning, match=r"recipe\.yaml was changed after the run began.*latentia resume"):
        _ = Run(path).model
    train(SHORT.model_copy(update={"record_every": 51}), path, resume=True, quiet=True)
    assert "was changed after the run began" in " ".join(capfd.readouterr().err.split())
    _ = Run(path).model  # without a warning


def test_a_recipe_that_is_lost_is_said_and_one_that_cannot_be_read_is_named(ended: Path, tmp_path: Path):
    path = shutil.copytree(ended, tmp_path / "run")
    file = path / "recipe.yaml"
    file.write_text(file.read_text().replace("record_every: 50", "record_every: x"))
    with pytest.raises(ConfigurationError, match=r"recipe\.yaml: record_every: .*bring the file back"):
        Run(path)
    file.unlink()
    with pytest.raises(RunError, match=r"has lost its recipe\.yaml.*--resume"):
        Run(path)


def test_a_damaged_evaluation_is_left_out_and_said(ended: Path, tmp_path: Path):
    path = shutil.copytree(ended, tmp_path / "run")
    (path / "evaluation" / "other.json").write_text('[{"value": 3}]')
    (path / "evaluation" / ".training.json").write_text("")  # what a full disk left of an older version
    with pytest.warns(RuntimeWarning, match=r"other\.json is damaged: .*remove it and evaluate again"):
        found = RunDirectory(path).evaluations()
    assert list(found) == ["training"]


def test_flipped_weights_are_refused_and_resuming_writes_them_again(ended: Path, tmp_path: Path):
    path = shutil.copytree(ended, tmp_path / "run")
    file = path / "weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 64]) + whole[-2:])
    with pytest.raises(RunError, match=r"not those of its checksum.*latentia resume"):
        _ = Run(path).model
    file.unlink()
    train(SHORT, path, resume=True, quiet=True)
    assert file.read_bytes() == whole


def test_a_read_only_run_is_read(ended: Path, tmp_path: Path):
    path = shutil.copytree(ended, tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    run = Run(path)
    assert run.status == "ended"
    assert run.model is not None
    assert run.records
    assert run.estimates
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_the_time_of_training_is_summed_over_resumes(tmp_path: Path):
    spent = train(SHORT, tmp_path / "run", quiet=True).environment["training_seconds"]
    folder = tmp_path / "run" / "checkpoints"
    saved = read_checkpoint(find_checkpoints(folder)[-1])
    assert 0 < saved.progress["seconds"] <= spent
    shutil.rmtree(find_checkpoints(folder)[-1])
    write_checkpoint(folder, replace(saved, progress={**saved.progress, "seconds": 1000.0}))
    again = train(SHORT, tmp_path / "run", resume=True, quiet=True).environment
    assert 1000 < again["training_seconds"] < 1000 + PATIENCE
    assert again["seed"] == 0  # nothing is forgotten


def test_readers_and_a_writer_of_one_run_do_not_disturb_each_other(tmp_path: Path):
    with held(tmp_path / "run") as directory:
        directory.begin()
        found: list[int] = []
        reader = threading.Thread(
            target=lambda: found.extend(len(RunDirectory(tmp_path / "run").records()) for _ in range(50))
        )
        reader.start()
        for step in range(200):
            directory.append_records([{"step": step, "name": "a", "value": 1.0, "epoch": 1.0, "seconds": 0.0}])
        reader.join()
    assert found == sorted(found)
