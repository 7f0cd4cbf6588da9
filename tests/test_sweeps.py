"""Sweeps: runs that are those of `train`, choice by validation, interruption, failure."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import latentia
from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate
from latentia.networks import Custom
from latentia.recipes import VAERecipe
from latentia.reports.sweep_figures import save_search, save_sweep
from latentia.sweeps import Sweep, jobs, sweep
from latentia.sweeps.jobs import _Training, train_one
from latentia.sweeps.search import Search, is_range, parse_range
from latentia.sweeps.sweep import require_ended, values_of

SMALL: dict[str, Any] = {
    "data": {"type": "digits", "binarize": "dynamic"},
    "network": {"type": "mlp", "hidden": [8]},
    "epochs": 1,
}


def train_in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Spare each run of a sweep the seconds of a process, where the process is not what is tested."""

    class Here:
        def __init__(self, command: list[str], **_: Any):
            self.returncode = train_one(*command[-2:])

        def poll(self) -> int:
            return self.returncode

    patch.setattr(jobs, "subprocess", SimpleNamespace(Popen=Here, DEVNULL=None))


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


def test_several_seeds_need_no_grid(done: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_in_this_process(monkeypatch)
    recipe = VAERecipe(**SMALL, optimizer={"type": "adam", "lr": 1e-2}, keep="best")  # refused by train_seeds
    result = sweep(recipe, out=tmp_path / "s", seeds=[0, 3], workers=2, quiet=True)
    assert [run.path for run in result.runs[0]] == [tmp_path / "s/recipe" / name for name in ("seed-0", "seed-3")]
    assert result.points == [{}]
    assert [column.head for column in result.table().columns[:2]] == ["point", "validation/bound ↑"]
    (mean,), (_, expected) = result.chosen, done.chosen  # the same two runs as points of a grid
    assert mean is not None
    assert expected is not None
    assert mean.value == pytest.approx(expected.value, abs=1e-3)
    assert [path.name for path in result.files] == ["table.csv", "table.md"]


def test_networks_of_the_user_are_refused(tmp_path: Path) -> None:
    own = Custom(encoder=torch.nn.Linear(64, 4), decoder=torch.nn.Linear(2, 64))
    with pytest.raises(ConfigurationError, match="by name"):
        sweep(VAERecipe(network=own), {"epochs": [1, 2]}, tmp_path / "s")


def test_a_search_finds_the_least_value_of_a_known_function() -> None:
    def cost(point: dict[str, Any]) -> float:
        return (math.log10(point["lr"]) + 3) ** 2 + (point["width"] - 7) ** 2 / 25 + (point["kind"] != "b")

    space = {"lr": parse_range("lr", "1e-5..1e-1:log"), "width": parse_range("width", "1..20"), "kind": ["a", "b"]}
    search = Search(space, trials=60, round_size=4)
    costs = []
    while points := search.propose():
        assert all(1e-5 <= point["lr"] <= 1e-1 and point["width"] in range(1, 21) for point in points)
        found = [cost(point) for point in points]
        search.report([None if value > 10 else value for value in found])
        costs += found
    assert len(costs) == 60
    assert min(costs) < 0.2
    assert sum(costs[-20:]) < 0.5 * sum(costs[:20])


def test_a_search_proposes_the_same_points_for_the_same_values() -> None:
    def proposed() -> list[dict[str, Any]]:
        search = Search({"a": parse_range("a", "0.0..1.0"), "b": [1, 2, 3]}, trials=20, round_size=3)
        points: list[dict[str, Any]] = []
        while found := search.propose():
            points += found
            search.report([point["a"] + point["b"] for point in found])
        return points

    assert proposed() == proposed()


@pytest.mark.slow
def test_a_search_resumes_to_the_same_points(tmp_path: Path) -> None:
    space: dict[str, Any] = {"optimizer.lr": "1e-9..1e-2:log", "network.hidden": [[4], [8]]}
    first = sweep(VAERecipe(**SMALL), space, tmp_path / "s", trials=2, round_size=1, quiet=True)
    values = [estimate.value for estimate in first.chosen if estimate is not None]
    assert first.best == values.index(max(values))
    shutil.rmtree(tmp_path / "s" / "trial-2")
    again = sweep(VAERecipe(**SMALL), space, tmp_path / "s", trials=2, round_size=1, resume=True, quiet=True)
    assert again.points == first.points
    assert [estimate.value for estimate in again.chosen if estimate is not None] == pytest.approx(values, abs=1e-3)
    with pytest.raises(RunError, match="another recipe"):
        sweep(VAERecipe(**SMALL), space, tmp_path / "s", trials=4, round_size=1, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("space", "key"),
    [
        ({"optimizer.lr": "1e-2..1e-4"}, "optimizer.lr"),
        ({"optimizer.lr": "0..1e-2:log"}, "optimizer.lr"),
        ({"optimizer.lr": "small..large"}, "optimizer.lr"),
        ({"latent": "-3..4"}, "latent"),
        ({"latnt": "1..4"}, "latnt"),
        ({"latent": "0.5..4.5"}, "latent"),
        ({}, "grid"),
    ],
)
def test_wrong_ranges_are_refused_before_anything_is_written(tmp_path: Path, space: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sweep(VAERecipe(**SMALL), space, tmp_path / "s", trials=4)
    assert key in [name for name, _ in caught.value.problems]
    assert not (tmp_path / "s").exists()


def test_a_range_without_trials_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--trials"):
        sweep(VAERecipe(**SMALL), {"latent": "1..4"}, tmp_path / "s")


def test_paths_are_not_ranges() -> None:
    assert [is_range(text) for text in ("../images", "a..b", "1..4", "1e-4..1e-2:log", "..", "0.5...5")] == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]


def test_jobs_of_a_scheduler_train_the_same_runs(done: Sweep, tmp_path: Path) -> None:
    grid = {"optimizer.lr": [1e-2, 1e30]}
    options = {"timeout_min": 5}
    found = sweep(VAERecipe(**SMALL), grid, tmp_path / "s", cluster="local", cluster_options=options, quiet=True)
    assert [len(runs) for runs in found.runs] == [1, 0]
    assert "not finite" in next(iter(found.failed.values()))
    expected = load_file(done.runs[1][0].path / "weights.safetensors")
    weights = load_file(found.runs[0][0].path / "weights.safetensors")
    assert all(torch.allclose(weights[name], expected[name], atol=1e-5) for name in expected)


@pytest.mark.parametrize(
    ("cluster", "options"),
    [("slurmm", {}), ("local", {"slurm_partitionn": "gpu"}), ("local", {"timeout_min": "long"}), ("", {"a": 1})],
)
def test_a_wrong_scheduler_is_refused_before_anything_is_written(
    tmp_path: Path, cluster: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sweep(VAERecipe(**SMALL), {"epochs": [1, 2]}, tmp_path / "s", cluster=cluster, cluster_options=options)
    assert caught.value.problems[0][0].startswith("cluster")
    assert not (tmp_path / "s").exists()


def test_a_job_that_must_leave_its_machine_is_submitted_again(tmp_path: Path) -> None:
    training = _Training(str(tmp_path / "recipe.yaml"), str(tmp_path / "run"))
    again = training.checkpoint()
    assert again.function is training


def test_picture_of_a_search(tmp_path: Path) -> None:
    points = [{"lr": 10.0**-i, "network": name} for i in range(1, 5) for name in ("mlp", "conv")]
    values = [Estimate(-float(i), stderr=0.3) if i % 3 else None for i in range(8)]
    assert save_search(points, values, "validation/bound", tmp_path / "s.png").stat().st_size > 5000


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
