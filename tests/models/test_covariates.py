"""VAEs of continuous covariates: exact log p(x|c) against closed forms, from tables and from Python, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

import latentia
from latentia.data import InMemory, Table
from latentia.distributions import GaussianLearnedScale
from latentia.errors import ConfigurationError, DataError, RunError
from latentia.likelihood import evaluate_bound, evaluate_conditional_likelihood
from latentia.models import ConditionalVAE
from latentia.networks import MLP, Custom
from latentia.networks.conditioning import CovariateDecoder, CovariateEncoder
from latentia.recipes import ConditionalVAERecipe, GANRecipe, M2Recipe, VAERecipe

from ..cli.test_commands import latentia as command

RNG = np.random.default_rng(0)
C = np.stack([RNG.uniform(20, 80, 150), RNG.exponential(1.5, 150)], 1)
X = np.stack([0.5 * C[:, 0], 10 - 3 * C[:, 1], 0.1 * C[:, 0] * C[:, 1]], 1) + RNG.normal(size=(150, 3))
SMALL = {"batch_size": 16, "network": MLP(hidden=(8,)), "epochs": 1}


def linear(latent: int = 2, conditional_prior: bool = False) -> ConditionalVAE:
    """x = W z + V u + b + noise for the standardized covariates u: p(x|c) is Gaussian."""
    torch.manual_seed(0)
    network = MLP(hidden=())
    vae = ConditionalVAE(
        CovariateEncoder(network.encoder((3,), 5), 5, 2, 2 * latent),
        CovariateDecoder(network.decoder(latent + 2, (3,))),
        classes=0,
        covariates=("age", "dose"),
        conditional_prior=conditional_prior,
        latent=latent,
        event_shape=(3,),
        likelihood=GaussianLearnedScale(initial_scale=0.8),
    ).eval()
    vae.set_frequencies(torch.from_numpy(C).float())
    return vae


@pytest.mark.parametrize(("latent", "conditional_prior"), [(1, False), (2, False), (2, True)])
def test_exact_likelihoods_given_covariates_are_gaussian(latent, conditional_prior):
    vae = linear(latent, conditional_prior)
    if conditional_prior:
        with torch.no_grad():
            for parameter in vae.prior_module.parameters():
                parameter.normal_(std=0.5)
    x, c = torch.from_numpy(X[:7] / 10).float(), torch.from_numpy(C[:7]).float()
    c[3] = c[2]  # two examples of the same covariates
    found = evaluate_conditional_likelihood(vae, x, c, tolerance=1e-4)
    with torch.no_grad():
        u = (c.double() - torch.from_numpy(C).mean(0)) / torch.from_numpy(C).std(0, correction=0)
        layer = vae.likelihood.network.decoder[0]
        w, v, b = layer.weight[:, :latent].double(), layer.weight[:, latent:].double(), layer.bias.double()
        mean, scale = torch.zeros(7, latent).double(), torch.ones(7, latent).double()
        if conditional_prior:
            mean, log_scale = vae.prior_module.network(u.float()).double().chunk(2, 1)
            scale = log_scale.exp()
        covariance = w @ torch.diag_embed(scale**2) @ w.T + 0.64 * torch.eye(3)
        truth = MultivariateNormal(mean @ w.T + u @ v.T + b, covariance).log_prob(x.double())
    assert found.arrays["log_likelihood"] == pytest.approx(truth.numpy(), abs=2e-4)
    (mean_of_all,) = [e for e in found.estimates if e.name == "conditional_log_likelihood"]
    assert mean_of_all.value == pytest.approx(truth.mean().item(), abs=2e-4)
    assert mean_of_all.stderr == pytest.approx(truth.std().item() / 7**0.5, rel=1e-3)
    assert mean_of_all.settings["given"] == "covariates"
    bound = evaluate_bound(vae, x, c, samples=200)[0]
    assert bound.value - 5 * bound.stderr < truth.mean()
    weighted = evaluate_conditional_likelihood(vae, x, c, "importance", draws=3000)
    assert bound.value < weighted.estimates[0].value < truth.mean() + 0.05


def test_covariates_reach_the_rows_that_they_belong_to():
    vae, c = linear(conditional_prior=True), torch.from_numpy(C[:6]).float()
    z = torch.randn(4, 6, 2)
    many = vae.given(c).decode(z).mean
    for row in range(6):
        assert torch.allclose(many[:, row], vae.given(c[row]).decode(z[:, row]).mean, atol=1e-5)


def table(folder):
    file = folder / "t.csv"
    rows = "\n".join(",".join(f"{v:.4f}" for v in (*c, *x)) for c, x in zip(C, X, strict=True))
    file.write_text("age,dose,a,b,c\n" + rows + "\n")
    return file


def test_tables_are_conditioned_on_columns_that_are_not_modeled(tmp_path):
    data = Table(file=table(tmp_path), covariates=("age", "dose"))
    run = latentia.train(ConditionalVAERecipe(data=data, **SMALL), tmp_path / "run", quiet=True)
    vae, splits = run.model, run.splits
    assert [column.name for column in splits.columns] == ["a", "b", "c"]
    assert torch.allclose(vae.covariate_center, splits.train.labels.mean(0), rtol=1e-5)  # of the training part alone
    assert torch.allclose(vae.covariate_spread, splits.train.labels.std(0, correction=0), rtol=1e-5)
    ours = latentia.sample(run, 9, given={"dose": 1.5, "age": 40}, seed=3)
    assert torch.equal(ours, latentia.sample(run, 9, given="age=40,dose=1.5", seed=3))
    out = tmp_path / "s.npz"
    arguments = ["sample", f"{run.path}", "--given", "age=40,dose=1.5", "-n", "9", "--seed", "3", "--out", f"{out}"]
    command(*arguments, cwd=tmp_path)
    assert np.array_equal(np.load(out)["points"], ours.numpy())
    assert latentia.sample(run, 9).shape == (9, 3)  # with the covariates of training examples
    assert len(latentia.reconstruct(run, 5)[1]) == 5
    names = {estimate.name for estimate in run.estimates}
    assert "test/conditional_elbo" in names
    assert "test/elbo" not in names


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ("age=40", r"dose is missing; give all, as in age=.*,dose="),
        ("age=40,dos=1", "Did you mean dose"),
        ({"age": 40, "dose": float("nan")}, "dose must be a finite number"),
        ("age=40,dose=much", "dose must be a finite number"),
        ("age", "age must be a finite number"),
    ],
)
def test_samples_of_wrong_covariates_are_refused(given, cure, covariate_run):
    with pytest.raises(ConfigurationError, match=cure):
        latentia.sample(covariate_run, 2, given=given)


@pytest.fixture(scope="module")
def covariate_run(tmp_path_factory):
    data = InMemory(data=(X, dict_frame()))
    return latentia.train(ConditionalVAERecipe(data=data, **SMALL), tmp_path_factory.mktemp("run") / "r", quiet=True)


def dict_frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(C, columns=["age", "dose"])


def test_labels_and_covariates_are_not_confused(covariate_run, tmp_path):
    with pytest.raises(RunError, match="--given"):
        latentia.sample(covariate_run, 2, label=1)
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        latentia.sample(covariate_run, 2, label=1, given="age=1,dose=1")
    plain = latentia.train(VAERecipe(data=X, **SMALL), tmp_path / "plain", quiet=True)
    with pytest.raises(RunError, match="conditional-vae"):
        latentia.sample(plain, 2, given="age=1")
    with pytest.raises(ConfigurationError, match=r"exact .* or importance"):
        latentia.evaluate(covariate_run, likelihood="annealed")


@pytest.mark.parametrize("recipe", [VAERecipe, GANRecipe, M2Recipe])
def test_other_recipes_refuse_covariates(recipe, tmp_path):
    with pytest.raises(ConfigurationError, match=r"covariates \(c0, c1\).*Train conditional-vae"):
        latentia.train(recipe(data=(X, C), epochs=1, batch_size=16), tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("covariates", "cure"),
    [
        (np.where(C > 70, np.nan, C), "remove these rows"),
        (np.where(C > 70, np.inf, C), "infinite values"),
        (C[:9], "150 examples and 9 rows of covariates; give one for each"),
    ],
)
def test_covariates_that_cannot_be_given_are_refused(covariates, cure):
    with pytest.raises((ConfigurationError, DataError), match=cure):
        InMemory(data=(X, covariates))


class Beside(torch.nn.Module):
    """A user's network of x or z next to two covariates."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(inputs + 2, outputs)

    def forward(self, x, covariates):
        return self.layer(torch.cat([x, covariates], 1))


