"""Users' text in pictures: never markup, always with a font, never outside of the picture."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from torch.distributions import Independent, Normal

from latentia.reports import plot_encoded, plot_reconstructions, plot_samples
from latentia.reports.point_figures import plot_two_samples
from latentia.reports.style import BASE_FONT, Picture, _characters, _font_with, fit_titles, plain_text, save_figure

NAMES = [
    r"$\foo$",
    r"\frac{a}{",
    "a[/b]",
    "[/]",
    "100 % & <b>",
    "x" * 60,
    "数字",
    "номер",
    "رقم",
    "�\x07",
    "_^_",
    "$a$ $b",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_class_of_any_name_is_drawn_without_warnings(name, tmp_path):
    torch.manual_seed(0)
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_encoded(torch.randn(40, 2), prior, torch.arange(40) % 2, (name, "other"))
        save_figure(figure, tmp_path / "a.png")
        save_figure(plot_two_samples(np.arange(9.0), np.arange(5.0), (name, "Q")), tmp_path / "b.png")
    (shown, _) = (text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert len(shown.replace(r"\$", "$")) <= 24
    if all(ord(c) < 0x250 and c.isprintable() for c in name) and len(name) <= 24:
        assert shown.replace(r"\$", "$") == name
    width = np.asarray(figure.axes[0].get_window_extent().width) / figure.bbox.width
    assert width > 0.5, "the legend leaves room for the points"


def test_text_without_a_font_has_a_fallback():
    missing = next(chr(code) for code in range(0x20000, 0x2A6D6, 97) if _font_with(chr(code)) is None)
    assert plain_text(f"a{missing}", "class 3") == "class 3"
    assert plain_text(f"a{missing}") == f"aU+{ord(missing):X} "


def test_every_character_of_a_picture_has_a_font(tmp_path):
    known = {ord(c) for c in map(chr, range(0x250)) if c.isprintable()} - set(_characters_of_base())
    assert all(_font_with(chr(c)) is None for c in known)
    assert _font_with("a") == BASE_FONT


def _characters_of_base():
    from matplotlib import font_manager

    return _characters(str(font_manager.findfont(BASE_FONT)))


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 64, 1), (3, 2, 40)])
def test_titles_of_flat_images_are_inside_the_picture(shape, tmp_path):
    images = torch.rand(20, *shape)
    title = r"E[$x\,|\,z$] for 100 draws of $z$ from the prior $p(z)$"
    for figure in (plot_samples(images, title), plot_samples(images[:1], title), plot_reconstructions(images, images)):
        fit_titles(figure)
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= -1
            assert box.x1 <= figure.bbox.width + 1
            assert box.y1 <= figure.bbox.height + 1
        assert any("p(z)" in text.get_text() or "mean" in text.get_text() for text in texts)


def test_a_picture_carries_its_caption(tmp_path):
    picture = Picture("grid", "Samples of something.", lambda: plot_samples(torch.rand(4, 1, 8, 8), "a title"))
    with Image.open(picture.save(tmp_path, 0)) as image:
        assert image.info["Description"] == "Samples of something."
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
