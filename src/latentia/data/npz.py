"""Images in a numpy archive. Nothing in it is unpickled."""

from __future__ import annotations

__all__ = ["NPZ"]

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.errors import DataError

CHANNELS = (1, 3)


class NPZ(Source, name="npz"):
    """A `.npz` file with `images` and perhaps `labels`; or with `train_images`, `test_images` and perhaps their labels.

    Images are uint8 of 0 to 255, or bool, of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with one or three channels;
    labels are integers from 0, (N,). Without test images, a fixed fifth of each class is held out.

    Attributes:
        file: the archive.
    """

    file: Path

    def _read(self, folder: Path | None) -> Parts:
        path = self.file.expanduser()
        path = folder / path if folder is not None else path
        arrays = _arrays(path)
        if "images" in arrays:
            train, test = _split(arrays, "", path), None
        elif "train_images" in arrays and "test_images" in arrays:
            train, test = _split(arrays, "train_", path), _split(arrays, "test_", path)
            if train.image_shape != test.image_shape:
                raise DataError(
                    f"{path}: train_images are {train.image_shape} and test_images {test.image_shape}; make them alike"
                )
        else:
            raise DataError(
                f"{path} holds {', '.join(arrays) or 'nothing'}; it needs images [and labels], "
                "or train_images and test_images [and train_labels and test_labels]"
            )
        count = max(
            (int(split.labels.max()) + 1 for split in (train, test) if split and split.labels is not None), default=0
        )
        return Parts(train, test, tuple(str(label) for label in range(count)))


def _arrays(path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
    try:
        with path.open("rb") as stream:  # opened here, as numpy leaves a damaged file open
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array; save it with np.savez(path, images=…)")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; set data.file to a .npz archive") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        cause = (
            "holds pickled objects"
            if "allow_pickle" in str(error) or "pickle" in str(error)
            else f"is damaged ({error})"
        )
        raise DataError(f"{path} {cause}; save it anew with np.savez and arrays of numbers") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); save it anew with np.savez") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _split(arrays: Mapping[str, np.ndarray[Any, Any]], prefix: str, path: Path) -> Split:
    images = _images(arrays[f"{prefix}images"], f"{path}: {prefix}images")
    labels = arrays.get(f"{prefix}labels")
    if labels is None:
        return Split(images)
    if labels.shape != (len(images),):
        raise DataError(
            f"{path} has {len(images)} {prefix}images and {prefix}labels of shape {labels.shape}; "
            "give one label per image"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"{path}: {prefix}labels must be whole numbers from 0, and are {labels.dtype}")
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _images(array: np.ndarray[Any, Any], name: str) -> Tensor:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        raise DataError(
            f"{name} are {array.dtype}, and must be uint8 or bool; "
            "convert floats in [0, 1] by (x * 255).round().astype('uint8')"
        )
    if array.size == 0:
        raise DataError(f"{name} are empty, of shape {array.shape}")
    if array.max() == 1:
        raise DataError(f"{name} are uint8 with no value above 1; save binary images as bool, or multiply them by 255")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in CHANNELS and array.shape[3] in CHANNELS:
        array = np.moveaxis(array, 3, 1)
    if array.ndim != 4 or array.shape[1] not in CHANNELS:
        raise DataError(
            f"{name} have the shape {array.shape}; "
            "it must be (N, H, W), (N, C, H, W) or (N, H, W, C), with 1 or 3 channels"
        )
    return torch.from_numpy(np.ascontiguousarray(array))
