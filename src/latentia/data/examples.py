"""Arrays of any shape as examples: vectors (N, d), signals (N, C, L), images (N, C, H, W).

Four kinds of numbers are kept apart, since each has other likelihoods: bytes of images (uint8), other whole numbers
(int64, counts), truth values (bool) and reals (float32, float64; NaN marks a missing value). What else users give is
converted to one of these, or refused with the cure.
"""

from __future__ import annotations

__all__ = ["Column", "Schema", "image_axes"]

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentia.errors import DataError

CHANNELS = (1, 3)
_LARGEST_EXACT = 2**24  # whole numbers beyond it are not exact in float32, in which networks compute


Kind = Literal["real", "positive", "count", "binary", "category", "ordinal"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the column.
        kind: of its values; categories are held as their numbers from 0.
        categories: the names of the categories, in the order of their numbers.
    """

    name: str
    kind: Kind = "real"
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What a model must know of the data in order to be built; a run keeps it in environment.json.

    Attributes:
        shape: of one example.
        classes: names of the labels.
        columns: of a table; () for other data.
        missing: whether values are missing (NaN).
        levels: of whole numbers, the largest one plus 1; else 0.
        standardize: whether the model standardizes the examples.
        covariates: names of the numbers that a conditional model is given in the place of labels.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    missing: bool = False
    levels: int = 0
    standardize: bool = False
    covariates: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain data for environment.json: what `from_mapping` takes back."""
        return json.loads(json.dumps(asdict(self)))  # lists in place of tuples

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Schema:
        """The schema in a mapping that may hold other keys too."""
        columns = tuple(
            Column(column["name"], column["kind"], tuple(column["categories"])) for column in mapping.get("columns", ())
        )
        return cls(
            tuple(mapping["shape"]),
            tuple(mapping["classes"]),
            columns,
            bool(mapping.get("missing", False)),
            int(mapping.get("levels", 0)),
            bool(mapping.get("standardize", False)),
            tuple(mapping.get("covariates", ())),
        )


def image_axes(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Images of any type as (N, C, H, W), from (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels.

    Raises:
        DataError: for another shape, or no images.
    """
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in CHANNELS and array.shape[3] in CHANNELS:
        array = np.moveaxis(array, 3, 1)
    if array.ndim != 4 or array.shape[1] not in CHANNELS or not array.size:
        raise DataError(
            f"{name} have the shape {array.shape}; it must be (N, H, W), (N, C, H, W) or (N, H, W, C), with 1 or 3 "
            "channels and at least one image"
        )
    return np.ascontiguousarray(array)


def layout_note(shape: tuple[int, ...]) -> str:
    """How examples of this shape are read, where they look like images in another layout; else an empty string."""
    if len(shape) == 2 and min(shape) > 4 and max(shape) < 3 * min(shape):
        rows, columns = shape
        return (
            f"data: examples of shape {shape} are read as signals with {rows} channels of {columns} values; "
            f"if they are images, give an array (N, 1, {rows}, {columns})"
        )
    if len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS:
        height, width, channels = shape
        return (
            f"data: examples of shape {shape} are read as images with {height} channels; "
            f"if the channels come last, give an array (N, {channels}, {height}, {width})"
        )
    return ""


def image_bytes(array: np.ndarray[Any, Any], name: str) -> Tensor:
    """Images of uint8 or bool as bytes, (N, C, H, W).

    Raises:
        DataError: for other numbers or shapes, and for bytes that look like bits.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        cure = "floats in [0, 1] by (x * 255).round().astype('uint8')"
        if array.dtype == np.uint16:
            cure = "16 bits to 8 by (x // 257).astype('uint8')"
        raise DataError(f"{name} are {array.dtype}, and must be uint8 or bool; convert {cure}")
    array = image_axes(array, name)
    if array.max() == 1:
        raise DataError(f"{name} are uint8 with no value above 1; save binary images as bool, or multiply them by 255")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_examples(array: np.ndarray[Any, Any], name: str) -> Tensor:
    """An array whose first dimension counts examples, in one of the kinds of numbers that the module lists.

    uint8 of three or four dimensions, and bool of four, are images, (N, C, H, W) in bytes; (N,) becomes (N, 1).

    Args:
        array: the examples.
        name: what they are, for messages.

    Raises:
        DataError: for no examples, text, objects, complex or infinite numbers, or whole numbers too large for float32.
    """
    if array.ndim == 0 or not array.size:
        raise DataError(f"{name} has the shape {array.shape}; give one example a row, such as (N, d), (N, C, L)")
    if array.ndim == 1:
        array = array[:, None]
    kind = array.dtype.kind
    if (array.dtype == np.uint8 and array.ndim in (3, 4)) or (kind == "b" and array.ndim == 4):
        if array.ndim == 3 or array.shape[1] in CHANNELS or array.shape[3] in CHANNELS:
            return image_bytes(array, name)
        array = array.astype(np.int64)
    if kind not in "biuf":
        known = {"c": "complex numbers", "U": "text", "S": "text", "O": "objects", "M": "dates"}
        raise DataError(
            f"{name} has the type {array.dtype}, that is {known.get(kind, 'other values')}; give numbers, such as "
            "x.astype('float32'), or a table with data.categorical=[…] for text"
        )
    if kind == "f":
        wide = array.astype(array.dtype if array.dtype in (np.float32, np.float64) else np.float32)
        require_finite(wide, name)
        return torch.from_numpy(np.ascontiguousarray(wide))
    if kind in "iu":
        require_exact(array, name)
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def require_exact(array: np.ndarray[Any, Any], name: str) -> None:
    """Refuse whole numbers that float32 does not represent.

    Raises:
        DataError: naming the cure.
    """
    extreme = max(abs(int(array.min())), abs(int(array.max()))) if array.size else 0
    if extreme > _LARGEST_EXACT:
        raise DataError(
            f"{name} has whole numbers up to {extreme}, and float32 is exact up to {_LARGEST_EXACT}; if they are "
            "measurements, give x.astype('float64') - x.mean(), or of a table data.real=[…]; if they name categories, "
            "number these from 0, or data.categorical=[…]"
        )


def require_finite(array: np.ndarray[Any, Any], name: str) -> None:
    """Refuse infinite values, and those that float32 cannot hold; NaN is a missing value.

    Raises:
        DataError: with their number and the place of the first.
    """
    infinite = np.isinf(array)
    if infinite.any():
        place = tuple(int(i) for i in np.argwhere(infinite)[0])
        raise DataError(
            f"{name} has {int(infinite.sum())} infinite values, the first at {list(place)}; replace them by numbers, "
            "or by NaN where the value is missing"
        )
    if array.dtype == np.float64 and bool((np.abs(array) > np.finfo(np.float32).max).any()):
        raise DataError(f"{name} has values beyond ±3.4e38, the range of float32; divide them, or take logarithms")


def suggested_for(x: Tensor) -> str:
    """The name of the likelihood that suits these examples, where no columns are known."""
    if x.is_floating_point() or (x.dtype == torch.int64 and int(x.min()) < 0):
        return "gaussian-per-column"
    return "negative-binomial" if x.dtype == torch.int64 else "bernoulli"
