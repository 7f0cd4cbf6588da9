"""Pictures of people's own as uint8 tensors: PNG, JPEG, WebP, BMP, TIFF and GIF, decoded by what a file holds.

Pillow knows some forty formats, and for one of them (EPS) it starts another program. Only the six above are allowed
here, whatever a file's name says. The orientation that a camera writes (EXIF) is applied, the first frame of an
animation is taken, 16 bits are scaled to 8, and transparency that hides nothing is dropped.
"""

from __future__ import annotations

__all__: list[str] = []

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from latentia.data.opening import LIMIT, readable, require_below
from latentia.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_GRAY_MODES = frozenset({"1", "L", "LA", "La"})
_DEEP_GRAY_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
DAMAGE = (  # all that Pillow raises for damaged files, by a fuzz test
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


class Decoded(NamedTuple):
    """A decoded picture.

    Attributes:
        image: upright, opaque, of 8 bits: mode L or RGB.
        channels: how many channels it may count as; a palette of grays counts as gray and as color.
        name: of the picture, for messages.
    """

    image: Image.Image
    channels: tuple[int, ...]
    name: str


class Reading(NamedTuple):
    """How a picture becomes a tensor, and what shape it must have.

    Attributes:
        shape: (C, H, W).
        resize: cut the middle out and resize it to (H, W); otherwise a picture of another size is refused.
        recolor: turn color to gray or gray to color to get C channels; otherwise another picture is refused.
        model: the picture that set the shape, for messages.
    """

    shape: tuple[int, int, int]
    resize: bool
    recolor: bool
    model: str


def decode(source: Path | bytes, name: str = "", limit: int = LIMIT) -> Decoded:
    """Decode a picture from a file, or from its bytes.

    Args:
        source: the file, or what it holds.
        name: for messages; by default the path.
        limit: bytes that the pixels may take.

    Raises:
        DataError: naming the picture, when it is missing, damaged, of another format, transparent or too large.
    """
    if isinstance(source, Path):
        name = name or readable(source)
        source = _content(source, name, limit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and sizes, for which there is the limit
            with Image.open(io.BytesIO(source), formats=FORMATS) as image:
                require_below(limit, image.width * image.height * 4, name)
                deep = _low_bytes_of_color(image, source)
                image.load()
                if image.format == "PNG":  # whose checksums Pillow compares on demand
                    with Image.open(io.BytesIO(source), formats=("PNG",)) as again:
                        again.verify()
                return _plain(image, deep, name)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        raise DataError(
            f"{name} is not a sound image of the formats {', '.join(FORMATS)}; convert, replace or remove it"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} claims an enormous size; it is damaged or hostile, remove it") from None
    except DAMAGE as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name} is not a sound image ({cause}); replace or remove it") from None


def _content(path: Path, name: str, limit: int) -> bytes:
    """The bytes of a file, in memory, so that a damaged one cannot make Pillow ask for more than there is."""
    if not os.path.isfile(path):
        raise DataError(f"there is no image {name}")
    try:
        require_below(limit, os.path.getsize(path), name)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}; check its permissions, or remove it") from None


def reading_like(decoded: Decoded, size: int | None = None, gray: bool | None = None) -> Reading:
    """How to read pictures that are all like this one.

    Args:
        decoded: sets what the others must be.
        size: resize every picture to size × size; None demands that all have the size of this one.
        gray: one channel (True) or three (False) for every picture; None takes what this one has and demands it of all.
    """
    channels = decoded.channels[0] if gray is None else 1 if gray else 3
    image = decoded.image
    shape = (channels, image.height, image.width) if size is None else (channels, size, size)
    return Reading(shape, resize=size is not None, recolor=gray is not None, model=decoded.name)


def to_tensor(decoded: Decoded, reading: Reading) -> Tensor:
    """A picture as uint8 (C, H, W).

    Raises:
        DataError: naming the picture, when it is not as `reading` says.
    """
    image, name = decoded.image, decoded.name
    channels, height, width = reading.shape
    if not reading.recolor and channels not in decoded.channels:
        kinds = ("gray", "colored") if decoded.channels[0] == 1 else ("colored", "gray")
        raise DataError(
            f"{name} is {kinds[0]} while {reading.model} is {kinds[1]}; "
            "set data.gray=true or data.gray=false to make all alike"
        )
    if reading.resize:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((width, height), Image.Resampling.BICUBIC)
    elif image.size != (width, height):
        raise DataError(
            f"{name} has {image.width}×{image.height} pixels while {reading.model} has {width}×{height}; "
            "set data.size=N to resize all images to N×N, or remove it"
        )
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)


def _low_bytes_of_color(image: Image.Image, content: bytes) -> np.ndarray | None:
    """The low bytes of color channels of 16 bits, (H, W, C), of which Pillow gives the high bytes; None for 8 bits.

    Pillow has no color mode of 16 bits: it keeps one byte of each number. Reading the bytes in the other order gives
    the other one.
    """
    tiles = getattr(image, "tile", [])
    modes = [tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0]) for tile in tiles]
    if not any(";16" in mode and mode[0] in "RL" for mode in modes):
        return None
    turned = {"16B": "16L", "16L": "16B", "16N": "16B"}
    with Image.open(io.BytesIO(content), formats=FORMATS) as other:
        for index, (tile, mode) in enumerate(zip(tiles, modes, strict=True)):
            swapped = mode[:-3] + turned[mode[-3:]]
            args = swapped if isinstance(tile.args, str) else (swapped, *tile.args[1:])
            other.tile[index] = tile._replace(args=args)  # pyright: ignore
        other.load()
        return np.asarray(other)


def _plain(image: Image.Image, low_bytes: np.ndarray | None, name: str) -> Decoded:
    """An opened picture as an upright, opaque one of mode L or RGB."""
    if image.mode in ("I", "F"):
        raise DataError(f"{name} has more than 16 bits a pixel (mode {image.mode}); convert it to 8 bits")
    channels = (1,) if image.mode in _GRAY_MODES | _DEEP_GRAY_MODES else (3,)
    orientation = image.getexif().get(0x0112, 1)
    if _shows_through(image):
        raise DataError(f"{name} has transparent pixels; put it on a background and save it without transparency")
    if low_bytes is not None:
        levels = np.asarray(image).astype(np.uint32) * 256 + low_bytes
        upright = Image.fromarray(_scaled(levels[..., :3]))
    elif image.mode in _DEEP_GRAY_MODES:
        upright = Image.fromarray(_scaled(np.asarray(image).astype(np.uint32)))
    elif image.mode == "P":
        upright = image.convert("RGB")
        red, green, blue = upright.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            upright, channels = red, (1, 3)
    else:
        upright = image.convert("L" if channels == (1,) else "RGB")
    if orientation != 1:
        upright.getexif()[0x0112] = orientation
        upright = ImageOps.exif_transpose(upright)
    return Decoded(upright, channels, name)


def _shows_through(image: Image.Image) -> bool:
    """Whether a pixel is not fully opaque. A transparent color that no pixel has hides nothing."""
    mark = image.info.get("transparency")
    if image.mode in _DEEP_GRAY_MODES:
        return mark is not None and bool((np.asarray(image) == mark).any())
    if "A" in image.getbands() or "a" in image.getbands():
        alpha = image.getchannel(image.getbands()[-1])
    elif mark is not None:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return False
    return alpha.getextrema() != (255, 255)


def _scaled(levels: np.ndarray) -> np.ndarray:
    """Levels of 0 to 65535 as the nearest of 0 to 255."""
    return ((levels + 128) // 257).astype(np.uint8)
