"""`latentia score` and `latentia compare`, as a user types them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from latentia.cli import app
from latentia.data import Digits
from latentia.errors import ConfigurationError, DataError, LatentiaError, RunError
from latentia.estimate import Estimate, read_estimates, write_estimates
from latentia.networks import MLP
from latentia.recipes import GANRecipe, Run, VAERecipe, train
from latentia.reports.comparison import columns_of, compare_runs


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTIA_CACHE", str(tmp_path / "cache"))


def latentia(*arguments: str) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and isinstance(result.exception, LatentiaError):
        raise result.exception
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of PNGs and archives of the same digits, and the digits."""
    folder = tmp_path_factory.mktemp("scores")
    digits = Digits().load().train.x[:200]
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


def test_bytes_and_floats_get_the_same_scores(images):
    tables = [
        json.loads(latentia("score", images / "pictures", images / name, "--metrics", "kernel,neighbors", "--json"))
        for name in ("bytes.npz", "floats.npz")
    ]
    assert tables[0] == tables[1]
    names = [record["name"] for record in tables[0]]
    assert names[:2] == ["kernel_distance/random-convolutional", "precision"]
    assert "coverage/real_vs_real" in names
    assert tables[0][0]["settings"]["protocol"]["n_fake"] == 50


def test_a_data_set_gives_its_test_and_training_images(images):
    text = latentia("score", "digits", images / "bytes.npz")
    assert "Fréchet distance (digit-classifier features) ↓" in text
    *_, rows = text.partition("\nmemorization\n")
    assert rows.split()[:2] == ["authenticity", "0"]  # the scored images are training images
    assert "training images" in text
    assert "(test)" in text
    again = json.loads(latentia("score", "digits", images / "bytes.npz", "--metrics", "kernel", "-n", "60", "--json"))
    assert {r["settings"]["protocol"]["n_real"] for r in again} == {60}


BAD = {
    "range": (["bytes.npz", "signed.npz"], r"\[−1, 1\]"),
    "size": (["bytes.npz", "small.npz"], "--size and --channels"),
    "no images": (["bytes.npz", "other.npz"], "needs an array named images"),
    "nothing there": (["bytes.npz", "nowhere.npz"], "there is no file"),
    "empty folder": (["bytes.npz", "empty"], "give one that does"),
    "neither": (["bytes.npz", "digit"], "Did you mean digits"),
    "metric": (["bytes.npz", "bytes.npz", "--metrics", "fid"], "there is no metric named 'fid'"),
    "features": (["bytes.npz", "bytes.npz", "--features", "inceptoin"], "there is no features named"),
    "too few": (["bytes.npz", "bytes.npz", "-n", "80"], "give at most 50"),
}


