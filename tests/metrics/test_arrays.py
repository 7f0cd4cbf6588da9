"""Scores of tables and signals: column distances against closed forms, directions, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import latentia
from latentia.data import Column, InMemory
from latentia.errors import ConfigurationError, DataError
from latentia.metrics import ColumnDistances, score_arrays
from latentia.metrics.arrays import ColumnValues, column_distances
from latentia.recipes import GANRecipe, VAERecipe

from ..cli.test_commands import latentia as command

torch.manual_seed(0)
TRAIN = torch.randn(3000, 3, dtype=torch.float64) * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 7.0, 1e3])
REAL, FAKE = TRAIN[:1000], TRAIN[1000:2000]


def values(found, real_vs_real=False):
    ending = "/real_vs_real"
    return {e.name.removesuffix(ending): e for e in found if e.name.endswith(ending) == real_vs_real}


def test_a_shift_in_standard_deviations_is_the_distance_of_its_column():
    shifted = FAKE.clone()
    shifted[:, 1] += 0.5 * 50
    found = values(score_arrays(REAL, shifted, TRAIN, metrics=["columns"], real_vs_real=False))
    second = found["columns/column_1"]
    assert abs(second.value - 0.5) < 5 * second.stderr + 0.02  # of the spread that is estimated
    assert abs(found["columns/column_0"].value) < 0.15
    mean = sum(found[f"columns/column_{place}"].value for place in range(3)) / 3
    assert found["columns/mean"].value == pytest.approx(mean)


def test_column_distances_agree_with_scipy_and_counted_shares():
    x, y = torch.randn(400).double(), 1.3 * torch.randn(400).double() + 0.2
    real, fake = (torch.multinomial(torch.tensor(p), 400, True).double() for p in ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6]))
    found = column_distances(
        [ColumnValues(Column("a b"), x, y), ColumnValues(Column("kind", "category", ("u", "v", "w")), real, fake)]
    )
    assert [e.name for e in found] == ["columns/mean", "columns/a_b", "columns/kind"]
    assert found[1].value == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()))
    shares = [np.bincount(z.numpy().astype(int), minlength=3) / 400 for z in (real, fake)]
    assert found[2].value == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert abs(found[2].value - 0.4) < 5 * found[2].stderr


def test_the_standard_error_of_a_column_is_its_spread_over_samples():
    torch.manual_seed(1)
    repeats = []
    for _ in range(60):
        x, y = torch.randn(300).double(), torch.randn(300).double() + 1
        repeats.append(column_distances([ColumnValues(Column("a"), x, y)], resamples=100)[1])
    spread = torch.tensor([e.value for e in repeats]).std().item()
    mean = sum(e.stderr for e in repeats) / 60
    assert abs(mean / spread - 1) < 5 / math.sqrt(2 * 60)


def test_collapsed_samples_have_high_precision_and_low_recall():
    collapsed = REAL[:1].repeat(1000, 1) + 1e-3 * (FAKE - FAKE.mean(0))
    found = values(score_arrays(REAL, collapsed, TRAIN, metrics=["neighbors", "two-sample"], real_vs_real=False))
    assert found["precision"].value > 0.9
    assert found["recall"].value < 0.1
    assert found["two_sample/p_value"].value < 1e-6
    good = values(score_arrays(REAL, FAKE, TRAIN, metrics=["two-sample"], real_vs_real=False))
    assert good["two_sample/p_value"].value > 1e-3


def test_units_do_not_change_scores():
    first = score_arrays(REAL, FAKE + 0.1, TRAIN, metrics=["frechet", "sliced-wasserstein", "columns"])
    scale = torch.tensor([100.0, 0.01, 3.0])
    second = score_arrays(
        REAL * scale,
        (FAKE + 0.1) * scale,
        TRAIN * scale,
        metrics=["frechet", "sliced-wasserstein", "columns"],
    )
    for one, other in zip(first, second, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-5, abs=1e-9)


def test_missing_values_are_left_out_and_too_few_examples_refused():
    real = REAL.clone()
    real[::2, 0] = math.nan
    assert values(score_arrays(real, FAKE, TRAIN, metrics=["frechet"]))  # of the complete examples
    real[:, 0] = math.nan
    with pytest.raises(DataError, match="0 test examples have all their values"):
        score_arrays(real, FAKE, TRAIN, split="test")
    with pytest.raises(DataError, match="collapsed"):
        score_arrays(REAL, torch.zeros(100, 3), TRAIN)


def test_runs_of_tables_and_signals_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    small = {"batch_size": 32, "epochs": 1, "network": {"type": "mlp", "hidden": [8]}}
    table = InMemory(data=rng.normal(size=(400, 4)))
    run = latentia.train(VAERecipe(data=table, **small), tmp_path / "table", quiet=True)
    found = values(latentia.evaluate(run, samples=True))
    assert {"columns/mean", "columns/column_0", "precision", "two_sample/p_value"} <= found.keys()
    assert found["recall"].settings["protocol"]["samples"] == "draws of p(x|z)"
    assert (
        command("evaluate", f"{run.path}", "--samples", "--json", cwd=tmp_path).returncode != 0
    )  # its data are not here
    with pytest.raises(ConfigurationError, match="Leave features out"):
        latentia.evaluate(run, samples=True, features="pixels")
    with pytest.raises(ConfigurationError, match=r"validation .* or test"):
        latentia.evaluate(run, samples=True, split="train")
    signals = {"data": "signals", **small}
    gan = latentia.train(GANRecipe(**signals, fresh_steps=0), tmp_path / "gan", quiet=True)
    result = command("evaluate", f"{gan.path}", "--metrics", "recall,sliced-wasserstein", "--json", cwd=tmp_path)
    names = [estimate["name"] for estimate in json.loads(result.stdout)]
    assert "sliced_wasserstein" in names
    with pytest.raises(Exception, match="in tables alone"):
        latentia.evaluate(gan, metrics=ColumnDistances().type_name)
