"""Data sets of images from the Hugging Face hub, or from its cache when there is no network."""

from __future__ import annotations

__all__ = ["HuggingFace"]

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field

from latentia.data.image_files import Reading, image_to_tensor, reading_of
from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.errors import ConfigurationError, DataError


class HuggingFace(Source, name="hugging-face"):
    """A data set of the Hugging Face hub with a column of images; needs the extra: pip install 'latentia[hf]'.

    Attributes:
        dataset: its name on the hub, such as `ylecun/mnist`.
        configuration: its configuration, where it has several.
        train_split: name of the training part.
        test_split: name of the test part; None holds out a fixed fifth of each class.
        image_column: the column with the images.
        label_column: the column with whole numbers from 0; None for no labels.
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

    def _read(self, folder: Path | None) -> Parts:
        datasets = _library()
        rows = self._rows(datasets, self.train_split, folder)
        first = self._image(rows[0], 0)
        reading = reading_of(first, f"{self.dataset}[0]", self.size, self.gray)
        train = self._split(rows, reading)
        test = None if self.test_split is None else self._split(self._rows(datasets, self.test_split, folder), reading)
        return Parts(train, test, self._classes(rows))

    def _rows(self, datasets: ModuleType, part: str, folder: Path | None) -> Any:
        try:
            rows = datasets.load_dataset(
                self.dataset, self.configuration, split=part, cache_dir=None if folder is None else str(folder)
            )
        except Exception as error:  # the library raises errors of many kinds of its own, and of its network client
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"the part {part!r} of the Hugging Face data set {self.dataset!r} cannot be loaded: {cause}. "
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
        return rows

    def _split(self, rows: Any, reading: Reading) -> Split:
        images = torch.empty(len(rows), *reading.shape, dtype=torch.uint8)
        for index in range(len(rows)):
            images[index] = image_to_tensor(self._image(rows[index], index), reading, f"{self.dataset}[{index}]")
        if self.label_column is None:
            return Split(images)
        labels = torch.tensor(list(rows[self.label_column]), dtype=torch.int64)
        if labels.min() < 0:
            raise DataError(f"{self.dataset} has images without a label ({labels.min()}); set data.label_column=null")
        return Split(images, labels)

    def _image(self, row: Any, index: int) -> Image.Image:
        image = row[self.image_column]
        if not isinstance(image, Image.Image):
            raise DataError(f"{self.dataset}[{index}]: {self.image_column} is no image but {type(image).__name__}")
        return image

    def _classes(self, rows: Any) -> tuple[str, ...]:
        if self.label_column is None:
            return ()
        names = getattr(rows.features[self.label_column], "names", None)
        return tuple(names or map(str, range(math.floor(max(rows[self.label_column])) + 1)))


def _library() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ConfigurationError("data=hugging-face needs the extra hf: pip install 'latentia[hf]'") from None
