from __future__ import annotations

import io

import pytest
from rich.console import Console

from latentia.configuration import apply_overrides
from latentia.data import Digits
from latentia.distributions import MixturePrior
from latentia.estimate import Estimate, exact
from latentia.networks import MLP
from latentia.objectives import ELBO, IWAE
from latentia.recipes import VAERecipe
from latentia.reports.tables import changed_settings, estimates_table, label_of, print_run
from latentia.training import Adam, Cosine

RECIPES = [
    VAERecipe(),
    VAERecipe(epochs=3, clip=1.0),
    VAERecipe(objective=IWAE(k=50), prior=MixturePrior(components=7), latent=5),
    VAERecipe(objective=ELBO(beta=4.0, warm_up=3), decoder=MLP(hidden=(8, 8))),
    VAERecipe(data=Digits(binarize="static", validation=10), optimizer=Adam(lr=1e-4, schedule=Cosine())),
]


def printed(thing, width=120):
    console = Console(width=width, record=True, file=io.StringIO())
    if callable(thing):
        thing(console)
    else:
        console.print(thing)
    return console.export_text()


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_changed_settings_rebuild_the_recipe_from_its_defaults(recipe):
    changed = changed_settings(recipe)
    assert VAERecipe.parse(apply_overrides(VAERecipe().to_mapping(), changed)) == recipe


def test_changed_settings_are_those_and_no_others():
    assert changed_settings(VAERecipe()) == {}
    recipe = VAERecipe(epochs=3, objective=IWAE(k=50), optimizer=Adam(lr=1e-4))
    assert changed_settings(recipe) == {
        "epochs": 3,
        "objective": "iwae",
        "objective.k": 50,
        "optimizer.lr": 1e-4,
    }


def test_a_table_of_estimates_shows_each_whole():
    estimates = [
        Estimate(-133.73, "log_likelihood", 0.04, 10000, method="quadrature", settings={"spacing": 0.025}),
        Estimate(-138.5, "elbo", 0.5, 10000, kind="lower bound", method="monte carlo"),
        exact(float("inf"), "kl", unit="bits"),
    ]
    text = printed(estimates_table(estimates, "figures"))
    assert "figures" in text
    for estimate in estimates:
        (line,) = [line for line in text.splitlines() if label_of(estimate.name) in line]
        assert str(estimate) in line
        assert estimate.kind in line
        assert estimate.method in line
    assert "spacing 0.025" in text


def test_what_all_estimates_share_stands_once():
    estimates = [Estimate(float(k), f"term{k}", 0.1, 77, method="monte carlo") for k in range(3)]
    text = printed(estimates_table(estimates))
    assert text.count("monte carlo") == 1
    assert text.count("77") == 1


def test_words_in_brackets_are_no_markup():
    assert "[bold]odd" in printed(estimates_table([exact(1.0, "[bold]odd")]))


def test_a_run_is_shown_with_what_was_set_first(plane_run, plane_pictures):
    text = printed(lambda console: print_run(plane_run, console), width=200)
    assert text.index("epochs: 3") < text.index("batch_size: 128")
    for estimate in plane_run.estimates:
        assert str(estimate) in text
    last = [record for record in plane_run.records if record["name"] == "validation/rate"][-1]
    assert str(Estimate(last["value"], stderr=last["stderr"], unit="1")) in text
    for path in plane_pictures:
        assert str(path) in text
