"""Hybrids: each trains on the digits, and its game does what it is there for."""

from __future__ import annotations

from pathlib import Path

import torch

from latentia.data import Digits
from latentia.models import VAE
from latentia.networks import MLP
from latentia.recipes import Run, train
from latentia.recipes.adversarial_autoencoder import AdversarialAutoencoderRecipe
from latentia.recipes.bigan import BiGAN, BiGANRecipe
from latentia.training import Adam


def test_an_adversarial_autoencoder_brings_its_codes_to_the_prior(tmp_path: Path):
    settings = {
        "data": Digits(binarise="dynamic"),
        "network": MLP(hidden=(64,)),
        "batch_size": 64,
        "validate_every": 99,
    }
    recipe = AdversarialAutoencoderRecipe(**settings, epochs=12, optimiser=Adam(rate=2e-3))
    run = train(recipe, tmp_path / "run", quiet=True)
    assert isinstance(Run(tmp_path / "run").recipe, AdversarialAutoencoderRecipe)
    costs = [record["value"] for record in run.records if record["name"] == "autoencoder/distortion"]
    assert costs[-1] < 0.8 * costs[0]
    vae = run.model
    assert isinstance(vae, VAE)
    splits = run.splits
    x = recipe.data.prepare_fixed(splits.train, "train")
    torch.manual_seed(0)
    with torch.no_grad():
        z = vae.encode(x).sample()
    # Without the game the codes of an autoencoder spread without bound; with it they have the prior's size.
    assert z.std(0).max() < 2
    assert z.std(0).min() > 0.4
    assert z.mean(0).abs().max() < 1
    loss = [record["value"] for record in run.records if record["name"] == "judge/cost"]
    assert loss[-1] > 1.0  # 2 log 2 = 1.386 is a judge that can tell nothing


def test_a_bigan_s_encoder_comes_to_invert_its_generator(tmp_path: Path):
    small = {"network": MLP(hidden=(128,)), "judge": MLP(hidden=(128,), activation="leaky-relu"), "latent": 4}
    recipe = BiGANRecipe(**small, batch_size=64, epochs=40, ema=0.99, optimiser=Adam(rate=2e-3, beta1=0.5))
    run = train(recipe, tmp_path / "run", quiet=True)
    gan = run.model
    assert isinstance(gan, BiGAN)
    assert gan.sample(3).shape == (3, 1, 8, 8)
    x = recipe.data.prepare_fixed(run.splits.test, "test")
    torch.manual_seed(0)
    own = (gan.reconstruct(x) - x).square().mean()
    others = (gan.reconstruct(x) - x[torch.randperm(len(x))]).square().mean()
    assert own < 0.8 * others  # nothing but the game tells E which z belongs to which x
