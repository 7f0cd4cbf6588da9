"""NumPy's files, `.npz` and `.npy`, read without unpickling and without trust; and examples in them as a source."""

from __future__ import annotations

__all__ = ["NPZ", "read_arrays"]

import ast
import lzma
import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from latentia.data.examples import as_examples, image_bytes, suggested_for
from latentia.data.hdf5 import MAGIC, HDF5Arrays
from latentia.data.opening import DataPath, limit_of_environment, opened, read_at_most, require_below
from latentia.data.source import Parts, Source, number_labels
from latentia.data.split import Split
from latentia.errors import DataError, first_line

Array = np.ndarray[Any, Any]

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_LONGEST_HEADER = 10_000
_NUMBERS = re.compile(r"[<>|=]?[biufcU]\d+")
_CURE = "save it again with np.savez and arrays of numbers"
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    ValueError,
    OverflowError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # an encrypted member
)
LAYOUTS = (  # of images, or of examples of any shape
    (True, ("images", "labels", None, None)),
    (True, ("train_images", "train_labels", "test_images", "test_labels")),
    (False, ("x_train", "y_train", "x_test", "y_test")),  # Keras
    (False, ("x", "labels", None, None)),
    (False, ("x", "y", None, None)),
    (False, ("arr_0", None, None, None)),  # of an .npy
)


def read_arrays(path: Path, limit: int | None = None, option: str = "LATENTIA_LIMIT") -> Mapping[str, Array]:
    """The arrays of an `.npz`, `.npy` or HDF5 file by name, each read when it is first asked for; an `.npy` holds
    `arr_0`.

    The content decides what the file is, not its name. Objects are never unpickled. An array that is not asked for is
    not decoded.

    Args:
        path: the file.
        limit: bytes that all arrays read from this file may take together; None is what LATENTIA_LIMIT says, or 4 GB.
        option: what the user sets to raise the limit, for the message.

    Raises:
        DataError: naming the file, at once or when an array is read, if it is missing, truncated, damaged or too large,
            or holds objects.
    """
    limit = limit_of_environment() if limit is None else limit
    with opened(path, _CURE, unpack=False) as file:
        start = file.read(6)
    if start == _MAGIC:
        return _Arrays(path, None, limit, option)
    if start[:2] == b"PK":
        with _archive(path) as archive:
            names = {info.filename.removesuffix(".npy"): info.filename for info in archive.infolist()}
        if not names:
            raise DataError(f"{path} holds no arrays, or is damaged; {_CURE}")
        return _Arrays(path, names, limit, option)
    if start == MAGIC[:6]:
        return HDF5Arrays(path, limit)
    if start[:1] == b"\x80":
        raise DataError(f"{path} holds pickled objects; {_CURE}")
    raise DataError(f"{path} is not an .npz or .npy file, or is damaged; {_CURE}")


class _Arrays(Mapping[str, Array]):
    """The arrays of one file; `members` are the names in the archive, None for an `.npy`."""

    def __init__(self, path: Path, members: Mapping[str, str] | None, limit: int, option: str):
        self._path, self._members, self._limit, self._option = path, members, limit, option
        self._read: dict[str, Array] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(["arr_0"] if self._members is None else self._members)

    def __len__(self) -> int:
        return 1 if self._members is None else len(self._members)

    def __getitem__(self, name: str) -> Array:
        if name not in self._read:
            if self._members is None and name == "arr_0":
                with opened(self._path, _CURE, unpack=False) as file:
                    self._read[name] = self._array(file, os.path.getsize(self._path), str(self._path))
            elif self._members is not None and name in self._members:
                with _archive(self._path) as archive:
                    info = archive.getinfo(self._members[name])
                    with archive.open(info) as member:
                        self._read[name] = self._array(member, info.file_size, f"{self._path}: {name}")
            else:
                raise KeyError(name)
        return self._read[name]

    def _array(self, stream: IO[bytes], size: int, name: str) -> Array:
        """The one array of a stream of `size` bytes."""
        dtype, in_columns, shape, start = _header(stream, name)
        count = math.prod(shape) * dtype.itemsize
        require_below(self._limit - sum(array.nbytes for array in self._read.values()), count, name, self._option)
        held = size - start
        content = (
            read_at_most(stream, count + 1) if held == count else b""
        )  # one more: checksums are compared at the end
        if held != count or len(content) != count:
            word = "truncated" if held < count else "damaged"
            raise DataError(
                f"{name} is {word}: its header claims the shape {shape} of {dtype}, {count} bytes, and {held} follow; "
                f"{_CURE}"
            )
        array = np.frombuffer(content, dtype, math.prod(shape))
        return array.reshape(shape[::-1]).T if in_columns else array.reshape(shape)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive; each of the many errors by which Python reports a damaged one becomes one line."""
    try:
        with opened(path, _CURE, unpack=False) as file, zipfile.ZipFile(file) as archive:
            # No checksum covers the list of arrays: compare both copies of each name, and the number of names, so that
            # no array hides.
            for member in archive.infolist():
                archive.open(member).close()
            file.seek(-22 - len(archive.comment), os.SEEK_END)
            (count,) = struct.unpack_from("<H", file.read(22), 10)
            if count not in (len(archive.infolist()), 0xFFFF):
                raise DataError(f"{path} is damaged: it lists {len(archive.infolist())} of {count} arrays; {_CURE}")
            yield archive
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path} is truncated or damaged ({first_line(error)}); {_CURE}") from None


def _header(stream: IO[bytes], name: str) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Type, whether columns come first, shape, and bytes of the header (NumPy enhancement proposal 1)."""
    damaged = DataError(f"{name} is truncated or damaged: it does not start as an array of NumPy does; {_CURE}")
    magic = stream.read(8)
    width = _LENGTH_BYTES.get(magic[6]) if len(magic) == 8 and magic[:6] == _MAGIC else None
    if width is None:
        raise damaged
    length = int.from_bytes(stream.read(width), "little")
    text = stream.read(length) if length <= _LONGEST_HEADER else b""
    if not text or len(text) != length:
        raise damaged
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about what a damaged header looks like
            fields = ast.literal_eval(text.decode("utf-8" if magic[6] == 3 else "latin-1").strip())
        kind, in_columns, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise damaged from None
    is_shape = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if not is_shape or type(in_columns) is not bool or len(fields) != 3:
        raise damaged
    if not isinstance(kind, str) or not _NUMBERS.fullmatch(kind):
        held = "pickled objects" if "O" in str(kind) else f"values of the type {kind!r:.40}"
        raise DataError(f"{name} holds {held}; {_CURE}")
    try:
        dtype = np.dtype(kind)
    except (TypeError, ValueError):
        raise damaged from None
    if not dtype.itemsize:
        raise damaged
    return dtype, in_columns, shape, 8 + width + length


