"""The readers of data, with small sound files of every format that they read."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import struct
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzing import Reader, always, never
from latentia.data import CIFAR10, MNIST, NPZ, HuggingFace, cifar, read_arrays, read_image_folder
from latentia.inputs import read_points

LIMIT = 50_000_000  # decoded bytes of a file
RNG = np.random.default_rng(0)


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
    return read_image_folder(folder, limit=LIMIT)[0].x.numpy().tobytes()


def _points_of(path: Path) -> object:
    return np.asarray(read_points(path)).tobytes()


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
    Reader("npz", {"a.npz": _saved(np.savez, images=_IMAGES, labels=_LABELS)}, lambda f: _read_all(f / "a.npz"), never),
    Reader(
        "npz, packed", {"a.npz": _saved(np.savez_compressed, images=_IMAGES, labels=_LABELS)},
        lambda f: _read_all(f / "a.npz"), never,
    ),
    Reader(
        "npz as data", {"a.npz": _saved(np.savez_compressed, images=_IMAGES, labels=_LABELS)},
        lambda f: NPZ(file=f / "a.npz", limit=LIMIT).load().content_hash, never,
    ),
    Reader("npy", {"a.npy": _saved(np.save, _IMAGES)}, lambda f: _read_all(f / "a.npy")),
    Reader("npy of points", {"a.npy": _saved(np.save, _POINTS)}, lambda f: _points_of(f / "a.npy")),
    Reader("csv of points", {"a.csv": _saved(np.savetxt, _POINTS, delimiter=",")}, lambda f: _points_of(f / "a.csv")),
    Reader("idx", _mnist(packed=False), _read_mnist),
    Reader("idx, packed", _mnist(packed=True), _read_mnist, may_differ=never),
    Reader("cifar", _cifar(), _read_cifar, may_differ=never),
    Reader("hugging face", {"row.png": _PICTURES["png"]}, _read_hugging_face),
    *(
        Reader(f"folder, {kind}", {f"a.{kind}": data}, _folder, never if "png" in kind else always)
        for kind, data in _PICTURES.items()
    ),
]  # fmt: skip
