"""Imputed values against the conditional mean of a Gaussian, and through a run."""

import csv

import numpy as np
import pandas
import pytest
import torch

import latentia
from latentia import VAERecipe
from latentia.data import InMemory
from latentia.distributions import Full, GaussianLearnedScale
from latentia.errors import DataError, RunError
from latentia.likelihood import impute_values
from latentia.models import VAE
from latentia.training import Adam


def linear_vae(missing=True):
    """p(x) = N(b, W Wᵀ + ½² 1) in four dimensions, with an encoder that knows nothing: the weights must correct it."""
    torch.manual_seed(0)
    network, decoder = torch.nn.Linear(8 if missing else 4, 5), torch.nn.Linear(2, 4)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
    options = {"posterior": Full(), "likelihood": GaussianLearnedScale(initial_scale=0.5), "missing": missing}
    vae = VAE(network, decoder, latent=2, event_shape=(4,), **options).eval()
    weight, bias = decoder.weight.detach().double(), decoder.bias.detach().double()
    return vae, bias, weight @ weight.T + 0.25 * torch.eye(4).double()


def test_imputed_values_are_conditional_means():
    vae, mean, covariance = linear_vae()
    x = torch.tensor([[0.5, -1.0, 0.3, torch.nan], [torch.nan, 0.1, torch.nan, 1.5], [1.0, 2.0, 3.0, 4.0]]).double()
    found = impute_values(vae, x, draws=200_000)
    for row in range(2):
        absent = x[row].isnan()
        seen = ~absent
        gain = covariance[absent][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
        center = mean[absent] + gain @ (x[row, seen] - mean[seen])
        spread = (covariance[absent][:, absent] - gain @ covariance[seen][:, absent]).diag().sqrt()
        assert found.x[row, absent].tolist() == pytest.approx(center.tolist(), abs=0.02)
        assert found.stddev[row, absent].tolist() == pytest.approx(spread.tolist(), abs=0.02)
    observed = ~x.isnan()
    assert torch.equal(found.x[observed], x[observed])
    assert not found.stddev[observed].any()
    seen: list[tuple[int, int]] = []
    again = impute_values(vae, x, draws=200_000, progress=lambda *done: seen.append(done))
    assert seen == [(row, len(x)) for row in range(len(x))]
    assert torch.equal(again.x, found.x)


def test_a_model_without_missing_values_is_refused():
    with pytest.raises(DataError, match=r"data\.missing=keep"):
        impute_values(linear_vae(missing=False)[0], torch.zeros(2, 4))


def test_a_run_completes_its_table(tmp_path):
    """The second column is three times the first, and the category is its sign: both are found again."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=400)
    table = pandas.DataFrame(
        {"a": first, "b": 3 * first + 0.1 * rng.normal(size=400), "sign": np.where(first > 0, "plus", "minus")}
    )
    truth = table.copy()
    table.loc[:19, "b"] = np.nan
    table.loc[20:39, "sign"] = None
    source = InMemory(data=table, categorical=("sign",), missing="keep")
    network = {"type": "mlp", "hidden": [32]}
    recipe = VAERecipe(data=source, epochs=60, batch_size=32, latent=1, network=network, optimizer=Adam(lr=5e-3))
    run = latentia.train(recipe, tmp_path / "run", quiet=True)
    found, results = latentia.impute(run, out=tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 400
    assert all(float(row["a"]) == pytest.approx(value, rel=1e-9) for row, value in zip(rows, first, strict=True))
    errors = [abs(float(row["b"]) - value) for row, value in zip(rows[:20], truth["b"], strict=False)]
    assert np.mean(errors) < 0.7  # of a standard deviation of 3
    right = [row["sign"] == value for row, value in zip(rows[20:40], truth["sign"][20:40], strict=True)]
    assert np.mean(right) > 0.85
    errors = {estimate.name: estimate.value for estimate in results}
    assert errors["test/imputation_rmse"] < 0.5 * errors["test/column_mean_rmse"]
    assert found.x.isnan().sum() == 0
    other = latentia.train(
        latentia.GANRecipe(data="ring", epochs=1, steps_per_epoch=2, fresh_steps=0), tmp_path / "gan", quiet=True
    )
    with pytest.raises(RunError, match="give a VAE's"):
        latentia.impute(other)
