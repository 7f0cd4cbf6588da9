"""The functions of `import latentia`: what the commands do, with values to use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import latentia
from latentia.data import Digits
from latentia.errors import ConfigurationError, DataError, RunError
from latentia.estimate import Estimate, read_estimates
from latentia.likelihood import exact_log_likelihood
from latentia.metrics import Frechet
from latentia.metrics import score as score_images
from latentia.networks import MLP

from .cli.test_commands import latentia as command

SMALL = {"network": MLP(hidden=(16,)), "epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a VAE with z in the plane, of one with z of four dimensions, and of a GAN."""
    folder = tmp_path_factory.mktemp("runs")
    data = Digits(binarize="dynamic")
    latentia.train(latentia.VAERecipe(data=data, **SMALL), folder / "vae", quiet=True)
    latentia.train(latentia.VAERecipe(data=data, latent=4, **SMALL), folder / "deep", quiet=True)
    latentia.train(latentia.GANRecipe(data=Digits(), fresh_steps=0, **SMALL), folder / "gan", quiet=True)
    return folder


def test_every_command_is_a_function() -> None:
    from latentia.cli import app

    names = {str(each.callback.__name__) for each in app.registered_commands if each.callback}
    assert names - {"show", "demo"} <= set(latentia.__all__)
    assert latentia.objectives.IWAE(k=3).k == 3
    assert latentia.data.MNIST is not None
    assert {*latentia.__all__, "objectives", "data"} <= set(dir(latentia))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latentia.nothing  # noqa: B018


def test_exact_likelihoods_are_those_of_the_library(folder: Path) -> None:
    run = latentia.Run(folder / "vae")
    found = latentia.evaluate(run, likelihood="exact", limit=12, gaps=5)
    images = run.splits.examples("test").x[:12]
    values = exact_log_likelihood(run.model, images, certificate="numerical").values
    by_name = {estimate.name: estimate for estimate in found}
    assert by_name["test/log_likelihood"].agrees_with(values.mean().item())
    assert read_estimates(run.directory.evaluation / "likelihood-exact.json") == list(found)
    arrays = np.load(run.directory.evaluation / "likelihood-exact.npz")
    assert arrays["log_likelihood"] == pytest.approx(values.numpy(), abs=1e-9)
    assert {path.suffix for path in found.files} == {".json", ".npz", ".png"}
    assert "log p(x), test" in found._repr_html_()
    assert "log p(x), test" in str(found)


def test_a_function_and_its_command_give_the_same_estimates(folder: Path) -> None:
    options = {"metrics": ["kernel", "precision"], "n": 60, "likelihood": "importance", "draws": 9, "limit": 5}
    found = latentia.evaluate(folder / "vae", **options)
    words = ["--metrics", "kernel,precision", "-n", "60", "--likelihood", "importance", "--draws", "9", "--limit", "5"]
    printed = json.loads(command("evaluate", "vae", *words, "--json", cwd=folder).stdout)

    def timeless(record: dict) -> dict:
        return {**record, "settings": {k: v for k, v in record["settings"].items() if k != "seconds"}}

    assert [timeless(e.to_json()) for e in found] == [timeless(record) for record in printed]
    assert len(found.tables) == 2


def test_scores_take_arrays_and_convert_them() -> None:
    digits = Digits().load()
    real, fake = digits.test.x[:200], digits.train.x[:100]
    found = latentia.score(real, fake, metrics="kernel", n=50, seed=3)
    direct = score_images(real, fake, metrics=["kernel"], n=50, seed=3, split="as given")
    assert [(e.name, e.value) for e in found] == [(e.name, e.value) for e in direct]
    wide = torch.nn.functional.interpolate(fake.float(), scale_factor=2).round().byte().expand(-1, 3, -1, -1)
    with pytest.raises(DataError, match="--size and --channels"):
        latentia.score(real, wide)
    converted = latentia.score(real, wide, metrics=["kernel"], n=50, size=8, channels="gray")
    protocol = converted[0].settings["protocol"]
    assert protocol["size"] == "1×8×8"
    assert "resized to 8, converted to gray" in protocol["samples"]
    assert converted[0].value == pytest.approx(found[0].value, abs=10 * (found[0].stderr or 0))


