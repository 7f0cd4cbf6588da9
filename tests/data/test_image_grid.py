import numpy as np
import pytest
import torch
from PIL import Image

from latentia.data import image_grid, write_image_grid
from latentia.errors import DataError


def test_file_holds_each_image_where_it_belongs(tmp_path):
    images = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "grid.png"
    write_image_grid(path, images, columns=2, scale=1)
    picture = np.array(Image.open(path))
    assert picture.shape == (3 * 6 + 2, 2 * 8 + 2, 3)
    expected = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index in range(5):
        top, left = 2 + index // 2 * 6, 2 + index % 2 * 8
        assert np.array_equal(picture[top : top + 4, left : left + 6], expected[index])
    assert (picture[14:, 10:] == 255).all(), "the place without an image is white"


def test_gray_images_give_a_gray_file(tmp_path):
    write_image_grid(tmp_path / "a.png", torch.zeros(1, 1, 2, 3), scale=3)
    image = Image.open(tmp_path / "a.png")
    assert (image.mode, image.size) == ("L", (9 + 4, 6 + 4))
    assert np.array(image)[2:-2, 2:-2].max() == 0


def test_sizes_that_nobody_gave():
    assert image_grid(torch.zeros(9, 1, 28, 28)).shape == (1, 3 * 58 + 2, 3 * 58 + 2)
    assert image_grid(torch.zeros(2, 1, 128, 128)).shape == (1, 132, 2 * 130 + 2)
    assert image_grid(torch.zeros(2, 1, 4, 4), columns=10, scale=1).shape == (1, 8, 14)


def test_whole_range_is_kept():
    levels = torch.arange(256).reshape(1, 1, 16, 16) / 255
    assert torch.equal(image_grid(levels, scale=1)[0, 2:-2, 2:-2].flatten(), torch.arange(256).byte())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"\(3, 4, 4\)"),
        (torch.zeros(3, 2, 4, 4), "C = 1 or 3"),
        (torch.zeros(0, 1, 4, 4), "needs images"),
        (torch.full((1, 1, 2, 2), 1.5), "from 1.5 to 1.5; clamp"),
        (torch.full((1, 1, 2, 2), -0.1), "clamp"),
        (torch.full((1, 1, 2, 2), float("nan")), "nan"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "divide bytes by 255"),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        image_grid(images)
