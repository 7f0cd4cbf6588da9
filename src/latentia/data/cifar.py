"""CIFAR-10 in its binary form; the Python form is pickled, and nothing is unpickled here.

A file holds records of one label byte and 3 · 32 · 32 pixel bytes, channel by channel (Krizhevsky 2009).
"""

from __future__ import annotations

__all__ = ["CIFAR10"]

import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import torch

from latentia.data.opening import DataPath, fetch, find_folder, opened, read_at_most
from latentia.data.source import Parts, Source
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
SURPLUS = 1_000_000  # bytes of the archive that are neither labels nor pixels
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CURE = f"download it again from {MIRRORS[0]}{ARCHIVE}"


class CIFAR10(Source, name="cifar10"):
    """Small color photographs of ten kinds of thing, 50 000 to train on and 10 000 to test, 32×32 (Krizhevsky 2009).

    The folder (or LATENTIA_DATA, or a parent with a sub-folder `cifar10`) holds cifar-10-binary.tar.gz or its unpacked
    `.bin` files; where none is set, the archive is downloaded and checked.

    Attributes:
        folder: where the archive or the files are.
    """

    folder: DataPath | None = None

    def _read(self) -> Parts:
        read = _reader(find_folder(self.type_name, self.folder))
        parts = [_split(*read(name)) for name in TRAIN]
        test = _split(*read(TEST))
        labels = [part.labels for part in parts if part.labels is not None]
        return Parts(Split(torch.cat([part.x for part in parts]), torch.cat(labels)), test, CLASSES)


def _reader(place: Path | None) -> Callable[[str], tuple[bytearray, str]]:
    """What gives the content of a `.bin` file by its name, with words for where it lies."""
    if place is None:
        return _archive_reader(fetch("cifar10", ARCHIVE, SHA256, MIRRORS))
    for folder in (place, place / INNER):
        if (folder / TRAIN[0]).is_file():
            return lambda name: _file(folder / name)
    if (place / ARCHIVE).is_file():
        return _archive_reader(place / ARCHIVE)
    if any((place / name).exists() for name in ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1")):
        raise DataError(f"{place} holds the Python form of CIFAR-10, which is pickled; put {MIRRORS[0]}{ARCHIVE} there")
    raise DataError(
        f"{place} holds neither {TRAIN[0]} nor {ARCHIVE}; put {MIRRORS[0]}{ARCHIVE} there, or set data.folder"
    )


def _file(path: Path) -> tuple[bytearray, str]:
    if not path.is_file():
        raise DataError(f"{path.parent} lacks {path.name}; unpack {ARCHIVE} there again")
    with opened(path, unpack=False) as file:
        return read_at_most(file, RECORDS * RECORD + 1), str(path)


def _archive_reader(path: Path) -> Callable[[str], tuple[bytearray, str]]:
    """Read the `.bin` files of the archive; nothing is written to disk, and no more is unpacked than CIFAR-10 has."""
    contents: dict[str, bytearray] = {}
    with opened(path, _CURE) as stream:
        unpacked = _Counted(stream, (len(TRAIN) + 1) * RECORDS * RECORD + SURPLUS, path)
        try:
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:  # pyright: ignore
                for member in archive:
                    name = PurePosixPath(member.name).name
                    file = archive.extractfile(member) if member.isfile() and name in (*TRAIN, TEST) else None
                    if file is not None:
                        contents[name] = read_at_most(file, RECORDS * RECORD + 1)
            while unpacked.read(1 << 20):  # to the end, where gzip compares its checksum
                pass
        except (tarfile.TarError, ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is truncated or damaged ({error}); {_CURE}") from None

    def read(name: str) -> tuple[bytearray, str]:
        if name not in contents:
            raise DataError(f"{path} lacks {name}; {_CURE}")
        return contents[name], f"{path}:{name}"

    return read


class _Counted:
    """A stream that ends with an error after so many bytes, whatever its packed size promises."""

    def __init__(self, stream: object, limit: int, path: Path):
        self._stream, self._left, self._path = stream, limit, path

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)  # pyright: ignore
        self._left -= len(piece)
        if self._left < 0:
            raise DataError(f"{self._path} is damaged or hostile: it unpacks to more than CIFAR-10 has; {_CURE}")
        return piece


def _split(content: bytearray, name: str) -> Split:
    due = RECORDS * RECORD
    if len(content) != due:
        word, held = ("truncated", len(content)) if len(content) < due else ("damaged", "more")
        raise DataError(f"{name} is {word}: it has {held} bytes, and {due} are due; {_CURE}")
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, RECORD)
    labels = records[:, 0].long()
    if int(labels.max()) >= len(CLASSES):
        raise DataError(
            f"{name} is damaged: it has the label {int(labels.max())}, and there are {len(CLASSES)} classes; {_CURE}"
        )
    return Split(records[:, 1:].reshape(-1, *SHAPE), labels)
