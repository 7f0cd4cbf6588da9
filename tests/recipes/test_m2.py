"""The semi-supervised model M2: its bounds against sums over a grid, which labels it uses, and refusals."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import latentia
from latentia.data import Digits, Split, Splits
from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.models import M2
from latentia.networks import MLP, Conv
from latentia.objectives import IWAE, m2_terms
from latentia.recipes import M2Recipe, train

from ..cli.test_commands import latentia as command

SHAPE, CLASSES = (1, 3, 3), 3


def model(latent: int = 1) -> M2:
    torch.manual_seed(0)
    network = MLP(hidden=(16,), activation="tanh")
    return M2(
        classifier=network.encoder(SHAPE, CLASSES),
        encoder=network.encoder(SHAPE, 2 * latent, CLASSES),
        decoder=network.decoder(latent, SHAPE, CLASSES),
        classes=CLASSES,
        latent=latent,
        event_shape=SHAPE,
    ).eval()


def images(count: int) -> Tensor:
    torch.manual_seed(1)
    return torch.bernoulli(torch.full((count, *SHAPE), 0.4))


def on_grid(m2: M2, x: Tensor) -> tuple[Tensor, Tensor]:
    """−L(x, y) and log p(x, y) for every label, (K, B), by sums over z with the networks and densities written out."""
    z = torch.linspace(-9, 9, 3601, dtype=torch.float64)[:, None]
    width = math.log(z[1] - z[0])
    bounds, exact = [], []
    with torch.no_grad():
        for label in range(CLASSES):
            logits = m2.likelihood.network(z.float(), torch.full((len(z),), label)).flatten(1).double()
            log_likelihood = x.flatten(1).double() @ logits.T - softplus(logits).sum(1)  # (B, G)
            log_prior = -0.5 * z.squeeze(1).square() - 0.5 * math.log(2 * math.pi)
            mean, log_scale = m2.posterior.network(x, torch.full((len(x),), label)).double().chunk(2, 1)
            log_q = -0.5 * ((z.T - mean) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)
            q = (log_q + width).exp()
            bounds.append((q * (log_likelihood + log_prior - log_q)).sum(1) - math.log(CLASSES))
            exact.append((log_likelihood + log_prior + width).logsumexp(1) - math.log(CLASSES))
    return torch.stack(bounds), torch.stack(exact)


def test_bounds_are_those_of_the_paper():
    m2, x = model(), images(4)
    bounds, exact = on_grid(m2, x)
    draws = 4000
    with torch.no_grad():
        torch.manual_seed(2)
        many = m2.joint_bounds(x.repeat_interleave(draws, 0)).reshape(CLASSES, 4, draws).double()
        error = many.std(2) / math.sqrt(draws)
        assert bool(((many.mean(2) - bounds).abs() < 5 * error + 1e-6).all())
        log_q = m2.classifier(x).log_softmax(1).T.double()
        marginal = m2.marginal_bound(x.repeat_interleave(draws, 0)).reshape(4, draws).double()
        expected = (log_q.exp() * (bounds - log_q)).sum(0)
        assert bool(((marginal.mean(1) - expected).abs() < 5 * marginal.std(1) / math.sqrt(draws) + 1e-6).all())
        labels = torch.tensor([0, 1, 2, 1])
        one = m2.joint_bound(x.repeat_interleave(draws, 0), labels.repeat_interleave(draws)).reshape(4, draws).double()
        own = bounds[labels, torch.arange(4)]
        assert bool(((one.mean(1) - own).abs() < 5 * one.std(1) / math.sqrt(draws) + 1e-6).all())
    assert bool((bounds < exact).all())
    assert bool((expected < exact.logsumexp(0)).all())


class Concatenating(nn.Module):
    """An encoder that the fast path does not know."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64 + 10, 4)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.linear(torch.cat([x.flatten(1), nn.functional.one_hot(labels, 10).to(x)], 1))


@pytest.mark.parametrize("encoder", ["mlp", "conv", "custom"])
def test_codes_for_each_label_are_those_of_the_labels(encoder: str):
    torch.manual_seed(0)
    network = {"mlp": MLP(hidden=(8,)), "conv": Conv(), "custom": MLP(hidden=(8,))}[encoder]
    m2 = M2(
        classifier=network.encoder((1, 8, 8), 10),
        encoder=Concatenating() if encoder == "custom" else network.encoder((1, 8, 8), 4, 10),
        decoder=network.decoder(2, (1, 8, 8), 10),
        classes=10,
        latent=2,
        event_shape=(1, 8, 8),
    ).eval()
    x = torch.rand(5, 1, 8, 8)
    q = m2.encode_each(x)
    assert q.batch_shape == (10, 5)
    for label in range(10):
        own = m2.given(label).encode(x)
        assert torch.allclose(q.mean[label], own.mean, atol=1e-5)
        assert torch.allclose(q.stddev[label], own.stddev, atol=1e-5)


