"""The harness of `fuzz.py`: damage one file of a reader, read, and say what happened.

The right outcomes are *clean* (an error of latentia: one line, or one for each setting that is wrong) and *accepted*
(read, as before where the damage may not change what is read). The wrong ones are *wrong* (a value or a refusal that
may not be, or a cure that does not work), *traceback* (any other exception), *hang* and *memory* (beyond the limits).
"""

from __future__ import annotations

import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latentia.errors import ConfigurationError, LatentiaError

OUTCOMES = ("clean", "accepted", "wrong", "traceback", "hang", "memory")
CURED = 0.2  # share of the clean errors whose cure is followed


def always(_: str) -> bool:
    """For every file."""
    return True


def never(_: str) -> bool:
    """For no file."""
    return False


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content after one to three random changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(data) + 1)
        if rng.random() < 0.5:  # headers are short, and matter most
            place = min(place, rng.randrange(1, 200))
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(7):
            case 0 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place : place + length] = rng.randbytes(length)
            case 2:
                data[place : place + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"9", b"-")) * length
            case 3:
                del data[place : place + length * rng.choice((1, 1, 16))]
            case 4:
                data[place:place] = data[max(0, place - length) : place] or b"\0"
            case 5:
                data[place:place] = rng.randbytes(length)
            case _:
                del data[place:]
    return bytes(data)


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        name: of the reader.
        files: sound content by file name, or what makes it; one of them is damaged at a time.
        read: reads the folder that holds them; returns bytes, or another value that can be compared.
        may_differ: whether damage of this file may change what is read; `never` where checksums cover everything.
        may_refuse: whether damage of this file may end in an error.
        must_warn: whether a warning must say that what is read differs.
        damage: makes the damaged content; None removes the file.
        cure: follows the cure of an error, given the folder, the damaged file and the message; then all must be as
            before.
        writes: whether reading changes the folder, which is made again each time.
        weight: how many inputs it gets, relative to others.
        works: seconds allowed besides the limit, where the sound file takes long, too.
    """

    name: str
    files: dict[str, bytes] | Callable[[], dict[str, bytes]]
    read: Callable[[Path], object]
    may_differ: Callable[[str], bool] = always
    may_refuse: Callable[[str], bool] = always
    must_warn: Callable[[str], bool] = never
    damage: Callable[[bytes, random.Random], bytes | None] = damaged
    cure: Callable[[Path, str, str], None] | None = None
    writes: bool = False
    weight: float = 1.0
    works: float = 0.0


class _Hang(BaseException):
    """Raised by the alarm; not an Exception, so that no reader takes it for damage."""


@contextmanager
def bounded(seconds: float, megabytes: int) -> Iterator[None]:
    """Bound the time and the memory of a block, in this process."""

    def stop(*_: object) -> None:
        raise _Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    old = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 1_000_000, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(
    reader: Reader, folder: Path, expected: object, seconds: float, megabytes: int, name: str = ""
) -> tuple[str, str]:
    """What the reader does with the files in the folder, `name` damaged: one of `OUTCOMES`, and what it says."""
    try:
        with bounded(seconds + reader.works, megabytes), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            value = reader.read(folder)
    except LatentiaError as error:
        lines = 3 * len(error.problems) if isinstance(error, ConfigurationError) else 1  # an expression, and a caret
        if len(str(error).split("\n")) > lines:
            return "wrong", f"{lines} errors on several lines: {error}"
        return ("clean" if reader.may_refuse(name) else "wrong"), str(error)
    except _Hang:
        return "hang", f"longer than {seconds} s"
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:
        return "traceback", repr(error)
    silent = reader.must_warn(name) and not said
    if (silent or not reader.may_differ(name)) and value != expected:
        return "wrong", f"read as something else: {_difference(value, expected)}"
    return "accepted", ""


def _difference(value: object, expected: object) -> str:
    """The first line at which two texts differ; the beginning of other values."""
    pairs = zip(str(value).split("\n"), str(expected).split("\n"), strict=False)
    return next((f"{a[:200]!r}, not {b[:200]!r}" for a, b in pairs if a != b), f"{str(value)[:200]!r}")


def _followed(
    reader: Reader, folder: Path, expected: object, seconds: float, megabytes: int, name: str, text: str
) -> tuple[str, str]:
    """What the reader does after the cure of its error was followed: *clean*, or what went wrong."""
    assert reader.cure is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.cure(folder, name, text)
    except Exception as error:
        return "wrong", f"{text}\n  the cure failed: {error!r}"
    kind, again = outcome(reader, folder, expected, seconds, megabytes, name)
    return ("clean", text) if kind == "accepted" else ("wrong", f"{text}\n  after the cure: {kind}: {again}")


def _write(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def _fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def fuzz(
    readers: Sequence[Reader], each: int, seed: int, seconds: float = 5, megabytes: int = 500, keep: Path | None = None
) -> dict[str, Counter[str]]:
    """The outcomes of `each` damaged inputs for every reader; the first wrong ones are printed and kept."""
    counts: dict[str, Counter[str]] = {}
    for reader in readers:
        counts[reader.name] = found = Counter[str]()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve() / "here"
            files = reader.files if isinstance(reader.files, dict) else reader.files()
            _fill(folder, files)
            expected = reader.read(folder)
            for number in range(max(1, round(each * reader.weight))):
                rng = random.Random(f"{reader.name} {seed} {number}")
                name = rng.choice(list(files))
                if reader.writes:
                    shutil.rmtree(folder)
                    _fill(folder, files)
                content = reader.damage(files[name], rng)
                _write(folder / name, content)
                kind, text = outcome(reader, folder, expected, seconds, megabytes, name)
                follows = kind == "clean" and reader.cure is not None and rng.random() < CURED
                if follows:
                    kind, text = _followed(reader, folder, expected, seconds, megabytes, name, text)
                found[kind] += 1
                if kind not in ("clean", "accepted") and found[kind] <= 3:
                    print(f"{reader.name} {number}, {name}: {kind}: {text}", file=sys.stderr, flush=True)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        kept = f"{reader.name}-{number}-{Path(name).name}".replace("/", "_")
                        (keep / kept).write_bytes(content or b"")
                _fill(folder, files if follows else {name: files[name]})
    return counts
