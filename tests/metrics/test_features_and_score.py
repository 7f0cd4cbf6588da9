"""Features and their cache, refused images, protocols, reference values, comparison, and the torchmetrics wrapper."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latentia.data import MNIST, Digits
from latentia.data.binarization import to_unit
from latentia.errors import ConfigurationError, DataError, UnsupportedError
from latentia.estimate import Estimate, estimates_to_json
from latentia.metrics import (
    Classifier,
    Features,
    Metric,
    ModelScores,
    Module,
    Pixels,
    RandomConvolutional,
    best_of,
    classify,
    draw_samples,
    higher_is_better,
    parse_metrics,
    reference_images,
    require_comparable,
    score,
)
from latentia.metrics.classifier import classifier_facts
from latentia.metrics.features import cached_features
from latentia.metrics.protocol import NOISELESS
from latentia.metrics.scoring import default_metrics

DIGITS = Digits().load()
REAL, TRAIN = DIGITS.test.x, DIGITS.train.x
FAKE = DIGITS.train.x[:300]
CHEAP = ("kernel", "neighbors")


def noisy(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (to_unit(images) + 0.2 * torch.rand(images.shape, generator=generator)).clamp(0, 1)


FAMILY = [Pixels(), RandomConvolutional(), Classifier(), Module(network=nn.Flatten(), label="mine")]


@pytest.mark.parametrize("features", FAMILY, ids=lambda f: f.type_name)
def test_features_do_not_depend_on_batches_nor_on_how_images_are_held(features):
    whole = features(REAL[:40])
    assert whole.dtype == torch.float32
    assert whole.shape[0] == 40
    torch.testing.assert_close(features(REAL[:40], batch_size=7), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features(to_unit(REAL[:40])), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", FAMILY[:3], ids=lambda f: f.type_name)
def test_features_are_their_own_configuration(features):
    again = Features.parse(features.to_mapping())
    assert again == features
    assert again.fingerprint() == features.fingerprint()


def test_features_have_fingerprints_of_their_own():
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for _ in range(2)]
    prints = [f.fingerprint() for f in [*FAMILY, RandomConvolutional(seed=1), *(Module(network=n) for n in networks)]]
    assert len(set(prints)) == len(prints)


def test_random_features_follow_from_the_seed_alone():
    torch.manual_seed(1)
    first = RandomConvolutional(seed=3)(REAL[:5])
    torch.manual_seed(2)
    assert torch.equal(RandomConvolutional(seed=3)(REAL[:5]), first)
    assert not torch.equal(RandomConvolutional(seed=4)(REAL[:5]), first)


def test_the_shipped_classifier_is_small_and_its_facts_are_true(mnist):
    facts = classifier_facts()
    weights = Path(__import__("latentia.metrics", fromlist=["x"]).__file__).parent / "classifier.safetensors"
    assert weights.stat().st_size < 400_000
    test = mnist.test
    wrong = int((classify(to_unit(test.x)).argmax(1) != test.labels).sum())
    assert abs(wrong - facts["test_errors"]) <= 1  # one image may sit on the fence between machines
    assert wrong <= 100


@pytest.fixture(scope="module")
def mnist():
    folder = os.environ.get("LATENTIA_DATA") or Path(__file__).parents[4] / "shared" / "data"
    try:
        return MNIST(folder=Path(folder) / "mnist").load()
    except DataError:
        pytest.skip("MNIST is absent: set LATENTIA_DATA to the folder that holds its files")


def test_the_classifier_reads_small_digits_too():
    labels = DIGITS.test.labels
    probabilities = classify(to_unit(REAL))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(REAL)))
    assert (probabilities.argmax(1) == labels).double().mean() > 0.8


def test_the_classifier_refuses_color_and_other_features_know_no_classes():
    with pytest.raises(DataError, match="each channel separately"):
        classify(torch.rand(2, 3, 28, 28))
    with pytest.raises(UnsupportedError, match="features=classifier"):
        Pixels().probabilities(REAL[:2])


BAD = {
    "minus one to one": (to_unit(REAL) * 2 - 1, r"lie in \[−1, 1\]; map them by"),
    "floats to 255": (REAL.float(), "divide them by 255"),
    "standardized": ((to_unit(REAL) - 0.3) / 0.1, "undo their standardization"),
    "not a number": (to_unit(REAL).index_fill(0, torch.tensor(3), float("nan")), "1 of 359 of .* not finite"),
    "no channel": (REAL[:, 0], r"must be \(N, C, H, W\)"),
    "empty": (REAL[:0], "N at least 1"),
    "integers": (REAL.long(), "give uint8"),
    "bytes of 0 and 1": ((REAL > 128).byte(), "multiply bytes"),
    "scaled twice": (to_unit(REAL) / 255, "only once"),
    "another size": (torch.rand(50, 1, 9, 9), "different sizes"),
    "all the same": (REAL[:1].expand(300, -1, -1, -1), "collapsed to one image"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_set_of_samples_is_refused_with_the_cure(case):
    fake, message = BAD[case]
    with pytest.raises(DataError, match=message):
        score(REAL, fake, metrics=CHEAP)


def test_too_few_samples_are_refused_with_the_number_it_takes():
    with pytest.raises(DataError, match="at least 65 real samples"):
        score(REAL, FAKE[:30], metrics=["frechet"], features="pixels", real_vs_real=False)
    with pytest.raises(DataError, match=r"400 real images .* and 200 fake"):
        score(REAL, FAKE, n=200)
    for fakes, cure in (
        (FAKE, rf"at most {len(REAL) // 2}, or at most {len(FAKE)} without real against real"),
        (FAKE[:99], "99$"),
    ):
        with pytest.raises(DataError, match=cure):  # where samples are what is short, no reference is the cure
            score(REAL, fakes, n=10_000)
    with pytest.raises(DataError, match="at least 6 real samples"):
        score(REAL[:5], FAKE, metrics=["neighbors"], real_vs_real=False)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean kernel"):
        score(REAL, FAKE, metrics=["kernal"])
    with pytest.raises(ConfigurationError, match="Did you mean pixels"):
        score(REAL, FAKE, features="pixel")
    with pytest.raises(UnsupportedError, match="classifier"):
        score(REAL, FAKE, metrics=["classes"], features="pixels")
    with pytest.raises(UnsupportedError, match="train"):
        score(REAL, FAKE, metrics=["memorization"])


def test_every_metric_scores_digits_with_a_protocol_and_a_reference():
    found = score(REAL, noisy(FAKE), features="classifier", train=TRAIN, split="test")
    names = {e.name for e in found}
    own = {name for name in names if not name.endswith(("/real_vs_real", "/train_vs_test"))}
    defaults = [
        {metric.type_name for metric in default_metrics(Classifier(), train=True, labels=known)}
        for known in (True, False)
    ]
    of_images = set(Metric.members()) - {"columns"}
    assert defaults == [of_images, of_images - {"classification-accuracy"}]
    assert {"frechet_distance/classifier", "precision", "classes/kl", "memorization/authenticity"} <= own
    assert all(f"{name}/real_vs_real" in names and f"{name}/train_vs_test" in names for name in own)
    for estimate in found:
        protocol = estimate.settings["protocol"]
        assert (protocol["n_real"], protocol["n_fake"], protocol["split"], protocol["quantization"]) == (
            179,
            179,
            "test",
            "8 bits",
        )
        assert protocol["features_hash"] == classifier_facts()["sha256"]
        assert protocol["resize"] == "bilinear, 8×8 to 28×28"
    assert not any(name in ("fid", "kid") for name in names)
    json.loads(estimates_to_json(found))
    figures = {e.name: e for e in found}
    assert figures["kernel_distance/classifier"].value > 5 * figures["kernel_distance/classifier/real_vs_real"].stderr
    assert figures["kernel_distance/classifier/real_vs_real"].agrees_with(0.0, sigmas=4)
    assert figures["memorization/authenticity/train_vs_test"].value == 0


def test_a_score_is_a_function_of_its_seed():
    first, again, other = (score(REAL, FAKE, metrics=CHEAP, n=100, seed=s) for s in (1, 1, 2))
    assert [e.value for e in first] == [e.value for e in again]
    assert [e.value for e in first] != [e.value for e in other]


def test_features_of_real_images_are_kept_and_checked(monkeypatch):
    features = RandomConvolutional()
    fresh = cached_features(features, REAL)
    (path,) = (Path(os.environ["LATENTIA_CACHE"]) / "features").glob("*.safetensors")
    monkeypatch.setattr(RandomConvolutional, "__call__", lambda *_: pytest.fail("computed again"))
    assert torch.equal(cached_features(features, REAL), fresh)
    table = load_file(path)["features"]
    save_file({"features": table + 1}, path, metadata={"key": path.stem, "sha256": "0" * 64})
    with pytest.raises(DataError, match=r"wrong hash.*remove .*safetensors"):
        cached_features(features, REAL)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        cached_features(features, REAL)


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LATENTIA_CACHE", str(tmp_path / "file"))
    assert torch.equal(cached_features(Pixels(), REAL[:3]), Pixels()(REAL[:3]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n": 90}, "n_real"),
        ({"seed": 5}, "seed"),
        ({"split": "validation"}, "split"),
        ({"features": RandomConvolutional(seed=1)}, "features_hash"),
        ({"metrics": ["neighbors"]}, "precision"),
    ],
    ids=lambda c: str(c)[:20],
)
def test_scores_of_different_cards_are_not_compared(change, named):
    options = {"metrics": ["kernel"], "n": 100, "real_vs_real": False, "split": "test"}
    one, other = score(REAL, FAKE, **options)[0], score(REAL, FAKE, **{**options, **change})[0]
    with pytest.raises(DataError, match=named):
        require_comparable([one, other])
    require_comparable([one, score(REAL, noisy(FAKE), **options)[0]])


def test_what_has_no_card_is_not_compared_with_what_has():
    one = score(REAL, FAKE, metrics=["kernel"], n=50, real_vs_real=False)[0]
    with pytest.raises(DataError, match="no protocol"):
        require_comparable([one, Estimate(1.0, one.name)])


def entry(name: str, *values: float, stderr: float | None = 0.1) -> ModelScores:
    return ModelScores(
        name, {seed: Estimate(value, "kernel_distance", stderr, 10, "1") for seed, value in enumerate(values)}
    )


def test_the_best_is_named_only_where_intervals_allow():
    a, b, c = entry("a", 1.0), entry("b", 1.2), entry("c", 3.0)
    assert best_of([a, c], -1) == 0
    assert best_of([a, c], 1) == 1
    assert best_of([a, b, c], -1) is None
    assert best_of([a, c], 0) is None
    assert best_of([a], -1) is None
    assert best_of([entry("a", 1.0, stderr=None), c], -1) is None


def test_seeds_are_paired():
    """Seeds differ far more than the models do, and the models differ always in the same way."""
    a, b = entry("a", 1.0, 5.0, 9.0), entry("b", 1.5, 5.52, 9.48)
    assert best_of([a, b], -1) == 0
    unpaired = replace(b, by_seed={seed + 10: e for seed, e in b.by_seed.items()})
    assert best_of([a, unpaired], -1) is None
    assert a.mean_over_seeds().value == pytest.approx(5.0)
    assert a.mean_over_seeds().stderr == pytest.approx(4 / 3**0.5)


def test_which_way_is_better():
    assert higher_is_better("frechet_distance/pixels") == -1
    assert higher_is_better("frechet_distance_extrapolated/classifier") == -1
    assert higher_is_better("fid") == higher_is_better("two_sample/accuracy") == -1
    assert higher_is_better("recall") == higher_is_better("inception_score/classifier") == 1
    assert higher_is_better("two_sample/p_value") == higher_is_better("parameters") == 0


def test_torchmetrics_of_batches_are_the_functions_of_the_whole():
    from latentia.metrics.torchmetrics import SampleQuality

    quality = SampleQuality(metrics=["kernel", "neighbors", "classes"], features="classifier", reset_real=False)
    for part in REAL.split(100):
        quality.update(part, real=True)
    for part in noisy(FAKE).split(70):
        quality.update(part, real=False)
    found = quality.compute()
    features = Classifier()
    pixels = (noisy(FAKE) * 255).round().byte()
    from latentia.metrics import kernel_distance

    whole = kernel_distance(features(REAL), features(pixels))
    assert found["kernel_distance/classifier"].item() == pytest.approx(whole.value, rel=1e-4)
    assert found["classes/found"] == 10
    quality.reset()
    assert len(quality.real_features) == 4
    assert not quality.fake_features
    with pytest.raises(UnsupportedError, match="training images"):
        SampleQuality(metrics=["memorization"])


def test_torchmetrics_forward_collections_and_missing_data():
    from torchmetrics import MetricCollection

    from latentia.metrics.torchmetrics import SampleQuality

    quality = SampleQuality(metrics=["kernel"])
    with pytest.warns(UserWarning, match="before"), pytest.raises(DataError, match="no real or no fake images"):
        quality.compute()
    assert quality(REAL[:60], real=True) == {}
    assert set(quality(FAKE[:60], real=False)) == {"kernel_distance/random-convolutional"}
    both = MetricCollection([SampleQuality(metrics=["kernel"])])
    both.update(imgs=REAL[:60], real=True)
    both.update(imgs=FAKE[:60], real=False)
    assert [v.item() for v in both.compute().values()] == [v.item() for v in quality.compute().values()]


def test_metrics_that_need_more_images_are_left_out_with_the_reason():
    found = score(REAL[:40], FAKE[:40])
    assert {"frechet", "two-sample"} <= set(found.skipped)
    assert "kernel_distance/random-convolutional" in {e.name for e in found}
    with pytest.raises(DataError, match="at least"):
        score(REAL[:40], FAKE[:40], metrics=["frechet"])


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "latentia.metrics.torchmetrics", raising=False)
    with pytest.raises(ConfigurationError, match="pip install torchmetrics"):
        import latentia.metrics.torchmetrics  # noqa: F401


def test_metrics_are_found_by_the_names_of_their_scores_each_once():
    names = [metric.type_name for metric in parse_metrics(["recall", "Frechet", "precision", "class_coverage"])]
    assert names == ["neighbors", "frechet", "classes"]
    with pytest.raises(
        ConfigurationError, match=r"'fid'\. Known: .*frechet, kernel, .*aliases: cas, class-coverage, cov"
    ):
        parse_metrics(["fid"])


def test_noiseless_samples_compare_with_means_and_draws_which_do_not_compare():
    def one(samples: str) -> Estimate:
        return score(REAL, FAKE, metrics=["kernel"], n=60, real_vs_real=False, samples=samples)[0]

    means, draws, noiseless = (one(words) for words in ("means of p(x|z)", "draws of p(x|z)", NOISELESS))
    require_comparable([means, noiseless])
    require_comparable([noiseless, draws])
    with pytest.raises(DataError, match="samples is 'means of"):
        require_comparable([means, draws])


def test_the_card_says_whether_real_images_are_binary():
    binary = (REAL > 128).byte() * 255
    protocols = [score(real, FAKE, metrics=["kernel"], n=60)[0].settings["protocol"] for real in (REAL, binary)]
    assert [protocol["reals"] for protocol in protocols] == ["gray", "binary"]


def test_progress_is_reported_to_the_end():
    heard = []
    score(REAL, FAKE, metrics=["kernel", "diversity"], n=60, train=TRAIN, progress=lambda *piece: heard.append(piece))
    assert [done for done, _, _ in heard] == list(range(8))
    assert {total for _, total, _ in heard} == {7}
    assert [what for _, _, what in heard][:4] == ["features", "kernel", "diversity", "kernel/real_vs_real"]


def test_means_are_scored_against_gray_images_and_draws_against_binarized():
    class Noisy(nn.Module):
        def sample(self, n: int, *, mean: bool = False) -> torch.Tensor:
            return torch.full((n, 1, 8, 8), 0.25) if mean else torch.ones(n, 1, 8, 8)

    class Silent(nn.Module):
        def sample(self, n: int) -> torch.Tensor:
            return torch.zeros(n, 1, 8, 8)

    for output, value in (("means", 0.25), ("draws", 1.0)):
        images, what = draw_samples(Noisy(), 501, output=output)
        assert images.shape == (501, 1, 8, 8)
        assert bool((images == value).all())
        assert what == f"{output} of p(x|z)"
        assert draw_samples(Silent(), 3, output=output)[1] == NOISELESS
    source = Digits(binarize="dynamic")
    assert torch.equal(reference_images(source).images, REAL)
    drawn = reference_images(source, output="draws")
    assert torch.equal(drawn.images, source.load().test.x)
    assert set(drawn.train.unique().tolist()) == {0, 255}
    assert len(reference_images(source, "validation").images) == len(DIGITS.validation)
    with pytest.raises(ConfigurationError, match=r"validation .* or test"):
        reference_images(source, "train")
