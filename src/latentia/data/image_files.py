"""PNG and JPEG files as uint8 tensors; whatever is wrong with a file is said with its name and the cure."""

from __future__ import annotations

__all__ = [
    "FoundImages",
    "Reading",
    "find_images",
    "image_to_tensor",
    "read_image",
    "read_image_folder",
    "read_images",
    "reading_like",
    "require_memory",
]

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentia.data.split import Split
from latentia.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
GRAY_MODES = frozenset({"1", "L", "LA"})
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
MEMORY_SHARE = 0.5
_T = TypeVar("_T")


class FoundImages(NamedTuple):
    """Image files in a fixed order, with a label for each when they lie in sub-folders, and the labels' names."""

    files: tuple[Path, ...]
    labels: Tensor | None
    classes: tuple[str, ...]


class Reading(NamedTuple):
    """How an image becomes a tensor, and what shape it must have.

    Attributes:
        shape: (C, H, W).
        resize: cut the middle out and resize it to (H, W); otherwise an image of another size is refused.
        recolor: turn color to gray or gray to color to get C channels; otherwise another image is refused.
        model: the image that set the shape, for messages.
    """

    shape: tuple[int, int, int]
    resize: bool
    recolor: bool
    model: str


def find_images(folder: Path) -> FoundImages:
    """All PNG and JPEG files under a folder, sorted by path; the first level of sub-folders are the classes.

    Files and folders whose name starts with a dot are passed over.

    Raises:
        DataError: when the folder is missing or has no images, or has some beside its sub-folders and some inside.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; set data.folder to a folder of PNG or JPEG images")
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    files = sorted((path for path in paths if path.is_file()), key=lambda path: path.relative_to(folder).parts)
    if not files:
        raise DataError(
            f"{folder} holds no .png, .jpg or .jpeg file, nor do its sub-folders; set data.folder to one that does"
        )
    at_root = [path for path in files if path.parent == folder]
    if len(at_root) == len(files):
        return FoundImages(tuple(files), None, ())
    if at_root:
        raise DataError(
            f"{folder} has images in sub-folders, which are its classes, and beside them, such as {at_root[0].name}; "
            "move each image into a sub-folder, or all of them out"
        )
    names = [path.relative_to(folder).parts[0] for path in files]
    classes = tuple(sorted(set(names)))
    return FoundImages(tuple(files), torch.tensor([classes.index(name) for name in names]), classes)


def reading_like(file: Path, size: int | None = None, gray: bool | None = None) -> Reading:
    """How to read image files that are all like this one; see `reading_of`."""
    return _opened(file, lambda image: reading_of(image, str(file), size, gray))


def reading_of(image: Image.Image, name: str, size: int | None = None, gray: bool | None = None) -> Reading:
    """How to read images that are all like this one.

    Args:
        image: sets what the others must be.
        name: of the image, for messages.
        size: resize every image to size × size; None demands that all have the size of this one.
        gray: one channel (True) or three (False) for every image; None takes what this one has and demands it of all.
    """
    channels = 1 if (image.mode in GRAY_MODES if gray is None else gray) else 3
    shape = (channels, image.height, image.width) if size is None else (channels, size, size)
    return Reading(shape, resize=size is not None, recolor=gray is not None, model=name)


def read_image(file: Path, reading: Reading) -> Tensor:
    """One image file as uint8 (C, H, W).

    Raises:
        DataError: naming the file, when it is damaged or is not as `reading` says.
    """
    return _opened(file, lambda image: image_to_tensor(image, reading, str(file)))


def image_to_tensor(image: Image.Image, reading: Reading, name: str) -> Tensor:
    """A Pillow image as uint8 (C, H, W).

    Args:
        image: of any mode with 8 bits.
        reading: what it is to become.
        name: of the image, for messages.

    Raises:
        DataError: naming the image, when it is not as `reading` says.
    """
    channels, height, width = reading.shape
    if image.mode in DEEP_MODES:
        raise DataError(f"{name} has more than 8 bits a pixel (mode {image.mode}); convert it to 8 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA") if image.mode != "LA" else image
        if image.getchannel("A").getextrema() != (255, 255):
            raise DataError(f"{name} has transparent pixels; lay it on a background and save it without transparency")
        # A palette with transparency is now RGBA; its colors are what counts below.
    is_gray = image.mode in GRAY_MODES
    if not reading.recolor and is_gray != (channels == 1):
        kinds = ("gray", "colored") if is_gray else ("colored", "gray")
        raise DataError(
            f"{name} is {kinds[0]} while {reading.model} is {kinds[1]}; "
            "set data.gray=true or data.gray=false to make all alike"
        )
    if reading.resize:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        middle = image.convert("L" if is_gray else "RGB").crop((left, top, left + side, top + side))
        image = middle.resize((width, height), Image.Resampling.BICUBIC)
    elif image.size != (width, height):
        raise DataError(
            f"{name} has {image.width}×{image.height} pixels while {reading.model} has {width}×{height}; "
            "set data.size=N to resize all images to N×N, or take it out"
        )
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)


def read_images(files: Sequence[Path], reading: Reading) -> Tensor:
    """Image files as one uint8 tensor, (N, C, H, W).

    Raises:
        DataError: for a file that is damaged or unlike the others, or when memory would not hold them.
    """
    require_memory(len(files), reading.shape)
    images = torch.empty(len(files), *reading.shape, dtype=torch.uint8)
    for row, file in enumerate(files):
        images[row] = read_image(file, reading)
    return images


def read_image_folder(folder: Path, size: int | None = None, gray: bool | None = None) -> tuple[Split, tuple[str, ...]]:
    """All images of a folder with their labels, and the classes' names; see `find_images` and `reading_like`.

    Raises:
        DataError: naming the file or folder that is missing, damaged, or unlike the first image.
    """
    found = find_images(folder)
    images = read_images(found.files, reading_like(found.files[0], size, gray))
    return Split(images, found.labels), found.classes


def require_memory(count: int, shape: tuple[int, int, int]) -> None:
    """See that this machine's memory holds so many images.

    Raises:
        DataError: if they would take too large a part of it.
    """
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return  # not known on this system
    needed, present = count * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > MEMORY_SHARE * present:
        pixels = " × ".join(map(str, shape))
        raise DataError(
            f"{count} images of {pixels} bytes need {needed / 1e9:.1f} GB of this machine's {present / 1e9:.1f} GB; "
            "set data.stream=true to leave training images on disk (with data.validation=N and a smaller test "
            "sub-folder beside train if it is those that are too many), or data.size=N to make the images smaller"
        )


def _opened(file: Path, use: Callable[[Image.Image], _T]) -> _T:
    """What `use` makes of the opened image; all the ways in which Pillow says that a file is damaged become one."""
    try:
        with Image.open(file) as image:
            image.load()
            return use(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"there is no image {file}") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{file} claims to be a picture of enormous size; it is damaged or hostile, take it out"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow raises any of these for damaged files
        raise DataError(f"{file} is not a sound image ({error}); replace it or take it out") from None
