"""CIFAR-10 in its binary form; the Python form is pickled, and nothing is unpickled here.

A file holds records of one label byte and 3 · 32 · 32 pixel bytes, channel by channel (Krizhevsky 2009).
"""

from __future__ import annotations

__all__ = ["CIFAR10"]

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import torch

from latentia.data.fetch import fetch
from latentia.data.source import Parts, Source, find_folder
from latentia.data.split import Split
from latentia.errors import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
INNER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
RECORDS = 10_000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(Source, name="cifar10"):
    """Small color photographs of ten kinds of thing, 50 000 to train on and 10 000 to test, 32×32 (Krizhevsky 2009).

    The folder (or LATENTIA_DATA, or a parent with a sub-folder `cifar10`) holds cifar-10-binary.tar.gz or its unpacked
    `.bin` files; where none is set, the archive is downloaded and checked.

    Attributes:
        folder: where the archive or the files are.
    """

    folder: Path | None = None

    def _read(self, folder: Path | None) -> Parts:
        place = find_folder(self.type_name, folder or self.folder)
        read = _reader(place)
        parts = [_split(*read(name)) for name in TRAIN]
        test = _split(*read(TEST))
        labels = [part.labels for part in parts if part.labels is not None]
        return Parts(Split(torch.cat([part.images for part in parts]), torch.cat(labels)), test, CLASSES)


def _reader(place: Path | None) -> Callable[[str], tuple[bytes, str]]:
    """What gives the content of a `.bin` file by its name, with words for where it lies."""
    if place is None:
        return _archive_reader(fetch("cifar10", ARCHIVE, SHA256, MIRRORS))
    for folder in (place, place / INNER):
        if (folder / TRAIN[0]).is_file():
            return lambda name: _file(folder / name)
    if (place / ARCHIVE).is_file():
        return _archive_reader(place / ARCHIVE)
    if (place / "cifar-10-python.tar.gz").exists() or (place / "data_batch_1").exists():
        raise DataError(
            f"{place} holds the Python form of CIFAR-10, which is pickled; bring {MIRRORS[0]}{ARCHIVE} there"
        )
    raise DataError(
        f"{place} holds neither {TRAIN[0]} nor {ARCHIVE}; bring {MIRRORS[0]}{ARCHIVE} there, or set data.folder"
    )


def _file(path: Path) -> tuple[bytes, str]:
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError:
        raise DataError(f"{path.parent} lacks {path.name}; unpack {ARCHIVE} there anew") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _archive_reader(path: Path) -> Callable[[str], tuple[bytes, str]]:
    contents: dict[str, bytes] = {}
    try:
        unpacked = io.BytesIO(gzip.decompress(path.read_bytes()))  # whole, so that gzip's checksum is compared
        with tarfile.open(fileobj=unpacked) as archive:
            for member in archive:  # nothing is written to disk
                file = archive.extractfile(member) if member.isfile() and member.name.endswith(".bin") else None
                if file is not None:
                    contents[PurePosixPath(member.name).name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); bring it anew from {MIRRORS[0]}{ARCHIVE}") from None

    def read(name: str) -> tuple[bytes, str]:
        if name not in contents:
            raise DataError(f"{path} lacks {name}; bring it anew from {MIRRORS[0]}{ARCHIVE}")
        return contents[name], f"{path}:{name}"

    return read


def _split(content: bytes, name: str) -> Split:
    if len(content) != RECORDS * RECORD:
        word = "truncated" if len(content) < RECORDS * RECORD else "damaged"
        raise DataError(f"{name} is {word}: it has {len(content)} bytes, and {RECORDS * RECORD} are due; get it anew")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, RECORD)
    labels = records[:, 0].long()
    if int(labels.max()) >= len(CLASSES):
        raise DataError(
            f"{name} is damaged: it has the label {int(labels.max())}, and there are {len(CLASSES)} classes"
        )
    return Split(records[:, 1:].reshape(-1, *SHAPE), labels)
