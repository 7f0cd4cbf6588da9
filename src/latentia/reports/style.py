"""The look of every picture: sizes, colors, fonts, tiles of images, and the way to a file.

Pictures are made with matplotlib's objects alone (`Figure`, never pyplot), so that plotting changes nothing for other
code in the same process. Any two of the ten class colors differ by at least 25 CIELAB units in normal vision and under
full protanopia, deuteranopia and tritanopia (a test checks this), and neighbors in the list also differ in marker.
"""

from __future__ import annotations

__all__: list[str] = []

import io
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor

from latentia.data import image_grid
from latentia.data.decoding import decode
from latentia.errors import DataError
from latentia.files import atomic_write
from latentia.training import seed_of, seeded

DPI = 200
SHOWN_DPI = 110  # in a notebook
WIDTH = 6.5  # inches: the text width of a page
SMALL, NORMAL, LARGE = 7.0, 8.0, 9.0  # points
INK, FAINT, PAPER = "#1f1f1f", "#8c8c8c", "#ffffff"
PALETTE = (
    "#1f6fb4",
    "#d93d00",
    "#61c169",
    "#46175d",
    "#a28ba2",
    "#740000",
    "#ffa2ff",
    "#2e4646",
    "#4600ff",
    "#b9d1b9",
)
MARKERS = "os^Dv"
CELL = 128  # pixels along the longer side of an image in a tiled picture, at least: more than are shown
GAP = 5
NAME_LENGTH = 24  # characters of a class name or a run's name that a legend has room for
BASE_FONT = "DejaVu Sans"  # ships with matplotlib
SCRIPT_FONTS = (
    "Noto Sans CJK",
    "Noto Sans",
    "Source Han Sans",
    "WenQuanYi",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang",
    "Hiragino",
    "Yu Gothic",
    "IPA",
    "Malgun",
    "Nanum",
    "Arial Unicode",
    "Unifont",
)


class _ShownFigure(Figure):
    """A figure that a notebook shows although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=SHOWN_DPI, facecolor=self.get_facecolor())
        return content.getvalue()


def new_figure(width: float = WIDTH, height: float = 4.0) -> Figure:
    """An empty figure with constrained layout; sizes in inches."""
    figure = _ShownFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def label_axes(axes: Axes, title: str = "", x: str = "", y: str = "", *, bare: bool = False) -> None:
    """Set title and labels in the shared fonts; `bare` removes the frame, for pictures made of images."""
    axes.set_title(title, fontsize=LARGE, color=INK)
    axes.set_xlabel(x, fontsize=NORMAL, color=INK)
    axes.set_ylabel(y, fontsize=NORMAL, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK, width=0.6, length=0 if bare else 2.5)
    for side, spine in axes.spines.items():
        spine.set_linewidth(0.6)
        spine.set_visible(not bare and side in ("left", "bottom"))


def class_color(index: int) -> str:
    """The color of a class; the ten colors repeat with other markers."""
    return PALETTE[index % len(PALETTE)]


def text_color(color: str) -> tuple[float, ...]:
    """A color dark enough for text on white: the color itself, or a darker shade of it."""
    shade = np.array(to_rgb(color))
    while shade @ (0.2126, 0.7152, 0.0722) > 0.5:
        shade = 0.9 * shade
    return tuple(shade.tolist())


def class_marker(index: int) -> str:
    """The marker of a class: color and marker together are unique for 50 classes."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def plain_text(text: str, fallback: str = "", length: int = NAME_LENGTH) -> str:
    """A user's text for a label: no mathematics markup, at most `length` characters, only characters with a font.

    Args:
        text: such as the name of a class or a run.
        fallback: shown instead of a text with characters that no installed font has; without it, such characters are
            written as their code points, U+4E2D.
        length: the middle of a longer text is replaced by an ellipsis.
    """
    text = " ".join("".join(c if c.isprintable() else "�" for c in text).split())
    missing = [c for c in dict.fromkeys(text) if _font_with(c) is None]
    if missing and fallback:
        return fallback
    for c in missing:
        text = text.replace(c, f"U+{ord(c):04X} ")
    if len(text) > length:
        head = (length - 1) * 2 // 3
        text = f"{text[:head]}…{text[head + 1 - length :]}"
    return text.replace("$", r"\$")


def set_fonts(figure: Figure) -> None:
    """Give every text of a figure a font for each of its scripts, and leave those with Latin text alone."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        fonts = [font for c in dict.fromkeys(text.get_text()) if ord(c) > 0x2FF and (font := _font_with(c))]
        if fonts:
            text.set_fontfamily(list(dict.fromkeys([BASE_FONT, *fonts])))


@cache
def _font_with(character: str) -> str | None:
    """A family that has this character: the base font where it serves, else one of those for other scripts."""
    if ord(character) in _characters(str(font_manager.findfont(BASE_FONT))):
        return BASE_FONT
    for name, path in _script_fonts():
        if ord(character) in _characters(path):
            return name
    return None


@cache
def _script_fonts() -> tuple[tuple[str, str], ...]:
    """(family, file) of the installed fonts for other scripts, in order of preference."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    starts = tuple(name.replace(" ", "") for name in SCRIPT_FONTS)
    for path in sorted(set(font_manager.findSystemFonts()) - known):  # installed after matplotlib made its list
        if Path(path).name.startswith(starts):
            with suppress(OSError, RuntimeError, ValueError, KeyError):
                font_manager.fontManager.addfont(path)
    found = []
    for start in SCRIPT_FONTS:
        found += [(font.name, font.fname) for font in font_manager.fontManager.ttflist if font.name.startswith(start)]
    return tuple(dict(found).items())


