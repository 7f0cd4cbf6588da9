"""Damage the files that latentia reads, at random, and count what it does with them.

    python benchmarks/fuzz.py                    # 20 000 inputs, spread over all readers
    python benchmarks/fuzz.py -n 500 --only npz

Each input is a sound file with a few bytes changed, removed, repeated or added. The right outcomes are *clean* (one
line that is an error of latentia) and *accepted* (read: as before if the format has a checksum, or else as anything of
the right kind). The wrong ones are *wrong* (read as something else although a checksum said no, or an error of several
lines), *traceback* (any other exception), *hang* (longer than `--seconds`) and *memory* (more than `--megabytes`
beyond what the process had). Wrong ones are written to a folder, and the exit status is 1.

To add a reader, append a `Reader` to `READERS`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentia.data import CIFAR10, MNIST, NPZ, HuggingFace, cifar, read_arrays, read_image_folder
from latentia.errors import LatentiaError
from latentia.inputs import read_points

OUTCOMES = ("clean", "accepted", "wrong", "traceback", "hang", "memory")
LIMIT = 50_000_000  # decoded bytes of a file
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        name: of the reader.
        files: sound content by file name; one of them is damaged at a time.
        read: reads the folder that holds them; returns bytes, or another value that can be compared.
        sealed: whether checksums cover all that is read, so that damage may not change what is read.
    """

    name: str
    files: dict[str, bytes]
    read: Callable[[Path], object]
    sealed: bool = False


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


def outcome(reader: Reader, folder: Path, expected: object, seconds: float, megabytes: int) -> tuple[str, str]:
    """What the reader does with the files in the folder: one of `OUTCOMES`, and what it says."""
    try:
        with bounded(seconds, megabytes), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = reader.read(folder)
    except LatentiaError as error:
        return ("wrong" if "\n" in str(error) else "clean"), str(error)
    except _Hang:
        return "hang", f"longer than {seconds} s"
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:
        return "traceback", repr(error)
    if reader.sealed and value != expected:
        return "wrong", "read as something else in spite of a checksum"
    return "accepted", ""


def fuzz(
    readers: Sequence[Reader], each: int, seed: int, seconds: float = 5, megabytes: int = 500, keep: Path | None = None
) -> dict[str, Counter[str]]:
    """The outcomes of `each` damaged inputs for every reader; the first wrong ones are printed and kept."""
    counts: dict[str, Counter[str]] = {}
    for reader in readers:
        counts[reader.name] = Counter()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, content in reader.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            expected = reader.read(folder)
            for number in range(each):
                rng = random.Random(f"{reader.name} {seed} {number}")
                name = rng.choice(list(reader.files))
                (folder / name).write_bytes(damaged(reader.files[name], rng))
                kind, text = outcome(reader, folder, expected, seconds, megabytes)
                counts[reader.name][kind] += 1
                if kind not in ("clean", "accepted") and counts[reader.name][kind] <= 3:
                    print(f"{reader.name} {number}: {kind}: {text}", file=sys.stderr)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{reader.name}-{number}-{Path(name).name}").write_bytes((folder / name).read_bytes())
                (folder / name).write_bytes(reader.files[name])
    return counts


# ---- what is read ----


