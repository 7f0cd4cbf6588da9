"""Data sets of images from the Hugging Face hub, or from its cache when there is no network.

Nothing of a data set is run: versions of the library that run a data set's script are refused, and so are names that
would read files of this machine. Pictures are decoded here, not by the library, which would try every format.
"""

from __future__ import annotations

__all__ = ["HuggingFace"]

import importlib
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator

from latentia.data.decoding import Decoded, Reading, decode, reading_like, to_tensor
from latentia.data.source import Parts, Source, number_labels
from latentia.data.split import Split
from latentia.data.stream import require_memory
from latentia.errors import ConfigurationError, DataError

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class HuggingFace(Source, name="hugging-face"):
    """A data set of the Hugging Face hub with a column of images; needs the extra: pip install 'latentia[hf]'.

    Attributes:
        dataset: its name on the hub with its owner, such as `ylecun/mnist`.
        configuration: its configuration, where it has several.
        train_split: name of the training part.
        test_split: name of the test part; None holds out a fixed fifth of each class.
        image_column: the column with the images.
        label_column: the column with labels, numbers or words, of which the distinct ones are the classes; None for no
            labels.
        size: resize each to size × size; None demands that all are of one size.
        gray: one channel (true) or three (false); None takes what the first image has and demands it of all.
    """

    dataset: str
    configuration: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"
    image_column: str = "image"
    label_column: str | None = "label"
    size: Annotated[int, Field(ge=1)] | None = None
    gray: bool | None = None

    @field_validator("dataset")
    @classmethod
    def _is_on_the_hub(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name} is not the name of a data set with its owner, such as ylecun/mnist; for images on this "
                "machine, use data=folder"
            )
        return name

    def _read(self) -> Parts:
        if os.path.exists(self.dataset):
            raise DataError(
                f"{self.dataset} is also a folder here, which would be read instead of the hub's data set; start "
                "latentia in another folder, or use data=folder for images on this machine"
            )
        library = _library()
        parts = [self._rows(library, part) for part in (self.train_split, self.test_split) if part is not None]
        reading = reading_like(self._decoded(parts[0], 0), self.size, self.gray)
        images = [self._images(rows, reading) for rows in parts]
        labels, classes = self._labels(parts)
        splits = [Split(*pair) for pair in zip(images, labels, strict=True)]
        return Parts(splits[0], splits[1] if len(splits) > 1 else None, classes)

    def _rows(self, library: ModuleType, part: str) -> Any:
        try:
            rows = library.load_dataset(self.dataset, self.configuration, split=part)
        except Exception as error:  # the library raises errors of many kinds, its own and its network client's
            raise DataError(
                f"the part {part!r} of the Hugging Face data set {self.dataset!r} cannot be loaded: {_line(error)}. "
                "Check data.dataset, data.configuration and the names of its parts, and the network"
            ) from error
        columns = [self.image_column, *([self.label_column] if self.label_column else [])]
        missing = [column for column in columns if column not in rows.column_names]
        if missing:
            raise ConfigurationError(
                f"{self.dataset} has no column {' or '.join(missing)}; its columns are {', '.join(rows.column_names)}. "
                "Set data.image_column and data.label_column (null for no labels)"
            )
        if not len(rows):
            raise DataError(f"the part {part!r} of {self.dataset!r} is empty; choose another")
        try:
            return rows.cast_column(self.image_column, library.Image(decode=False))
        except Exception as error:  # pyarrow's errors are of many kinds, too
            raise DataError(
                f"the column {self.image_column} of {self.dataset} does not hold images ({_line(error)}); "
                "set data.image_column"
            ) from error

    def _row(self, rows: Any, index: int) -> Any:
        try:
            return rows[index]
        except Exception as error:  # a damaged cache
            raise DataError(
                f"{self.dataset}[{index}] cannot be read ({_line(error)}); remove it from the cache of Hugging Face"
            ) from error

    def _decoded(self, rows: Any, index: int) -> Decoded:
        name = f"{self.dataset}[{index}]"
        held = self._row(rows, index)[self.image_column]
        content, path = (held.get("bytes"), held.get("path")) if isinstance(held, dict) else (None, None)
        if isinstance(content, bytes):
            return decode(content, name, self.limit)
        if isinstance(path, str):
            return decode(Path(path), name, self.limit)
        raise DataError(f"{name}: {self.image_column} is not an image; set data.image_column")

    def _images(self, rows: Any, reading: Reading) -> torch.Tensor:
        require_memory(len(rows), reading.shape)
        images = torch.empty(len(rows), *reading.shape, dtype=torch.uint8)
        for index in range(len(rows)):
            images[index] = to_tensor(self._decoded(rows, index), reading)
        return images

    def _labels(self, parts: list[Any]) -> tuple[list[torch.Tensor | None], tuple[str, ...]]:
        if self.label_column is None:
            return [None] * len(parts), ()
        column = self.label_column
        labels = [list(rows[column]) for rows in parts]
        if any(label is None or label == -1 for part in labels for label in part):
            raise DataError(f"{self.dataset} has images without a label; set data.label_column=null")
        names = getattr(parts[0].features[column], "names", None)
        if names and all(type(label) is int and 0 <= label < len(names) for part in labels for label in part):
            return [torch.tensor(part) for part in labels], tuple(names)
        return number_labels(labels, self.dataset)  # pyright: ignore[reportReturnType]


def _library() -> ModuleType:
    try:
        library = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ConfigurationError("data=hugging-face needs the extra hf: pip install 'latentia[hf]'") from None
    if int(library.__version__.split(".")[0]) < 4:
        raise ConfigurationError(
            f"datasets {library.__version__} may run programs that a data set brings; pip install 'datasets>=4'"
        )
    return library


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
