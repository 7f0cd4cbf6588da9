"""The library is an extra and no network is at hand: a stand-in with the few names that the source uses."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from latentia.data import HuggingFace
from latentia.errors import ConfigurationError, DataError


class Rows:
    def __init__(self, columns, names=None):
        self.columns, self.column_names = columns, list(columns)
        self.features = {"label": types.SimpleNamespace(names=names) if names else types.SimpleNamespace()}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return (
            self.columns[key] if isinstance(key, str) else {name: column[key] for name, column in self.columns.items()}
        )

    def cast_column(self, column, feature):
        assert feature == "undecoded"
        if not all(isinstance(value, dict) for value in self.columns[column]):
            raise TypeError("cannot cast to an image\nand a long story")
        return self


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def image_feature(decode):
    assert not decode, "the library decodes every format"
    return "undecoded"


@pytest.fixture
def library(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 4, 5), dtype=np.uint8)
    images = [png(image) for image in pixels]
    damaged = [*images[:3], {"bytes": images[3]["bytes"][:50], "path": None}]
    parts = {
        "train": Rows({"image": images, "label": [number % 2 for number in range(20)]}, ["cat", "dog"]),
        "test": Rows({"image": images[:4], "label": [0, 1, 0, 1]}, ["cat", "dog"]),
        "empty": Rows({"image": [], "label": []}),
        "text": Rows({"image": ["hello"], "label": [0]}),
        "nothing": Rows({"image": [{"bytes": None, "path": None}], "label": [0]}),
        "damaged": Rows({"image": damaged, "label": [0] * 4}),
        "unlabeled": Rows({"image": images, "label": [-1] * 20}),
        "partly labeled": Rows({"image": images, "label": [None] + [1] * 19}),
        "large": Rows({"image": images, "label": [2**70] + [20240101] * 19}),
        "words": Rows({"image": images, "label": ["cat", "dog"] * 10}),
        "mixed": Rows({"image": images, "label": ["cat", 1] * 10}),
    }

    def load_dataset(dataset, configuration, split):
        if dataset != "some/set" or split not in parts:
            raise FileNotFoundError(f"no {dataset} {split}\nwith a long story")
        return parts[split]

    library = types.SimpleNamespace(load_dataset=load_dataset, Image=image_feature, __version__="4.0.0")
    monkeypatch.setitem(sys.modules, "datasets", library)
    return pixels


def test_loads(library):
    splits = HuggingFace(dataset="some/set").load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 4]
    assert np.array_equal(splits.test.x[:, 0].numpy(), library[:4])
    assert splits.test.labels.tolist() == [0, 1, 0, 1]
    assert splits.classes == ("cat", "dog")


def test_without_labels_or_test_part(library):
    splits = HuggingFace(dataset="some/set", label_column=None, test_split=None, size=3, gray=False).load()
    assert splits.test.labels is None
    assert splits.classes == ()
    assert len(splits.test) == 4
    assert splits.test.event_shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"dataset": "some/other"},
            DataError,
            r"'train' of the Hugging Face data set 'some/other' cannot be loaded: no some/other train\.",
        ),
        ({"test_split": "tst"}, DataError, "part 'tst'"),
        (
            {"image_column": "img"},
            ConfigurationError,
            r"no column img; its columns are image, label\. Set data.image_column",
        ),
        ({"train_split": "empty"}, DataError, "part 'empty' of 'some/set' is empty"),
        ({"train_split": "text"}, DataError, "set data.image_column"),
        ({"train_split": "nothing"}, DataError, r"some/set\[0\].*set data.image_column"),
        ({"train_split": "damaged"}, DataError, r"some/set\[3\] is not a sound image"),
        ({"train_split": "partly labeled"}, DataError, "data.label_column=null"),
        ({"train_split": "mixed"}, DataError, "some/set has labels of the type int and str"),
        ({"dataset": "imagefolder"}, ConfigurationError, "dataset: .*use data=folder"),
        ({"dataset": "../pictures"}, ConfigurationError, "dataset: .*use data=folder"),
        ({"train_split": "unlabeled"}, DataError, "data.label_column=null"),
    ],
)
def test_faults_are_named(library, settings, error, message):
    with pytest.raises(error, match=message):
        HuggingFace(**{"dataset": "some/set", **settings}).load()


@pytest.mark.parametrize(("part", "classes"), [("large", ("20240101", str(2**70))), ("words", ("cat", "dog"))])
def test_distinct_labels_are_the_classes(library, part, classes):
    splits = HuggingFace(dataset="some/set", train_split=part, test_split=None).load()
    assert splits.classes == classes
    assert splits.train.labels.unique().tolist() == [0, 1][-len(splits.train.labels.unique()) :]


def test_folder_of_the_same_name_is_refused(library, tmp_path, monkeypatch):
    (tmp_path / "some" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="another folder"):
        HuggingFace(dataset="some/set").load()


def test_versions_that_run_scripts_are_refused(library, monkeypatch):
    monkeypatch.setattr(sys.modules["datasets"], "__version__", "3.6.0")
    with pytest.raises(ConfigurationError, match=r"pip install 'datasets>=4'"):
        HuggingFace(dataset="some/set").load()


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"needs the extra hf: pip install 'latentia\[hf\]'"):
        HuggingFace(dataset="some/set").load()
