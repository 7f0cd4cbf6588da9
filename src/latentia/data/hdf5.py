"""HDF5 files: arrays by name (`.h5`), and AnnData's tables of cells and genes (`.h5ad`), read without trust.

h5py is an extra: pip install 'latentia[hdf5]'. Only arrays that the file itself holds are read: links to other files,
and objects, are refused. How many bytes an array takes is known from its shape before it is read.
"""

from __future__ import annotations

__all__: list[str] = []

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from latentia.data.opening import opened, require_below
from latentia.errors import ConfigurationError, DataError, first_line

MAGIC = b"\x89HDF\r\n\x1a\n"
_CURE = "write it again with h5py or anndata"
_SPARSE = ("csr_matrix", "csc_matrix")


class HDF5Arrays(Mapping[str, np.ndarray[Any, Any]]):
    """The arrays in the root of an HDF5 file by name, each read when it is asked for.

    Args:
        path: the file.
        limit: bytes that one array may take.
    """

    def __init__(self, path: Path, limit: int):
        self._path, self._limit = path, limit
        with _open(path) as file:
            self._names = [name for name in file if _is_array(_hard(file, name))]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self._names:
            raise KeyError(name)
        with _open(self._path) as file:
            return _read(file[name], f"{self._path}: {name}", self._limit)


def read_annotated(path: Path, limit: int, observed: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """An `.h5ad` as a table: a column for each variable (gene) of X, and those columns of `obs` that are named.

    Whole numbers that are held as floats become integers, so that counts are counts.

    Args:
        path: the file.
        limit: bytes that X may take as a dense array.
        observed: names that the settings use; those that `obs` has are read.

    Raises:
        DataError: naming the file, if it is damaged, too large, or has no X.
    """
    with _open(path) as file:
        if "X" not in file or "obs" not in file or "var" not in file:
            raise DataError(f"{path} has no X, obs and var, which an .h5ad holds; for other arrays use data=npz")
        x = _matrix(file, path, limit)
        index = file["var"].attrs.get("_index", "_index")
        names = [str(name) for name in _column(file["var"], str(index), path, limit)]
        if len(names) != x.shape[1] or len(set(names)) < len(names):
            raise DataError(f"{path}: var names {len(names)} variables, and X has {x.shape[1]}; give each its own name")
        if x.dtype.kind == "f" and bool((np.isfinite(x) & (x == np.round(x))).all()):
            x = x.astype(np.int64)
        table = dict(zip(names, x.T, strict=True))
        for name in observed:
            if name in file["obs"] and name not in table:
                table[name] = _column(file["obs"], name, path, limit)
    return table


def _matrix(file: Any, path: Path, limit: int) -> np.ndarray[Any, Any]:
    """X as a dense array (N, genes)."""
    x = _hard(file, "X")
    if _is_array(x):
        return _read(x, f"{path}: X", limit)
    kind = x.attrs.get("encoding-type", "")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in _SPARSE:
        raise DataError(f"{path}: X is held as {kind or 'an unknown kind'!r:.40}; {_CURE}")
    shape = tuple(int(n) for n in x.attrs["shape"])
    require_below(limit, 8 * shape[0] * shape[1], f"{path}: X")
    parts = [_read(_hard(x, name), f"{path}: X/{name}", limit) for name in ("data", "indices", "indptr")]
    from scipy import sparse

    matrix = sparse.csr_matrix if kind == "csr_matrix" else sparse.csc_matrix
    built = matrix(tuple(parts), shape=shape)
    built.check_format(full_check=True)
    return np.asarray(built.toarray())


def _column(group: Any, name: str, path: Path, limit: int) -> np.ndarray[Any, Any]:
    """A column of obs or var: numbers, text, or a categorical column as its words; None where one is missing."""
    held, what = _hard(group, name), f"{path}: {name}"
    if _is_array(held):
        return _words(_read(held, what, limit))
    codes = _read(_hard(held, "codes"), what, limit)
    words = _words(_read(_hard(held, "categories"), what, limit))
    values = np.empty(len(codes), object)
    values[:] = [None if code < 0 else words[code] for code in codes.tolist()]
    return values


def _words(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind not in "OS":
        return values
    text = np.empty(len(values), object)
    text[:] = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in values.tolist()]
    return text


def _hard(group: Any, name: str) -> Any:
    """A member that the file itself holds."""
    link = group.get(name, getlink=True)
    if not isinstance(link, importlib.import_module("h5py").HardLink):
        raise DataError(f"{name} is {'missing' if link is None else 'a link to another file'}; {_CURE}")
    return group[name]


def _is_array(member: Any) -> bool:
    """Whether a member is an array, not a group of members."""
    return isinstance(member, importlib.import_module("h5py").Dataset)


def _read(dataset: Any, what: str, limit: int) -> np.ndarray[Any, Any]:
    require_below(limit, int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize, what)
    return np.asarray(dataset[()])


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The file; errors of the library become one line."""
    with opened(path, _CURE, unpack=False):
        pass
    try:
        library = importlib.import_module("h5py")
    except ModuleNotFoundError:
        text = f"{path.suffix} files need h5py: pip install 'latentia[hdf5]', or save the arrays as .npz"
        raise ConfigurationError([("file", text)]) from None
    try:
        with library.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is truncated or damaged ({first_line(error)}); {_CURE}") from None
