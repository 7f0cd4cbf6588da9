"""What users give to the functions of `latentia` and to the command line: images, distributions and samples, by name or
from files."""

from __future__ import annotations

__all__ = ["Channels", "Images", "Points", "convert_images", "read_images", "read_points", "source_of"]

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.data import Source, image_axes, read_arrays, read_image_folder
from latentia.distributions.parsing import parse_distribution
from latentia.errors import ConfigurationError, DataError, nearest

Channels = Literal["gray", "color"]
Images = Tensor | np.ndarray[Any, Any] | Path | str
Points = Distribution | Tensor | np.ndarray[Any, Any] | Path | str

SAMPLE_FILES = (".npy", ".npz", ".csv")


def source_of(text: str, binarize: str) -> Source:
    """A data set by name, folder or .npz."""
    if text.endswith(".npz"):
        return Source.parse({"type": "npz", "file": text, "binarize": binarize})
    if Path(text).is_dir():
        return Source.parse({"type": "folder", "folder": text, "binarize": binarize})
    return Source.parse({"type": text, "binarize": binarize})


@dataclass(frozen=True)
class GivenImages:
    """Images to score, uint8 or floats, with the training images of a data set."""

    images: Tensor
    name: str
    split: str
    title: str
    train: Tensor | None = None


def read_images(given: Images) -> GivenImages:
    """Images from an array, a folder, an .npz or a data set.

    Raises:
        ConfigurationError: an unknown name.
        DataError: a folder or file without images.
    """
    if isinstance(given, Tensor | np.ndarray):
        return GivenImages(torch.as_tensor(given), "array", "as given", "the images")
    text, path = str(given), Path(given).expanduser()
    if path.is_dir():
        try:
            return GivenImages(read_image_folder(path)[0].images, "folder", "folder", text)
        except DataError as error:
            raise DataError(str(error).replace("; set data.folder to one that does", "; give one that does")) from None
    if path.suffix == ".npz":
        return GivenImages(_archive(path), "npz", "archive", text)
    member = Source.members().get(text)
    if member is None or member.type_name in ("folder", "npz"):
        raise ConfigurationError(
            f"{text} is not a folder, an .npz file or the name of a data set. {nearest(text, Source.members())}"
        )
    splits = Source.parse(text).load()
    return GivenImages(splits.test.images, text, "test", text, splits.train.in_memory().images)


def _archive(path: Path) -> Tensor:
    """`images` of an .npz, of any number type, as (N, C, H, W)."""
    arrays = read_arrays(path)
    if "images" not in arrays:
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; it needs an array named images")
    array = arrays["images"]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: images are {array.dtype}; give bytes, or floats in [0, 1]")
    return torch.from_numpy(image_axes(array, f"{path}: images"))


def convert_images(images: Tensor, size: int | None, channels: Channels | None) -> Tensor:
    """Images resized with antialiasing, and converted by the luma of ITU-R BT.601; their number type stays."""
    if size is None and channels is None:
        return images
    values = images.float()
    if channels == "gray" and images.shape[1] == 3:
        values = (values * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    elif channels == "color" and images.shape[1] == 1:
        values = values.expand(-1, 3, -1, -1)
    if size is not None and values.shape[2:] != (size, size):
        resize: dict[str, Any] = {"size": (size, size), "mode": "bilinear", "antialias": True}
        values = torch.nn.functional.interpolate(values, **resize)
    return values if images.is_floating_point() else values.round().clamp(0, 255).to(images.dtype)


def read_points(given: Points, name: str) -> Distribution | Tensor | np.ndarray[Any, Any]:
    """A distribution, or the points of a sample."""
    if isinstance(given, Distribution | Tensor | np.ndarray):
        return given
    text = str(given)
    if Path(text).suffix in SAMPLE_FILES and "(" not in text:
        return _read_sample(Path(text))
    try:
        return parse_distribution(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _read_sample(path: Path) -> np.ndarray[Any, Any]:
    """The points in a file, one a row.

    Raises:
        DataError: a file that does not exist, or holds no numbers, or several arrays.
    """
    if path.suffix == ".csv":
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        try:
            return _read_csv(path)
        except (OSError, ValueError, csv.Error) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"cannot read samples from {path}: {error}") from None
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; keep the samples in a separate file")
    (array,) = arrays.values()
    if array.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of the type {array.dtype}; samples are numbers")
    return array.astype(float)


def _read_csv(path: Path) -> np.ndarray[Any, Any]:
    """Rows of numbers; the first row is a header if none of its cells is a number, and a byte-order mark is skipped."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = [
            (reader_row, cells) for reader_row, cells in enumerate(csv.reader(stream), 1) if any(map(str.strip, cells))
        ]
    if rows and not any(map(_is_number, rows[0][1])):
        rows = rows[1:]
    for number, cells in rows:
        wrong = [cell for cell in cells if not _is_number(cell)]
        if wrong:
            raise DataError(f"cannot read samples from {path}: line {number} holds {wrong[0]!r}, which is not a number")
        if len(cells) != len(rows[0][1]):
            raise DataError(f"{path}: line {number} has {len(cells)} numbers, and the first {len(rows[0][1])}")
    values = np.array([[float(cell) for cell in cells] for _, cells in rows])
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
