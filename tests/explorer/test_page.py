"""What the page holds and what it refuses; its behavior in a browser is tested in test_browser.py."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import latentia
from latentia.data import Digits
from latentia.errors import ConfigurationError, RunError
from latentia.explorer.build import MATHEMATICS, VIEWS, write_explorer
from latentia.explorer.theory import saved_statements
from latentia.networks import Custom
from latentia.objectives import ELBO
from latentia.recipes import VAERecipe, train
from latentia.theory import statements
from tests.explorer.conftest import PAGE, array_of, content_of


class Odd(nn.Module):
    """A module that the page cannot compute."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 64)

    def forward(self, z):
        return torch.sin(self.inner(z)).reshape(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    recipe = VAERecipe(data=Digits(binarize="dynamic"), network=Custom(encoder=encoder, decoder=Odd()), epochs=1)
    return train(recipe, tmp_path_factory.mktemp("odd") / "odd", quiet=True)


def test_the_page_allows_no_request_and_escapes_names(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert "<script>alert" not in text
    assert content_of(page)["scenes"][0]["name"] == "<script>alert(1)<"
    assert len(text.encode()) < 4_000_000


def test_a_view_holds_the_test_images_and_their_codes(page, vae_run):
    scene = content_of(page)["scenes"][0]
    rows = scene["images"]["rows"]
    x = vae_run.test.x
    np.testing.assert_array_equal(array_of(page, scene["images"]["pixels"]), x[rows])
    mean = scene["codes"]["mean"]
    with torch.no_grad():
        expected = vae_run.model.encode(x).mean
    found = np.frombuffer(array_of(page, {**mean, "encoding": "<u2"}).tobytes(), "<u2").reshape(mean["shape"])
    np.testing.assert_allclose(found * mean["step"] + mean["low"], expected, atol=mean["step"])
    assert 0 <= scene["rounding"]["mean"] <= scene["rounding"]["largest"] < 0.05
    assert len(set(array_of(page, scene["images"]["labels"])[:10].tolist())) == 10


def test_frames_of_a_toy_gan_hold_d_and_the_density(page, toy_run):
    scene = content_of(page)["scenes"][1]
    assert [frame["epoch"] for frame in scene["frames"]] == [1, 2, 2]
    assert {frame["density"] for frame in scene["frames"]} == {"exact"}
    (low_x, high_x), (low_y, high_y) = scene["box"]
    columns, rows = scene["side"]
    area = (high_x - low_x) * (high_y - low_y) / columns / rows
    assert np.exp(array_of(page, scene["log_p"]).astype(float)).sum() * area == pytest.approx(1, abs=0.02)
    last = scene["frames"][-1]
    x = torch.tensor([[low_x + (31 + 0.5) / columns * (high_x - low_x), low_y + (7 + 0.5) / rows * (high_y - low_y)]])
    with torch.no_grad():
        expected = toy_run.model.discriminate(x.float()).item()
    logits = array_of(page, last["logits"]).reshape(rows, columns)
    assert logits[7, 31] == pytest.approx(expected, abs=5e-3)


def test_histograms_of_a_generator_integrate_to_its_mass_inside(gan_run):
    from latentia.models import GAN
    from latentia.recipes.gan_diagnostics import log_density_on_grid

    gan = GAN(nn.Linear(2, 2), nn.Linear(2, 1), latent=2, shape=(2,))
    with torch.no_grad():
        gan.generator.weight.copy_(torch.eye(2))
        gan.generator.bias.zero_()
    line = torch.linspace(-4, 4, 41)
    torch.manual_seed(0)
    log_q, kind = log_density_on_grid(gan, line, line)
    assert kind == "estimate"
    assert log_q.exp().sum().item() * 0.2**2 == pytest.approx(1, abs=1e-3)
    center = log_q[20, 20].exp().item()  # the standard normal density, 1/2π, up to counting noise and the cell's mean
    assert center == pytest.approx(1 / (2 * np.pi), rel=5 / np.sqrt(200_000 * 0.04 / (2 * np.pi)) + 0.01)


def test_a_network_that_cannot_be_exported_becomes_an_atlas(odd_run, tmp_path):
    written = write_explorer([odd_run], tmp_path / "page.html")
    scene = content_of(written.path)["scenes"][0]
    assert scene["model"]["decoder"] is None
    assert scene["model"]["encoder"] is not None
    assert any("Odd" in note for note in written.notes)
    atlas = array_of(written.path, scene["atlas"]["pixels"]).reshape(28, 28, 1, 8, 8)
    low, high = scene["atlas"]["low"], scene["atlas"]["high"]
    z = torch.tensor([[low + 5 / 27 * (high - low), low + 20 / 27 * (high - low)]])
    with torch.no_grad():
        expected = odd_run.model.decode(z).mean
    np.testing.assert_allclose(atlas[20, 5] / 255, expected[0], atol=0.003)


def test_a_likelihood_or_prior_that_is_left_out_is_named(tmp_path):
    recipe = VAERecipe(
        data=Digits(),
        likelihood="gaussian-per-pixel",
        prior="flow",
        objective=ELBO(kl="monte-carlo"),
        network="mlp",
        epochs=1,
        latent=3,
        batch_size=256,
    )
    run = train(recipe, tmp_path / "run", quiet=True)
    written = run.explore()
    assert written.path == tmp_path / "run/explorer.html"
    assert any("GaussianPerPixel" in note for note in written.notes)
    assert any("FlowDistribution" in note for note in written.notes)
    scene = content_of(written.path)["scenes"][0]
    assert scene["atlas"]
    assert scene["model"]["prior"] is None


def test_bad_calls_name_the_cure(vae_run, tmp_path):
    with pytest.raises(ConfigurationError, match="--max-bytes"):
        latentia.explore(vae_run, tmp_path / "page.html", max_bytes=10_000)
    with pytest.raises(ConfigurationError, match="--weights"):
        latentia.explore(vae_run, tmp_path / "page.html", weights="float64")
    with pytest.raises(RunError, match="at least one run"):
        latentia.explore([], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_models_that_cannot_be_shown_are_refused(tmp_path):
    from latentia.recipes import GANRecipe

    line = train(
        GANRecipe(data="mixture1d", epochs=1, steps_per_epoch=2, fresh_steps=0, network="mlp"),
        tmp_path / "line",
        quiet=True,
    )
    with pytest.raises(RunError, match="latentia report"):
        latentia.explore(line)


def test_a_run_that_cannot_be_shown_is_a_line_among_others(vae_run, tmp_path):
    table = train(VAERecipe(data="wine", likelihood="gaussian-per-column", epochs=1), tmp_path / "table", quiet=True)
    written = latentia.explore([vae_run, table], tmp_path / "page.html")
    scene = content_of(written.path)["scenes"][1]
    assert scene["kind"] == "none"
    assert "latentia report" in scene["notes"][0]
    with pytest.raises(RunError, match="latentia report"):
        latentia.explore([table, table], tmp_path / "page.html")


def test_int8_weights_are_smaller_and_their_error_is_stated(vae_run, tmp_path):
    pages = [latentia.explore(vae_run, tmp_path / f"{kind}.html", weights=kind).path for kind in ("float16", "int8")]
    first, second = (content_of(path)["scenes"][0]["rounding"]["mean"] for path in pages)
    assert pages[1].stat().st_size < pages[0].stat().st_size
    assert first < second


def test_a_notebook_shows_the_page_in_a_frame(vae_run, tmp_path):
    html = latentia.explore(vae_run, tmp_path / "page.html")._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in html


def test_the_saved_statements_are_those_of_the_theory():
    """If this fails: python -m latentia.explorer.theory"""
    saved = {each["item"]: each for chapter in saved_statements()["chapters"] for each in chapter["statements"]}
    assert {item: each["latex"] for item, each in saved.items()} == {s.item: s.latex for s in statements()}
    assert all(each["holds"] for each in saved.values())
    assert {item for item, each in saved.items() if each["erratum"]} == {s.item for s in statements() if s.erratum}


@pytest.mark.parametrize("group", [MATHEMATICS, (*MATHEMATICS, *VIEWS)])
def test_scripts_share_one_scope_without_declaring_a_name_twice(group):
    """The page joins its modules to one script, where a second function of one name would replace the first."""
    if group == (*MATHEMATICS, *VIEWS):
        group = VIEWS  # they are inside of a function, and may hide names of the mathematics
    names = []
    for module in group:
        source = (PAGE / f"{module}.mjs").read_text(encoding="utf-8")
        names += re.findall(r"^(?:export )?(?:async )?(?:function\*?|const|let|class) (\w+)", source, re.MULTILINE)
    assert len(names) == len(set(names))
