"""A folder of PNG or JPEG images, in memory or streamed."""

from __future__ import annotations

__all__ = ["Folder"]

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from latentia.data.image_files import FoundImages, Reading, find_images, read_images, reading_like
from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.data.stream import ImageFiles, StreamedSplit
from latentia.errors import DataError

PARTS = {"train", "test"}


class Folder(Source, name="folder"):
    """Images under a folder, whatever their depth; sub-folders, where there are any, are the classes.

    A folder with just the two sub-folders `train` and `test` is read as these two parts, each such a folder; in any
    other a fixed fifth of each class is the test part.

    Attributes:
        folder: where the images are.
        size: resize each to size × size, cutting the longer side's ends; None demands that all are of one size.
        gray: one channel (true) or three (false); None takes what the first image has and demands it of all.
        stream: leave training images on disk and let workers read them ahead; validation and test images are in memory.
        workers: processes that read ahead when streaming.
    """

    folder: Path
    size: Annotated[int, Field(ge=1)] | None = None
    gray: bool | None = None
    stream: bool = False
    workers: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _streams_what_it_can(self) -> Self:
        if self.stream and self.binarize in ("static", "threshold"):
            raise ValueError(
                f"streamed images cannot be binarized beforehand ({self.binarize}); set binarize=dynamic or none"
            )
        return self

    def _read(self, folder: Path | None) -> Parts:
        place = (folder or self.folder).expanduser()
        train, test = _train_and_test(place)
        reading = reading_like(train.files[0], self.size, self.gray)
        if self.stream:
            whole = StreamedSplit(ImageFiles(train.files, reading), train.labels, self.workers)
            return Parts(whole, test and _in_memory(test, reading), train.classes, _hash_of_names(place, reading))
        return Parts(_in_memory(train, reading), test and _in_memory(test, reading), train.classes)


def _train_and_test(place: Path) -> tuple[FoundImages, FoundImages | None]:
    found = find_images(place)
    if set(found.classes) != PARTS:
        return found, None
    train, test = find_images(place / "train"), find_images(place / "test")
    if train.classes != test.classes:
        raise DataError(
            f"{place}: train has the classes {', '.join(train.classes) or 'none'} "
            f"and test {', '.join(test.classes) or 'none'}; make the sub-folders of both alike"
        )
    return train, test


def _in_memory(found: FoundImages, reading: Reading) -> Split:
    return Split(read_images(found.files, reading), found.labels)


def _hash_of_names(place: Path, reading: Reading) -> str:
    """Sha256 over names, sizes in bytes and the shape: all that can be told of a set too large to read through."""
    digest = hashlib.sha256(repr(reading.shape).encode())
    for file in find_images(place).files:
        digest.update(f"{file.relative_to(place).as_posix()} {file.stat().st_size}\n".encode())
    return digest.hexdigest()
