"""The numbers of a page: arrays in one compressed block, and references to them in the page's JSON."""

from __future__ import annotations

__all__: list[str] = []

import base64
import zlib
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Encoding = Literal["float32", "float16", "int8", "uint8", "uint16", "bits"]

_ALIGNMENT = 8


class Payload:
    """Collects arrays. Each `add` returns what the page's `arrayOf` reads: place, shape, encoding and scale."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: Tensor | np.ndarray, encoding: Encoding = "float32") -> dict[str, Any]:
        """Store an array.

        Args:
            values: of any shape; `bits` takes zeros and ones, eight to a byte; `int8` scales each row by its largest
                absolute value; `uint16` maps the range of all values to 0 … 65535.
            encoding: how the numbers are written.
        """
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        about: dict[str, Any] = {"shape": list(array.shape), "encoding": encoding}
        if encoding == "bits":
            content = np.packbits(array.astype(bool).reshape(-1), bitorder="little")
        elif encoding == "int8":
            rows = array.reshape(len(array), -1).astype(np.float64)
            scale = np.abs(rows).max(1, keepdims=True) / 127
            content = np.rint(rows / np.where(scale > 0, scale, 1)).astype(np.int8)
            about["scale"] = self.add(scale.reshape(-1).astype(np.float32))
        elif encoding == "uint16":
            low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
            step = (high - low) / 65535 or 1.0
            content = np.rint((array.astype(np.float64) - low) / step).astype("<u2")
            about |= {"low": low, "step": step}
        else:
            content = array.astype(np.dtype(encoding).newbyteorder("<"))
        data = content.tobytes()
        about |= {"offset": self._size, "bytes": len(data)}
        padding = -len(data) % _ALIGNMENT
        self._parts.append(data + bytes(padding))
        self._size += len(data) + padding
        return about

    def text(self) -> str:
        """All arrays, compressed by deflate with zlib's header, in base64."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode("ascii")


def rounded(values: Tensor, encoding: Encoding) -> Tensor:
    """The values as a reader of the page gets them."""
    if encoding == "float16":
        return values.half().to(values.dtype)
    if encoding == "int8":
        rows = values.reshape(len(values), -1)
        scale = rows.abs().amax(1, keepdim=True) / 127
        return (torch.round(rows / torch.where(scale > 0, scale, 1)) * scale).reshape(values.shape)
    return values
