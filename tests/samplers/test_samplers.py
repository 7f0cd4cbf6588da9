"""Samplers fitted to codes: against known densities, scikit-learn, and sums over a grid."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import latentia
from latentia.data import Digits, Splits
from latentia.distributions import Bernoulli
from latentia.errors import ConfigurationError, DataError, RunError, UnsupportedError
from latentia.likelihood import exact_log_likelihood
from latentia.models import VAE
from latentia.networks import MLP
from latentia.samplers import FlowSampler, MixtureSampler, TwoStageSampler, fit_sampler, parse_sampler, with_prior

from ..cli.test_commands import latentia as command

KNOWN = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.5, 0.2])),
    MultivariateNormal(
        torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]]),
        torch.tensor([[[0.3, 0.2], [0.2, 0.5]], [[0.2, -0.1], [-0.1, 0.1]], [[0.5, 0.0], [0.0, 0.05]]]),
    ),
)


def draws(count: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return KNOWN.sample(torch.Size([count]))


def small_vae(latent: int = 2) -> VAE:
    torch.manual_seed(0)
    network = MLP(hidden=(16,))
    encoder, decoder = network.encoder((1, 3, 3), 2 * latent), network.decoder(latent, (1, 3, 3))
    return VAE(encoder, decoder, latent=latent, event_shape=(1, 3, 3), likelihood=Bernoulli()).eval()


def test_a_mixture_of_one_component_has_the_moments_of_the_codes():
    codes = draws(500, 0)
    sampler = MixtureSampler(components=1)
    module = sampler.build(2)
    sampler.fit(module, codes, draws(100, 1))
    fitted = module()
    assert fitted.mean == pytest.approx(codes.mean(0), abs=1e-5)
    assert fitted.component_distribution.covariance_matrix[0] == pytest.approx(codes.T.cov(correction=0), abs=1e-3)


def test_a_mixture_reaches_the_density_that_made_the_codes():
    codes, held_out, fresh = draws(4000, 0), draws(1000, 1), draws(20_000, 2)
    sampler = MixtureSampler(components=3)
    module = sampler.build(2)
    torch.manual_seed(3)
    sampler.fit(module, codes, held_out)
    divergence = (KNOWN.log_prob(fresh) - module().log_prob(fresh)).mean().item()
    assert -0.002 < divergence < 0.01  # 17 parameters / (2 · 4000) is 0.002
    other = GaussianMixture(3, n_init=5, random_state=0).fit(codes.numpy())
    assert module().log_prob(fresh).mean().item() == pytest.approx(other.score(fresh.numpy()), abs=0.003)


def test_a_mixture_with_too_many_components_stops_by_held_out_codes():
    codes, held_out, fresh = draws(150, 0), draws(150, 1), draws(10_000, 2)
    scores = {}
    for steps in (3, 200):
        sampler = MixtureSampler(components=30, steps=steps)
        module = sampler.build(2)
        torch.manual_seed(4)
        sampler.fit(module, codes, held_out)
        scores[steps] = module().log_prob(fresh).mean().item()
    overfitted = GaussianMixture(30, random_state=0, reg_covar=1e-4).fit(codes.numpy()).score(fresh.numpy())
    assert min(scores.values()) > overfitted + 0.1


@pytest.mark.parametrize("latent", [1, 2])
def test_a_flow_reaches_the_density_that_made_the_codes(latent: int):
    codes, held_out = draws(4000, 0)[:, :latent], draws(1000, 1)[:, :latent]
    sampler = FlowSampler(transforms=latent, steps=400, lr=2e-2)
    torch.manual_seed(0)
    module = sampler.build(latent)
    sampler.fit(module, codes, held_out)
    fitted = module()
    assert sum_over_grid(fitted.log_prob, latent) == pytest.approx(1, abs=2e-3)
    fresh = draws(10_000, 2)
    true = KNOWN.log_prob(fresh)
    if latent == 1:
        parts = torch.distributions.Normal(
            KNOWN.component_distribution.mean[:, 0], KNOWN.component_distribution.covariance_matrix[:, 0, 0].sqrt()
        )
        true = MixtureSameFamily(KNOWN.mixture_distribution, parts).log_prob(fresh[:, 0])
    assert -0.01 < (true - fitted.log_prob(fresh[:, :latent])).mean().item() < 0.1


def test_a_two_stage_sampler_bounds_the_density_from_below_and_samples_it():
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    torch.manual_seed(0)
    codes, held_out = torch.randn(3000, 2) @ factor.T + 3, torch.randn(500, 2) @ factor.T + 3
    sampler = TwoStageSampler(hidden=(64,), steps=1000, batch_size=128, lr=5e-3)
    module = sampler.build(2)
    sampler.fit(module, codes, held_out)
    with torch.no_grad():
        bound = sampler.held_out_log_prob(module, held_out)
    true = MultivariateNormal(torch.full((2,), 3.0), scale_tril=factor).log_prob(held_out)
    gap = (true - bound).double()
    assert gap.mean() > -5 * gap.std() / math.sqrt(len(gap))
    assert gap.mean() < 0.2
    found = module().sample((20_000,))
    assert found.mean(0) == pytest.approx(torch.full((2,), 3.0), abs=0.1)
    assert found.T.cov() == pytest.approx(factor @ factor.T, abs=0.15)
    with pytest.raises(UnsupportedError, match="--sampler mixture"):
        module().log_prob(found)


def sum_over_grid(log_density, latent: int) -> float:
    axis = torch.linspace(-12, 12, 301)
    points = torch.cartesian_prod(*[axis] * latent).reshape(-1, latent)
    with torch.no_grad():
        return (log_density(points).double().exp().sum() * (axis[1] - axis[0]) ** latent).item()


def test_the_gain_is_that_of_the_bound_and_exact_likelihoods_are_those_of_the_new_prior():
    vae = small_vae()
    torch.manual_seed(1)
    x = torch.bernoulli(torch.full((300, 1, 3, 3), 0.4))
    seen: list[tuple[int, int]] = []
    fitted = fit_sampler(MixtureSampler(components=2), vae, x[:200], x[200:], lambda *done: seen.append(done))
    assert seen == [(step, 200) for step in range(len(seen))]
    assert fitted.vae.posterior is vae.posterior
    gain = fitted.estimates[0]
    torch.manual_seed(2)
    with torch.no_grad():
        new = fitted.vae.elbo(x[200:], samples=400)
        torch.manual_seed(2)
        old = vae.elbo(x[200:], samples=400)
    assert abs(gain.value - (new - old).mean().item()) < 5 * (gain.stderr or 0)
    exact = exact_log_likelihood(fitted.vae, x[:5], tolerance=1e-4).values
    axis = torch.linspace(-8, 8, 161, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis).float()
    with torch.no_grad():
        logits = vae.likelihood.network(z).flatten(1).double()
        log_prior = fitted.vae.prior.log_prob(z).double()
        score = x[:5].flatten(1).double() @ logits.T - torch.nn.functional.softplus(logits).sum(1)
    summed = (score + log_prior).logsumexp(1) + 2 * math.log(axis[1] - axis[0])
    assert exact == pytest.approx(summed, abs=1e-3)


def test_a_sampler_in_the_place_of_its_own_prior_gains_nothing():
    vae = small_vae()
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((20, 1, 3, 3), 0.5))
    same = with_prior(vae, vae.prior_module)
    torch.manual_seed(1)
    first = vae.elbo(x)
    torch.manual_seed(1)
    assert torch.equal(same.elbo(x), first)


@pytest.mark.parametrize(
    ("sampler", "count", "cure"),
    [
        (MixtureSampler(), 8, "sample from the prior"),
        (MixtureSampler(components=500), 200, "set components=100"),
    ],
)
def test_too_few_codes_are_refused(sampler: MixtureSampler, count: int, cure: str):
    x = torch.zeros(count, 1, 3, 3)
    with pytest.raises(DataError, match=cure):
        fit_sampler(sampler, small_vae(), x, torch.zeros(20, 1, 3, 3))


def test_codes_that_are_all_equal_in_one_dimension_are_served():
    flat = torch.cat([draws(200, 0)[:, :1], torch.zeros(200, 1)], 1)
    for sampler in (MixtureSampler(components=3), FlowSampler(steps=3)):
        module = sampler.build(2)
        sampler.fit(module, flat, flat[:50])
        assert bool(module().sample((10,)).isfinite().all())


def test_more_dimensions_than_codes_of_a_component_are_served():
    torch.manual_seed(0)
    codes, held_out = torch.randn(150, 60), torch.randn(150, 60)
    sampler = MixtureSampler(components=10, steps=20)
    module = sampler.build(60)
    sampler.fit(module, codes, held_out)
    whole = MultivariateNormal(torch.zeros(60), torch.eye(60)).log_prob(held_out).mean()
    assert module().log_prob(held_out).mean() < whole
    assert bool(module().sample((10,)).isfinite().all())


@pytest.mark.parametrize(
    ("given", "cure"),
    [("mixtur", "mixture"), ("mixture,component=3", "components"), ("mixture,components=0", "components")],
)
def test_unknown_samplers_are_refused(given: str, cure: str):
    with pytest.raises(ConfigurationError, match=cure):
        parse_sampler(given)
    assert parse_sampler("mixture,components=3") == MixtureSampler(components=3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    small = {"network": MLP(hidden=(32,)), "epochs": 2, "batch_size": 64}
    latentia.train(latentia.VAERecipe(data=Digits(binarize="dynamic"), **small), folder / "vae", quiet=True)
    latentia.train(latentia.GANRecipe(data=Digits(), fresh_steps=0, **small), folder / "gan", quiet=True)
    return folder


def test_a_sampler_of_a_run_is_kept_and_fitted_again_for_other_settings(runs: Path):
    run = latentia.Run(runs / "vae")
    first = run.sampler("mixture")
    file = runs / "vae" / "samplers" / "mixture.safetensors"
    written = file.stat().st_mtime_ns
    again = latentia.Run(runs / "vae").sampler("mixture")
    assert file.stat().st_mtime_ns == written
    z = torch.zeros(3, 2)
    assert torch.equal(first.vae.prior.log_prob(z), again.vae.prior.log_prob(z))
    assert [e.value for e in first.estimates] == [e.value for e in again.estimates]
    run.sampler("mixture,components=2")
    assert file.stat().st_mtime_ns > written
    file.write_bytes(b"damaged")
    with pytest.raises(RunError, match="remove it"):
        run.sampler("mixture,components=2")
    file.unlink()
    assert torch.equal(run.sampler("mixture").vae.prior.log_prob(z), first.vae.prior.log_prob(z))


def test_the_test_images_take_no_part_in_the_fit(runs: Path, monkeypatch: pytest.MonkeyPatch):
    asked, examples = [], Splits.examples

    def watched(self, part, *arguments, **options):
        asked.append(part)
        return examples(self, part, *arguments, **options)

    monkeypatch.setattr(Splits, "examples", watched)
    latentia.Run(runs / "vae").sampler("mixture,components=4")
    assert set(asked) == {"train", "validation"}


def test_samples_scores_and_likelihoods_by_a_sampler(runs: Path):
    prior = latentia.sample(runs / "vae", 5)
    assert not torch.equal(latentia.sample(runs / "vae", 5, sampler="mixture"), prior)
    found = latentia.evaluate(runs / "vae", sampler="mixture", metrics="kernel", n=60)
    assert {"samples-mixture.json", "samples_mixture.png", "encoded_mixture.png"} <= {p.name for p in found.files}
    exact = latentia.evaluate(runs / "vae", sampler="mixture", likelihood="exact", limit=4, gaps=0, pictures=False)
    assert [path.name for path in exact.files] == ["likelihood-exact-mixture.json", "likelihood-exact-mixture.npz"]
    latentia.evaluate(runs / "vae", metrics="kernel", n=60)
    table = latentia.compare([runs / "vae"], samplers="mixture", metrics="kernel", n=60)
    assert table.names == ("vae", "vae + mixture")
    kernel = next(row for row in table.rows if row.name.startswith("kernel"))
    assert kernel.cells[0].value != kernel.cells[1].value
    saved = latentia.compare([runs / "vae"], samplers=["mixture"], saved=True)
    assert next(row for row in saved.rows if row.name.startswith("kernel")).cells == kernel.cells
    likelihood = next(row for row in saved.rows if row.name == "test/log_likelihood")
    assert likelihood.cells[0] is None
    assert likelihood.cells[1] in exact


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["evaluate", "vae", "--sampler", "two-stage", "--likelihood", "exact"], "--sampler mixture or flow"),
        (["sample", "gan", "--sampler", "mixture"], "without a sampler"),
        (["compare", "gan", "--sampler", "mixture"], "without a sampler"),
        (["sample", "vae", "--sampler", "nothing"], "mixture"),
        (["compare", "vae", "--sampler", "flow", "--saved"], "--samples"),
    ],
)
def test_calls_that_no_sampler_can_serve_are_refused(runs: Path, words: list[str], cure: str):
    result = command(*words, cwd=runs)
    assert result.returncode == 2
    assert cure in result.stderr
    assert "Traceback" not in result.stderr
