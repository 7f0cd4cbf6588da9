"""The checks of one model: they hold for models whatever their weights, and fail where a formula is wrong."""

import pytest
import torch
from torch import nn

from latentia.data import Ring
from latentia.estimate import Estimate, exact
from latentia.models import GAN, VAE, Flow
from latentia.theory import model_checks
from latentia.theory.model_checks import checks_of


def vae_of(latent: int) -> VAE:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, 16), nn.Tanh(), nn.Linear(16, 16), nn.Unflatten(1, (1, 4, 4)))
    return VAE(encoder, decoder, latent=latent, event_shape=(1, 4, 4)).eval()


@pytest.fixture(scope="module")
def vae() -> VAE:
    return vae_of(2)


@pytest.fixture(scope="module")
def images(vae):
    torch.manual_seed(1)
    return vae.sample(4)


def verdicts(*arguments, **named) -> dict[str, tuple[bool, bool]]:
    """By item: whether it holds, and whether it is of the model itself."""
    return {c.verdict.statement.item: (c.verdict.holds, c.own) for c in checks_of(*arguments, **named)}


def test_what_holds_of_a_vae_in_the_plane(vae, images):
    found = list(checks_of(vae, images))
    assert {c.verdict.statement.item for c in found} == {"1a", "1c.trained", "1h.any", "beyond.iwae"}
    for check in found:
        assert check.verdict.holds, [r for r in check.verdict.relations if not r.holds] or check.verdict.failure
        assert check.own
    gaps = [r for c in found if c.verdict.statement.item == "1c.trained" for r in c.verdict.relations]
    assert sum(r.sign == "==" and r.left.value > 0 for r in gaps) == 4


def test_with_many_dimensions_the_identity_is_left_to_distributions_that_are_known():
    vae = vae_of(5)
    assert verdicts(vae, vae.sample(4)) == {
        "1a": (True, True),
        "1h.any": (True, True),
        "beyond.iwae": (True, True),
        "1c.linear": (True, False),
    }


MUTATIONS = {
    "a KL twice as large": ("1h.any", lambda patch: _scale_kl(patch, 2.0)),
    "a KL of the other sign": ("1h.any", lambda patch: _scale_kl(patch, -1.0)),
    "a bound without its entropy": ("1c.trained", lambda patch: _shift_bound(patch, -1.0)),
    "a bound above log p(x)": ("1c.trained", lambda patch: _shift_bound(patch, 30.0)),
}


def _scale_kl(patch: pytest.MonkeyPatch, factor: float) -> None:
    true = model_checks.kl.exact
    patch.setattr(model_checks.kl, "exact", lambda p, q: exact(factor * true(p, q).value))


def _shift_bound(patch: pytest.MonkeyPatch, shift: float) -> None:
    true = model_checks.gaussian_elbo

    def wrong(*arguments, **named):
        bound, *rest = true(*arguments, **named)
        return bound + shift, *rest

    patch.setattr(model_checks, "gaussian_elbo", wrong)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_formula_makes_its_check_fail_and_no_other(mutation, vae, images, monkeypatch):
    item, change = MUTATIONS[mutation]
    change(monkeypatch)
    assert {name for name, (holds, _) in verdicts(vae, images).items() if not holds} == {item}


def gan_of(*, density: bool) -> GAN:
    torch.manual_seed(0)
    discriminator = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    generator = Flow(transforms=2, hidden=(16,), bins=4).decoder(2, (2,)) if density else nn.Linear(2, 2)
    return GAN(generator, discriminator, latent=2, shape=(2,)).eval()


@pytest.mark.parametrize("density", [False, True])
def test_what_holds_of_a_gan(density):
    toy = Ring()
    real = toy.distribution().sample(torch.Size([1000])).float()
    found = verdicts(gan_of(density=density), real, toy=toy)
    assert found == {"3a": (True, True), "3d.certificate": (True, True), "3d": (True, density)}


def test_a_certificate_above_what_can_be_is_seen(monkeypatch):
    monkeypatch.setattr(model_checks, "_cost", lambda *_: Estimate(-0.5, "C", 0.01, 10))
    toy = Ring()
    real = toy.distribution().sample(torch.Size([100])).float()
    assert not verdicts(gan_of(density=False), real, toy=toy)["3d.certificate"][0]
