"""Data that are given in Python, with no file.

    latentia.train(VAERecipe(data=x))                         an array, a tensor, a data frame, a data set
    latentia.train(VAERecipe(data=(x, labels)))               with labels
    latentia.train(ConditionalVAERecipe(data=(x, covariates)))  with reals (N, k) or a frame, which the model is given
    latentia.train(VAERecipe(data=InMemory(data=frame, target="species", categorical=("sex",))))

A recipe is text, so that it holds what the data were and their hash, not the data. To resume such a run, or to evaluate
it in another process, give the same data again: `latentia.Run(path, data=x)`. Other bits are refused.
"""

from __future__ import annotations

__all__ = ["InMemory"]

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from latentia.data.examples import as_examples, suggested_for
from latentia.data.source import Parts
from latentia.data.split import Split, sha256_of
from latentia.data.table_file import as_objects, table_parts
from latentia.data.tables import TabularSource, Values, covariates_of, labels_of, read_table, used_columns
from latentia.errors import ConfigurationError, DataError

_AGAIN = "give the same data again: latentia.Run(path, data=x), latentia.load(path, data=x), or VAERecipe(data=x)"


class InMemory(TabularSource, name="memory"):
    """Data given in Python: a NumPy array, a tensor, a pair (x, labels) or (x, covariates), a pandas or polars frame, a
    `torch.utils.data.Dataset` (an iterable one is read into memory in one pass) or a Hugging Face data set.

    A frame with one column of arrays, signals or images, besides `target` or `covariates` gives these as examples.

    Attributes:
        data: the data; they are not written to a recipe.
        given: what they were.
        sha256: of their content; other data are refused.
    """

    data: Any = Field(default=None, repr=False, exclude=True)
    given: str = ""
    sha256: str = ""
    _parts: Parts | None = PrivateAttr(default=None)

    @property
    def suggested_likelihood(self) -> str:
        if self._parts is None or self._parts.columns:
            return "mixed"
        return suggested_for(self._parts.train.x)

    @model_validator(mode="after")
    def _read_once(self) -> InMemory:
        if self.data is None:
            return self
        parts, given = self._converted()
        assert parts.content_hash is not None
        if self.sha256 and self.sha256 != parts.content_hash:
            text = f"these data ({given}) are not those of the run ({self.given}): their sha256 differ; {_AGAIN}"
            raise ConfigurationError([("data", text)])
        self._parts = parts
        for name, value in (("given", given), ("sha256", parts.content_hash)):
            object.__setattr__(self, name, value)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InMemory) and self.to_mapping() == other.to_mapping()

    def __hash__(self) -> int:
        return hash((self.given, self.sha256))

    def _read(self) -> Parts:
        if self._parts is None:
            what = self.given or "no data"
            raise DataError(f"the data were given in Python ({what}), and a recipe does not hold them; {_AGAIN}")
        return self._parts

    def _converted(self) -> tuple[Parts, str]:
        """The examples, and what was given in words."""
        data, labels, classes, names = self.data, None, (), ()
        pair = isinstance(data, tuple)
        if pair:
            if len(data) != 2:
                text = f"a tuple of {len(data)} is not known; give a pair (x, labels)"
                raise ConfigurationError([("data", text)])
            data, labels = data
            labels, classes, names = _conditions(labels)
        table, given = _as_table(data)
        used = [] if table is None else used_columns(table, self, "the data frame")
        if table is not None and len(used) == 1 and table[used[0]].ndim > 1:  # signals or images, and their labels
            data = table[used[0]]
            given = f"the column {used[0]} of {given}"
            if self.target is not None:
                labels, classes = labels_of(table[self.target], f"the column {self.target}")
            elif self.covariates:
                names = self.covariates
                labels = covariates_of({name: table[name] for name in names}, "the data frame")
        elif table is not None:
            read = read_table(table, self, "the data frame")
            if labels is not None:
                read = type(read)(read.x, _of_length(labels, len(read.x)), classes, read.columns, names)
            return table_parts(read), given
        else:
            self._refuse_column_options()
        if isinstance(data, torch.utils.data.Dataset):
            data, own, given = _read_dataset(data, self.limit)
            if labels is None and own is not None:
                labels, classes, names = _conditions(own)
        array = _as_array(data, "the data")
        given = given or f"{'a tensor' if isinstance(data, Tensor) else 'a NumPy array'}"
        conditions = f", with {'covariates' if names else 'labels'}" if labels is not None else ""
        given = f"{given}, {array.dtype}, {array.shape}{conditions}"
        x = as_examples(array, "the data")
        labels = None if labels is None else _of_length(labels, len(x))
        split = Split(x.clone(), labels)  # what the caller does to the array later does not change the run
        return Parts(split, None, classes, sha256_of([split]), covariates=names), given

    def _refuse_column_options(self) -> None:
        options = ("target", "covariates", "columns", "drop", "categorical", "ordinal", "real", "counts", "positive")
        for option in options:
            if getattr(self, option):
                text = "columns have names in a data frame alone; give pandas.DataFrame(x, columns=[…])"
                raise ConfigurationError([(option, text)])


