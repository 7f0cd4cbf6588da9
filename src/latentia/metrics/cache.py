"""Features of real images, computed once: a safetensors file for each pair of images and features, found by content.

The folder is LATENTIA_CACHE, or ~/.cache/latentia. A file's name is the hash of the images and of the features, and it
holds the hash of what is in it, so a file that was damaged or put in another's place is refused and not used.
"""

from __future__ import annotations

__all__ = ["cache_folder", "cached_features", "content_hash"]

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentia.errors import DataError
from latentia.metrics.features import Features
from latentia.metrics.place import cache_root

KEY = "features"


def cache_folder() -> Path:
    """Where features of real images are kept."""
    return cache_root() / "features"


def content_hash(values: Tensor) -> str:
    """Sha256 of a tensor's type, shape and content."""
    plain = values.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cached_features(features: Features, images: Tensor, batch_size: int = 500) -> Tensor:
    """`features(images)`, from the cache where it is there, and kept there for the next time.

    A folder that cannot be written is no reason to fail: then they are computed each time.

    Raises:
        DataError: for a file whose content is not what its hash says.
    """
    key = hashlib.sha256(f"{content_hash(images)} {features.fingerprint()}".encode()).hexdigest()
    path = cache_folder() / f"{key}.safetensors"
    if path.exists():
        return _read(path, key).to(images.device)
    values = features(images, batch_size)
    _write(path, key, values)
    return values


def _read(path: Path, key: str) -> Tensor:
    cure = f"remove {path}, and they are computed anew"
    try:
        with safe_open(path, framework="pt") as file:
            facts, values = file.metadata() or {}, file.get_tensor(KEY)
    except (OSError, SafetensorError) as error:
        raise DataError(f"the features in the cache are damaged ({error}); {cure}") from None
    if facts.get("key") != key or facts.get("sha256") != content_hash(values):
        raise DataError(f"the features in the cache have a wrong hash, so they are others or damaged; {cure}")
    return values


def _write(path: Path, key: str, values: Tensor) -> None:
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    plain = values.detach().cpu().contiguous()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({KEY: plain}, beside, metadata={"key": key, "sha256": content_hash(plain)})
        beside.replace(path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            beside.unlink(missing_ok=True)
