"""The models of a release: their commands are valid, and a packed run can be read."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

import pytest

import latentia
import zoo
from latentia.configuration import apply_overrides, parse_overrides
from latentia.recipes import Recipe


@pytest.mark.parametrize("name", zoo.MODELS)
def test_commands_name_valid_recipes(name: str) -> None:
    train, evaluate = map(shlex.split, zoo.commands(name))
    assert train[:2] == ["latentia", "train"]
    assert train[-2:] == ["--out", name]
    assert evaluate[-1] == name
    assert Recipe.parse(apply_overrides({"type": train[2]}, parse_overrides(train[3:-2]))).type_name == train[2]


@pytest.mark.slow
def test_a_packed_run_is_loaded(tmp_path: Path) -> None:
    zoo.main(["--out", str(tmp_path), "--only", "breast-cancer-vae", "--set", "epochs=1"])
    with zipfile.ZipFile(tmp_path / "breast-cancer-vae.zip") as archive:
        archive.extractall(tmp_path / "theirs")
    run = tmp_path / "theirs" / "breast-cancer-vae"
    assert not (run / "checkpoints").exists()
    latentia.load(run)
    text = (tmp_path / "README.md").read_text()
    assert "epochs=1" in text
    assert "| numerical |" in text
