from __future__ import annotations

import csv
import html
import io
import math
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from latentia.configuration import apply_overrides
from latentia.data import Digits
from latentia.distributions import MixturePrior
from latentia.estimate import Estimate, exact
from latentia.metrics import Metric
from latentia.networks import MLP
from latentia.objectives import ELBO, IWAE
from latentia.recipes import VAERecipe
from latentia.reports.comparison import Comparison, Row
from latentia.reports.tables import (
    Column,
    Table,
    changed_settings,
    estimates_table,
    print_run,
    scores_table,
    verdict_lines,
)
from latentia.reports.words import ASPECTS, group_of, label_of, seconds_text, value_text
from latentia.theory import Relation, Statement, Verdict
from latentia.training import Adam, Cosine

WIDTHS = (80, 100, 140)

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


def test_changed_settings_are_only_those():
    assert changed_settings(VAERecipe()) == {}
    recipe = VAERecipe(epochs=3, objective=IWAE(k=50), optimizer=Adam(lr=1e-4))
    assert changed_settings(recipe) == {
        "epochs": 3,
        "objective": "iwae",
        "objective.k": 50,
        "optimizer.lr": 1e-4,
    }


def test_a_table_shows_every_estimate_in_full():
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


def test_what_all_estimates_share_is_a_note():
    estimates = [Estimate(float(k), f"term{k}", 0.1, 77, method="monte carlo") for k in range(3)]
    text = printed(estimates_table(estimates))
    assert text.count("monte carlo") == 1
    assert text.count("77") == 1


MARKUP = ["[bold]odd", "a[/b]", "[/]", "vae[lr=0.1]", "$\\foo$", "<script>", "=1+1", "数字", "x" * 150]


@pytest.mark.parametrize("name", MARKUP)
@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_never_markup(name, width):
    text = printed(estimates_table([exact(1.0, name), exact(2.0, "kl")], title=name), width)
    assert name in "".join(text.replace("\n  ", "").split("\n"))
    table = estimates_table([exact(1.0, name)])
    assert html.escape(name) in table._repr_html_()
    assert list(csv.reader(io.StringIO(table.to_format("csv"))))[1][0].lstrip("'") == name
    assert not list(csv.reader(io.StringIO(table.to_format("csv"))))[1][0].startswith("=")


def protocol(n=500):
    return {"n_real": n, "n_fake": n, "split": "test", "size": "1×28×28", "quantization": "8 bits", "seed": 0,
            "features": {"type": "classifier"}, "features_hash": "0123456789", "resize": "none"}  # fmt: skip


def scores(n=500):
    names = [score for metric in Metric.members().values() for score in metric.higher_is_better]
    names += ["kernel_distance/random-convolutional", "memorization/authenticity"]
    return [
        Estimate(1.0 + i, f"{name}{end}", 0.01, n, "1", settings={"protocol": protocol(n), "bias": -0.01})
        for i, name in enumerate(names)
        for end in ("", "/real_vs_real", "/train_vs_test")
    ]


LONG = [
    Estimate(-133.73, "test/log_likelihood", 0.44, 10000, kind="numerical", method="quadrature",
             settings={"error": 0.00017, "worst_error": 0.0091, "grid": [0.1, 0.2], "images_per_second": 645.2}),
    Estimate(-139.25, "test/elbo", 0.5, 10000, kind="lower bound", method="importance sampling"),
    Estimate(0.0117, "test/game/jensen_shannon_bound", 0.0019, 2000, kind="lower bound", method="fresh discriminator"),
]  # fmt: skip
MODELS = tuple(f"vae-mnist-{name}" for name in ("dynamic", "static", "wide[lr=0.1]", "iwae-50-and-a-much-longer-name"))


def comparison():
    cells = [Estimate(-130.0 - i, "test/elbo", 0.4, 10000, kind="lower bound") for i in range(4)]
    rows = [
        Row("test/elbo", tuple(cells), 0),
        Row("precision", tuple(replace(cell, value=0.5, unit="1", kind="estimate") for cell in cells), None,
            {"real_vs_real": exact(0.9, unit="1")}),
        Row("test/log_likelihood", (cells[0], replace(cells[1], n=2000), None, None)),
        Row("parameters", tuple(exact(float(10**i), unit="1") for i in range(4, 8))),
    ]  # fmt: skip
    return Comparison(MODELS, ((0,), (0,), (0, 1, 2), (0,)), tuple(rows), "500 gray real images (test)")