def test_modules_of_users_take_standardized_covariates(tmp_path):
    network = Custom(encoder=Beside(3, 4), decoder=Beside(2, 3))
    recipe = ConditionalVAERecipe(data=(X, C), latent=2, **{**SMALL, "network": network})
    run = latentia.train(recipe, tmp_path / "run", quiet=True)
    loaded = latentia.load(tmp_path / "run", network=Custom(encoder=Beside(3, 4), decoder=Beside(2, 3)))
    x, c = run.test.x[:4].float(), run.test.labels[:4]
    assert torch.equal(loaded.encode(x, c).mean, run.model.encode(x, c).mean)
    train_c, train_x = run.splits.train.labels.double(), run.splits.train.x.double()
    u = ((c - train_c.mean(0)) / train_c.std(0, correction=0)).float()
    z = torch.randn(4, 2)
    with torch.no_grad():
        mean = network.decoder_module(z, u) * train_x.std(0, correction=0) + train_x.mean(0)
    assert torch.allclose(loaded.decode(z, c).mean.double(), mean, rtol=1e-4)


@pytest.mark.parametrize(
    ("encoder", "cure"),
    [(torch.nn.Linear(3, 4), r"its forward must take \(x, covariates\)"), (Beside(3, 7), "Change its last layer")],
)
def test_modules_that_do_not_take_covariates_are_refused(encoder, cure, tmp_path):
    network = Custom(encoder=encoder, decoder=Beside(2, 3))
    recipe = ConditionalVAERecipe(data=(X, C), latent=2, **{**SMALL, "network": network})
    with pytest.raises(ConfigurationError, match=cure):
        latentia.train(recipe, tmp_path / "run", quiet=True)


