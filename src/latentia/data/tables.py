"""Tables: columns of numbers, counts and categories, from files or from data frames.

A table becomes one vector for each row: numbers as they are, categories as their numbers from 0, NaN where a value is
missing. The kind of each column (`Column.kind`) chooses its likelihood under `likelihood=mixed`. A kind follows from
the values: text is a category only where `categorical` says so.
"""

from __future__ import annotations

__all__ = ["TabularSource"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentia.data.examples import Column, Kind, require_exact, require_finite
from latentia.data.source import Source, number_labels
from latentia.errors import ConfigurationError, DataError, nearest

Values = np.ndarray[Any, Any]
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?"})
_SHOWN = 5  # names in a message
_TRUTH = {"true": 1.0, "false": 0.0}


class TabularSource(Source):
    """A source with columns, and what they are.

    Attributes:
        target: the column with labels, words or whole numbers, which the model does not see; null for none.
        covariates: columns of numbers that a conditional model is given, and does not model; they take the place of
            labels.
        columns: the columns to use; null for all.
        drop: columns to leave out.
        categorical: columns whose values, words or numbers, name categories.
        ordinal: columns of ordered categories: numbers, or words in the order of the alphabet.
        real: columns of whole numbers that are measurements, not counts.
        counts: columns of counts that are held as floats.
        positive: columns of positive measurements, for which `mixed` takes a log-normal likelihood.
    """

    target: str | None = None
    covariates: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    ordinal: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()

    @property
    def suggested_likelihood(self) -> str:
        return "mixed"


@dataclass(frozen=True)
class TableParts:
    """A table as examples: x float64 (N, d), labels int64 (N,) or None, names of the classes, and the columns.

    With `covariates`, their names, `labels` are these, float32 (N, k).
    """

    x: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    covariates: tuple[str, ...] = ()


def read_table(table: Mapping[str, Values], source: TabularSource, name: str) -> TableParts:
    """Turn named columns into examples.

    Args:
        table: the values of each column, (N,): numbers, bools, or text and None as objects.
        source: says which columns to use, and their kinds.
        name: of the table, for messages.

    Raises:
        ConfigurationError: for columns that do not exist, or have two kinds.
        DataError: for text that is not named categorical, infinite values, and tables without rows.
    """
    used = used_columns(table, source, name)
    if not used or not len(table[used[0]]):
        raise DataError(
            f"{name}: {len(used)} of {len(table)} columns are used, and no rows or columns are left; give some"
        )
    kinds = _kinds(source, used)
    text = [column for column in used if column not in kinds and _is_text(table[column])]
    if text:
        listed = ", ".join(text[:_SHOWN]) + (f" and {len(text) - _SHOWN} more" if len(text) > _SHOWN else "")
        raise DataError(
            f"{name}: {listed} hold text, such as {_example(table[text[0]])!r:.40}; if they name categories, set "
            f"data.categorical=[{','.join(text[:_SHOWN])}], or leave them out: data.drop=[{','.join(text[:_SHOWN])}]"
        )
    numbers, columns = zip(*(_column(table[c], c, kinds.get(c), f"{name}: {c}") for c in used), strict=True)
    x = torch.from_numpy(np.stack(numbers, 1))
    if source.covariates:
        chosen = {column: table[column] for column in source.covariates}
        return TableParts(x, covariates_of(chosen, name), (), tuple(columns), source.covariates)
    labels, classes = _labels(table, source, name)
    return TableParts(x, labels, classes, tuple(columns))


def used_columns(table: Mapping[str, Values], source: TabularSource, name: str) -> list[str]:
    """The names of the columns that the model sees."""
    for option in ("columns", "drop", "covariates", "categorical", "ordinal", "real", "counts", "positive"):
        for column in getattr(source, option) or ():
            if column not in table:
                raise ConfigurationError([(option, f"{name} has no column {column}. {nearest(column, table)}")])
    if source.target is not None and source.target not in table:
        raise ConfigurationError([("target", f"{name} has no column {source.target}. {nearest(source.target, table)}")])
    if source.target is not None and source.covariates:
        text = "labels and covariates are given to a model in the same place, so give one of them"
        raise ConfigurationError([("covariates", f"{text}: leave target out, or number it as a covariate")])
    chosen = source.columns if source.columns is not None else table
    return [column for column in chosen if column not in (*source.drop, *source.covariates, source.target)]


def _kinds(source: TabularSource, used: Sequence[str]) -> dict[str, Kind]:
    """The kinds that the user gave."""
    given: dict[str, Kind] = {}
    options: tuple[tuple[str, Kind], ...] = (
        ("categorical", "category"),
        ("ordinal", "ordinal"),
        ("real", "real"),
        ("counts", "count"),
        ("positive", "positive"),
    )
    for option, kind in options:
        for column in getattr(source, option):
            if column in given:
                raise ConfigurationError([(option, f"{column} is given two kinds; give it one")])
            if column in used:
                given[column] = kind
    return given


def _is_text(values: Values) -> bool:
    return values.dtype.kind in "OUS" and any(isinstance(value, str) for value in values.tolist())


def _example(values: Values) -> str:
    return next(value for value in values.tolist() if isinstance(value, str))


def _column(values: Values, name: str, kind: Kind | None, what: str) -> tuple[Values, Column]:
    """A column as float64 (N,), NaN where it is missing, with its kind."""
    if values.ndim != 1:
        raise DataError(
            f"{what} holds an array of shape {values.shape[1:]} in each row, and the columns of a table one value; "
            f"leave it out (data.drop=[{name}]), or give it alone (data.columns=[{name}], and data.target=… for labels)"
        )
    if values.dtype.kind not in "biufOUS":
        raise DataError(f"{what} holds {values.dtype}; leave it out (data.drop=[{name}]), or convert it to numbers")
    if kind in ("category", "ordinal"):
        return _categories(values, name, kind)
    whole = values.dtype.kind in "iu"
    if values.dtype.kind in "OUS":
        numbers, whole = _numbers(values, what)
    else:
        numbers = values.astype(np.float64)
    require_finite(numbers, what)
    seen = numbers[~np.isnan(numbers)]
    if kind is None:
        whole |= values.dtype.kind == "b"
        is_binary = len(seen) > 0 and bool(((seen == 0) | (seen == 1)).all()) and whole
        kind = "binary" if is_binary else "count" if whole and len(seen) > 0 and seen.min() >= 0 else "real"
    if kind == "count":
        require_exact(seen, what)
    return numbers, Column(name, kind)


def _numbers(values: Values, what: str) -> tuple[Values, bool]:
    """Text, None and numbers as floats, and whether all are written as whole numbers."""
    numbers = np.empty(len(values), np.float64)
    whole = True
    for row, value in enumerate(values.tolist()):
        if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
            numbers[row] = np.nan
            continue
        try:
            numbers[row] = _TRUTH.get(value.strip().lower(), value) if isinstance(value, str) else value
        except (TypeError, ValueError):
            raise DataError(
                f"{what}: {value!r:.40} in row {row} is not a number; convert the column to numbers, name it in "
                "data.categorical, or leave it out by data.drop"
            ) from None
        whole &= isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").isdigit())
    return numbers, whole


def _categories(values: Values, name: str, kind: Kind) -> tuple[Values, Column]:
    """Categories by their numbers from 0, in order of their values."""
    items = values.tolist()
    absent = [
        item is None or item != item or (isinstance(item, str) and item.strip().lower() in MISSING) for item in items
    ]
    present = {item for item, gone in zip(items, absent, strict=True) if not gone}
    try:
        ordered = sorted(present, key=float)
    except (TypeError, ValueError):
        ordered = sorted(present, key=str)
    number = {item: float(place) for place, item in enumerate(ordered)}
    numbers = np.array([np.nan if gone else number[item] for item, gone in zip(items, absent, strict=True)])
    return numbers, Column(name, kind, tuple(str(item) for item in ordered))


def _labels(table: Mapping[str, Values], source: TabularSource, name: str) -> tuple[Tensor | None, tuple[str, ...]]:
    if source.target is None:
        return None, ()
    return labels_of(table[source.target], f"{name}: {source.target}")


def covariates_of(table: Mapping[str, Values], what: str) -> Tensor:
    """Columns of numbers that a model is given, float32 (N, k).

    Raises:
        DataError: for text, and for missing and infinite values.
    """
    columns = []
    for name, values in table.items():
        numbers, _ = _numbers(values, f"{what}: covariate {name}") if values.dtype.kind in "OUS" else (values, False)
        if numbers.dtype.kind not in "biuf":
            raise DataError(f"{what}: covariate {name} holds {numbers.dtype}; give numbers")
        numbers = numbers.astype(np.float64)
        require_finite(numbers, f"{what}: covariate {name}")
        if bool(np.isnan(numbers).any()):
            text = (
                f"{int(np.isnan(numbers).sum())} values of the covariate {name} are missing, and a model is given all"
            )
            raise DataError(f"{what}: {text}; fill them in, or remove these rows")
        columns.append(numbers)
    return torch.from_numpy(np.stack(columns, 1)).float()


def labels_of(values: Values, what: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels by their numbers from 0, and the names of the classes.

    Raises:
        DataError: for missing labels and reals.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{what} has the shape {values.shape}; give one label for each example, (N,)")
    if values.dtype.kind == "f" and bool(np.isfinite(values).all()) and bool((values == np.round(values)).all()):
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    items: Iterable[Any] = values.tolist()
    items = [int(item) if isinstance(item, bool) else item for item in items]
    if any(item is None or item != item for item in items):
        raise DataError(f"{what} has missing labels; remove these rows, or leave the labels out")
    if values.dtype.kind == "f" or any(isinstance(item, float) for item in items):
        raise DataError(f"{what} holds reals, and labels are whole numbers or words; keep it as a column of x")
    (labels,), classes = number_labels([items], what)
    return labels, classes