@cache
def _characters(path: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(path).get_charmap())


@dataclass(frozen=True)
class Picture:
    """A picture to be made.

    Attributes:
        name: of its file, without the suffix.
        caption: one sentence, which the file carries with it for the report.
        plot: makes the figure.
    """

    name: str
    caption: str
    plot: Callable[[], Figure]

    def save(self, folder: Path, seed: int) -> Path:
        """Make the figure and write it to `folder/name.png`; what it draws follows from the seed and the name.

        Raises:
            RunError: if the file cannot be written.
        """
        with seeded(seed_of("figure", self.name, seed)):
            return save_figure(self.plot(), folder / f"{self.name}.png", self.caption)

    def figure(self, seed: int) -> Figure:
        """Make the figure, as `save` does, with its fonts and titles set."""
        with seeded(seed_of("figure", self.name, seed)):
            return _finished(self.plot())


def save_figure(figure: Figure, path: Path, caption: str = "") -> Path:
    """Write a figure as PNG, the same bytes each time, and return its path.

    Args:
        figure: to write.
        path: of the file.
        caption: kept in the file as its `Description`.

    Raises:
        RunError: if the file cannot be written.
    """
    _finished(figure)
    about = {"Software": None, **({"Description": caption} if caption else {})}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata=about, facecolor=figure.get_facecolor())
    return path


def _finished(figure: Figure) -> Figure:
    set_fonts(figure)
    fit_titles(figure)
    return figure


def fit_titles(figure: Figure) -> None:
    """Break the titles that are wider than the room they have, between words and outside of formulas."""
    layout = figure.get_layout_engine()
    if layout is not None and figure.axes:  # find the places of the axes, without the pixels of their images
        layout.execute(figure)
    for axes in figure.axes:
        axes.apply_aspect()
    titles = [(axes.title, axes.title.get_window_extent()) for axes in figure.axes if axes.get_title()]
    if figure.get_suptitle():
        titles.append((figure._suptitle, figure._suptitle.get_window_extent()))  # pyright: ignore
    for title, box in titles:
        room = 2 * min(box.x0 + box.width / 2, figure.bbox.width - box.x0 - box.width / 2) - 4
        if box.width > room > 0:
            lines = math.ceil(box.width / room)
            title.set_text(
                "\n".join(_broken(line, math.ceil(len(line) / lines)) for line in title.get_text().split("\n"))
            )


def _broken(line: str, length: int) -> str:
    """A line with breaks after about `length` characters; a formula between dollar signs stays whole."""
    words = re.findall(r"(?:\$[^$]*\$|\S)+", line)
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > length + 4:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def tile_images(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images in rows, each pixel a sharp square, with white between the images.

    Args:
        images: (N, C, H, W), C being 1 or 3; values outside [0, 1], as a Gaussian's mean may have, are clipped.
        columns: images of a row; a last row that is not full is filled up with white.

    Returns:
        uint8 (height, width, 3).

    Raises:
        DataError: for images of another shape.
    """
    scale = max(1, math.ceil(CELL / max([1, *images.shape[2:]])))
    picture = image_grid(images.detach().float().clamp(0, 1), columns, scale, GAP)
    return picture[:, GAP:-GAP, GAP:-GAP].expand(3, -1, -1).permute(1, 2, 0).numpy()


def show_tiles(axes: Axes, images: Tensor, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Show `tile_images` on axes whose unit is one image: the center of column j is at x = j and of row i at y = i.

    Returns:
        The centers of the columns and of the rows, for ticks.
    """
    columns = min(columns, len(images))
    whole = tile_images(images, columns)
    rows = math.ceil(len(images) / columns)
    high, wide = (whole.shape[0] + GAP) / rows, (whole.shape[1] + GAP) / columns
    margin_x, margin_y = GAP / wide / 2, GAP / high / 2
    extent = (-0.5 + margin_x, columns - 0.5 - margin_x, rows - 0.5 - margin_y, -0.5 + margin_y)
    axes.imshow(whole, extent=extent, interpolation="antialiased", aspect=high / wide)
    axes.set_xticks([])
    axes.set_yticks([])
    return np.arange(columns), np.arange(rows)


def class_groups(labels: Tensor | None, classes: Sequence[str], count: int) -> list[tuple[int, str, Tensor]]:
    """(label, name to show, rows) of each class that occurs; one nameless group without labels."""
    if labels is None:
        return [(0, "", torch.arange(count))]
    labels = labels.cpu()
    return [
        (value, class_name(value, classes), (labels == value).nonzero().squeeze(1))
        for value in map(int, labels.unique().tolist())
    ]


def class_name(label: int, classes: Sequence[str]) -> str:
    """A class's name as a label of a picture; its number where it has no name, or no font has the name's script."""
    return plain_text(classes[label], f"class {label}") if label < len(classes) else str(label)


def to_tensor(picture: Any) -> Tensor:
    """A picture as floats (C, H, W) in [0, 1], from a path, a tensor, or an array (H, W), (H, W, C) or (C, H, W).

    Raises:
        DataError: if the file does not exist or is not a picture.
    """
    if isinstance(picture, str | Path):
        picture = np.asarray(decode(Path(picture)).image)
    values = torch.as_tensor(np.array(picture) if not isinstance(picture, Tensor) else picture.detach().cpu())
    if values.dim() == 2:
        values = values[None]
    elif values.dim() == 3 and values.shape[0] not in (1, 3):
        values = values.permute(2, 0, 1)
    if values.dim() != 3 or values.shape[0] not in (1, 3):
        raise DataError(f"a picture has one or three channels, and this one has the shape {tuple(values.shape)}")
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()