def test_terms_have_the_means_and_standard_errors_of_their_parts():
    m2, x = model(2), images(30)
    labels = torch.cat([torch.full((20,), -1), torch.arange(10) % CLASSES])
    torch.manual_seed(3)
    terms = m2_terms(m2, x, labels, alpha=7.0, labeled_share=0.25)
    torch.manual_seed(3)
    bound, joint = m2.marginal_bound(x[:20]), m2.joint_bound(x[20:], labels[20:])
    entropy = torch.nn.functional.cross_entropy(m2.classifier(x[20:]), labels[20:], reduction="none")
    cost = -bound.mean() - 0.25 * joint.mean() + 7 * entropy.mean()
    assert terms["cost"].mean().item() == pytest.approx(cost.item(), rel=1e-5)
    for name, values in (("bound", bound), ("cross_entropy", entropy)):
        own = Estimate.mean(values)
        whole = Estimate.mean(terms[name])
        assert whole.value == pytest.approx(own.value, rel=1e-5)
        assert whole.stderr == pytest.approx(own.stderr, rel=0.05)  # n − 1 of another n
    gradients = [torch.autograd.grad(each, m2.parameters()) for each in (terms["cost"].mean(), cost)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


SMALL: dict[str, Any] = {
    "data": Digits(binarize="dynamic"),
    "network": MLP(hidden=(64,)),
    "latent": 5,
    "batch_size": 64,
    "labels": 50,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    return train(M2Recipe(epochs=6, **SMALL), tmp_path_factory.mktemp("m2") / "run", quiet=True)


def splits() -> Splits:
    return Digits(binarize="dynamic").load()


def test_labels_are_balanced_and_follow_the_seed():
    recipe = M2Recipe(**SMALL)
    kept = recipe.labeled_examples(splits(), 10)
    assert kept.labels is not None
    assert kept.labels.bincount().tolist() == [5] * 10
    again = recipe.labeled_examples(splits(), 10)
    assert torch.equal(kept.x, again.x)
    other = M2Recipe(**{**SMALL, "seed": 1}).labeled_examples(splits(), 10)
    assert not torch.equal(kept.x, other.x)
    uneven = M2Recipe(**{**SMALL, "labels": 14}).labeled_examples(splits(), 10)
    assert uneven.labels is not None
    assert sorted(uneven.labels.bincount().tolist()) == [1] * 6 + [2] * 4
    assert len(M2Recipe(**{**SMALL, "labels": None}).labeled_examples(splits(), 10)) == len(splits().train)


def test_no_other_label_reaches_the_weights(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = M2Recipe(**SMALL).labeled_examples(splits(), 10)
    load = Digits.load

    def shuffled(self: Digits) -> Splits:
        found = load(self)
        labels = torch.randint(10, (len(found.train),), generator=torch.Generator().manual_seed(0))
        known = (found.train.x[:, None].flatten(2) == kept.x[None].flatten(2)).all(2).any(1)
        assert int(known.sum()) == 50
        return replace(found, train=Split(found.train.x, torch.where(known, found.train.labels, labels)))

    monkeypatch.setattr(Digits, "load", shuffled)
    monkeypatch.setattr(M2Recipe, "labeled_examples", lambda *_: kept)
    other = train(M2Recipe(epochs=6, **SMALL), tmp_path / "run", quiet=True)
    one, two = run.directory.weights(), other.directory.weights()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_resumes_to_the_same_bits(run: Any, tmp_path: Path):
    shutil.copytree(run.path, tmp_path / "cut")
    (tmp_path / "cut" / "weights.safetensors").unlink()
    shutil.rmtree(max((tmp_path / "cut" / "checkpoints").iterdir()))
    resumed = latentia.resume(tmp_path / "cut", quiet=True)
    one, two = run.directory.weights(), resumed.directory.weights()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_error_is_a_share_with_its_binomial_standard_error(run: Any):
    found = {estimate.name: estimate for estimate in run.estimates}
    error, test = found["test/error"], run.test
    wrong = (run.model.classify(test.x) != test.labels).double().mean().item()
    assert error.value == pytest.approx(wrong)
    assert error.stderr == pytest.approx(math.sqrt(wrong * (1 - wrong) / (len(test.x) - 1)), rel=1e-3)
    assert wrong < 0.5
    assert found["test/elbo"].kind == "lower bound"
    assert {"validation/cost", "validation/error", "m2/cross_entropy"} <= set(run.history)


def test_a_run_has_the_commands_and_pictures_of_a_conditional_vae(run: Any):
    names = {path.name for path in latentia.reports.save_figures(run)}
    assert {"classes.png", "reconstructions.png", "encoded_test_set.png"} <= names
    assert command("sample", str(run.path), "--label", "7", "-n", "4", cwd=run.path).returncode == 0
    assert latentia.encode(run)["mean"].shape == (len(run.test.x), 5)


def with_labels(change: Any) -> Splits:
    found = splits()
    labels = found.train.labels
    assert labels is not None
    return replace(found, train=Split(found.train.x, change(labels.clone())))


def missing_but(count: int) -> Any:
    def change(labels: Tensor) -> Tensor:
        labels[count:] = -1
        return labels

    return change


@pytest.mark.parametrize(
    ("labels", "change", "cure"),
    [
        (5, lambda y: y, "labels=10"),
        (10_000, lambda y: y, "labels=1294"),
        (50, missing_but(40), "labels=40 or fewer"),
        (20, lambda y: torch.where(y == 3, -1, y), "label each class"),
        (50, lambda y: y + 1, "from 0 to 9"),
        (50, lambda y: y - 2, "−1 where they are missing"),
        (50, lambda _: None, "does not hold labels"),
    ],
)
def test_labels_that_do_not_suffice_are_refused(labels: int, change: Any, cure: str):
    with pytest.raises((ConfigurationError, DataError), match=cure):
        M2Recipe(**{**SMALL, "labels": labels}).labeled_examples(with_labels(change), 10)


def test_missing_labels_are_left_out():
    kept = M2Recipe(**{**SMALL, "labels": None}).labeled_examples(with_labels(missing_but(400)), 10)
    assert len(kept) == 400
    assert kept.labels is not None
    assert int(kept.labels.min()) == 0


@pytest.mark.parametrize(
    ("settings", "cure"),
    [({"objective": IWAE()}, "Leave objective out"), ({"conditional_prior": True}, "conditional_prior=false")],
)
def test_settings_that_do_not_suit_are_refused(settings: dict, cure: str):
    with pytest.raises(ConfigurationError, match=cure):
        M2Recipe(**settings)