def _pixels(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def _saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


def _picture(kind: str, pixels: np.ndarray[Any, Any], mode: str | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def _mnist(packed: bool) -> dict[str, bytes]:
    files = {}
    for part, count in (("train", 20), ("t10k", 5)):
        files[f"{part}-images-idx3-ubyte"] = _idx(_pixels(count, 4, 4))
        files[f"{part}-labels-idx1-ubyte"] = _idx(np.arange(count) % 10)
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()} if packed else files


def _read_mnist(folder: Path) -> object:
    return MNIST(folder=folder, validation=2, limit=LIMIT).load().content_hash


def _cifar() -> dict[str, bytes]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in (*cifar.TRAIN, cifar.TEST):
            content = b"".join(bytes([label]) + _pixels(3 * 32 * 32).tobytes() for label in range(2))
            member = tarfile.TarInfo(f"{cifar.INNER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {cifar.ARCHIVE: stream.getvalue()}


def _read_cifar(folder: Path) -> object:
    records, cifar.RECORDS = cifar.RECORDS, 2
    try:
        return CIFAR10(folder=folder).load().content_hash
    finally:
        cifar.RECORDS = records


def _read_all(path: Path) -> object:
    arrays = read_arrays(path, LIMIT)
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).digest(), sorted(arrays)


class _Rows:
    """Stands for the rows of the library `datasets`, with damaged bytes and odd labels."""

    column_names = ("image", "label")

    def __init__(self, folder: Path):
        self.features = {"label": None}
        self.content = (folder / "row.png").read_bytes()
        rng = random.Random(self.content)
        kinds = (rng.choice((0, 1, None, -1, 2**70, "word", 1.5, b"x", [1], True)) for _ in range(6))
        is_sound = self.content == _PICTURES["png"]
        self.labels = [0, 1, 0, 1, 0, 1] if is_sound or rng.random() < 0.7 else list(kinds)
        self.is_odd = not is_sound and rng.random() < 0.1
        self.form = rng.choice(({}, None, [], "text", {"bytes": None, "path": "nowhere.png"}))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.labels
        odd = key == 3 and self.is_odd
        return {"image": self.form if odd else {"bytes": self.content, "path": None}, "label": self.labels[key]}

    def cast_column(self, *_: object) -> _Rows:
        return self


def _read_hugging_face(folder: Path) -> object:
    library = types.SimpleNamespace(
        load_dataset=lambda *_, **__: _Rows(folder), Image=lambda decode: decode, __version__="4.0.0"
    )
    before = sys.modules.get("datasets")
    sys.modules["datasets"] = library  # pyright: ignore[reportArgumentType]
    try:
        return HuggingFace(dataset="some/set", limit=LIMIT).load().content_hash
    finally:
        del sys.modules["datasets"]
        if before is not None:
            sys.modules["datasets"] = before


def _folder(folder: Path) -> object:
    return read_image_folder(folder, limit=LIMIT)[0].images.numpy().tobytes()


_IMAGES, _LABELS = _pixels(20, 4, 4), np.arange(20) % 3
_PICTURES = {
    "png": _picture("PNG", _pixels(12, 12, 3)),
    "palette.png": _picture("PNG", _pixels(12, 12, 3), "P"),
    "jpg": _picture("JPEG", _pixels(12, 12, 3)),
    "webp": _picture("WEBP", _pixels(12, 12, 3)),
    "bmp": _picture("BMP", _pixels(12, 12, 3)),
    "tif": _picture("TIFF", _pixels(12, 12, 3)),
    "packed.tif": _picture("TIFF", _pixels(12, 12, 3), compression="tiff_lzw"),
    "deep.tif": _picture("TIFF", RNG.integers(0, 65536, (12, 12), dtype=np.uint16), "I;16"),
    "gif": _picture("GIF", _pixels(12, 12)),
}
_POINTS = RNG.normal(size=(10, 2))
READERS = [
    Reader("npz", {"a.npz": _saved(np.savez, images=_IMAGES, labels=_LABELS)}, lambda f: _read_all(f / "a.npz"), True),
    Reader(
        "npz, packed", {"a.npz": _saved(np.savez_compressed, images=_IMAGES, labels=_LABELS)},
        lambda f: _read_all(f / "a.npz"), True,
    ),
    Reader(
        "npz as data", {"a.npz": _saved(np.savez_compressed, images=_IMAGES, labels=_LABELS)},
        lambda f: NPZ(file=f / "a.npz", limit=LIMIT).load().content_hash, True,
    ),
    Reader("npy", {"a.npy": _saved(np.save, _IMAGES)}, lambda f: _read_all(f / "a.npy")),
    Reader("npy of points", {"a.npy": _saved(np.save, _POINTS)}, lambda f: read_points(f / "a.npy")),
    Reader("csv of points", {"a.csv": _saved(np.savetxt, _POINTS, delimiter=",")}, lambda f: read_points(f / "a.csv")),
    Reader("idx", _mnist(packed=False), _read_mnist),
    Reader("idx, packed", _mnist(packed=True), _read_mnist, sealed=True),
    Reader("cifar", _cifar(), _read_cifar, sealed=True),
    Reader("hugging face", {"row.png": _PICTURES["png"]}, _read_hugging_face),
    *(Reader(f"folder, {kind}", {f"a.{kind}": data}, _folder, "png" in kind) for kind, data in _PICTURES.items()),
]  # fmt: skip


def main() -> int:
    """Fuzz all readers, print the counts, and return 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--inputs", type=int, default=20_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name contains this")
    parser.add_argument("--seconds", type=float, default=5, help="time allowed for one input")
    parser.add_argument("--megabytes", type=int, default=500, help="memory allowed for one input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that went wrong")
    options = parser.parse_args()
    readers = [reader for reader in READERS if options.only in reader.name]
    each = -(-options.inputs // len(readers))
    counts = fuzz(readers, each, options.seed, options.seconds, options.megabytes, options.keep)
    total = Counter[str]()
    print(f"{'reader':20}" + "".join(f"{kind:>11}" for kind in OUTCOMES))
    for name, found in counts.items():
        print(f"{name:20}" + "".join(f"{found[kind]:11}" for kind in OUTCOMES))
        total += found
    print(f"{'all':20}" + "".join(f"{total[kind]:11}" for kind in OUTCOMES))
    return int(any(total[kind] for kind in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
