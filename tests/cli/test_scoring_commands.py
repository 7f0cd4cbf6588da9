"""`latentia score` and `latentia compare`, as a user types them."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from latentia.cli import scoring
from latentia.data import Digits
from latentia.errors import ConfigurationError, DataError, LatentiaError, RunError
from latentia.networks import MLP
from latentia.recipes import VAERecipe, train

APP = typer.Typer()
scoring.add_to(APP)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTIA_CACHE", str(tmp_path / "cache"))


def latentia(*arguments: str) -> str:
    result = CliRunner().invoke(APP, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and isinstance(result.exception, LatentiaError):
        raise result.exception
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of PNGs and archives of the same digits, and the digits."""
    folder = tmp_path_factory.mktemp("scores")
    digits = Digits().load().train.images[:200]
    (folder / "pictures").mkdir()
    for number, image in enumerate(digits[:100, 0]):
        Image.fromarray(image.numpy()).save(folder / "pictures" / f"{number:03}.png")
    np.savez(folder / "bytes.npz", images=digits[100:].numpy())
    np.savez(folder / "floats.npz", images=digits[100:].numpy() / np.float32(255))
    np.savez(folder / "signed.npz", images=digits[100:].numpy() / np.float32(127.5) - 1)
    np.savez(folder / "small.npz", images=digits[:, :, :7, :7].numpy())
    np.savez(folder / "other.npz", pictures=digits.numpy())
    (folder / "empty").mkdir()
    return folder


def test_a_folder_and_an_archive_are_scored_and_bytes_and_floats_are_the_same(images):
    tables = [
        json.loads(latentia("score", images / "pictures", images / name, "--metrics", "kernel,neighbours", "--json"))
        for name in ("bytes.npz", "floats.npz")
    ]
    assert tables[0] == tables[1]
    names = [record["name"] for record in tables[0]]
    assert names[:2] == ["kernel_distance/random-convolutional", "precision"]
    assert "coverage/floor" in names
    assert tables[0][0]["settings"]["card"]["n_fake"] == 50


def test_a_data_set_is_its_test_images_with_its_training_images_beside(images):
    text = latentia("score", "digits", images / "bytes.npz")
    assert "frechet_distance/classifier" in text
    assert "memorisation/authenticity" in text
    assert "train vs test" in text
    assert "(test)" in text
    again = json.loads(latentia("score", "digits", images / "bytes.npz", "--metrics", "kernel", "-n", "60", "--json"))
    assert {r["settings"]["card"]["n_real"] for r in again} == {60}


BAD = {
    "range": (["bytes.npz", "signed.npz"], r"\[−1, 1\]"),
    "size": (["bytes.npz", "small.npz"], "different sizes"),
    "no images": (["bytes.npz", "other.npz"], "needs an array named images"),
    "nothing there": (["bytes.npz", "nowhere.npz"], "there is no file"),
    "empty folder": (["bytes.npz", "empty"], "give one that does"),
    "neither": (["bytes.npz", "digit"], "Did you mean digits"),
    "metric": (["bytes.npz", "bytes.npz", "--metrics", "fid"], "there is no metric named 'fid'"),
    "features": (["bytes.npz", "bytes.npz", "--features", "inceptoin"], "there is no features named"),
    "too few": (["bytes.npz", "bytes.npz", "-n", "80"], "give at most 50"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_scored_is_said(images, case, monkeypatch):
    arguments, message = BAD[case]
    monkeypatch.chdir(images)
    with pytest.raises((DataError, ConfigurationError), match=message):
        latentia("score", *arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model of two seeds, trained for a while, and one that is not trained to speak of."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = VAERecipe(data=Digits(binarise="dynamic"), network=MLP(hidden=(64,)), epochs=12, batch_size=64)
    for name, changes in {"good": {}, "good-1": {"seed": 1}, "bad": {"epochs": 1}}.items():
        train(recipe.model_copy(update=changes), folder / name, quiet=True)
    return folder


def test_runs_stand_side_by_side_with_likelihood_quality_time_and_size(runs):
    text = latentia("compare", runs / "good", runs / "bad", "--metrics", "kernel,neighbours")
    for word in ("good", "bad", "test/elbo", "kernel_distance/classifier", "coverage", "time_to_train", "parameters"):
        assert word in text, word
    assert "real images" in text
    assert "training images" in text


def test_seeds_of_one_recipe_are_one_column(runs):
    found = json.loads(
        latentia("compare", runs / "good", runs / "good-1", runs / "bad", "--metrics", "kernel", "--json", "-n", "100")
    )
    figures = {record["name"]: record for record in found}
    assert figures["good: kernel_distance/classifier"]["settings"]["seeds"] == [0, 1]
    assert "seeds" not in figures["bad: kernel_distance/classifier"]["settings"]
    assert figures["good: kernel_distance/classifier"]["value"] < figures["bad: kernel_distance/classifier"]["value"]
    assert "kernel_distance/classifier/floor" not in [name.partition(": ")[2] for name in figures]


def test_one_run_twice_and_no_run_are_refused(runs, tmp_path):
    with pytest.raises(RunError, match="given twice"):
        latentia("compare", runs / "good", runs / "good")
    with pytest.raises(RunError, match="no run directory"):
        latentia("compare", runs / "good", tmp_path)
