"""VAEs of tables with missing values: resuming and evaluation; images of floats in other units."""

import shutil

import numpy as np
import pytest
import torch

import latentia
from latentia import VAERecipe
from latentia.data import InMemory
from latentia.errors import ConfigurationError

RNG = np.random.default_rng(0)
X = 50 * RNG.normal(size=(120, 5)) + 7
X[RNG.random(X.shape) < 0.1] = np.nan
SMALL = {"batch_size": 16, "network": {"type": "mlp", "hidden": [8]}}


def table():
    return InMemory(data=X, missing="keep")


def test_a_table_is_resumed_to_the_same_bits(tmp_path):
    recipe = VAERecipe(data=table(), epochs=3, **SMALL)
    wanted = latentia.train(recipe, tmp_path, quiet=True).model.state_dict()
    last = sorted((tmp_path / "checkpoints").iterdir())[-1]
    shutil.rmtree(last)
    (tmp_path / "weights.safetensors").unlink()
    again = latentia.train(recipe, tmp_path, resume=True, quiet=True).model.state_dict()
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], value) for name, value in wanted.items())
    assert "standardization.center" in wanted


def test_likelihoods_of_tables_with_missing_values_agree(tmp_path):
    run = latentia.train(VAERecipe(data=table(), epochs=2, **SMALL), tmp_path, quiet=True)
    exact = latentia.evaluate(run, likelihood="exact", limit=6, gaps=0, pictures=False)[0]
    bound = latentia.evaluate(run, likelihood="importance", draws=2000, limit=6)[0]
    assert bound.value == pytest.approx(exact.value, abs=0.1)


def test_standardized_images_of_floats_may_be_in_any_unit(tmp_path):
    """They are outside [0, 1], in which images of bytes are."""
    data = InMemory(data=1000 + RNG.normal(size=(60, 1, 8, 8)), standardize=True)
    run = latentia.train(VAERecipe(data=data, likelihood="gaussian-learned", epochs=1, **SMALL), tmp_path, quiet=True)
    found = latentia.evaluate(run, likelihood="exact", limit=2, gaps=0, pictures=False)
    assert np.isfinite(found[0].value)


def test_a_prior_of_pseudo_images_is_refused_for_tables(tmp_path):
    with pytest.raises(ConfigurationError, match="prior=mixture or flow"):
        latentia.train(VAERecipe(data=table(), prior="vamp", **SMALL), tmp_path / "run", quiet=True)