def _of_length(labels: Tensor, count: int) -> Tensor:
    if len(labels) != count:
        what = "rows of covariates" if labels.is_floating_point() else "labels"
        raise DataError(f"there are {count} examples and {len(labels)} {what}; give one for each")
    return labels


def _conditions(given: Any) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """Labels with the names of their classes, or covariates with their names: reals, or several numbers an example."""
    table, _ = _as_table(given)
    if table is not None:
        return covariates_of(table, "the covariates"), (), tuple(table)
    array = _as_array(given, "the labels")
    reals = array.dtype.kind == "f" and not bool((array == np.round(array)).all())
    if (array.ndim == 2 and (array.shape[1] > 1 or reals)) or (array.ndim == 1 and reals):
        columns = array.reshape(len(array), -1)
        names = tuple(f"c{place}" for place in range(columns.shape[1]))
        return covariates_of(dict(zip(names, columns.T, strict=True)), "the covariates"), (), names
    labels, classes = labels_of(array, "the labels")
    return labels, classes, ()


def _as_array(data: Any, what: str) -> Values:
    """An array or tensor as an array of NumPy, NaN where it is masked."""
    if isinstance(data, Tensor) and data.layout == torch.strided and not data.is_quantized and not data.is_meta:
        data = data.detach().cpu()
        return (data.float() if data.dtype == torch.bfloat16 else data).resolve_conj().resolve_neg().numpy()
    if isinstance(data, np.ma.MaskedArray):
        if not np.ma.is_masked(data):
            return data.data
        if data.dtype.kind not in "buif":
            text = f"{what} are masked and hold {data.dtype}; give numbers with NaN where one is missing"
            raise ConfigurationError([("data", text)])
        return np.where(np.ma.getmaskarray(data), np.nan, data.data)
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    if what == "the labels" and isinstance(data, list) and all(isinstance(item, int | str) for item in data):
        return np.asarray(data)
    for library in ("pandas", "polars"):
        module = sys.modules.get(library)
        if module is not None and isinstance(data, module.Series):
            return _items(list(data)) if _is_text(data) else np.asarray(data)
    cure = _conversion(data) or (
        "give a NumPy array, a tensor, a pair (x, labels), a data frame, a Dataset, or a source such as "
        "latentia.data.Table(file=…)"
    )
    raise ConfigurationError([("data", f"{what} are of the type {type(data).__name__}; {cure}")])


def _conversion(data: Any) -> str:
    """How to convert a container that is not taken; empty for others."""
    polars, datasets, sparse = (sys.modules.get(name) for name in ("polars", "datasets", "scipy.sparse"))
    if isinstance(data, Tensor):
        return "this one is sparse, quantized or without values: give x.to_dense() or x.dequantize()"
    if polars is not None and isinstance(data, polars.LazyFrame):
        return "give frame.collect()"
    if datasets is not None and isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        return f"give one of its splits: data[{next(iter(data), 'train')!r}]"
    if sparse is not None and sparse.issparse(data):
        return "give x.toarray()"
    if isinstance(data, Mapping):
        return "give pandas.DataFrame(data), a pair (x, labels), or a mapping with a type"
    cure = "give numpy.asarray(data), or on the command line a file of arrays: data=npz data.file=x.npz"
    return cure if isinstance(data, list | tuple) else ""


def _is_text(series: Any) -> bool:
    return not str(series.dtype).lower().startswith(("int", "uint", "float", "bool"))


def _as_table(data: Any) -> tuple[Mapping[str, Values] | None, str]:
    """The columns of a data frame, and what it is; (None, "") for other data.

    The libraries are not imported here: where an object is one of theirs, its user has imported them.
    """
    pandas, polars, datasets = (sys.modules.get(name) for name in ("pandas", "polars", "datasets"))
    if pandas is not None and isinstance(data, pandas.DataFrame):
        twice = data.columns[data.columns.map(str).duplicated()]
        if len(twice):
            text = f"two columns of the frame are named {twice[0]!r:.40}; give each its own name: frame.columns = […]"
            raise ConfigurationError([("data", text)])
        columns = {str(name): _pandas_column(data[name]) for name in data.columns}
        return columns, f"a pandas DataFrame of {len(data)} rows and {len(columns)} columns"
    if polars is not None and isinstance(data, polars.DataFrame):
        columns = {
            name: _items(data[name].to_list())
            if data[name].null_count() or _is_text(data[name])
            else data[name].to_numpy()
            for name in data.columns
        }
        return columns, f"a polars DataFrame of {len(data)} rows and {len(columns)} columns"
    if datasets is not None and isinstance(data, datasets.Dataset):
        images = datasets.Image
        columns = {
            name: _images(data[name][:]) if isinstance(data.features[name], images) else _items(data[name][:])
            for name in data.column_names
        }
        return columns, f"a Hugging Face Dataset of {len(data)} rows and {len(columns)} columns"
    return None, ""