class NPZ(Source, name="npz"):
    """A `.npz` file with `images` or `x`, and perhaps `labels`; parts are `train_images` and `test_images`, or those of
    Keras (`x_train`, `y_train`, `x_test`, `y_test`). An `.npy` holds the examples alone; an `.h5` the same names as
    an `.npz` (with the extra hdf5).

    `images` are uint8 of 0 to 255, or bool, of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with one or three
    channels. Other arrays have any shape (N, …) and type: vectors, signals, counts; NaN is a missing value. Labels are
    integers from 0 or words, (N,); the distinct ones are the classes. Without a test part, a fixed fifth of each class
    is held out.

    Attributes:
        file: the archive, an `.npy` or an `.h5`.
    """

    file: DataPath

    @property
    def suggested_likelihood(self) -> str:
        try:
            return suggested_for(read_npz(self.file, self.limit).train.x)
        except DataError:  # it is raised again where the data are loaded
            return "bernoulli"

    def _read(self) -> Parts:
        return read_npz(self.file, self.limit)


def read_npz(path: Path, limit: int) -> Parts:
    """The examples and labels of an `.npz` or `.npy`; see `NPZ`.

    Raises:
        DataError: naming the file, and what it must hold.
    """
    arrays = read_arrays(path, limit, "data.limit")
    found = [(known, names) for known, names in LAYOUTS if {names[0], names[2]} - {None} <= arrays.keys()]
    if not found:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; it needs images, or x of any shape, [and labels], or "
            "train_images and test_images [and train_labels and test_labels]"
        )
    # of layouts with the same examples, the one whose labels are there
    are_images, layout = max(found, key=lambda known: known[1][1] in arrays)
    read = image_bytes if are_images else as_examples
    images, labels = [], []
    for name, label_name in (layout[:2], layout[2:]):
        if name is not None:
            images.append(read(arrays[name], f"{path}: {name}"))
            labels.append(_labels(arrays, label_name, len(images[-1]), path))
    if any(part is None for part in labels):
        labels, classes = [None] * len(images), ()
    else:
        labels, classes = number_labels(labels, str(path))
    parts = [Split(*pair) for pair in zip(images, labels, strict=True)]
    if parts[0].event_shape != parts[-1].event_shape:
        raise DataError(
            f"{path}: {layout[0]} are {parts[0].event_shape} and {layout[2]} {parts[1].event_shape}; make them alike"
        )
    return Parts(parts[0], parts[1] if len(parts) > 1 else None, classes)


def _labels(arrays: Mapping[str, Array], name: str | None, count: int, path: Path) -> Sequence[Any] | None:
    if name is None or name not in arrays:
        return None
    labels = arrays[name]
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has those of CIFAR
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise DataError(f"{path} has {count} images and {name} of shape {labels.shape}; give one label per image")
    if labels.dtype.kind not in "iuU" or (labels.dtype.kind == "i" and labels.min() < 0):
        given = f"{labels.min()} is among them" if labels.dtype.kind == "i" else f"are {labels.dtype}"
        raise DataError(f"{path}: {name} must be whole numbers from 0 or words, and {given}")
    try:
        return labels.tolist()
    except ValueError as error:  # text that is not Unicode
        raise DataError(f"{path}: {name} is damaged ({error}); {_CURE}") from None
