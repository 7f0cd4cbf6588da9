"""Where images come from. A `Source` is a setting of a run and does the loading itself.

    data=mnist data.binarize=dynamic            on the command line,
    MNIST(binarize="dynamic").load()            in Python.

To add a source, subclass `Source` and write `_read`; splitting, binarizing and hashing are done here, once.
"""

from __future__ import annotations

__all__ = ["Parts", "Source", "find_folder"]

import os
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from latentia.configuration import Component
from latentia.data.binarization import binarize_dynamic, binarize_static, threshold, to_unit
from latentia.data.order import seed_of
from latentia.data.split import Split, Splits, hold_out, hold_out_by_class, sha256_of
from latentia.errors import ConfigurationError, DataError

Binarize = Literal["dynamic", "static", "threshold", "none"]
Which = Literal["train", "validation", "test"]

TEST_FRACTION = 0.2
TEST_SEED = 0  # fixed: no setting of a run may move an image into or out of the test set
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Parts:
    """What a source reads: the images as they are published.

    Attributes:
        train: training images; the validation images are among them.
        test: test images, or None where none are published: then a fixed fifth of each class is held out.
        classes: names of the labels.
        content_hash: for streamed images, which are too many to hash; None elsewhere.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...] = ()
    content_hash: str | None = None


class Source(Component, family=True):
    """A data set and how a run uses it.

    Attributes:
        binarize: `dynamic` (gray levels are probabilities, drawn afresh each step), `static` (drawn once), `threshold`
            (at 128) or `none`. Validation and test images are drawn once under both of the first two.
        validation: how many training images to set aside for choices; None is a tenth.
        split_seed: which ones.
        binarize_seed: of the draws that are made once.
    """

    binarize: Binarize = "none"
    validation: Annotated[int, Field(ge=0)] | None = None
    split_seed: int = 0
    binarize_seed: int = 0

    @abstractmethod
    def _read(self, folder: Path | None) -> Parts:
        """Read the data set; `folder`, where it is not None, goes before any other place to look."""

    def load(self, folder: Path | None = None) -> Splits:
        """Read, split and binarize the data set.

        Validation and test images are binary when this returns, unless `binarize` is `none`; so are training images,
        unless it is `none` or `dynamic`. Binary images are held as 0 and 255.

        Args:
            folder: where to look first, for sources that read files.

        Raises:
            DataError: naming the file that is missing or damaged, and the cure.
            ConfigurationError: when more validation images are asked for than there are.
        """
        parts = self._read(None if folder is None else Path(folder))
        whole, test = (
            (parts.train, parts.test) if parts.test else hold_out_by_class(parts.train, TEST_FRACTION, TEST_SEED)
        )
        content_hash = parts.content_hash or sha256_of([parts.train, *([parts.test] if parts.test else [])])
        count = round(VALIDATION_FRACTION * len(whole)) if self.validation is None else self.validation
        if count >= len(whole):
            raise ConfigurationError(
                [
                    (
                        "validation",
                        f"{count} of {len(whole)} training images leave none to train on; set a smaller number",
                    )
                ]
            )
        train, validation = hold_out(whole, count, self.split_seed)
        validation, test = validation.in_memory(), test.in_memory()
        if self.binarize in ("static", "threshold"):
            train = self._binary(train, "train")
        return Splits(
            train, self._binary(validation, "validation"), self._binary(test, "test"), parts.classes, content_hash
        )

    def prepare_step(self, images: Tensor) -> Tensor:
        """A training batch as float32 in [0, 1], binarized as the source says, by torch's global generator.

        Args:
            images: uint8 (B, C, H, W), of the training split that `load` gave.
        """
        return _STEP[self.binarize](images)

    def prepare_fixed(self, split: Split, which: Which) -> Tensor:
        """A whole split as float32 (N, C, H, W) in [0, 1], binarized once and for all: every call gives the same bits.

        The bits belong to the images: those of the first k images are the same whether or not the others are there.

        Args:
            split: as `load` gave it, or the first images of it.
            which: the part it is; each part has its own draw.
        """
        if self.binarize == "none":
            return to_unit(split.images)
        if self.binarize == "threshold":
            return threshold(split.images)
        # the word is a part of the seed: another one would change every fixed binarization
        return binarize_static(split.images, seed_of("binarise", self.binarize_seed, which))

    def _binary(self, split: Split, which: Which) -> Split:
        if self.binarize == "none" or not len(split):
            return split
        return replace(split, images=self.prepare_fixed(split, which).mul_(255).byte())


_STEP = {"dynamic": binarize_dynamic, "static": to_unit, "threshold": threshold, "none": to_unit}


def find_folder(name: str, given: Path | None) -> Path | None:
    """The folder of a data set: the one given, or else what LATENTIA_DATA says; None where neither is set.

    Either may be the folder with the files or a parent with a sub-folder of the data set's name.

    Raises:
        DataError: when the place is set and is no folder.
    """
    place, setting = (given, "data.folder") if given else (os.environ.get("LATENTIA_DATA"), "LATENTIA_DATA")
    if not place:
        return None
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}, which {setting} names for {name}; mend the setting, or leave it out"
        )
    inner = folder / name
    return inner if inner.is_dir() else folder
