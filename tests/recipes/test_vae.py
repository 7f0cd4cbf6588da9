"""The VAE's recipe: the bounds that it reports, and the batches that its objectives need."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import latentia
from latentia.data import Digits
from latentia.distributions import (
    CategoricalPosterior,
    CategoricalPrior,
    Conditional,
    FlowPosterior,
    MixturePosterior,
    UniformSphere,
    VonMisesFisher,
)
from latentia.errors import ConfigurationError, RunError
from latentia.likelihood import importance_log_likelihood
from latentia.networks import MLP
from latentia.objectives import ELBO, IWAE, BetaTC, ExactLikelihood, Info, Objective
from latentia.recipes import (
    AdversarialAutoencoderRecipe,
    BiGANRecipe,
    ConditionalVAERecipe,
    Recipe,
    VAERecipe,
    train,
)


def trained(objective: Objective, path: Path):
    return train(
        VAERecipe(
            data=Digits(binarize="dynamic"), objective=objective, network=MLP(hidden=(32,)), epochs=2, batch_size=128
        ),
        path,
        quiet=True,
    )


def test_a_model_trained_by_iwae_reports_its_bound_and_the_elbo(tmp_path: Path):
    run = trained(IWAE(k=20), tmp_path / "run")
    found = {e.name: e for e in run.estimates}
    bound = found["test/iwae"]
    assert bound.kind == "lower bound"
    assert bound.settings["k"] == 20
    assert bound.n == len(run.splits.test)
    assert bound.value > found["test/elbo"].value
    images = run.splits.examples("test").x
    other = importance_log_likelihood(run.model, images, 20, seed=1)  # of the same K, by another implementation
    assert abs(bound.value - other.values.mean().item()) < 5 * 2**0.5 * other.settings["draws_stderr"]


def test_a_model_trained_on_a_lattice_reports_its_bound(tmp_path: Path):
    found = {e.name: e.value for e in trained(ExactLikelihood(spacing=0.3), tmp_path / "run").estimates}
    assert found["test/lattice_bound"] > found["test/elbo"]


def test_a_model_trained_by_the_elbo_reports_no_other_bound(tmp_path: Path):
    assert {e.name for e in trained(ELBO(), tmp_path / "run").estimates} == {
        "test/elbo",
        "test/rate",
        "test/distortion",
    }


@pytest.mark.parametrize("objective", [BetaTC(), Info()], ids=lambda objective: objective.type_name)
def test_a_batch_of_one_is_refused_where_the_objective_needs_two(objective: Objective):
    with pytest.raises(ConfigurationError, match="batch_size=2"):
        VAERecipe(data=Digits(binarize="dynamic"), objective=objective, batch_size=1)
    assert VAERecipe(data=Digits(binarize="dynamic"), objective=ELBO(), batch_size=1).batch_size == 1


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"latent": 10**9}, "smaller latent"),
        ({"latent": 10**18}, "smaller latent"),
        ({"network": MLP(hidden=(10**18,))}, "smaller network.hidden"),
        ({"objective": ELBO(samples=10**18)}, "smaller objective.samples"),
        ({"network": MLP(hidden=(10**7, 10**7))}, "smaller network.hidden"),
        ({"devices": 4096, "batch_size": 4096}, "devices="),
    ],
    ids=["latent", "overflowing latent", "overflowing network", "samples", "network", "devices"],
)
def test_requests_that_are_too_large_are_refused_before_training(settings: dict[str, Any], cure: str, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=cure):
        train(VAERecipe(**settings), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "environment.json").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"posterior": FlowPosterior(transforms=1, context=4, hidden=(8,)), "objective": ELBO(kl="monte-carlo")},
        {"posterior": MixturePosterior(components=2), "objective": IWAE(k=2)},
        {"posterior": VonMisesFisher(), "prior": UniformSphere(), "latent": 4},
        {
            "posterior": CategoricalPosterior(variables=2),
            "prior": CategoricalPrior(variables=2, learned=True),
            "latent": 6,
            "objective": ELBO(gradient="straight-through"),
        },
    ],
    ids=lambda settings: settings["posterior"].type_name,
)
def test_other_posteriors_resume_to_the_same_bits_and_encode(settings: dict[str, Any], tmp_path: Path, monkeypatch):
    short: dict[str, Any] = {"data": Digits(binarize="dynamic"), "network": MLP(hidden=(16,)), "batch_size": 256}
    recipe = VAERecipe(**short, epochs=2, checkpoint_every=0.5, **settings)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    calls, emit = count(), Conditional.emit

    def failing(self: Conditional, condition: Tensor) -> Tensor:
        if self.training and next(calls) == 15:
            raise MemoryError("no more")
        return emit(self, condition)

    monkeypatch.setattr(Conditional, "emit", failing)
    with pytest.raises((MemoryError, RunError)):
        train(recipe, tmp_path / "part", quiet=True)
    monkeypatch.undo()
    assert max(path.name for path in (tmp_path / "part" / "checkpoints").iterdir()) > "step-00000000"
    again = train(recipe, tmp_path / "part", quiet=True, resume=True)
    for (name, first), second in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    codes = latentia.encode(tmp_path / "whole")
    assert torch.isfinite(codes["mean"]).all()
    assert (codes["stddev"] > 0).all()


@pytest.mark.parametrize(
    ("recipe", "settings", "cure"),
    [
        (AdversarialAutoencoderRecipe, {"posterior": CategoricalPosterior(), "prior": CategoricalPrior()}, "posterior"),
        (AdversarialAutoencoderRecipe, {"posterior": MixturePosterior()}, "posterior"),
        (BiGANRecipe, {"posterior": VonMisesFisher()}, "Use diagonal"),
        (BiGANRecipe, {"posterior": CategoricalPosterior()}, "Use diagonal"),
        (
            ConditionalVAERecipe,
            {
                "posterior": CategoricalPosterior(),
                "prior": CategoricalPrior(),
                "objective": ELBO(gradient="enumerated"),
            },
            "objective.gradient: .*score",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_recipes_refuse_the_posteriors_that_they_cannot_train(
    recipe: type[Recipe], settings: dict[str, Any], cure: str
):
    with pytest.raises(ConfigurationError, match=cure):
        recipe(latent=4, **settings)  # pyright: ignore[reportCallIssue]
