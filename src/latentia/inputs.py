"""What users give to the functions of `latentia` and to the command line: images, distributions and samples, by name or
from files."""

from __future__ import annotations

__all__ = ["Channels", "Images", "Points", "convert_images", "read_images", "read_points", "source_of"]

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.data import NPZ, Folder, Source, image_axes, read_arrays, read_image_folder
from latentia.data.opening import LIMIT, require_below
from latentia.divergences.empirical import real_tensor
from latentia.errors import ConfigurationError, DataError, nearest

Channels = Literal["gray", "color"]
Images = Tensor | np.ndarray[Any, Any] | Path | str
Points = Distribution | Tensor | np.ndarray[Any, Any] | Path | str

SAMPLE_FILES = (".npy", ".npz", ".csv")
LIMIT_OPTION = "max-bytes"


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


def read_images(given: Images, max_bytes: int = LIMIT) -> GivenImages:
    """Images from an array, a folder, an .npz or a data set.

    Raises:
        ConfigurationError: an unknown name.
        DataError: a folder or file without images.
    """
    if isinstance(given, Tensor | np.ndarray):
        if given.ndim != 4:
            raise DataError(f"images must be an array (N, C, H, W), and this one has the shape {tuple(given.shape)}")
        return GivenImages(real_tensor(given, "the images"), "array", "as given", "the images")
    if not isinstance(given, str | Path):
        kind = type(given).__name__
        raise DataError(
            f"images must be an array (N, C, H, W), and these are of the type {kind}; give numpy.asarray(x)"
        )
    text, path = str(given), Path(given).expanduser()
    if path.is_dir():
        try:
            return GivenImages(read_image_folder(path, limit=max_bytes)[0].x, "folder", "folder", text)
        except DataError as error:
            raise DataError(str(error).replace("; set data.folder to one that does", "; give one that does")) from None
    if path.suffix == ".npz":
        return GivenImages(_archive(path, max_bytes), "npz", "archive", text)
    member = Source.members().get(text)
    if member is None or issubclass(member, Folder | NPZ):
        raise ConfigurationError(
            f"{text} is not a folder, an .npz file or the name of a data set. {nearest(text, Source.members())}"
        )
    splits = Source.parse(text).load()
    return GivenImages(splits.test.x, text, "test", text, splits.train.in_memory().x)


def _archive(path: Path, max_bytes: int) -> Tensor:
    """`images` of an .npz, of any number type, as (N, C, H, W)."""
    arrays = read_arrays(path, max_bytes, LIMIT_OPTION)
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


def read_points(given: Points, max_bytes: int = LIMIT) -> Distribution | Tensor | np.ndarray[Any, Any] | str:
    """The points of a sample where a file is named; anything else as it is."""
    named = isinstance(given, str) and Path(given).suffix.lower() in SAMPLE_FILES and "(" not in given
    return _read_sample(Path(given), max_bytes) if isinstance(given, Path) or named else given  # pyright: ignore


def _read_sample(path: Path, max_bytes: int) -> np.ndarray[Any, Any]:
    """The points in a file, one a row.

    Raises:
        DataError: a file that does not exist, or holds no numbers, or several arrays.
    """
    if path.suffix.lower() == ".csv":
        if not path.is_file():
            raise DataError(f"the file {path} does not exist")
        require_below(max_bytes, path.stat().st_size, str(path), LIMIT_OPTION)
        try:
            return _read_csv(path)
        except (OSError, ValueError, csv.Error) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"cannot read samples from {path}: {error}") from None
    arrays = read_arrays(path, max_bytes, LIMIT_OPTION)
    if len(arrays) != 1:
        raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; keep the samples in a separate file")
    (array,) = arrays.values()
    if array.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of the type {array.dtype}; samples are numbers")
    return array.astype(float)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_csv(path: Path) -> np.ndarray[Any, Any]:
    """A table of numbers, one point in each row.

    The first row is a header if none of its cells is empty, a number or a mark of a missing value. Cells may be quoted,
    and empty lines are skipped. The separator is a comma, or a semicolon or a tab if the first row has no comma.
    """
    missing = {"", "na", "n/a", "nan", "null", "none", "-", "?"}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline()
        stream.seek(0)
        separator = next((mark for mark in (",", ";", "\t") if mark in head), ",")
        rows = [
            (reader.line_num, [cell.strip() for cell in row])
            for reader in [csv.reader(stream, delimiter=separator, strict=True)]
            for row in reader
            if any(cell.strip() for cell in row) or len(row) > 1
        ]
    if rows and all(cell.lower() not in missing and _number(cell) is None for cell in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path} holds no numbers")
    width, points = len(rows[0][1]), []
    for line, row in rows:
        if len(row) != width:
            raise DataError(f"{path}, line {line}: {len(row)} cells where the first row of numbers has {width}")
        numbers = [_number(cell) for cell in row]
        bad = next((cell for cell, number in zip(row, numbers, strict=True) if number is None), None)
        if bad is not None:
            what = "a missing value" if bad.lower() in missing else "not a number"
            raise DataError(f"{path}, line {line}: {bad!r:.40} is {what}; remove the row or give a number")
        points.append(numbers)
    table = np.asarray(points, dtype=float)
    return table[:, 0] if width == 1 else table
