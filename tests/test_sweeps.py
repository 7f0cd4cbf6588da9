"""Sweeps: runs that are those of `train`, choice by validation, interruption, failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import latentia
from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate
from latentia.networks import Custom
from latentia.recipes import VAERecipe
from latentia.reports.sweep_figures import save_sweep
from latentia.sweeps import Sweep, require_ended, sweep, values_of

SMALL: dict[str, Any] = {
    "data": {"type": "digits", "binarize": "dynamic"},
    "network": {"type": "mlp", "hidden": [8]},
    "epochs": 1,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweeps") / "lr"
    return sweep(VAERecipe(**SMALL), {"optimizer.lr": [1e-9, 1e-2]}, folder, seeds=[0, 3], workers=2, quiet=True)


def test_each_run_is_that_of_train(done: Sweep, tmp_path: Path) -> None:
    alone = latentia.train(
        VAERecipe(**SMALL, seed=3, optimizer={"type": "adam", "lr": 1e-2}), tmp_path / "run", quiet=True
    )
    there = done.runs[1][1]
    assert there.path == done.path / "optimizer.lr=0.01" / "seed-3"
    expected = load_file(alone.path / "weights.safetensors")
    found = load_file(there.path / "weights.safetensors")
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)  # other thread counts
    assert there.recipe == alone.recipe


def test_the_best_point_is_chosen_on_validation_data(done: Sweep) -> None:
    assert done.by == "validation/bound"
    assert done.best == 1  # a learning rate of 1e-9 learns nothing
    for runs, chosen in zip(done.runs, done.chosen, strict=True):
        values = torch.tensor([run.history["validation/bound"][1][-1] for run in runs], dtype=torch.float64)
        assert chosen is not None
        assert chosen.value == pytest.approx(values.mean().item())
        assert chosen.stderr == pytest.approx(values.std().item() / 2**0.5)
    table = done.table()
    assert table.best == {(1, 2)}
    assert [column.head for column in table.columns[:3]] == ["point", "optimizer.lr", "validation/bound ↑"]


def test_what_has_ended_stays_on_resume(done: Sweep) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("weights.safetensors")}
    again = sweep(VAERecipe(**SMALL), {"optimizer.lr": [1e-9, 1e-2]}, done.path, seeds=[0, 3], resume=True, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert str(again) == str(done)


def test_another_sweep_does_not_go_into_the_folder(done: Sweep) -> None:
    with pytest.raises(RunError, match="--resume"):
        sweep(VAERecipe(**SMALL), {"optimizer.lr": [1e-9, 1e-2]}, done.path, seeds=[0, 3])
    with pytest.raises(RunError, match="another recipe"):
        sweep(VAERecipe(**SMALL), {"optimizer.lr": [1e-9, 1e-3]}, done.path, seeds=[0, 3], resume=True)


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    recipe = VAERecipe(**SMALL)
    result = sweep(recipe, {"optimizer.lr": [1e-3, 1e30]}, tmp_path / "s", workers=2, quiet=True)
    assert [len(runs) for runs in result.runs] == [1, 0]
    (reason,) = result.failed.values()
    assert "not finite" in reason
    assert result.best == 0
    with pytest.raises(RunError, match=r"1 of 2 runs failed.*--resume"):
        require_ended(result)


@pytest.mark.slow
def test_an_interrupted_sweep_resumes_to_the_same_bits(done: Sweep, tmp_path: Path) -> None:
    out = tmp_path / "s"
    call = [sys.executable, "-m", "latentia.cli", "sweep", "vae", "optimizer.lr=1e-9,1e-2", "epochs=1"]
    call += ["data=digits", "data.binarize=dynamic", "network.hidden=[8]", "--seeds", "0,3", "--workers", "2"]
    call += ["--out", str(out)]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("*/seed-*/checkpoints/step-*")):
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"--resume --out {out}" in printed
    assert "Traceback" not in printed
    subprocess.run([*call, "--resume", "--quiet"], check=True, capture_output=True, timeout=300)
    for path in done.path.rglob("weights.safetensors"):
        assert (out / path.relative_to(done.path)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("grid", "key"),
    [
        ({}, "grid"),
        ({"latent": []}, "latent"),
        ({"seed": [1, 2]}, "seed"),
        ({"latnt": [1, 2]}, "latnt"),
        ({"latent": [2, -1]}, "latent"),
        ({"epochs": range(200), "latent": range(1, 200)}, "grid"),
    ],
)
def test_wrong_grids_are_refused_before_anything_is_written(tmp_path: Path, grid: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sweep(VAERecipe(**SMALL), grid, tmp_path / "s")
    assert key in [name for name, _ in caught.value.problems]
    assert not (tmp_path / "s").exists()


def test_networks_of_the_user_are_refused(tmp_path: Path) -> None:
    own = Custom(encoder=torch.nn.Linear(64, 4), decoder=torch.nn.Linear(2, 64))
    with pytest.raises(ConfigurationError, match="by name"):
        sweep(VAERecipe(network=own), {"epochs": [1, 2]}, tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2,8", ["2", "8"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{type: mlp, hidden: [1,2]},conv", ["{type: mlp, hidden: [1,2]}", "conv"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("x", ["x"]),
        ("", [""]),
    ],
)
def test_values_on_the_command_line(text: str, values: list[str]) -> None:
    assert values_of(text) == values


def test_picture_of_values_that_are_not_numbers(tmp_path: Path) -> None:
    points = [{"network": name, "latent": d} for name in ("mlp", "conv") for d in (2, 3)]
    values = [Estimate(-1.0, stderr=0.1), None, Estimate(-2.0), Estimate(-3.0)]
    assert save_sweep(points, values, "validation/bound", tmp_path / "s.png").stat().st_size > 5000