@pytest.mark.parametrize("case", BAD)
def test_images_that_cannot_be_scored_get_the_cure(images, case, monkeypatch):
    arguments, message = BAD[case]
    monkeypatch.chdir(images)
    with pytest.raises((DataError, ConfigurationError), match=message):
        latentia("score", *arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model of two seeds, trained for a while, and one that is not trained to speak of."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = VAERecipe(data=Digits(binarize="dynamic"), network=MLP(hidden=(64,)), epochs=12, batch_size=64)
    for name, changes in {"good": {}, "good-1": {"seed": 1}, "bad": {"epochs": 1}}.items():
        train(recipe.model_copy(update=changes), folder / name, quiet=True)
    train(
        GANRecipe(data=Digits(), network=MLP(hidden=(32,)), epochs=2, batch_size=64, fresh_steps=0),
        folder / "gan",
        quiet=True,
    )
    return folder


@pytest.fixture
def own(runs, tmp_path):
    """Copies of the runs that a test may write to."""
    for name in ("good", "gan"):
        shutil.copytree(runs / name, tmp_path / name)
    return tmp_path


def test_runs_are_compared_by_likelihood_quality_time_and_size(runs):
    text = latentia("compare", runs / "good", runs / "bad", "--metrics", "kernel,neighbors")
    for word in (
        "good",
        "bad",
        "ELBO, test",
        "kernel distance (digit-classifier",
        "coverage ↑",
        "time to train",
        "parameters",
    ):
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
    assert "kernel_distance/classifier/real_vs_real" not in [name.partition(": ")[2] for name in figures]


def test_seeds_trained_at_once_are_named_after_their_folder(runs, tmp_path):
    for seed, name in enumerate(("good", "good-1")):
        shutil.copytree(runs / name, tmp_path / "three" / f"seed-{seed}")
    both, one = [Run(tmp_path / "three" / f"seed-{seed}") for seed in (0, 1)], Run(runs / "bad")
    assert list(columns_of([*both, one])) == ["three", "bad"]
    assert list(columns_of([both[0], one])) == ["seed-0", "bad"]


def test_runs_given_twice_and_other_folders_are_refused(runs, tmp_path):
    with pytest.raises(RunError, match="given twice"):
        latentia("compare", runs / "good", runs / "good")
    with pytest.raises(RunError, match=r"recipe\.yaml"):
        latentia("compare", runs / "good", tmp_path)


@pytest.mark.parametrize(("name", "what"), [("good", "means of p(x|z)"), ("gan", "G(z)")])
def test_samples_of_vae_and_gan_are_evaluated_with_references(own, name, what):
    text = latentia("evaluate", own / name, "--metrics", "precision,class-coverage", "-n", "100")
    for word in (
        "\nfidelity\nprecision ↑",
        "\ncoverage\nrecall ↑",
        "\ncoverage ↑",
        "\nclasses found ↑",
        "\nclass shares, KL from the data, nats ↓",
        "real images",
        "training images",
        f"({what})",
        "gray real",
    ):
        assert word in text, word
    found = {e.name: e for e in read_estimates(own / name / "evaluation" / "samples.json")}
    assert found["precision"].stderr > 0
    protocol = found["precision"].settings["protocol"]
    assert (protocol["samples"], protocol["reals"], protocol["split"], protocol["n_fake"]) == (
        what,
        "gray",
        "test",
        100,
    )
    assert {"recall", "recall/real_vs_real", "recall/train_vs_test", "classes/kl"} <= set(found)
    assert not {name for name in found if "likelihood" in name}


def test_the_default_is_every_metric_that_applies(own):
    names = {record["name"] for record in json.loads(latentia("evaluate", own / "gan", "--samples", "--json"))}
    parts = ("frechet_distance/classifier", "kernel_distance/classifier", "density", "diversity", "classes/kl")
    assert {*parts, "memorization/authenticity", "two_sample/p_value", "sliced_wasserstein"} <= names


def test_scores_of_one_protocol_accumulate_in_their_file(own):
    file = own / "gan" / "evaluation" / "samples.json"
    for metric in ("kernel", "neighbors"):
        latentia("evaluate", own / "gan", "--metrics", metric, "-n", "100")
    assert {"kernel_distance/classifier", "precision"} <= {e.name for e in read_estimates(file)}
    latentia("evaluate", own / "gan", "--metrics", "diversity", "-n", "90")
    assert {e.name.partition("/")[0] for e in read_estimates(file)} == {"diversity"}


def test_validation_scores_have_a_separate_file(own):
    latentia("evaluate", own / "gan", "--metrics", "kernel", "--split", "validation", "-n", "50")
    (first, *_) = read_estimates(own / "gan" / "evaluation" / "samples-validation.json")
    assert first.settings["protocol"]["split"] == "validation"
    assert not (own / "gan" / "evaluation" / "samples.json").exists()
    with pytest.raises(ConfigurationError, match="validation"):
        latentia("evaluate", own / "gan", "--samples", "--split", "train")


def test_samples_and_likelihood_in_one_command(own):
    options = ("--metrics", "kernel", "-n", "50", "--likelihood", "importance", "--draws", "20", "--limit", "10")
    names = {record["name"] for record in json.loads(latentia("evaluate", own / "good", *options, "--json"))}
    assert {"kernel_distance/classifier", "test/log_likelihood"} <= names
    assert (own / "good" / "evaluation" / "likelihood-importance.json").exists()


def test_draws_are_not_compared_with_means(runs, own):
    shutil.copytree(runs / "good-1", own / "drawn")
    latentia("evaluate", own / "good", "--metrics", "kernel", "-n", "100")
    latentia("evaluate", own / "drawn", "--metrics", "kernel", "-n", "100", "--of", "draws")
    (first, *_) = read_estimates(own / "drawn" / "evaluation" / "samples.json")
    assert first.settings["protocol"]["reals"] == "binary"
    assert first.settings["protocol"]["samples"] == "draws of p(x|z)"
    with pytest.raises(DataError, match=r"samples is .means of p.x.z.. in one and .draws"):
        latentia("compare", own / "good", own / "drawn", "--saved")
    with pytest.raises(ConfigurationError, match="compare means"):
        latentia("compare", own / "good", own / "gan", "--of", "draws")


def test_saved_scores_of_vae_and_gan_share_a_table(own):
    for name in ("good", "gan"):
        latentia("evaluate", own / name, "--metrics", "kernel", "-n", "100")
    text = latentia("compare", own / "good", own / "gan", "--saved")
    assert "kernel distance (digit-classifier features) ↓" in text
    assert "—" in next(line for line in text.splitlines() if "ELBO, test" in line)
    (own / "gan" / "evaluation" / "samples.json").unlink()
    with pytest.raises(RunError, match=r"gan has no saved scores; run `latentia evaluate .*gan --samples`"):
        latentia("compare", own / "good", own / "gan", "--saved")


def test_samples_do_not_depend_on_other_options(own):
    """Building the model draws its first weights, which must not change the samples."""
    alone = json.loads(latentia("evaluate", own / "good", "--metrics", "kernel", "-n", "60", "--json"))
    options = ("--metrics", "kernel", "-n", "60", "--likelihood", "importance", "--draws", "9", "--limit", "4")
    again = json.loads(latentia("evaluate", own / "good", *options, "--json"))
    assert again[0] == alone[0]


WRONG = {
    "no such metric": (["--metrics", "precison"], "Did you mean precision.*Known: .*frechet, kernel"),
    "far from any": (["--metrics", "fid"], "no metric named 'fid'. Known: .*frechet, kernel"),
    "too few": (["--metrics", "frechet", "-n", "50"], "at least 65 real samples"),
    "more than there are": (["--samples", "-n", "400"], "give at most 179"),
    "no likelihood": (["--likelihood", "exact"], "score its samples with --samples"),
    "nor by default": ([], "score its samples with --samples"),
    "neither of the two": (["--samples", "--of", "both"], "Known: draws, means"),
}


@pytest.mark.parametrize("case", WRONG)
def test_evaluations_that_are_impossible_get_the_cure(runs, case):
    arguments, message = WRONG[case]
    with pytest.raises((DataError, ConfigurationError, RunError), match=message):
        latentia("evaluate", runs / "gan", *arguments)


def test_likelihoods_by_different_methods_are_not_ranked(own):
    exact = Estimate(-20.0, "test/log_likelihood", 0.1, 10, kind="numerical", method="quadrature")
    bound = Estimate(-25.0, "test/log_likelihood", 0.1, 10, kind="lower bound", method="importance sampling")
    shutil.copytree(own / "good", own / "other")
    recipe = own / "other" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("latent: 2", "latent: 3", 1))

    def best(first: Estimate, second: Estimate) -> tuple[int | None, str]:
        for name, estimate in (("good", first), ("other", second)):
            write_estimates(own / name / "evaluation" / "likelihood.json", [estimate])
        runs = [Run(own / name) for name in ("good", "other")]
        (row,) = [r for r in compare_runs(runs, [[], []]).rows if r.name == "test/log_likelihood"]
        return row.best, row.note

    assert best(exact, replace(exact, value=-25.0)) == (0, "")
    assert best(replace(bound, value=-18.0), exact) == (0, "")  # below its truth, and above the other all the same
    place, note = best(exact, bound)  # the bound's truth may be anywhere above it
    assert place is None
    assert "different ways" in note
    assert best(exact, replace(exact, value=-20.05)) == (None, "")
