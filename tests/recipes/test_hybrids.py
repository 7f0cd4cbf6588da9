"""Hybrids: their costs, the commands on their runs, and what each game achieves."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from latentia.data import Batch, Digits
from latentia.distributions import Fixed
from latentia.errors import ConfigurationError
from latentia.models import VAE, VAEGAN, BiGAN
from latentia.networks import DCGAN, MLP
from latentia.objectives import Consensus, NonSaturating, NoPenalty, Progress, Wasserstein
from latentia.recipes import AdversarialAutoencoderRecipe, BiGANRecipe, Run, VAEGANRecipe, train
from latentia.training import Adam, Worker
from latentia.training.checkpoint import find_checkpoints
from tests.cli.test_commands import latentia

SHAPE = (1, 8, 8)
SMALL: dict[str, Any] = {
    "data": Digits(binarize="threshold"),
    "network": MLP(hidden=(16,)),
    "discriminator": MLP(hidden=(16,), activation="leaky-relu"),
    "latent": 4,
}
PLAIN: dict[str, Any] = {**SMALL, "loss": NonSaturating(), "penalty": NoPenalty()}
HYBRIDS = {
    "adversarial-autoencoder": (
        AdversarialAutoencoderRecipe,
        {"discriminator": "discriminator", "autoencoder": "posterior likelihood"},
    ),
    "bigan": (BiGANRecipe, {"discriminator": "discriminator", "pair": "generator encoder"}),
    "vae-gan": (VAEGANRecipe, {"discriminator": "discriminator", "encoder": "encoder", "generator": "generator"}),
}
each = pytest.mark.parametrize("name", HYBRIDS)


def game_of(recipe: Any, seed: int = 0) -> tuple[Any, dict[str, Any], Batch]:
    """Model, players by name, and a batch of real images."""
    torch.manual_seed(seed)
    splits = recipe.data.load()
    model = recipe.build_model(SHAPE, 10)
    players = {player.name: player for player in recipe.build_game(model, splits, Worker()).players}
    return model, players, Batch(splits.prepare(next(splits.train.chunks(32))))


def terms_of(player: Any, batch: Batch, seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return player.cost(batch, Progress())


@each
def test_the_players_share_no_parameters_and_train_all_of_them(name: str):
    kind, owns = HYBRIDS[name]
    model, players, batch = game_of(kind(**PLAIN))
    assert set(players) == set(owns)
    for who, player in players.items():
        expected = {p for part in owns[who].split() for p in getattr(model, part).parameters()}
        assert set(player.parameters) == expected
        gradients = torch.autograd.grad(terms_of(player, batch)["cost"].mean(), player.parameters)
        assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert {p for player in players.values() for p in player.parameters} == set(model.parameters())


@each
def test_the_discriminator_lowers_its_loss_and_its_opponents_raise_it(name: str):
    """Steps on the discriminator's cost lower its loss; steps on its opponents' costs raise it again."""
    kind, _ = HYBRIDS[name]
    strong = {"strength": 1e6} if name == "adversarial-autoencoder" else {"gamma": 0.0} if name == "vae-gan" else {}
    _, players, batch = game_of(kind(**PLAIN, **strong))
    discriminator = players["discriminator"]

    def loss() -> float:
        return terms_of(discriminator, batch)["loss"].mean().item()

    def move(player: Any, rate: float, times: int) -> None:
        optimizer = torch.optim.SGD(player.parameters, lr=rate)
        share = 1.0 if player is discriminator else strong.get("strength", 1.0)
        for _ in range(times):
            optimizer.zero_grad()
            (terms_of(player, batch)["cost"].mean() / share).backward(inputs=player.parameters)
            optimizer.step()

    first = loss()
    move(discriminator, 0.05, 40)
    parted = loss()
    assert parted < first - 0.01
    for opponent in set(players) - {"discriminator", "encoder"}:  # the cost of the VAE/GAN's encoder is not adversarial
        move(players[opponent], 0.05, 10)
    assert loss() > parted + 0.002


@each
def test_a_constant_discriminator_has_a_loss_of_twice_log_two(name: str):
    kind, _ = HYBRIDS[name]
    model, players, batch = game_of(kind(**PLAIN))
    for parameter in model.discriminator.parameters():
        nn.init.zeros_(parameter)
    loss = terms_of(players["discriminator"], batch)["loss"]
    assert torch.allclose(loss, torch.full_like(loss, 2 * math.log(2)))


def test_the_encoder_cost_of_a_vae_gan_is_rate_and_feature_distance():
    recipe = VAEGANRecipe(**PLAIN, posterior=Fixed(scale=1e-6), scale=0.5)
    model, players, batch = game_of(recipe)
    terms = terms_of(players["encoder"], batch)
    means = model.encode(batch.x).mean
    variance = 1e-12
    rate = 0.5 * (means.square() + variance - 1 - math.log(variance)).sum(1)  # KL(N(μ, σ²), N(0, 1))
    far = (model.features(batch.x) - model.features(model.reconstruct(batch.x))).square().sum(1) / (2 * 0.5**2)
    assert torch.allclose(terms["rate"], rate, rtol=1e-4)
    assert torch.allclose(terms["distortion"], far, rtol=1e-3, atol=1e-4)
    assert torch.allclose(terms["cost"], rate + far, rtol=1e-4)


def test_gamma_weighs_the_feature_distance_of_a_vae_gan_s_generator():
    costs = {}
    for gamma in (0.0, 0.5, 1.0):
        recipe = VAEGANRecipe(**PLAIN, posterior=Fixed(scale=1e-6), scale=0.5, gamma=gamma)
        model, players, batch = game_of(recipe)
        costs[gamma] = terms_of(players["generator"], batch)["cost"]
    far = (model.features(batch.x) - model.features(model.reconstruct(batch.x))).square().sum(1) / (2 * 0.5**2)
    assert torch.allclose(costs[1.0] - costs[0.0], far, rtol=1e-3, atol=1e-4)
    assert torch.allclose(costs[0.5] - costs[0.0], far / 2, rtol=1e-3, atol=1e-4)


def test_the_discriminator_of_a_vae_gan_gets_as_many_real_as_fake_examples():
    recipe = VAEGANRecipe(**PLAIN, posterior=Fixed(scale=1e-6))
    model, players, batch = game_of(recipe)
    torch.manual_seed(1)
    prior = model.generate(model.prior.sample(torch.Size([len(batch.x)])))
    with torch.no_grad():
        real, new, again = (model.score(x) for x in (batch.x, prior, model.reconstruct(batch.x)))
    softplus = torch.nn.functional.softplus
    expected = torch.cat([softplus(-real) + softplus(new), softplus(-real) + softplus(again)])
    assert torch.allclose(terms_of(players["discriminator"], batch)["loss"], expected, atol=1e-5)


def test_the_pair_of_a_bigan_has_the_discriminator_cost_with_exchanged_roles():
    model, players, batch = game_of(BiGANRecipe(**PLAIN))
    discriminator, pair = terms_of(players["discriminator"], batch)["loss"], terms_of(players["pair"], batch)["cost"]
    torch.manual_seed(1)
    z = model.prior.sample(torch.Size([len(batch.x)]))
    encoded = model.score(model.pair(batch.x, model.encode(batch.x).rsample()))
    generated = model.score(model.pair(model.generate(z), z))
    assert torch.allclose(pair - discriminator, encoded - generated, atol=1e-5)  # softplus(t) − softplus(−t) = t


class Inverse(nn.Module):
    """z from x = sigmoid(z); −z with the sign −1."""

    def __init__(self, sign: float):
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sign * torch.logit(x.flatten(1))


class Unflatten(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.scale * z.unflatten(1, (1, 2, 2))


@pytest.mark.parametrize(("sign", "separable"), [(1.0, False), (-1.0, True)])
def test_a_bigan_s_pairs_are_inseparable_only_for_the_inverse_encoder(sign: float, separable: bool):
    """For data from G and E = G⁻¹ both joint distributions are equal, and no discriminator has a loss below 2 log 2."""
    torch.manual_seed(0)
    recipe = BiGANRecipe(**{**PLAIN, "posterior": Fixed(scale=1e-6)})
    discriminator = MLP(hidden=(32,)).encoder((8,), 1)
    model = BiGAN(
        Unflatten(), Inverse(sign), discriminator, latent=4, event_shape=(1, 2, 2), posterior=recipe.posterior
    )
    (player, _) = recipe.players(model)
    optimizer = torch.optim.Adam(player.parameters, lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        player.cost(Batch(model.sample(256)), Progress())["cost"].mean().backward(inputs=player.parameters)
        optimizer.step()
    loss = player.cost(Batch(model.sample(4000)), Progress())["loss"].detach()
    least = 2 * math.log(2) - 5 * loss.std().item() / math.sqrt(len(loss))
    assert (loss.mean().item() < least) is separable


@each
def test_settings_that_do_not_fit_are_refused(name: str):
    kind, _ = HYBRIDS[name]
    cases = {
        "penalty": [{"penalty": Consensus()}, {"loss": Wasserstein(), "penalty": NoPenalty()}],
    }
    for key, settings in cases.items():
        for setting in settings:
            with pytest.raises(ConfigurationError) as caught:
                kind(**setting)
            assert [problem[0] for problem in caught.value.problems] == [key]


@each
def test_a_batch_of_one_with_batch_normalization_is_refused_before_training(name: str, tmp_path: Path):
    kind, _ = HYBRIDS[name]
    with pytest.raises(ConfigurationError, match="batch_size=4"):
        train(kind(network=DCGAN(width=4), batch_size=1), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@each
def test_the_commands_work_and_it_resumes_to_the_same_bits(name: str, tmp_path: Path):
    small = [
        "data=digits",
        "data.binarize=dynamic",
        "epochs=2",
        "network.hidden=[16]",
        "discriminator.hidden=[16]",
        "batch_size=256",
        "checkpoint_every=0.5",
    ]
    result = latentia("train", name, *small, "--out", "run", "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for picture in ("curves", "samples", "reconstructions", "encoded_test_set", "interpolations"):
        assert (tmp_path / "run" / "figures" / f"{picture}.png").is_file()
    for command in (
        ["sample", "run", "-n", "5", "--out", "s.npz"],
        ["reconstruct", "run", "-n", "5", "--out", "r.png"],
        ["encode", "run", "--out", "e.npz"],
        ["show", "run"],
    ):
        result = latentia(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert np.load(tmp_path / "s.npz")["images"].shape == (5, 1, 8, 8)
    codes = np.load(tmp_path / "e.npz")
    assert codes["mean"].shape == codes["stddev"].shape == (359, Run(tmp_path / "run").recipe.latent)

    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "run", cut)
    shutil.rmtree(find_checkpoints(cut / "checkpoints")[-1])
    (cut / "weights.safetensors").unlink()
    assert latentia("train", name, "--out", "cut", "--resume", "--quiet", cwd=tmp_path).returncode == 0
    assert (cut / "weights.safetensors").read_bytes() == (tmp_path / "run" / "weights.safetensors").read_bytes()

    result = latentia("evaluate", "run", "--likelihood", "importance", "--limit", "5", "--json", cwd=tmp_path)
    if name == "adversarial-autoencoder":  # a VAE
        assert json.loads(result.stdout)[0]["name"].startswith("test/")
    else:
        assert result.returncode == 2
        assert "--samples" in result.stderr


def test_an_adversarial_autoencoder_matches_its_latents_to_the_prior(tmp_path: Path):
    settings = {
        "data": Digits(binarize="dynamic"),
        "network": MLP(hidden=(64,)),
        "discriminator": MLP(hidden=(128, 128), activation="leaky-relu"),
        "batch_size": 64,
        "validate_every": 99,
        "latent": 2,
    }
    recipe = AdversarialAutoencoderRecipe(**settings, epochs=12, optimizer=Adam(lr=2e-3))
    run = train(recipe, tmp_path / "run", quiet=True)
    assert isinstance(Run(tmp_path / "run").recipe, AdversarialAutoencoderRecipe)
    costs = [record["value"] for record in run.records if record["name"] == "autoencoder/distortion"]
    assert costs[-1] < 0.8 * costs[0]
    vae = run.model
    assert isinstance(vae, VAE)
    splits = run.splits
    x = splits.examples("train").x
    torch.manual_seed(0)
    with torch.no_grad():
        z = vae.encode(x).sample()
    # Without the game the latents of an autoencoder spread without bound.
    assert z.std(0).max() < 2
    assert z.std(0).min() > 0.4
    assert z.mean(0).abs().max() < 1
    loss = [record["value"] for record in run.records if record["name"] == "discriminator/loss"]
    assert loss[-1] > 0.5  # log 2 = 0.693 for a relativistic discriminator that cannot separate them


@pytest.mark.parametrize(("kind", "model"), [(BiGANRecipe, BiGAN), (VAEGANRecipe, VAEGAN)], ids=["bigan", "vae-gan"])
def test_the_encoder_learns_to_invert_the_generator(kind: Any, model: type, tmp_path: Path):
    small = {
        "data": Digits(),
        "network": MLP(hidden=(128,)),
        "discriminator": MLP(hidden=(128,), activation="leaky-relu"),
        "latent": 4,
    }
    recipe = kind(**small, batch_size=64, epochs=20)
    run = train(recipe, tmp_path / "run", quiet=True)
    gan = run.model
    assert isinstance(gan, model)
    assert gan.sample(3).shape == (3, 1, 8, 8)
    x = run.splits.examples("test").x
    torch.manual_seed(0)
    own = (gan.reconstruct(x) - x).square().mean()
    others = (gan.reconstruct(x) - x[torch.randperm(len(x))]).square().mean()
    assert own < 0.8 * others  # only the game relates z and x
    (estimate,) = run.estimates
    assert estimate.name == "test/reconstruction_error"
    assert estimate.value == pytest.approx(own.item(), rel=1e-5)
