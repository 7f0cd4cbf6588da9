"""The library is an extra and no network is at hand: a stand-in with the few names that the source uses."""

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


@pytest.fixture
def library(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 4, 5), dtype=np.uint8)
    images = [Image.fromarray(image) for image in pixels]
    parts = {
        "train": Rows({"image": images, "label": [number % 2 for number in range(20)]}, ["cat", "dog"]),
        "test": Rows({"image": images[:4], "label": [0, 1, 0, 1]}, ["cat", "dog"]),
        "empty": Rows({"image": [], "label": []}),
        "text": Rows({"image": ["hello"], "label": [0]}),
        "unlabeled": Rows({"image": images, "label": [-1] * 20}),
    }

    def load_dataset(dataset, configuration, split, cache_dir):
        if dataset != "some/set" or split not in parts:
            raise FileNotFoundError(f"no {dataset} {split}\nwith a long story")
        return parts[split]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return pixels


def test_loads(library):
    splits = HuggingFace(dataset="some/set").load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 4]
    assert np.array_equal(splits.test.images[:, 0].numpy(), library[:4])
    assert splits.test.labels.tolist() == [0, 1, 0, 1]
    assert splits.classes == ("cat", "dog")


def test_without_labels_or_test_part(library):
    splits = HuggingFace(dataset="some/set", label_column=None, test_split=None, size=3, gray=False).load()
    assert splits.test.labels is None
    assert splits.classes == ()
    assert len(splits.test) == 4
    assert splits.test.image_shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"dataset": "other"},
            DataError,
            r"'train' of the Hugging Face data set 'other' cannot be loaded: no other train\.",
        ),
        ({"test_split": "tst"}, DataError, "part 'tst'"),
        (
            {"image_column": "img"},
            ConfigurationError,
            r"no column img; its columns are image, label\. Set data.image_column",
        ),
        ({"train_split": "empty"}, DataError, "part 'empty' of 'some/set' is empty"),
        ({"train_split": "text"}, DataError, "image is no image but str"),
        ({"train_split": "unlabeled"}, DataError, "data.label_column=null"),
    ],
)
def test_faults_are_named(library, settings, error, message):
    with pytest.raises(error, match=message):
        HuggingFace(**{"dataset": "some/set", **settings}).load()


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"needs the extra hf: pip install 'latentia\[hf\]'"):
        HuggingFace(dataset="some/set").load()
