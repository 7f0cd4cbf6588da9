"""The GAN: samples, the density of a flow, and networks that end in a sigmoid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentia.distributions import ContinuousBernoulli, Fixed, Gaussian
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.integration import regular_grid
from latentia.models import GAN, VAE, EncodedGAN, Flow
from latentia.networks import DCGAN, MLP, R3GAN, Network, Residual
from latentia.networks.network import has_batch_norm, require_logits

IMAGE = (1, 8, 8)


def image_gan(classes: int = 0) -> GAN:
    network = MLP(hidden=(16,))
    return GAN(
        network.decoder(4, IMAGE, classes), network.encoder(IMAGE, 1, classes), latent=4, shape=IMAGE, classes=classes
    )


def flow_gan(d: int, seed: int = 0) -> GAN:
    torch.manual_seed(seed)
    generator = Flow(transforms=2, hidden=(16,), bins=4).decoder(d, (d,))
    for parameter in generator.parameters():  # away from the identity, which it starts near
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    center, spread = torch.linspace(-1, 1, d), torch.linspace(0.5, 2, d)
    return GAN(generator, MLP(hidden=(8,)).encoder((d,), 1), latent=d, shape=(d,), center=center, spread=spread)


def test_images_lie_in_the_unit_interval():
    x = image_gan().sample(7)
    assert x.shape == (7, *IMAGE)
    assert x.min() >= 0
    assert x.max() <= 1
    assert not x.requires_grad


def test_given_latents_are_used():
    gan, z = image_gan(), torch.randn(3, 4)
    assert torch.equal(gan.sample(3, z=z), gan.generate(z))
    with pytest.raises(ConfigurationError, match="as many"):
        gan.sample(2, z=z)


def test_labels_are_drawn_when_not_given():
    gan = image_gan(classes=3)
    assert gan.sample(5).shape == (5, *IMAGE)
    z = torch.randn(1, 4).expand(3, -1)
    assert len(gan.sample(3, torch.tensor([0, 1, 2]), z).flatten(1).unique(dim=0)) == 3


def test_the_latent_distribution():
    network = MLP(hidden=(4,))
    gan = GAN(network.decoder(2, (2,)), network.encoder((2,), 1), latent=2, shape=(2,), latent_distribution="uniform")
    z = gan.draw_latent(4000)
    assert z.abs().max() <= 1
    assert (z.var(0) - 1 / 3).abs().max() < 0.02
    assert gan.latent_distribution.log_prob(torch.zeros(2)).item() == pytest.approx(-math.log(4))


def test_points_are_standardized_for_both_networks():
    class Echo(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1]

    center, spread = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    gan = GAN(nn.Linear(2, 2), Echo(), latent=2, shape=(2,), center=center, spread=spread)
    z = torch.randn(5, 2)
    torch.testing.assert_close(gan.generate(z), center + spread * gan.generator(z))
    torch.testing.assert_close(gan.discriminate(gan.generate(z)), gan.generator(z)[:, 0])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("network", [MLP(hidden=(16,)), DCGAN(width=4), R3GAN(width=4), Residual(width=4)], ids=str)
def test_our_networks_give_logits(network: Network, classes: int):
    for name, module, shape in (
        ("discriminator", network.encoder(IMAGE, 1, classes), IMAGE),
        ("decoder", network.decoder(3, IMAGE, classes), (3,)),
    ):
        require_logits(name, module, shape, "a test", classes)
        module.register_forward_hook(lambda *parts: parts[-1].sigmoid())
        with pytest.raises(ConfigurationError, match=name):
            require_logits(name, module, shape, "a test", classes)


class Squashed(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear, self.shape = nn.Linear(inputs, outputs), (1,) if outputs == 1 else IMAGE

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).sigmoid().unflatten(1, self.shape)


def squashed(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.Sigmoid())


ENCODER, DECODER = MLP(hidden=(4,)).encoder, MLP(hidden=(4,)).decoder
PARTS: dict[str, Any] = {"latent": 2, "event_shape": IMAGE}
SQUASHED = {
    "discriminator": lambda: GAN(DECODER(2, IMAGE), squashed(64, 1), latent=2, shape=IMAGE),
    "discriminator's function": lambda: GAN(DECODER(2, IMAGE), Squashed(64, 1), latent=2, shape=IMAGE),
    "generator": lambda: GAN(Squashed(2, 64), ENCODER(IMAGE, 1), latent=2, shape=IMAGE),
    "hybrid's generator": lambda: EncodedGAN(
        Squashed(2, 64), ENCODER(IMAGE, 2), ENCODER(IMAGE, 1), posterior=Fixed(), **PARTS
    ),
    "bernoulli decoder": lambda: VAE(ENCODER(IMAGE, 4), Squashed(2, 64), **PARTS),
    "continuous bernoulli decoder": lambda: VAE(
        ENCODER(IMAGE, 4), squashed(2, 64), likelihood=ContinuousBernoulli(), **PARTS
    ),
}


@pytest.mark.parametrize("build", SQUASHED.values(), ids=SQUASHED.keys())
def test_a_sigmoid_in_place_of_logits_is_refused(build: Callable[[], nn.Module]):
    with pytest.raises(ConfigurationError, match="Remove its last layer"):
        build()


def test_a_sigmoid_that_gives_means_is_right():
    vae = VAE(ENCODER(IMAGE, 4), Squashed(2, 64), likelihood=Gaussian(), **PARTS)
    assert vae.decode(torch.zeros(3, 2)).mean.shape == (3, *IMAGE)


def test_the_trial_for_a_sigmoid_changes_nothing():
    discriminator = DCGAN(width=4).encoder(IMAGE, 1).train()
    buffers = {name: value.clone() for name, value in discriminator.named_buffers()}
    state = torch.get_rng_state()
    require_logits("discriminator", discriminator, IMAGE, "a test")
    assert torch.equal(torch.get_rng_state(), state)
    assert discriminator.training
    for name, value in discriminator.named_buffers():
        assert torch.equal(value, buffers[name])


def test_a_constant_discriminator_passes():
    zero = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    nn.init.zeros_(zero[1].weight)  # pyright: ignore
    nn.init.zeros_(zero[1].bias)  # pyright: ignore
    require_logits("discriminator", zero, IMAGE, "a test")
    gan = GAN(DECODER(2, IMAGE), zero, latent=2, shape=IMAGE)  # which tries its discriminator, too
    assert torch.equal(gan.discriminate(torch.rand(3, *IMAGE)), torch.zeros(3))


def test_packs_have_no_label():
    network = MLP(hidden=(4,))
    with pytest.raises(ConfigurationError, match="packing=1"):
        GAN(network.decoder(2, (2,), 3), network.encoder((4,), 1, 3), latent=2, shape=(2,), classes=3, packing=2)


def test_which_networks_normalize_over_the_batch():
    assert has_batch_norm(DCGAN(width=4).encoder(IMAGE, 1))
    assert not has_batch_norm(R3GAN(width=4).encoder(IMAGE, 1))


@pytest.mark.parametrize("d", [1, 2])
def test_a_flow_s_density_integrates_to_one(d: int):
    gan = flow_gan(d)
    grid = regular_grid([-14.0] * d, [14.0] * d, 0.002 if d == 1 else 0.07)
    with torch.no_grad():
        mass = sum((gan.log_prob(x.float()).double() + w).exp().sum().item() for x, w in grid.blocks())
    assert mass == pytest.approx(1, abs=2e-3)  # splines have kinks, at which the trapezoid rule is of second order


def test_a_flow_s_density_is_the_change_of_variables():
    gan = flow_gan(2)
    z = torch.randn(6, 2)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda u: gan.generate(u[None])[0], u) for u in z])
    expected = gan.latent_distribution.log_prob(z) - torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(gan.log_prob(gan.generate(z)), expected, rtol=0, atol=2e-4)


def test_expectations_over_z_and_over_x_agree():
    # E_z[log(1 − D(G(z)))] = ∫ q(x) log(1 − D(x)) dx
    gan = flow_gan(2)
    with torch.no_grad():
        draws = -torch.nn.functional.softplus(gan.discriminate(gan.sample(20_000))).double()
        total = 0.0
        for x, w in regular_grid([-14.0] * 2, [14.0] * 2, 0.07).blocks():
            cost = -torch.nn.functional.softplus(gan.discriminate(x.float())).double()
            total += ((gan.log_prob(x.float()).double() + w).exp() * cost).sum().item()
    assert abs(draws.mean().item() - total) < 5 * draws.std().item() / len(draws) ** 0.5 + 2e-3


def test_only_a_flow_has_a_density():
    network = MLP(hidden=(4,))
    gan = GAN(network.decoder(2, (2,)), network.encoder((2,), 1), latent=2, shape=(2,))
    assert not gan.has_density
    with pytest.raises(UnsupportedError, match="network=flow"):
        gan.log_prob(torch.zeros(1, 2))


def test_what_a_flow_cannot_be():
    with pytest.raises(ConfigurationError, match="latent=2"):
        Flow().decoder(3, (2,))
    with pytest.raises(ConfigurationError, match="points"):
        Flow().decoder(3, IMAGE)
    with pytest.raises(ConfigurationError, match="conditional=false"):
        Flow().decoder(2, (2,), 3)
    with pytest.raises(ConfigurationError, match="discriminator=mlp"):
        Flow().encoder((2,), 1)
