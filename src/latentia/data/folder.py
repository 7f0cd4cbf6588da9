"""A folder of images, in memory or streamed."""

from __future__ import annotations

__all__ = ["Folder", "read_image_folder"]

import hashlib
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from latentia.data.decoding import FORMATS, SUFFIXES, Reading, decode, reading_like, to_tensor
from latentia.data.opening import LIMIT, DataPath, readable, require_below
from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.data.stream import StreamedSplit
from latentia.errors import DataError

PARTS = {"train", "test"}
SHOWN = 5  # names of files that are passed over


class Folder(Source, name="folder"):
    """Images under a folder, at any depth; sub-folders, where there are any, are the classes.

    PNG, JPEG, WebP, BMP, TIFF and GIF (the first frame) are read; links are followed. A warning names other files.
    A folder with just the two sub-folders `train` and `test` is read as these two parts, each such a folder; in any
    other a fixed fifth of each class is the test part.

    Attributes:
        folder: where the images are.
        size: resize each to size × size, cutting the longer side's ends; None demands that all are of one size.
        gray: one channel (true) or three (false); None takes what the first image has and demands it of all.
        stream: leave training images on disk and let workers read them ahead; validation and test images are in memory.
        workers: processes that read ahead when streaming.
    """

    folder: DataPath
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

    def _read(self) -> Parts:
        train, test = _train_and_test(self.folder)
        reading = reading_like(decode(train.files[0], limit=self.limit), self.size, self.gray)
        streamed = [
            None
            if part is None
            else StreamedSplit(ImageFiles(part.files, reading, self.limit), part.labels, self.workers)
            for part in (train, test)
        ]
        assert streamed[0] is not None
        held = sum(len(part.files) for part in (None if self.stream else train, test) if part)
        require_below(self.limit, held * math.prod(reading.shape), f"{readable(self.folder)}: {held} images")
        held_test = streamed[1] and streamed[1].in_memory()
        if self.stream:
            files = (*train.files, *(test.files if test else ()))
            return Parts(streamed[0], held_test, train.classes, _hash_of_names(self.folder, files, reading))
        return Parts(streamed[0].in_memory(), held_test, train.classes)


def read_image_folder(
    folder: Path, size: int | None = None, gray: bool | None = None, limit: int = LIMIT
) -> tuple[Split, tuple[str, ...]]:
    """All images of a folder with their labels, and the classes' names; see `Folder`.

    Raises:
        DataError: naming the file or folder that is missing, damaged, or unlike the first image.
    """
    found = find_images(folder)
    _warn_of_others(folder, found.others)
    reading = reading_like(decode(found.files[0], limit=limit), size, gray)
    count = len(found.files)
    require_below(limit, count * math.prod(reading.shape), f"{readable(folder)}: {count} images", "--max-bytes")
    return StreamedSplit(ImageFiles(found.files, reading, limit), found.labels).in_memory(), found.classes


@dataclass(frozen=True)
class ImageFiles:
    """One image a file.

    Attributes:
        files: where they are.
        reading: how a file becomes a (C, H, W) tensor.
        limit: bytes that the pixels of one may take.
    """

    files: tuple[Path, ...]
    reading: Reading
    limit: int = LIMIT

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.reading.shape

    def __len__(self) -> int:
        return len(self.files)

    def read(self, row: int) -> Tensor:
        """The file of this row, uint8 (C, H, W)."""
        return to_tensor(decode(self.files[row], limit=self.limit), self.reading)


class FoundImages(NamedTuple):
    """Image files in a fixed order, with a label for each when they lie in sub-folders, and the labels' names.

    `others` are files that are not images.
    """

    files: tuple[Path, ...]
    labels: Tensor | None
    classes: tuple[str, ...]
    others: tuple[Path, ...]


def find_images(folder: Path) -> FoundImages:
    """All image files under a folder, sorted by path; the first level of sub-folders are the classes.

    Files and folders whose name starts with a dot are left out.

    Raises:
        DataError: when the folder is missing or has no images, or has some next to its sub-folders and some inside.
    """
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {readable(folder)}; set data.folder to a folder of images")
    paths = sorted(_walk(folder, frozenset()), key=lambda path: path.relative_to(folder).parts)
    is_image = [path.suffix.lower() in SUFFIXES and os.path.isfile(path) for path in paths]
    files = [path for path, is_one in zip(paths, is_image, strict=True) if is_one]
    others = tuple(path for path, is_one in zip(paths, is_image, strict=True) if not is_one)
    if not files:
        raise DataError(
            f"{readable(folder)} holds no image ({', '.join(sorted(SUFFIXES))}), nor do its sub-folders; "
            "set data.folder to one that does"
        )
    at_root = [path for path in files if path.parent == folder]
    if len(at_root) == len(files):
        return FoundImages(tuple(files), None, (), others)
    if at_root:
        raise DataError(
            f"{readable(folder)} has images in sub-folders, which are its classes, and next to them, such as "
            f"{readable(at_root[0].name)}; move each image into a sub-folder, or all of them out"
        )
    names = [path.relative_to(folder).parts[0] for path in files]
    classes = sorted(set(names))
    number = {name: index for index, name in enumerate(classes)}
    return FoundImages(
        tuple(files), torch.tensor([number[name] for name in names]), tuple(map(readable, classes)), others
    )


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """All files under a folder, links to folders followed; a link to a folder above is not."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(
            f"{readable(folder)} cannot be read: {error.strerror}; change its permissions, or remove it"
        ) from None
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, above | {here})
        else:
            yield folder / entry.name


def _warn_of_others(folder: Path, others: tuple[Path, ...]) -> None:
    if others:
        shown = ", ".join(readable(path.relative_to(folder)) for path in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        text = f"{readable(folder)}: not read, as they are not images of {', '.join(FORMATS)}: {shown}{more}"
        warnings.warn(text, stacklevel=2)


def _train_and_test(place: Path) -> tuple[FoundImages, FoundImages | None]:
    found = find_images(place)
    _warn_of_others(place, found.others)
    if set(found.classes) != PARTS:
        return found, None
    train, test = find_images(place / "train"), find_images(place / "test")
    if train.classes != test.classes:
        raise DataError(
            f"{readable(place)}: train has the classes {', '.join(train.classes) or 'none'} "
            f"and test {', '.join(test.classes) or 'none'}; make the sub-folders of both alike"
        )
    return train, test


def _hash_of_names(place: Path, files: tuple[Path, ...], reading: Reading) -> str:
    """Sha256 over names, sizes in bytes and the shape: what can be known of a set that is too large to read through."""
    digest = hashlib.sha256(repr(reading.shape).encode())
    for file in sorted(files, key=lambda file: file.relative_to(place).parts):
        digest.update(os.fsencode(f"{file.relative_to(place).as_posix()} {file.stat().st_size}\n"))
    return digest.hexdigest()