TABLES = {
    "estimates": lambda: estimates_table(LONG, "runs/mnist: 10000 test images, exact"),
    "scores": lambda: scores_table(scores(), "runs/mnist: samples"),
    "comparison": lambda: comparison().table(),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", WIDTHS)
def test_tables_fit_the_terminal_and_keep_words_and_numbers_whole(name, width):
    table = TABLES[name]()
    lines = printed(table, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= 3 * len(table.rows) * (2 if width == 80 else 1) + 20
    for row in table.rows:
        words = re.findall(r"[\w↑↓.±−≥∞]+", " ".join(row[1:]))
        assert all(any(word in line for line in lines) for word in words)
        assert any(line.startswith(row[0].split()[0]) for line in lines)
    assert not any("\u2026" in line for line in lines), "nothing is cut"


@pytest.mark.parametrize("width", [1, 7, 20, 33])
def test_a_narrow_terminal_gets_lines_of_twenty_cells(width):
    for name in TABLES:
        lines = [line.plain for line in TABLES[name]().lines(width)]
        assert max(cell_len(line) for line in lines) <= 60
        assert any("test" in line for line in lines)


def test_a_comparison_says_where_n_differs():
    text = printed(comparison().table(), 100)
    assert "log p(x), test, nats: n is 2000, 10,000" in text
    assert "precision ↑" in text
    assert "real images" in text


LABELS = {
    "test/elbo": "ELBO, test",
    "vae/rate": "rate, KL(q(z|x), p(z)), vae",
    "validation/reconstruction_error": "reconstruction error, validation",
    "kernel_distance/random-convolutional": "kernel distance (random convolutional features)",
    "memorization/authenticity": "memorization: authenticity",
    "test/game/jensen_shannon_bound": "JSD, lower bound, test",
    "test/fresh/jsd_bound": "fresh discriminator: JSD, lower bound, test",
    "modes/perfect/reverse_kl": "modes: reverse KL by a perfect model",
    "discriminator/cost": "cost, discriminator",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", LABELS)
def test_estimates_have_names_in_words(name):
    assert label_of(name) == LABELS[name]


VALUES = {
    "p-value": (Estimate(0.144473, "two_sample/p_value/real_vs_real", unit="1"), "0.14"),
    "tiny p-value": (Estimate(1.1e-53, "two_sample/p_value", unit="1"), "< 0.0001"),
    "count": (exact(1333010.0, "parameters", unit="1"), "1,333,010"),
    "small count": (exact(9999.0, "parameters", unit="1"), "9999"),
    "share without error": (Estimate(0.0502793, "classes/kl_perfect"), "0.05028 nats"),
    "exact": (exact(0.693147, "kl"), "0.693147 nats"),
    "infinite": (exact(math.inf, "kl"), "+∞ nats"),
    "bound": (Estimate(-131.0, "elbo", 0.25, kind="lower bound"), "≥ −131.00 ± 0.25 nats"),
    "time": (Estimate(225.7, "time_to_train", unit="s"), "3 min 46 s"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_have_the_digits_of_prose(case):
    estimate, text = VALUES[case]
    assert value_text(estimate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.301, "0.3 s"), (9.97, "10 s"), (59.6, "1 min 0 s"), (3599.7, "1 h 0 min"), (3725, "1 h 2 min")],
)
def test_times_are_written_in_their_largest_units(seconds, text):
    assert seconds_text(seconds) == text


def test_every_score_stands_in_a_group_and_groups_follow_one_order():
    for metric in Metric.members().values():
        if metric.__module__.startswith("latentia."):
            assert {group_of(name) for name in metric.higher_is_better} <= set(ASPECTS) - {"", "likelihood", "cost"}
    assert group_of("test/elbo") == "likelihood"
    assert group_of("time_to_train") == "cost"
    lines = [line.strip() for line in printed(scores_table(scores()), 80).splitlines()]
    shown = [lines.index(aspect) for aspect in ASPECTS if aspect in lines]
    assert len(shown) == 4
    assert shown == sorted(shown)


def test_a_second_block_leaves_out_rows_without_a_value():
    columns = [Column("quantity"), *(Column(name, right=True) for name in ("own", "real images"))]
    rows = [["precision", "0.5" + "0" * 40, "0.9" + "0" * 40], ["parameters", "7", ""]]
    lines = printed(Table(columns, rows, groups=["fidelity", "cost"]), 80).splitlines()
    starts = [line.split()[0] for line in lines if line and not line.startswith("─")]
    assert starts == ["quantity", "fidelity", "precision", "cost", "parameters", "quantity", "fidelity", "precision"]


@pytest.mark.parametrize("style", ["markdown", "latex"])
def test_tables_for_papers_have_every_row(style):
    text = comparison().table().to_format(style)
    assert len(re.findall(r"^\|" if style == "markdown" else r"\\\\$", text, flags=re.MULTILINE)) >= 5
    assert ("**≥ −130" in text) if style == "markdown" else (r"\textbf{" in text)
    if style == "latex":
        assert not re.search(r"(?<!\\)[&_#%](?! )(?<!& )", text.split(r"\hline")[1].replace(" & ", ""))


@pytest.mark.parametrize("width", WIDTHS)
def test_verdicts_fit_the_terminal(width):
    words = "The divergence of a distribution from itself is zero, however long the statement's sentence becomes."
    relations = [
        Relation(exact(-24.98, "log p(x)"), ">=", exact(-27.34, "bound"), note="image 0"),
        Relation(exact(math.inf, "kl"), "==", exact(math.inf)),
        Relation(exact(0.5, "wasserstein-1", unit="1"), "==", exact(0.5, unit="1")),
    ]
    statement = Statement("3e.sliding", words, "", "", lambda _: iter(()))
    lines = [line.plain for line in verdict_lines(Verdict(statement, relations, [], 0.1), width)]
    assert max(map(cell_len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert text.startswith("✓ 3e.sliding")
    assert words in text
    assert "log p(x) ≥ bound: −24.98 nats ≥ −27.34 nats: greater by 2.36" in text
    assert "KL: +∞ nats = +∞ nats: equal" in text
    assert "W₁: 0.5 = 0.5: equal" in text
    failing = Verdict(statement, [Relation(exact(1.0), "==", exact(2.0))], [], 0.1)
    assert "✗ FAILS 3e.sliding" in " ".join(line.plain for line in verdict_lines(failing, width))


def test_a_run_is_shown_with_what_was_set_first(plane_run, plane_pictures):
    text = printed(lambda console: print_run(plane_run, console), width=200)
    assert text.index("epochs: 3") < text.index("batch_size: 128")
    for estimate in plane_run.estimates:
        assert str(estimate) in text
    last = [record for record in plane_run.records if record["name"] == "validation/rate"][-1]
    assert str(Estimate(last["value"], stderr=last["stderr"], unit="1")) in text
    for path in plane_pictures:
        assert str(path) in text
