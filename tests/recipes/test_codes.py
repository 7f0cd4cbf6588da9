"""The codes of a run as data: against the posteriors of the run, and a second model trained on them."""

from __future__ import annotations

import math

import pytest
import torch

import latentia
from latentia.errors import ConfigurationError
from latentia.recipes import Codes, Recipe, Run, VAERecipe, train

from ..cli.test_commands import latentia as command


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Run:
    recipe = VAERecipe.parse(
        {
            "data": {"type": "digits", "binarize": "dynamic"},
            "latent": 3,
            "epochs": 2,
            "network": {"type": "mlp", "hidden": [32]},
        }
    )
    return train(recipe, tmp_path_factory.mktemp("codes") / "first", quiet=True)


def test_means_are_those_of_the_posteriors_of_the_same_examples(first):
    splits = Codes(run=str(first.path)).load()
    for part, batch in (("validation", first.validation), ("test", first.test)):
        codes = splits.examples(part)
        with torch.no_grad():
            torch.testing.assert_close(codes.x, first.model.encode(batch.x).mean)
        assert codes.labels is not None
        assert torch.equal(codes.labels, batch.labels)
    assert splits.shape == (3,)
    assert splits.classes == first.splits.classes
    assert len(splits.train) == len(first.splits.train)


def test_training_codes_are_new_draws_of_each_posterior(first):
    splits = Codes(run=str(first.path)).load()
    x = first.splits.examples("train", 5).x
    with torch.no_grad():
        q = first.model.encode(x)
    held, draws = splits.train.take(torch.arange(5)).x, 4000
    torch.manual_seed(0)
    drawn = torch.stack([splits.prepare(held) for _ in range(draws)])
    assert bool(((drawn.mean(0) - q.mean).abs() < 5 * q.stddev / math.sqrt(draws)).all())
    assert bool(((drawn.std(0) / q.stddev - 1).abs() < 5 / math.sqrt(2 * draws)).all())
    assert torch.equal(splits.examples("train", 5).x, splits.examples("train", 5).x)


def test_every_part_can_be_draws_or_means(first):
    means = Codes(run=str(first.path), draws=()).load()
    draws = Codes(run=str(first.path), draws=("train", "test")).load()
    held = means.train.take(torch.arange(7)).x
    with torch.no_grad():
        expected = first.model.encode(first.splits.examples("train", 7).x).mean
    torch.testing.assert_close(means.prepare(held), expected)
    torch.testing.assert_close(means.examples("train", 7).x, expected)
    assert not torch.equal(draws.examples("test").x, means.examples("test").x)
    assert torch.equal(draws.examples("validation").x, means.examples("validation").x)
    again = Codes(run=str(first.path), draws=("train", "test")).load()
    assert torch.equal(draws.examples("test").x, again.examples("test").x)
    assert draws.content_hash == again.content_hash != means.content_hash


@pytest.mark.parametrize(
    ("posterior", "prior"), [("flow", "normal"), ("mixture", "normal"), ("categorical", "categorical")]
)
def test_codes_of_any_posterior_train_a_vae(tmp_path, posterior, prior):
    objective = (
        {"type": "elbo", "kl": "monte-carlo"} if prior == "normal" else {"type": "elbo", "gradient": "enumerated"}
    )
    recipe = {
        "data": {"type": "digits", "binarize": "dynamic"},
        "latent": 3,
        "epochs": 1,
        "network": {"type": "mlp", "hidden": [16]},
    }
    extra = {"posterior": posterior, "prior": prior, "objective": objective}
    train(VAERecipe.parse({**recipe, **extra}), tmp_path / "a", quiet=True)
    codes = {"type": "codes", "run": str(tmp_path / "a")}
    run = train(VAERecipe.parse({**recipe, "data": codes, "latent": 2}), tmp_path / "b", quiet=True)
    assert run.model.sample(4).shape == (4, 3)


def test_m2_on_codes_decodes_to_images(first, tmp_path):
    recipe = {"type": "m2", "data": {"type": "codes", "run": str(first.path)}, "labels": 40, "epochs": 1}
    run = train(Recipe.parse({**recipe, "network": {"type": "mlp", "hidden": [16]}}), tmp_path / "second", quiet=True)
    assert {"test/error", "test/elbo"} <= {estimate.name for estimate in run.estimates}
    reopened = latentia.load(tmp_path / "second")
    with torch.no_grad():
        assert first.model.decode(reopened.sample(5, labels=3)).mean.shape == (5, 1, 8, 8)


def test_other_weights_of_the_first_run_are_refused_by_the_second(tmp_path):
    recipe = VAERecipe.parse(
        {"data": {"type": "digits", "binarize": "dynamic"}, "epochs": 1, "network": {"type": "mlp", "hidden": [8]}}
    )
    train(recipe, tmp_path / "a", quiet=True)
    codes = {
        "data": {"type": "codes", "run": str(tmp_path / "a")},
        "epochs": 1,
        "network": {"type": "mlp", "hidden": [8]},
    }
    run = train(VAERecipe.parse(codes), tmp_path / "b", quiet=True)
    assert run.test.x.shape[1:] == (2,)
    (tmp_path / "a").rename(tmp_path / "old")
    train(recipe.model_copy(update={"seed": 1}), tmp_path / "a", quiet=True)
    with pytest.raises(latentia.errors.RunError, match="data"):
        Run(tmp_path / "b").test  # noqa: B018


@pytest.mark.parametrize(
    ("name", "value"), [("binarize", "dynamic"), ("validation", 10), ("split_seed", 1), ("missing", "keep")]
)
def test_settings_of_the_run_are_left_to_the_run(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Codes.parse({"type": "codes", "run": "runs/m1", name: value})


def test_only_finished_runs_of_a_vae_have_codes(first, tmp_path):
    with pytest.raises(ConfigurationError, match=r"data\.run"):
        Codes(run=str(tmp_path)).load()
    labeled = {"type": "conditional-vae", "data": {"type": "digits", "binarize": "dynamic"}, "epochs": 1}
    train(Recipe.parse({**labeled, "network": {"type": "mlp", "hidden": [8]}}), tmp_path / "labeled", quiet=True)
    with pytest.raises(ConfigurationError, match="label"):
        Codes(run=str(tmp_path / "labeled")).load()
    gan = Recipe.parse({"type": "gan", "data": "digits", "epochs": 1, "network": {"type": "mlp", "hidden": [8]}})
    train(gan, tmp_path / "gan", quiet=True)
    with pytest.raises(ConfigurationError, match="posterior"):
        Codes(run=str(tmp_path / "gan")).load()


def test_command_line_names_the_setting_that_cures(tmp_path):
    found = command("train", "vae", "data=codes", "data.run=none", "--out", "x", cwd=tmp_path)
    assert found.returncode != 0
    assert "data.run" in found.stderr