def test_two_processes_share_the_batches_of_one_with_their_covariates():
    splits = InMemory(data=(C, C.astype(np.float32) * 2)).load()
    whole = splits.batches(16, 0).batch(3)
    parts = [splits.batches(16, 0, rank, 2).batch(3) for rank in range(2)]
    assert torch.equal(torch.cat([part.x for part in parts]).sort(0).values, whole.x.sort(0).values)
    for part in parts:
        assert torch.allclose(part.labels, 2 * part.x.float(), rtol=1e-6)


@pytest.mark.slow
def test_a_compiled_step_with_covariates_is_the_plain_one(tmp_path):
    runs = []
    for compiled in (False, True):
        recipe = ConditionalVAERecipe(data=(X, C), conditional_prior=True, compile=compiled, **SMALL)
        runs.append(latentia.train(recipe, tmp_path / str(compiled), quiet=True))
    plain, compiled = (run.model.state_dict() for run in runs)
    assert all(torch.allclose(plain[name], compiled[name], rtol=1e-3, atol=1e-5) for name in plain)


def test_constant_covariates_are_refused(tmp_path):
    given = C * [1, 0] + [0, 7]
    with pytest.raises(DataError, match="c1 is the same for all training examples; leave it out"):
        latentia.train(ConditionalVAERecipe(data=(X, given), **SMALL), tmp_path / "run", quiet=True)


def test_signals_of_covariates_are_resumed_and_drawn(tmp_path):
    x = np.sin(np.linspace(0, 6, 20) * (1 + C[:, 1:2]))[:, None].astype(np.float32)
    recipe = ConditionalVAERecipe(data=(x, C), conditional_prior=True, **SMALL)
    run = latentia.train(recipe, tmp_path / "run", quiet=True)
    from latentia.reports import save_figures

    names = {path.stem for path in save_figures(run)}
    assert {"samples", "reconstructions", "given_c0", "given_c1"} <= names
    again = latentia.Run(tmp_path / "run", data=(x, C))
    assert torch.equal(again.splits.test.labels, run.splits.test.labels)
    with pytest.raises(ConfigurationError, match="sha256 differ"):
        latentia.Run(tmp_path / "run", data=(x, C + 1))