def test_metrics_that_cannot_serve_are_listed() -> None:
    images = Digits().load().train.x
    found = latentia.score(images[:80], images[80:120], features="pixels")
    names = {estimate.name for estimate in found}
    assert "precision" in names
    assert not any(name.startswith("frechet") for name in names)
    assert any(text.startswith("frechet is left out: ") for text in found.warnings)
    with pytest.raises(DataError, match="at least"):
        latentia.score(images[:80], images[80:120], features="pixels", metrics=[Frechet()])


def test_samples_of_a_gaussian_are_clipped_and_the_protocol_says_so(tmp_path: Path) -> None:
    recipe = latentia.VAERecipe(data=Digits(), likelihood=latentia.distributions.Gaussian(scale=0.3), **SMALL)
    run = latentia.train(recipe, tmp_path / "run", quiet=True)
    found = latentia.evaluate(run, metrics="kernel", n=50, of="draws")
    assert found[0].settings["protocol"]["samples"] == "draws of p(x|z), clipped to [0, 1]"


def test_runs_are_compared_and_reported(folder: Path) -> None:
    for name in ("vae", "gan"):
        latentia.evaluate(folder / name, metrics="kernel", n=50)
    found = latentia.compare([folder / "vae", folder / "gan"], saved=True)
    assert found.names == ("vae", "gan")
    assert "<table>" in found._repr_html_()
    page = latentia.report([folder / "vae", folder / "gan"], folder / "both.html")
    assert "All models" in page.read_text(encoding="utf-8")
    assert latentia.report(folder / "gan").name == "report.html"


