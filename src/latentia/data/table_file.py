"""Tables in files: CSV with the standard library, Parquet and Feather with pyarrow, .h5ad with h5py."""

from __future__ import annotations

__all__ = ["Table"]

import csv
import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from latentia.data.hdf5 import read_annotated
from latentia.data.opening import DataPath, opened, read_at_most, require_below
from latentia.data.source import Parts
from latentia.data.split import Split, sha256_of
from latentia.data.tables import MISSING, TableParts, TabularSource, Values, read_table
from latentia.errors import ConfigurationError, DataError


class Table(TabularSource, name="table"):
    """A table in a file: `.csv` (also gzipped, with commas, semicolons or tabs), `.parquet`, `.feather` or `.h5ad`.

    The first row of a CSV file names the columns, if none of its cells is a number. Empty cells, NA, nan, null, none,
    `-` and `?` are missing values. Whole numbers from 0 are counts, 0 and 1 alone bits, other numbers reals, unless
    the settings say otherwise. Parquet and Feather need the extra: pip install 'latentia[tables]'. Of an `.h5ad`
    (pip install 'latentia[hdf5]') the columns are the variables of X, and those of `obs` that a setting names.

    Attributes:
        file: the table.
    """

    file: DataPath

    def _read(self) -> Parts:
        return table_parts(read_table(self._columns(), self, str(self.file)))

    def _columns(self) -> dict[str, Values]:
        if self.file.suffix.lower() != ".h5ad":
            return read_columns(self.file, self.limit)
        options = (self.columns or (), self.drop, self.covariates, self.categorical, self.ordinal, self.real)
        named = [name for option in (*options, self.counts, self.positive) for name in option]
        return read_annotated(self.file, self.limit, [*named, *([self.target] if self.target else [])])


def table_parts(table: TableParts) -> Parts:
    """The parts of a table without a published test part; its hash includes the columns."""
    split = Split(table.x, table.labels)
    named = (sha256_of([split]), table.columns, table.classes, *([table.covariates] if table.covariates else []))
    digest = hashlib.sha256(repr(named).encode()).hexdigest()
    return Parts(split, None, table.classes, digest, table.columns, table.covariates)


def read_columns(path: Path, limit: int) -> dict[str, Values]:
    """The columns of a file by name.

    Raises:
        DataError: naming the file, if it is missing, damaged or too large.
        ConfigurationError: for Parquet and Feather without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".feather", ".arrow"):
        return _arrow(path, limit)
    if suffix in (".csv", ".tsv", ".txt", ".gz"):
        return _csv(path, limit)
    raise DataError(
        f"{path} is not a table that can be read; give a .csv, .parquet, .feather or .h5ad (arrays: data=npz)"
    )


def _arrow(path: Path, limit: int) -> dict[str, Values]:
    with opened(path, "write it again", unpack=False):
        pass  # refuses what is not a file
    try:
        parquet, feather = (importlib.import_module(f"pyarrow.{name}") for name in ("parquet", "feather"))
    except ModuleNotFoundError:
        text = f"{path.suffix} files need pyarrow: pip install 'latentia[tables]', or save the table as .csv"
        raise ConfigurationError([("file", text)]) from None
    require_below(limit, path.stat().st_size, str(path))
    read = parquet.read_table if path.suffix.lower() == ".parquet" else feather.read_table
    try:
        table = read(str(path), memory_map=False)
        require_below(limit, table.nbytes, str(path))
        return {name: _from_arrow(table.column(name)) for name in table.column_names}
    except DataError:
        raise
    except Exception as error:  # pyarrow's errors are of many kinds
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read ({line:.200}); write it again") from None


def _from_arrow(column: Any) -> Values:
    """A column of pyarrow: numbers as floats where some are missing, else by their own type; text as objects."""
    if column.null_count == 0 and not str(column.type).startswith("dictionary"):
        return np.asarray(column.to_numpy())
    return as_objects(column.to_pylist())


def as_objects(items: list[Any]) -> Values:
    """Values with None as an array: floats with NaN where all others are floats, else objects."""
    known = [item for item in items if item is not None]
    if known and all(isinstance(item, float) for item in known):
        return np.array([np.nan if item is None else item for item in items], np.float64)
    values = np.empty(len(items), object)
    values[:] = items
    return values


def _csv(path: Path, limit: int) -> dict[str, Values]:
    with opened(path, "save it again as text") as file:
        content = read_at_most(file, limit + 1)
    require_below(limit, len(content), str(path))
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 (byte {error.start}); save it again as UTF-8") from None
    head = next((line for line in lines if line.strip()), "")
    separator = next((mark for mark in (",", ";", "\t") if mark in head), ",")
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        rows = [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error}); save it again") from None
    rows = [(line, row) for line, row in rows if any(row) or len(row) > 1]
    if not rows:
        raise DataError(f"{path} is empty; give a table with a row of names and at least three rows of values")
    names = rows[0][1]
    if any(_is_number(cell) for cell in names):
        names = [f"column {place}" for place in range(len(names))]
    else:
        rows = rows[1:]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two columns are named {twice!r:.40}; give each its own name")
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: {len(row)} cells where there are {len(names)} columns")
    return {name: _cells([row[place] for _, row in rows]) for place, name in enumerate(names)}


def _cells(cells: list[str]) -> Values:
    """Cells as numbers where all are, else as text; None where one is missing."""
    items = [None if cell.lower() in MISSING else cell for cell in cells]
    known = [item for item in items if item is not None]
    if known and all(item.lower() in ("true", "false") for item in known):
        return as_objects([None if item is None else item.lower() == "true" for item in items])
    if known and all(map(_is_number, known)):
        if all(item.lstrip("+-").isdigit() for item in known):
            return as_objects([None if item is None else int(item) for item in items])
        return np.array([np.nan if item is None else float(item) for item in items], np.float64)
    return as_objects(items)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
