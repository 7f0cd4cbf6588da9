"""IDX files, the layout of MNIST: two zero bytes, a type, the number of dimensions, the dimensions, the values.

Numbers of the header are big-endian; type 8 is unsigned bytes, the only one read here
(LeCun, Cortes and Burges, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

__all__ = ["find_idx", "read_idx"]

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from latentia.errors import DataError

UNSIGNED_BYTES = 8


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of bytes, gzipped or not, as a uint8 tensor.

    Args:
        path: the file; one that starts as gzip does is unpacked, whatever its name.
        dimensions: how many the tensor must have: 3 for images, 1 for labels.

    Raises:
        DataError: naming the file, when it is missing, truncated, damaged, or holds something else.
    """
    content = _content(path)
    if len(content) < 4:
        raise DataError(f"{path} is truncated: it has {len(content)} bytes, less than an IDX header; get it anew")
    zeros, kind, count = struct.unpack(">HBB", content[:4])
    if zeros != 0 or kind != UNSIGNED_BYTES:
        raise DataError(
            f"{path} is no IDX file of bytes: its magic number is 0x{content[:4].hex()}, "
            f"and 0x0000080{dimensions} is wanted; get it anew"
        )
    if count != dimensions:
        wanted, held = (("labels", "images"), ("images", "labels"))[dimensions > 1]
        raise DataError(
            f"{path} has {count} dimensions, and {wanted} have {dimensions}; are {wanted} and {held} swapped?"
        )
    start = 4 + 4 * count
    if len(content) < start:
        raise DataError(f"{path} is truncated within its IDX header; get it anew")
    shape = struct.unpack(f">{count}I", content[4:start])
    held, claimed = len(content) - start, math.prod(shape)
    if held != claimed:
        word = "truncated" if held < claimed else "damaged"
        raise DataError(
            f"{path} is {word}: its header promises {' × '.join(map(str, shape))} = {claimed} bytes, "
            f"and {held} follow; get it anew"
        )
    if claimed == 0:
        raise DataError(f"{path} is empty: its header says {' × '.join(map(str, shape))}; get it anew")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def find_idx(folder: Path, name: str) -> Path:
    """The file `name` of a folder, such as train-images-idx3-ubyte, plain or gzipped, with a dash or a dot before idx.

    Raises:
        DataError: listing what was looked for.
    """
    names = [name + suffix for name in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(
        f"{folder} lacks {name}[.gz]; put the file there, or set data.folder or LATENTIA_DATA to where it is"
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except EOFError:
        raise DataError(f"{path} is truncated: its gzip stream stops short; get it anew") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get it anew") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