def _pandas_column(series: Any) -> Values:
    if str(series.dtype).startswith(("int", "uint", "float", "bool")):
        return series.to_numpy()
    missing = series.isna().tolist()
    items = [None if gone else value for gone, value in zip(missing, series.tolist(), strict=True)]
    return _items(items)


def _items(items: Sequence[Any]) -> Values:
    """Python values as a column: numbers as an array, others as objects."""
    items = list(items)
    kinds = {type(item) for item in items}
    if kinds <= {int} or kinds <= {float} or kinds <= {bool}:
        return np.array(items)
    if items and isinstance(items[0], list | np.ndarray):  # arrays, if they are alike
        try:
            arrays = np.asarray(items)
        except ValueError:
            return as_objects(items)
        if arrays.dtype.kind in "biuf":
            return arrays
    return as_objects(items)


def _images(items: Sequence[Any]) -> Values:
    """Decoded images as bytes, (N, H, W) or (N, H, W, C), if they are alike."""
    images = [np.asarray(item) for item in items]
    if len({image.shape for image in images}) > 1:
        text = "the images of the data set differ in size; make them alike, or train on data=folder, which resizes them"
        raise ConfigurationError([("data", text)])
    return np.stack(images)


def _rows_of(dataset: Any, count: int, name: str) -> Iterator[Any]:
    for row in range(count):
        try:
            yield dataset[row]
        except IndexError:
            text = f"{name} claims {count} examples and ends after {row}; correct its __len__"
            raise ConfigurationError([("data", text)]) from None


def _read_dataset(dataset: Any, limit: int) -> tuple[Values, Any, str]:
    """All examples of a Dataset, its labels or None, and what it is; an iterable one is read in one pass.

    Raises:
        ConfigurationError: for one that is empty, does not end within the limit of bytes, or whose length or examples
            change.
    """
    name = f"a Dataset ({type(dataset).__name__})"
    try:
        count = len(dataset)
    except TypeError:
        count = None
    streams = isinstance(dataset, torch.utils.data.IterableDataset)
    if count is None and not streams:
        raise ConfigurationError([("data", f"{name} has no length; give a map-style Dataset with __len__")])
    items, size = [], 0
    for item in dataset if streams else _rows_of(dataset, count or 0, name):
        items.append(_example(item, name))
        size += items[-1][0].nbytes
        if size > limit:
            text = f"{name} gives more than {limit:,} bytes; it may not end. Take a part of it, or set limit higher"
            raise ConfigurationError([("data", text)])
    if count is not None and (len(dataset) != count or len(items) != count):
        found = len(items) if len(items) != count else len(dataset)
        text = f"the length of {name} changed from {count} to {found} while it was read; give one that does not"
        raise ConfigurationError([("data", text)])
    if not items:
        raise ConfigurationError([("data", f"{name} is empty")])
    count = len(items)
    first, again = items[0][0], _example(next(iter(dataset)) if streams else dataset[0], name)[0]
    if not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
        text = f"{name} gives another example at each reading: remove its random augmentation"
        raise ConfigurationError([("data", text)])
    shapes = {x.shape for x, _ in items}
    if len(shapes) > 1:
        listed = " and ".join(map(str, sorted(shapes)[:2]))
        raise ConfigurationError([("data", f"{name} has examples of the shapes {listed}; make them alike")])
    labels = [label for _, label in items]
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise ConfigurationError(
            [("data", f"{name} has labels for {len(known)} of {count} examples; give all or none")]
        )
    stacked = np.asarray(known) if known else None
    return np.stack([x for x, _ in items]), stacked, name


def _example(item: Any, name: str) -> tuple[Values, Any]:
    """x and its label, or None, of what a Dataset gives: x, or (x, label).

    Raises:
        ConfigurationError: for other items.
    """
    if isinstance(item, tuple | list) and len(item) == 1:  # of a TensorDataset of one tensor
        item = item[0]
    x, label = (item[0], item[1]) if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
    if isinstance(label, Tensor | np.ndarray) and math.prod(label.shape) == 1:
        label = np.asarray(label).item()
    is_x = isinstance(x, Tensor | np.ndarray | np.number | bool | int | float)
    if not is_x or not isinstance(label, int | float | str | np.generic | None):
        what = f"of the type {type(item).__name__}"
        if isinstance(item, tuple | list):
            what = f"({', '.join(type(part).__name__ for part in item)})"
        text = f"{name} gives examples {what}; let it give x or (x, label), of arrays or tensors and one label each"
        raise ConfigurationError([("data", text)])
    return _as_array(x, "the examples") if isinstance(x, Tensor | np.ndarray) else np.asarray(x), label
