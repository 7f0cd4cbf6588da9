from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from latentia.errors import DataError, RunError
from latentia.reports import style
from latentia.reports.style import (
    GAP,
    PALETTE,
    class_color,
    class_marker,
    new_figure,
    save_figure,
    show_tiles,
    tile_images,
    to_tensor,
)

# Machado, Oliveira and Fernandes 2009, table 1, severity 1: linear RGB as seen without one kind of cone.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(np.clip(xyz, 1e-9, None)), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_class_colors_differ_in_every_vision(vision):
    rgb = np.array([to_rgb(color) for color in PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.asarray(VISIONS[vision]).T, 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[~np.eye(len(PALETTE), dtype=bool)].min() > 25


def test_classes_beyond_the_palette_get_another_marker():
    looks = {(class_color(index), class_marker(index)) for index in range(50)}
    assert len(looks) == 50


def test_tiles_lie_in_reading_order_with_sharp_pixels():
    images = torch.arange(6.0).div(6).reshape(6, 1, 1, 1).expand(6, 1, 8, 4)
    whole = tile_images(images, columns=3)
    factor = 128 // 8
    high, wide = 8 * factor, 4 * factor
    assert whole.shape == (2 * high + GAP, 3 * wide + 2 * GAP, 3)
    for index in range(6):
        top, left = index // 3 * (high + GAP), index % 3 * (wide + GAP)
        assert (whole[top : top + high, left : left + wide] == round(index / 6 * 255)).all()
    assert (whole[high : high + GAP] == 255).all()
    assert (whole[:, wide : wide + GAP] == 255).all()


def test_a_last_row_that_is_not_full_is_white():
    whole = tile_images(torch.zeros(4, 3, 8, 8), columns=3)
    assert (whole[-128:, 128 + GAP :] == 255).all()
    assert (whole[-128:, :128] == 0).all()


def test_values_beyond_the_range_are_cut():
    whole = tile_images(torch.tensor([-3.0, 7.0]).reshape(2, 1, 1, 1), columns=2)
    assert whole[0, 0, 0] == 0
    assert whole[0, -1, 0] == 255


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 2, 8, 8), (8, 8)])
def test_images_of_no_known_shape_are_refused(shape):
    with pytest.raises(DataError, match="C = 1 or 3"):
        tile_images(torch.zeros(shape), columns=2)


def test_the_unit_of_the_axes_is_one_image():
    images = torch.linspace(0, 1, 6).reshape(6, 1, 1, 1).expand(6, 1, 5, 7)
    axes = new_figure().subplots()
    columns, rows = show_tiles(axes, images, columns=3)
    shown = axes.images[0]
    left, right, bottom, top = shown.get_extent()
    whole = np.asarray(shown.get_array())
    for index in range(6):
        across = (columns[index % 3] - left) / (right - left) * whole.shape[1]
        down = (rows[index // 3] - top) / (bottom - top) * whole.shape[0]
        assert whole[int(down), int(across), 0] == round(index / 5 * 255)


def test_a_picture_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/a\.png"):
        save_figure(new_figure(), tmp_path / "file" / "a.png")


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        (np.zeros((5, 7), np.uint8), (1, 5, 7)),
        (np.zeros((5, 7, 3)), (3, 5, 7)),
        (torch.zeros(3, 5, 7), (3, 5, 7)),
        (np.zeros((5, 7, 1)), (1, 5, 7)),
    ],
)
def test_pictures_of_every_layout_become_tensors(picture, shape):
    assert to_tensor(picture).shape == shape


def test_a_picture_file_is_read_as_it_was_written(tmp_path):
    pixels = np.arange(105, dtype=np.uint8).reshape(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert torch.equal((to_tensor(tmp_path / "a.png") * 255).round().byte().permute(1, 2, 0), torch.tensor(pixels))


def test_importing_reports_costs_neither_torch_nor_matplotlib():
    words = "import sys, latentia.reports as r; assert 'save_figures' in r.__all__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in loaded
    assert "matplotlib" not in loaded


def test_every_public_name_is_there():
    import latentia.reports

    assert all(getattr(latentia.reports, name).__name__ == name for name in latentia.reports.__all__)


def test_an_unknown_name_is_an_attribute_error():
    import latentia.reports

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latentia.reports.nothing  # noqa: B018


@pytest.fixture
def no_other_fonts(monkeypatch):
    """A machine with matplotlib's own fonts alone."""
    monkeypatch.setattr(style.font_manager, "findSystemFonts", list)
    monkeypatch.setattr(style, "SCRIPT_FONTS", ())
    style._script_fonts.cache_clear()
    style._font_with.cache_clear()
    yield
    style._script_fonts.cache_clear()
    style._font_with.cache_clear()


def test_names_without_a_font_are_numbers(no_other_fonts):
    assert [style.class_name(i, ["猫", "cat"]) for i in range(2)] == ["class 0", "cat"]


def test_fonts_that_were_installed_after_matplotlib_made_its_list_are_found(no_other_fonts, monkeypatch):
    added = []
    monkeypatch.setattr(style, "SCRIPT_FONTS", ("Noto Sans CJK",))
    monkeypatch.setattr(style.font_manager, "findSystemFonts", lambda: ["/a/NotoSansCJK-Regular.ttc", "/a/Other.ttf"])
    monkeypatch.setattr(style.font_manager.fontManager, "addfont", added.append)
    style.class_name(0, ["猫"])
    assert added == ["/a/NotoSansCJK-Regular.ttc"]
