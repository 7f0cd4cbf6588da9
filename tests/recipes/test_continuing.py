"""Runs that start from others, and runs that are trained beyond their end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import latentia
from latentia.data import NPZ, Digits
from latentia.errors import ConfigurationError, LatentiaError, RunError
from latentia.networks import MLP, Custom
from latentia.objectives import R1R2
from latentia.recipes import GANRecipe, Run, VAERecipe, resume, train, train_seeds
from latentia.training import Adam, Constant, Cosine, OneCycle, RunDirectory

from ..cli.test_commands import latentia as command

DATA = Digits(binarize="dynamic")
SMALL: dict[str, Any] = {"data": DATA, "network": MLP(hidden=(16,)), "batch_size": 128}


def weights_of(path: Path) -> dict[str, Tensor]:
    return Run(path).directory.weights()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "run"
    train(VAERecipe(epochs=1, seed=5, **SMALL), path, quiet=True)
    return path


def test_all_weights_of_an_equal_model_are_taken(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    run = train(VAERecipe(epochs=1, init_from=str(source), optimizer=Adam(lr=1e-30), **SMALL), tmp_path / "run")
    before, after = weights_of(source), weights_of(run.path)
    assert all(torch.allclose(before[name], after[name], atol=1e-12) for name in before)
    facts = run.environment["init_from"]
    assert facts["taken"] == len(before)
    assert facts["left_out_here"] == facts["left_out_there"] == []
    assert f"init_from={source}" in capsys.readouterr().err


def test_weights_of_other_shapes_are_left_out_and_listed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    recipe = VAERecipe(epochs=1, init_from=str(source), latent=3, freeze=("encoder",), **SMALL)
    with pytest.raises(ConfigurationError, match="nothing is left"):
        train(VAERecipe(**{**dict(recipe), "freeze": ("encoder", "decoder")}), tmp_path / "frozen", quiet=True)
    run = train(recipe, tmp_path / "run")
    facts = run.environment["init_from"]
    before, after = weights_of(source), weights_of(run.path)
    assert set(facts["left_out_here"]) == {n for n in after if before[n].shape != after[n].shape}
    assert len(facts["left_out_here"]) == 3  # the encoder's head and the decoder's first layer
    assert torch.equal(before["posterior.network.1.weight"], after["posterior.network.1.weight"])
    assert not torch.equal(before["likelihood.network.2.weight"], after["likelihood.network.2.weight"])
    assert facts["left_out_here"][0] in capsys.readouterr().err


def test_a_frozen_part_keeps_its_bits_and_its_statistics(tmp_path: Path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    first = {name: value.clone() for name, value in encoder.state_dict().items()}
    recipe = VAERecipe(data=DATA, network=Custom(encoder=encoder, decoder=decoder), freeze=("encoder",), epochs=1)
    before = decoder[0].weight.detach().clone()
    train(recipe, tmp_path / "run", quiet=True)
    assert equal(encoder.state_dict(), first)
    assert not torch.equal(decoder[0].weight, before)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"network": MLP(hidden=(7,))}, "Give the networks"),
        ({"init_from": "nowhere"}, "give a folder that `train` wrote"),
        ({"freeze": ("encode",)}, "Did you mean encoder"),
        ({"freeze": ("prior",)}, "decoder, encoder"),
    ],
)
def test_starts_that_cannot_be_are_refused(source: Path, tmp_path: Path, settings: dict, cure: str):
    with pytest.raises(ConfigurationError, match=cure):
        train(VAERecipe(**{"init_from": str(source), **SMALL, **settings}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_part_that_is_no_list_is_refused_with_the_list():
    with pytest.raises(ConfigurationError, match=r"such as \[encoder, prior\]"):
        VAERecipe(freeze="encoder, prior")


def test_a_run_of_another_kind_shares_nothing(source: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="leave init_from out"):
        train(GANRecipe(init_from=str(source), data=Digits()), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigurationError, match="do not freeze"):
        train(GANRecipe(freeze=("generator",), data=Digits(), network=MLP(hidden=(8,))), tmp_path / "run", quiet=True)


def test_seeds_at_once_start_from_a_run_and_freeze_nothing(source: Path, tmp_path: Path):
    recipe = VAERecipe(epochs=1, init_from=str(source), optimizer=Adam(lr=1e-30), **SMALL)
    runs = train_seeds(recipe, [0, 1], tmp_path / "seeds", quiet=True)
    before = weights_of(source)
    for run in runs:
        assert all(torch.allclose(value, before[name], atol=1e-12) for name, value in weights_of(run.path).items())
    with pytest.raises(ConfigurationError, match="freeze="):
        train_seeds(VAERecipe(freeze=("encoder",), **SMALL), [0, 1], tmp_path / "frozen", quiet=True)
    with pytest.raises(RunError, match="init_from="):
        resume(runs[0], epochs=2)


def test_a_stopped_run_resumes_without_the_run_it_started_from(source: Path, tmp_path: Path):
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    recipe = VAERecipe(epochs=2, init_from=str(copy), freeze=("encoder",), **SMALL)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    cut_short(whole.path, tmp_path / "cut")
    shutil.rmtree(copy)
    resumed = train(recipe, tmp_path / "cut", resume=True, quiet=True)
    assert equal(weights_of(resumed.path), weights_of(whole.path))
    assert resumed.environment["init_from"] == whole.environment["init_from"]


def cut_short(run: Path, path: Path) -> None:
    """A copy of a run as it was after its first epoch."""
    shutil.copytree(run, path)
    (path / "weights.safetensors").unlink()
    newest = max((path / "checkpoints").iterdir())
    shutil.rmtree(newest)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": 0.9, "checkpoint_every": 0.3, "record_every": 3},
        {"keep": "best", "optimizer": Adam(lr=5e-3)},
    ],
)
def test_an_extended_run_has_the_bits_of_one_that_was_that_long(settings: dict, tmp_path: Path):
    whole = train(VAERecipe(epochs=4, **SMALL, **settings), tmp_path / "whole", quiet=True)
    short = train(VAERecipe(epochs=2, **SMALL, **settings), tmp_path / "short", quiet=True)
    ended = weights_of(short.path)
    estimates = short.estimates
    longer = resume(short, epochs=4, quiet=True)
    assert equal(weights_of(longer.path), weights_of(whole.path))
    assert [e.value for e in longer.estimates] == [e.value for e in whole.estimates]
    drop = ("seconds",)
    records = [[{k: v for k, v in r.items() if k not in drop} for r in run.records] for run in (longer, whole)]
    assert records[0] == records[1]
    assert longer.recipe == whole.recipe
    kept = latentia.files.read_tensors(short.path / "weights-epoch-2.safetensors", "")[0]
    assert equal(kept, ended)
    old = latentia.estimate.read_estimates(short.path / "evaluation-epoch-2" / "training.json")
    assert [e.value for e in old] == [e.value for e in estimates]
    (facts,) = longer.environment["extended"]
    assert facts == {"from": 2, "to": 4, "same_bits_as_one_run": True, "because": []}
    assert longer.status == "ended, extended from 2 to 4 epochs"


def test_a_run_is_extended_twice_and_killed_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = train(VAERecipe(epochs=3, **SMALL), tmp_path / "whole", quiet=True)
    train(VAERecipe(epochs=1, **SMALL), tmp_path / "run", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("latentia.recipes.extending.train", lambda *_, **__: None)  # killed before the first step
        resume(tmp_path / "run", epochs=2, quiet=True)
    assert Run(tmp_path / "run").status == "stopped after step 10"
    resume(tmp_path / "run", quiet=True)
    resume(tmp_path / "run", epochs=3, quiet=True)
    assert equal(weights_of(tmp_path / "run"), weights_of(whole.path))
    assert [each["to"] for each in Run(tmp_path / "run").environment["extended"]] == [2, 3]


@pytest.mark.parametrize("schedule", [Cosine(), OneCycle(), Constant(warm_up=0.5)])
def test_a_schedule_that_depends_on_the_length_is_warned_of(schedule: Any, tmp_path: Path):
    settings = {**SMALL, "optimizer": Adam(schedule=schedule)}
    run = train(VAERecipe(epochs=1, **settings), tmp_path / "run", quiet=True)
    with pytest.warns(RuntimeWarning, match="depends on the length of the run"):
        resume(run, epochs=2, quiet=True)
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())["extended"][0]
    assert facts["same_bits_as_one_run"] is False
    assert "optimizer.schedule" in facts["because"][0]


def test_a_falling_penalty_is_warned_of(tmp_path: Path):
    recipe = GANRecipe(
        data=Digits(), network=MLP(hidden=(8,)), penalty=R1R2(gamma=1, final=0.1), epochs=1, fresh_steps=0
    )
    run = train(recipe, tmp_path / "run", quiet=True)
    with pytest.warns(RuntimeWarning, match="penalty"):
        resume(run, epochs=2, quiet=True)


def test_extensions_that_cannot_be_are_refused(tmp_path: Path):
    run = train(VAERecipe(epochs=2, **SMALL), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigurationError, match="epochs=4"):
        resume(run, epochs=2)
    shutil.rmtree(run.directory.checkpoints)
    with pytest.raises(RunError, match="init_from="):
        resume(run, epochs=3)
    patient = VAERecipe(epochs=9, keep="best", patience=1, optimizer=Adam(lr=0.5), **SMALL)
    ended = train(patient, tmp_path / "patient", quiet=True)
    assert not ended.directory.checkpoints.joinpath("step-00000090").exists()
    with pytest.raises(RunError, match="patience"):
        resume(ended, epochs=12)
    with pytest.raises(LatentiaError, match="not a run directory"):
        resume(tmp_path / "nowhere", epochs=3)


def test_the_command_resumes_and_extends(tmp_path: Path):
    words = ["train", "vae", "data=digits", "data.binarize=dynamic", "epochs=1", "network.hidden=[16]", "--quiet"]
    assert command(*words, "--out", "run", cwd=tmp_path).returncode == 0
    result = command("resume", "run", "--extend", "epochs=2", "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Run(tmp_path / "run").recipe.epochs == 2
    assert "extended from 1 to 2 epochs" in command("show", "run", cwd=tmp_path).stdout
    for wrong in ("latent=3", "epochs=many", "epochs"):
        result = command("resume", "run", "--extend", wrong, cwd=tmp_path)
        assert result.returncode == 2
        assert "epochs=40" in result.stderr or "key=value" in result.stderr


def test_an_extension_that_cannot_be_written_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = train(VAERecipe(epochs=1, **SMALL), tmp_path / "run", quiet=True)

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}

    def full(*_: Any) -> None:
        raise RunError("No space left on device")

    before = files()
    monkeypatch.setattr(RunDirectory, "_write", full)
    with pytest.raises(RunError, match="No space left"):
        resume(run.path, epochs=2, quiet=True)
    assert files() == before


def test_an_extension_without_the_data_leaves_the_run_as_it_was(tmp_path: Path):
    data = tmp_path / "data.npz"
    images = np.random.default_rng(0).random((60, 8, 8)) > 0.5
    np.savez(data, images=images)
    path = train(VAERecipe(epochs=1, **{**SMALL, "data": NPZ(file=data), "batch_size": 32}), tmp_path / "run").path
    content = data.read_bytes()
    data.unlink()
    with pytest.raises(LatentiaError, match="no file"):
        resume(path, epochs=2, quiet=True)
    np.savez(data, images=~images)
    with pytest.raises(RunError, match="are not those of the run"):
        resume(path, epochs=2, quiet=True)
    data.write_bytes(content)
    assert Run(path).recipe.epochs == 1
    assert resume(path, epochs=2, quiet=True).recipe.epochs == 2


def test_resume_goes_on_with_all_seeds(tmp_path: Path):
    whole = train_seeds(VAERecipe(epochs=2, **SMALL), [0, 3], tmp_path / "whole", quiet=True)
    train_seeds(VAERecipe(epochs=2, **SMALL), [0, 3], tmp_path / "cut", quiet=True)
    for folder in (tmp_path / "cut", tmp_path / "cut" / "seed-0", tmp_path / "cut" / "seed-3"):
        for path in (folder / "weights.safetensors", *sorted(folder.glob("checkpoints/step-*"))[1:]):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert command("resume", "cut/seed-3", "--quiet", cwd=tmp_path).returncode == 0
    for run in whole:
        again = tmp_path / "cut" / run.path.name / "weights.safetensors"
        assert again.read_bytes() == (run.path / "weights.safetensors").read_bytes()
