"""The class-conditional VAE: exact log p(x|y) against sums over a grid, labels that reach every part, and refusals."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

import latentia
from latentia.data import NPZ, Digits
from latentia.distributions import Bernoulli, Full, MixturePrior, VampPrior
from latentia.errors import ConfigurationError, DataError, RunError
from latentia.estimate import Estimate
from latentia.likelihood import evaluate_bound, evaluate_conditional_likelihood, exact_log_likelihood
from latentia.models import ConditionalVAE
from latentia.networks import MLP
from latentia.objectives import ELBO, IWAE, ExactLikelihood, Progress
from latentia.recipes import ConditionalVAERecipe, VAERecipe, train

from ..cli.test_commands import latentia as command

SHAPE = (1, 3, 3)


def model(latent: int = 2, *, conditional_prior: bool = False, classes: int = 3, **parts: Any) -> ConditionalVAE:
    torch.manual_seed(0)
    network = MLP(hidden=(16,), activation="tanh")
    numbers = parts.get("posterior").parameter_shape((latent,))[0] if "posterior" in parts else 2 * latent
    vae = ConditionalVAE(
        network.encoder(SHAPE, numbers, classes),
        network.decoder(latent, SHAPE, classes),
        classes=classes,
        conditional_prior=conditional_prior,
        latent=latent,
        event_shape=SHAPE,
        **parts,
    ).eval()
    if conditional_prior:
        with torch.no_grad():
            vae.prior_module.means.normal_()
            vae.prior_module.log_scales.normal_(std=0.4)
    return vae


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.bernoulli(torch.full((count, *SHAPE), 0.4)), torch.arange(count) % 3


def summed_over_grid(vae: ConditionalVAE, x: torch.Tensor, label: int) -> torch.Tensor:
    """log ∫ p(z|y) p(x|z, y) dz by a plain sum, with the network and the density written out."""
    axis = torch.linspace(-16, 16, 321, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * vae.latent).reshape(-1, vae.latent)
    mean, log_scale = torch.zeros(vae.latent), torch.zeros(vae.latent)
    if vae.conditional_prior:
        mean, log_scale = vae.prior_module.means[label].detach(), vae.prior_module.log_scales[label].detach()
    log_prior = -0.5 * (((z - mean) / log_scale.exp()).square() + 2 * log_scale + math.log(2 * math.pi)).sum(1)
    with torch.no_grad():
        logits = vae.likelihood.network(z.float(), torch.full((len(z),), label)).flatten(1).double()
    score = x.flatten(1).double() @ logits.T - softplus(logits).sum(1)
    return (score + log_prior).logsumexp(1) + vae.latent * math.log(axis[1] - axis[0])


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize("conditional_prior", [False, True])
def test_exact_likelihoods_given_the_label_are_sums_over_a_grid(latent: int, conditional_prior: bool):
    vae = model(latent, conditional_prior=conditional_prior)
    x, labels = images(9)
    shares: list[tuple[int, int]] = []
    options: dict[str, Any] = {"progress": lambda done, total, _: shares.append((done, total))}
    found = evaluate_conditional_likelihood(vae, x, labels, tolerance=1e-4, gaps=6, **options)
    assert shares == sorted(shares)
    assert {total for _, total in shares} == {len(x)}
    assert shares[-1][0] > len(x) // 2
    for label in range(3):
        rows = labels == label
        own = summed_over_grid(vae, x[rows], label)
        assert exact_log_likelihood(vae.given(label), x[rows], tolerance=1e-4).values == pytest.approx(own, abs=1e-4)
        assert found.arrays["log_likelihood"][rows] == pytest.approx(own.numpy(), abs=1e-4)
    estimates = {estimate.name: estimate for estimate in found.estimates}
    values = torch.from_numpy(found.arrays["log_likelihood"])
    whole = Estimate.mean(values)
    assert estimates["conditional_log_likelihood"].value == pytest.approx(whole.value)
    assert estimates["conditional_log_likelihood"].stderr == pytest.approx(whole.stderr)
    assert estimates["conditional_log_likelihood"].n == 9
    assert estimates["inference_gap"].n == 6
    assert estimates["conditional_elbo"].value < values[:6].mean()
    bound = evaluate_bound(vae, x, labels, samples=300)[0]
    assert bound.value - 5 * (bound.stderr or 0) < values.mean()


def test_labels_reach_the_rows_that_they_belong_to():
    vae = model(conditional_prior=True, posterior=Full())
    x, labels = images(7)
    z = torch.randn(5, 7, 2)
    many = vae.given(labels)
    for row, label in enumerate(labels.tolist()):
        one = vae.given(label)
        assert torch.allclose(many.encode(x).mean[row], one.encode(x[row : row + 1]).mean[0], atol=1e-6)
        assert torch.allclose(many.decode(z).mean[:, row], one.decode(z[:, row]).mean, atol=1e-6)
        assert torch.allclose(many.prior.log_prob(z)[:, row], one.prior.log_prob(z[:, row]), atol=1e-5)
    assert not torch.allclose(vae.given(0).decode(z[:, 0]).mean, vae.given(1).decode(z[:, 0]).mean)


def test_the_rate_of_a_conditional_prior_is_its_closed_form():
    vae = model(conditional_prior=True)
    x, labels = images(6)
    terms = ELBO()(vae.given(labels), x, Progress())
    q = vae.encode(x, labels)
    mean, scale = vae.prior_module.means[labels], vae.prior_module.log_scales[labels].exp()
    ratio = (q.stddev / scale).square()
    rate = 0.5 * (ratio + ((q.mean - mean) / scale).square() - 1 - ratio.log()).sum(1)
    assert torch.allclose(terms["rate"], rate.detach(), atol=1e-5)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(k=4), IWAE(k=4, gradient="doubly-reparametrized")])
def test_gradients_reach_all_weights_of_the_model(objective: Any):
    vae = model(conditional_prior=True).train()
    x, labels = images(6)
    objective(vae.given(labels), x, Progress())["cost"].mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in vae.parameters())


def test_views_share_the_weights_and_leave_the_model_as_it_was():
    vae = model()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    view = vae.given(1)
    assert view.posterior.network.network is vae.posterior.network
    view.to(torch.float32)
    view.train()
    view.eval()
    assert vae.state_dict().keys() == before.keys()
    assert not isinstance(view, ConditionalVAE)


def test_labels_are_drawn_with_the_frequencies_of_the_training_examples():
    vae = model()
    vae.set_frequencies(torch.tensor([0] * 70 + [1] * 30))
    torch.manual_seed(0)
    share = vae.draw_labels(10_000).bincount(minlength=3) / 10_000
    assert share[2] == 0
    assert abs(share[0] - 0.7) < 5 * math.sqrt(0.21 / 10_000)
    assert vae.sample(4, labels=torch.tensor([0, 1, 2, 2])).shape == (4, *SHAPE)
    assert vae.sample(4, mean=True).shape == (4, *SHAPE)
    assert model(conditional_prior=True).sample(3, labels=1).shape == (3, *SHAPE)


@pytest.mark.parametrize(
    ("labels", "cure"),
    [
        (torch.tensor([0, 3]), "from 0 to 2"),
        (torch.tensor([-1, 0]), "from 0 to 2"),
        (5, "from 0 to 2"),
        (torch.tensor([0.0, 1.0]), "int64"),
        (torch.tensor([0, 1, 2]), "give one for each"),
    ],
)
def test_labels_that_the_model_does_not_know_are_refused(labels: Any, cure: str):
    with pytest.raises(DataError, match=cure):
        model().encode(images(2)[0], labels)


def test_a_call_without_labels_is_refused_with_the_cure():
    x, _ = images(2)
    for call in (lambda: model().encode(x), lambda: model().elbo(x), lambda: model().reconstruct(x)):
        with pytest.raises(ConfigurationError, match=r"model\.given\(labels\)"):
            call()
    with pytest.raises(ConfigurationError, match=r"model\.given"):
        exact_log_likelihood(model(), x)
    with pytest.raises(ConfigurationError, match=r"model\.given"):
        exact_log_likelihood(model(conditional_prior=True), x)
    with pytest.raises(ConfigurationError, match="sigmoid"):
        ConditionalVAE(
            MLP().encoder(SHAPE, 4, 2),
            EndsInSigmoid(),
            classes=2,
            latent=2,
            event_shape=SHAPE,
            likelihood=Bernoulli(),
        )


class EndsInSigmoid(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 9)

    def forward(self, z, labels):
        return self.linear(torch.cat([z, labels[:, None].to(z)], 1)).sigmoid().unflatten(1, SHAPE)


SMALL: dict[str, Any] = {"network": MLP(hidden=(32,)), "batch_size": 64, "data": Digits(binarize="dynamic")}


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"prior": VampPrior()}, "prior=mixture"),
        ({"objective": ExactLikelihood()}, "objective=elbo"),
        ({"prior": MixturePrior(), "conditional_prior": True}, "Leave prior=mixture out"),
    ],
)
def test_settings_that_no_label_suits_are_refused(settings: dict, cure: str):
    with pytest.raises(ConfigurationError, match=cure):
        ConditionalVAERecipe(**settings)


def test_data_without_labels_are_refused(tmp_path: Path):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8))
    recipe = ConditionalVAERecipe(**{**SMALL, "data": NPZ(file=str(tmp_path / "x.npz"), binarize="threshold")})
    with pytest.raises(ConfigurationError, match="train vae"):
        train(recipe, tmp_path / "run", quiet=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(ConditionalVAERecipe(epochs=6, conditional_prior=True, **SMALL), folder / "conditional", quiet=True)
    train(VAERecipe(epochs=1, **SMALL), folder / "plain", quiet=True)
    recipe = latentia.GANRecipe(data=Digits(), conditional=True, epochs=1, fresh_steps=0, network=MLP(hidden=(16,)))
    train(recipe, folder / "gan", quiet=True)
    return folder


def test_a_run_resumes_to_the_same_bits(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "conditional", tmp_path / "cut")
    (tmp_path / "cut" / "weights.safetensors").unlink()
    shutil.rmtree(max((tmp_path / "cut" / "checkpoints").iterdir()))
    resumed = latentia.resume(tmp_path / "cut", quiet=True)
    whole, again = latentia.Run(runs / "conditional").model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_functions_of_a_run_take_its_labels(runs: Path):
    run = latentia.Run(runs / "conditional")
    test = run.test
    codes = latentia.encode(run)
    with torch.no_grad():
        assert torch.allclose(codes["mean"], run.model.encode(test.x, test.labels).mean, atol=1e-6)
    _, again = latentia.reconstruct(run, 5)
    assert torch.allclose(again, run.model.reconstruct(test.x[:5], test.labels[:5]), atol=1e-6)
    centers = torch.stack([latentia.sample(run, 50, label=label).mean(0) for label in ("0", 3)])
    means = torch.stack([test.x[test.labels == label].mean(0) for label in (0, 3)])
    distances = (centers[:, None] - means).square().flatten(2).sum(2)
    assert distances.argmin(1).tolist() == [0, 1]
    found = {e.name: e for e in latentia.evaluate(run, limit=20, gaps=0)}
    bound = evaluate_bound(run.model, test.x[:20], test.labels[:20], samples=50)[0]
    assert found["test/conditional_log_likelihood"].value > bound.value
    assert "test/log_likelihood" not in found
    importance = latentia.evaluate(run, likelihood="importance", limit=20, draws=500)
    value = next(e for e in importance if e.name == "test/conditional_log_likelihood").value
    assert value == pytest.approx(found["test/conditional_log_likelihood"].value, abs=0.2)
    scores = latentia.evaluate(run, metrics="kernel", n=60)
    assert scores[0].value > 0


def test_pictures_have_a_row_and_a_plane_for_each_class(runs: Path):
    plot = latentia.Run(runs / "conditional").plot
    assert {"classes", "reconstructions", *(f"decoded_plane_{label}_{label}" for label in range(10))} <= set(dir(plot))
    for name in ("classes", "reconstructions", "decoded_plane_9_9"):
        assert getattr(plot, name)().axes
    assert "classes.png" in {path.name for path in latentia.reports.save_figures(latentia.Run(runs / "gan"))}


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["sample", "plain", "--label", "3"], "conditional-vae"),
        (["sample", "conditional", "--label", "x"], "Known: 0, 1"),
        (["sample", "conditional", "--label", "10"], "class '10'"),
        (["sample", "conditional", "--sampler", "mixture"], "--label"),
    ],
)
def test_calls_with_labels_that_cannot_be_are_refused(runs: Path, words: list[str], cure: str):
    result = command(*words, cwd=runs)
    assert result.returncode == 2
    assert cure in result.stderr
    assert command("sample", "gan", "--label", "3", "-n", "4", cwd=runs).returncode == 0


def test_a_conditional_bound_is_not_compared_with_a_plain_one(runs: Path):
    table = latentia.compare([runs / "plain", runs / "conditional"], metrics="kernel", n=60)
    rows = {row.name: row.cells for row in table.rows}
    assert rows["test/elbo"][1] is None
    assert rows["test/conditional_elbo"][0] is None
    with pytest.raises(RunError, match="class-conditional"):
        latentia.Run(runs / "conditional").sampler("mixture")
