"""Small data sets on disk, written by hand, so that reading has something to be checked against."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    """Tests say themselves where data lies."""
    monkeypatch.delenv("LATENTIA_DATA", raising=False)


@pytest.fixture(scope="session")
def mnist_folder():
    """The folder with MNIST: from LATENTIA_DATA, or next to the repository."""
    place = os.environ.get("LATENTIA_DATA") or Path(__file__).parents[3] / "shared" / "data"
    for folder in (Path(place) / "mnist", Path(place)):
        if list(folder.glob("train-images*")):
            return folder
    pytest.skip("MNIST is absent: set LATENTIA_DATA to the folder that holds its IDX files")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """A set of MNIST's form: 40 training and 10 test images of 3×4 pixels, one file of each kind of naming."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 3, 4), dtype=np.uint8)
    labels = np.arange(50) % 10
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images[:40])))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:40]))
    (folder / "t10k-images.idx3-ubyte").write_bytes(idx_bytes(images[40:]))
    (folder / "t10k-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels[40:])))
    return folder, images, labels


@pytest.fixture
def picture_folder(tmp_path):
    """Twenty gray and lossless 6×5 pictures in two classes, at two depths; returns the folder and pixels by path."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "pictures"
    pixels = {}
    for number in range(20):
        place = folder / ("cats" if number % 2 else "dogs/deep")
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:02d}.png"
        pixels[path] = rng.integers(0, 256, (5, 6), dtype=np.uint8)
        Image.fromarray(pixels[path]).save(path)
    return folder, pixels