def test_runs_of_a_table_are_compared(folder: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    runs = [
        latentia.train(latentia.VAERecipe(data=x, latent=latent, **SMALL), tmp_path / name, quiet=True)
        for name, latent in (("one", 1), ("two", 2))
    ]
    found = latentia.compare(runs, metrics="columns", real_vs_real=False)
    assert found.names == ("one", "two")
    alone = latentia.evaluate(runs[1], metrics="columns", real_vs_real=False)  # the same draws, by the same protocol
    in_table = {(estimate.name, estimate.value) for estimate in found.results()}
    assert {(f"two: {estimate.name}", estimate.value) for estimate in alone} <= in_table
    with pytest.raises(RunError, match="images"):
        latentia.compare([runs[0], folder / "vae"])
    other = latentia.train(latentia.VAERecipe(data=x + 1, **SMALL), tmp_path / "other", quiet=True)
    with pytest.raises(RunError, match="different data"):
        latentia.compare([runs[0], other])


def test_samples_reconstructions_and_codes_are_tensors_and_files(folder: Path, tmp_path: Path) -> None:
    run = latentia.Run(folder / "vae")
    images = latentia.sample(run, 9, seed=4, out=tmp_path / "s.npz")
    assert torch.equal(images, latentia.sample(folder / "vae", 9, seed=4))
    assert np.array_equal(np.load(tmp_path / "s.npz")["images"], images.numpy())
    drawn = latentia.sample(run, 9, of="draws", seed=4)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    originals, again = latentia.reconstruct(run, 5, out=tmp_path / "r.png")
    assert torch.equal(originals, run.splits.examples("test").x[:5])
    assert torch.equal(again, run.model.reconstruct(originals))
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.width > 2 * picture.height
    codes = latentia.encode(run, out=tmp_path / "e.npz")
    with torch.no_grad():
        x = run.splits.examples("test").x
        assert torch.allclose(codes["mean"], run.model.encode(x).mean, atol=1e-6)
    assert sorted(np.load(tmp_path / "e.npz")) == ["labels", "mean", "stddev"]
    assert not list(tmp_path.glob(".latentia*"))


def test_the_command_sample_leaves_the_pictures_of_training(folder: Path) -> None:
    before = (folder / "gan" / "figures" / "samples.png").read_bytes() if (folder / "gan" / "figures").exists() else b""
    result = command("sample", "gan", "-n", "4", "--seed", "2", cwd=folder)
    assert "wrote gan/sample-seed-2.png" in result.stdout
    assert (folder / "gan" / "sample-seed-2.png").is_file()
    assert not before or (folder / "gan" / "figures" / "samples.png").read_bytes() == before


REFUSED = {
    "a GAN has no likelihood": ("gan", {"likelihood": "importance"}, r"--samples.*from_generator.*Gaussian"),
    "four dimensions": ("deep", {"likelihood": "exact"}, "--likelihood importance"),
    "by default": ("deep", {}, "--likelihood importance"),
    "more images than there are": ("vae", {"samples": True, "n": 300}, "give at most 179"),
    "a word for draws": ("vae", {"samples": True, "of": "both"}, "Known: draws, means"),
}


WRONG_CALLS = {
    "no samples": (lambda run: latentia.sample(run, 0), "n: give at least 1"),
    "a number as text": (lambda run: latentia.sample(run, "8"), "n: give a whole number"),
    "seeds as a number": (
        lambda _: latentia.train_seeds(latentia.VAERecipe(data=Digits(binarize="dynamic")), 3),
        r"range\(3\)",
    ),
    "no reconstructions": (lambda run: latentia.reconstruct(run, 0), "n: give at least 1"),
    "no samples to score": (lambda run: latentia.evaluate(run, samples=True, n=0), "n: give at least 1"),
    "no examples": (lambda run: latentia.evaluate(run, limit=-1), "limit: give at least 1"),
    "fewer than no gaps": (lambda run: latentia.evaluate(run, gaps=-1, limit=3), "gaps: give at least 0"),
    "a name for a recipe": (lambda _: latentia.train("vae"), "VAERecipe"),  # pyright: ignore
    "images without channels": (lambda _: latentia.score(torch.rand(9, 8, 8), torch.rand(9, 1, 8, 8)), "N, C, H, W"),
    "masked images": (
        lambda _: latentia.score(np.ma.masked_equal(np.eye(64).reshape(64, 1, 8, 8), 1), torch.rand(64, 1, 8, 8)),
        "the images must be real numbers, and some of these are masked",
    ),
    "two images": (lambda _: latentia.score(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)), "give more"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls_in_python_name_the_cure(folder: Path, case: str) -> None:
    call, message = WRONG_CALLS[case]
    with pytest.raises((ConfigurationError, DataError), match=message):
        call(folder / "vae")


@pytest.mark.parametrize("case", REFUSED)
def test_evaluations_are_refused_first(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options, message = REFUSED[case]
    for work in ("draw_samples", "evaluate_likelihood"):
        monkeypatch.setattr(f"latentia.interface.{work}", lambda *_, **__: pytest.fail("worked before it refused"))
    with pytest.raises((ConfigurationError, DataError, RunError), match=message):
        latentia.evaluate(folder / name, **options)


@pytest.mark.skipif(os.name == "nt", reason="permissions of another kind")
def test_a_read_only_run_is_evaluated_with_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise RunError(f"could not write {path}: Permission denied; choose a folder that you may write to")

    monkeypatch.setattr("latentia.interface.write_estimates", refuse)
    found = latentia.evaluate(folder / "vae", likelihood="importance", draws=5, limit=5, metrics="kernel", n=50)
    assert {"test/log_likelihood", "kernel_distance/classifier"} <= {estimate.name for estimate in found}
    assert [" kept: could not write" in warning for warning in found.warnings] == [True, True]
    assert found.files == []
    result = command("evaluate", "vae", "--likelihood", "importance", "--draws", "5", "--limit", "5", cwd=folder)
    assert result.returncode == 0
    assert "log p(x), test" in result.stdout
    assert "warning: the results are not kept" in result.stderr


def test_samples_that_do_not_fit_in_memory_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"need .* GB .* give at most \d+"):
        latentia.sample(folder / "vae", 10**12)


def test_theory_and_distances_are_values() -> None:
    verdicts = latentia.verify("1g", seed=2)
    assert all(verdict.holds for verdict in verdicts)
    assert "1 of 1 statements hold" in verdicts.table().title
    assert "<table>" in verdicts._repr_html_()
    assert "✓ 1g" in str(verdicts)
    found = latentia.distance("Normal(0,1)", "Normal(1,1)", draws=200)
    kl = next(e for e in found if e.name == "kl(P, Q)" and e.kind == "exact")
    assert kl == Estimate(0.5, "kl(P, Q)", unit="nats", kind="exact", method=kl.method, settings=kl.settings)
    p, q = (torch.distributions.Normal(float(mean), 1.0) for mean in (0, 1))
    assert [e.value for e in latentia.distance(p, q, draws=200)] == [e.value for e in found]
    points = latentia.distance(np.array([0.0, 1.0, 3.0]), np.array([5.0, 6.0, 8.0]))
    assert next(e for e in points if e.name == "wasserstein-1").value == pytest.approx(5)
