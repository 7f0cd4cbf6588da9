from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from PIL import Image, ImageChops
from torch import nn

import latentia
from latentia.data import Digits, Split
from latentia.distributions import CategoricalPosterior, CategoricalPrior, UniformSphere, VonMisesFisher
from latentia.errors import ConfigurationError, RunError
from latentia.models import VAE
from latentia.networks import MLP
from latentia.objectives import ELBO
from latentia.recipes import GANRecipe, VAERecipe, train
from latentia.reports import save_figures
from latentia.reports.gallery import GALLERIES, _one_of_each, gallery_of
from latentia.reports.style import DPI

EVERYWHERE = {"curves", "reconstructions", "samples", "encoded_test_set", "interpolations"}


def test_all_pictures_of_a_plane_are_drawn_at_print_size(plane_run, plane_pictures):
    paths = plane_pictures
    assert {path.stem for path in paths} == EVERYWHERE | {"decoded_plane"}
    assert {path.parent for path in paths} == {plane_run.directory.figures}
    for path in paths:
        with Image.open(path) as picture:
            assert picture.info["dpi"][0] == pytest.approx(200, abs=1)
            assert picture.width > 700


def test_more_dimensions_get_slices(deep_pictures):
    assert {path.stem for path in deep_pictures} == EVERYWHERE | {"latent_slices"}


@pytest.mark.parametrize("latent", [2, 3, 5])
def test_spheres_are_decoded_and_shown_by_maps_that_keep_areas(latent, tmp_path):
    recipe = VAERecipe(
        data=Digits(binarize="dynamic"),
        latent=latent,
        posterior=VonMisesFisher(),
        prior=UniformSphere(),
        network=MLP(hidden=(8,)),
        epochs=1,
    )
    names = {path.stem for path in save_figures(train(recipe, tmp_path / "run", quiet=True))}
    assert names == EVERYWHERE | ({"decoded_sphere"} if latent <= 3 else set())


@pytest.mark.parametrize(("variables", "latent"), [(1, 5), (2, 6), (12, 24)])
def test_codes_are_decoded_and_counted_by_class(variables, latent, tmp_path):
    codes: dict[str, Any] = {"posterior": CategoricalPosterior(variables=variables), "latent": latent}
    codes |= {"prior": CategoricalPrior(variables=variables), "objective": ELBO(gradient="score", samples=2)}
    run = train(VAERecipe(**codes, network=MLP(hidden=(8,)), epochs=1), tmp_path / "run", quiet=True)
    names = {path.stem for path in save_figures(run)}
    assert names == EVERYWHERE - {"interpolations"} | {"decoded_codes"}
    files = latentia.evaluate(run, limit=20).files
    assert "code_posteriors" in {path.stem for path in files}


def test_plotting_twice_gives_the_same_bytes_and_no_side_effects(deep_run, deep_pictures):
    first = {path: path.read_bytes() for path in deep_pictures}
    torch.manual_seed(123)
    generator, settings = torch.get_rng_state(), dict(matplotlib.rcParams)
    assert {path: path.read_bytes() for path in save_figures(deep_run)} == first
    assert torch.equal(generator, torch.get_rng_state())
    assert dict(matplotlib.rcParams) == settings
    assert not Gcf.figs  # pyplot knows of no figure


def test_points_are_drawn_the_same_each_time(tmp_path):
    small = {"network": MLP(hidden=(4,)), "epochs": 1, "steps_per_epoch": 2, "fresh_steps": 2}
    run = train(GANRecipe(data="ring", latent=2, **small), tmp_path / "run", quiet=True)
    first = {path: path.read_bytes() for path in save_figures(run)}
    assert {path: path.read_bytes() for path in save_figures(run)} == first


def test_figures_of_a_run_are_its_pictures(plane_run, plane_pictures):
    names = {path.stem for path in plane_pictures}
    assert set(dir(plane_run.plot)) >= names
    for path in plane_pictures:
        shown, again = getattr(plane_run.plot, path.stem)(), io.BytesIO()
        shown.savefig(again, format="png", dpi=DPI)
        with Image.open(path) as written, Image.open(again) as made:
            assert written.size == made.size
            assert ImageChops.difference(written.convert("RGB"), made.convert("RGB")).getbbox() is None
        assert shown._repr_png_().startswith(b"\x89PNG")


def test_figures_of_the_exact_likelihood_are_made_on_demand(plane_run):
    for name in ("plane_mass", "posterior_contours", "extreme_gaps", "bound_against_draws"):
        assert getattr(plane_run.plot, name)(images=12).axes
    assert not list(plane_run.directory.evaluation.glob("likelihood*"))


def test_an_unknown_figure_is_refused_with_the_list(plane_run, deep_run):
    with pytest.raises(ConfigurationError, match=r"run\.plot: .*Did you mean samples\?.*curves.*samples"):
        plane_run.plot.sample()
    with pytest.raises(ConfigurationError, match=r"latent_slices"):
        deep_run.plot.decoded_plane()
    assert not hasattr(deep_run.plot, "posterior_contours")
    assert "run.plot.latent_slices()" in repr(deep_run.plot)


def test_figures_need_a_run_that_has_ended(plane_run, copy_of):
    run = copy_of(plane_run)
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(RunError, match="latentia resume"):
        run.plot.samples()


def test_a_model_of_another_kind_gets_its_curves():
    run = SimpleNamespace(records=[{"name": "vae/rate", "epoch": 1, "value": 2.0}])
    assert [picture.name for picture in gallery_of(nn.Linear(1, 1))(run)] == ["curves"]
    assert not list(gallery_of(nn.Linear(1, 1))(SimpleNamespace(records=[])))


def test_the_first_class_a_model_belongs_to_decides():
    class Special(VAE):
        pass

    assert gallery_of(Special.__new__(Special)) is GALLERIES[VAE]


def test_a_run_that_has_not_ended_is_refused(plane_run, copy_of):
    run = copy_of(plane_run)
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"has not ended; go on with `latentia resume .*plane`"):
        save_figures(run)


def test_few_images_show_all_classes():
    labels = torch.tensor([0] * 10 + [1, 2] + [1] * 5)
    split = Split(torch.zeros(17, 1, 2, 2, dtype=torch.uint8), labels)
    assert labels[_one_of_each(split, 5)].tolist() == [0, 1, 2, 0, 1]
    assert len(_one_of_each(split, 100)) == 17
    assert _one_of_each(Split(split.x), 3).tolist() == [0, 1, 2]
