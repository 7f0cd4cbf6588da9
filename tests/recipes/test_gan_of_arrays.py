"""GANs of vectors and signals: standardized by the training data, and what they refuse."""

import numpy as np
import pytest
import torch

import latentia
from latentia import GANRecipe
from latentia.errors import ConfigurationError, DataError
from latentia.recipes.recipe import Recipe
from latentia.reports import save_figures

SMALL = {"epochs": 1, "batch_size": 16, "latent": 2, "fresh_steps": 0, "network": {"type": "mlp", "hidden": [8]}}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("shape", "packing"), [((3,), 1), ((3,), 2), ((1, 20), 1), ((2, 10), 2)], ids=str)
def test_a_gan_of_arrays_is_in_the_units_of_its_data(tmp_path, shape, packing):
    x = (1000 + 50 * RNG.normal(size=(200, *shape))).astype(np.float32)
    run = latentia.train(GANRecipe(data=x, packing=packing, **SMALL), tmp_path / "run", quiet=True)
    samples = latentia.sample(run, 200)
    assert samples.shape == (200, *shape)
    assert abs(samples.mean() - 1000) < 100  # not near 0, where an untrained generator of raw values would be
    again = latentia.load(run.path)
    assert torch.equal(again.center, run.model.center)
    assert again.spread.mean().item() == pytest.approx(50, rel=0.1)
    assert {path.stem for path in save_figures(run)} == {"curves", "samples"}


@pytest.mark.parametrize(
    ("recipe", "x", "cure"),
    [
        ("gan", RNG.poisson(3, (60, 2)), "train a VAE"),
        ("gan", RNG.random((60, 2)) < 0.5, "train a VAE"),
        ("bigan", RNG.normal(size=(60, 2)), "adversarial-autoencoder"),
        ("vae-gan", RNG.normal(size=(60, 2)), "adversarial-autoencoder"),
    ],
)
def test_what_a_generator_does_not_make_is_refused(tmp_path, recipe, x, cure):
    with pytest.raises((ConfigurationError, DataError), match=cure):
        latentia.train(Recipe.parse({"type": recipe, "data": x, "batch_size": 16}), tmp_path / "run", quiet=True)
