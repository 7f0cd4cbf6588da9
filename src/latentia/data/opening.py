"""Files of data: where they are, how they are downloaded, and how they are opened without trust.

Every file may be missing, truncated, damaged or made to fill the memory. Each reader of this package therefore knows
how many bytes it will take *before* it takes them, compares the number with a limit (`data.limit`), and reports what is
wrong in one line that names the file.
"""

from __future__ import annotations

__all__: list[str] = []

import errno
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from pydantic import AfterValidator

from latentia.errors import DataError

LIMIT = 4_000_000_000  # decoded bytes that one file may have, unless an option says more
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path.expanduser()))
    except (RuntimeError, ValueError) as error:  # ~nosuchuser, and names that no file system has
        raise ValueError(f"{path} is not a path: {str(error).rstrip('.').lower()}; give another") from None


DataPath = Annotated[Path, AfterValidator(_absolute)]
"""A path in a setting. It is made absolute when the setting is made, so that a run finds its data from any folder."""


def find_folder(name: str, given: Path | None) -> Path | None:
    """The folder of a data set: the one given, or else the one in LATENTIA_DATA; None where neither is set.

    Either may be the folder with the files or a parent with a sub-folder of the data set's name.

    Raises:
        DataError: when the place is set and is not a folder.
    """
    place, setting = (given, "data.folder") if given else (os.environ.get("LATENTIA_DATA"), "LATENTIA_DATA")
    if not place:
        return None
    try:
        folder = _absolute(Path(place))
    except ValueError as error:
        raise DataError(f"{setting}: {error}") from None
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {folder}, which {setting} names for {name}; correct or remove the setting")
    inner = folder / name
    return inner if inner.is_dir() else folder


def fetch(data_set: str, file: str, sha256: str, mirrors: Sequence[str]) -> Path:
    """The file from the cache, or else from the first mirror that serves it with the published sha256.

    Args:
        data_set: its name, also of its folder in the cache.
        file: name of the file.
        sha256: of the sound file.
        mirrors: addresses that end in a slash, tried in order.

    Raises:
        DataError: with the answer of each mirror, and how to provide the file by hand.
    """
    import pooch  # imported here, as it brings requests, which only a download needs

    folder = pooch.os_cache("latentia") / data_set
    answers = []
    for mirror in mirrors:
        try:
            return Path(pooch.retrieve(mirror + file, known_hash=f"sha256:{sha256}", fname=file, path=folder))
        except (OSError, ValueError) as error:  # the network's errors are OSErrors, a wrong checksum is a ValueError
            answers.append(f"  {mirror}{file}: {(str(error).splitlines() or [type(error).__name__])[0]}")
    raise DataError(
        f"{file} of {data_set} could not be downloaded:\n"
        + "\n".join(answers)
        + f"\nPut it into a folder by hand and set data.folder or LATENTIA_DATA to it, or put the file into {folder}."
    )


@contextmanager
def opened(path: Path, cure: str = "download it again", unpack: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for reading, through gzip if it starts as gzip does, whatever its name.

    Args:
        path: the file.
        cure: what to do when it is damaged, for the message.
        unpack: whether a gzipped file is unpacked.

    Raises:
        DataError: naming the file, when it is missing or, while it is read, turns out to be truncated or damaged.
    """
    if not os.path.exists(path):
        raise DataError(f"there is no file {path}")
    if not os.path.isfile(path):
        raise DataError(f"{path} cannot be read: it is not a file")
    try:
        with open(path, "rb") as file:
            is_packed = unpack and file.read(2) == _GZIP
            file.seek(0)
            if not is_packed:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream  # pyright: ignore[reportReturnType]
    except EOFError:
        raise DataError(f"{path} is truncated: its gzip stream stops short; {cure}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); {cure}") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a position before the beginning
            raise DataError(f"{path} is damaged (it names a place that it does not have); {cure}") from None
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def limit_of_environment() -> int:
    """The limit where no setting has one, as for `latentia score` and `distance`: LATENTIA_LIMIT, or else `LIMIT`.

    Raises:
        DataError: when LATENTIA_LIMIT is not a whole number above 0.
    """
    text = os.environ.get("LATENTIA_LIMIT", "").replace("_", "") or str(LIMIT)
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 20 and int(text)):
        raise DataError(f"LATENTIA_LIMIT is {text[:30]!r}; set it to a number of bytes, such as {LIMIT}")
    return int(text)


def read_at_most(stream: IO[bytes], size: int) -> bytearray:
    """The next `size` bytes, or fewer at the end of the stream; memory grows with what is there, not with `size`."""
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(_PIECE, size - len(content)))
        if not piece:
            break
        content += piece
    return content


def require_below(limit: int, size: int, name: str, option: str = "data.limit") -> None:
    """Refuse to decode more bytes than the limit.

    Raises:
        DataError: with the option that raises the limit.
    """
    if size > limit:
        raise DataError(
            f"{name} would take {size:,} bytes of memory, and the limit is {limit:,}; it is damaged or hostile, "
            f"or set {option}={size}"
        )


def readable(path: Path | str) -> str:
    """A path as text for people: bytes that are not UTF-8 become \\xff and the like."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
