import io

import numpy as np
import pytest
import torch

from latentia.data import NPZ
from latentia.errors import DataError

RNG = np.random.default_rng(0)


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return NPZ(file=tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20, 5, 4), (1, 5, 4)), ((20, 3, 5, 4), (3, 5, 4)), ((20, 5, 4, 3), (3, 5, 4)), ((20, 5, 4, 1), (1, 5, 4))],
)
def test_shapes(tmp_path, shape, expected):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    splits = saved(tmp_path, train_images=images, test_images=images).load()
    assert splits.test.image_shape == expected
    assert splits.test.labels is None
    assert splits.classes == ()
    as_read = splits.test.images.numpy()
    assert np.array_equal(np.moveaxis(as_read, 1, 3) if shape[-1] in (1, 3) else as_read.reshape(shape), images)


def test_given_parts_and_labels(tmp_path):
    images, labels = RNG.integers(0, 256, (30, 4, 4), dtype=np.uint8), np.arange(30, dtype=np.int16) % 3
    splits = saved(
        tmp_path, train_images=images, train_labels=labels, test_images=images[:7], test_labels=labels[:7]
    ).load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [27, 3, 7]
    assert splits.test.labels.tolist() == labels[:7].tolist()
    assert splits.test.labels.dtype == torch.int64
    assert splits.classes == ("0", "1", "2")


def test_bool_images_are_binary(tmp_path):
    images = RNG.random((20, 4, 4)) < 0.5
    splits = saved(tmp_path, train_images=images, test_images=images).load()
    assert np.array_equal(splits.test.images[:, 0].numpy(), images * 255)


GRAY = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds nothing; it needs images"),
        ({"pictures": GRAY}, "holds pictures; it needs images"),
        ({"train_images": GRAY}, "holds train_images"),
        ({"images": GRAY / 255}, r"images are float64, and must be uint8 or bool; convert floats"),
        ({"images": GRAY[:0]}, "at least one image"),
        ({"images": np.minimum(GRAY, 1)}, "save binary images as bool"),
        ({"images": GRAY.reshape(6, 16)}, r"shape \(6, 16\)"),
        ({"images": GRAY.reshape(6, 2, 2, 4)}, "with 1 or 3 channels"),
        ({"images": GRAY, "labels": np.zeros(5, int)}, r"6 images and labels of shape \(5,\)"),
        ({"images": GRAY, "labels": np.zeros((6, 2), int)}, "give one label per image"),
        ({"images": GRAY, "labels": np.zeros(6)}, "whole numbers from 0"),
        ({"images": GRAY, "labels": np.full(6, -1)}, "whole numbers from 0"),
        (
            {"train_images": GRAY, "test_images": GRAY[:, :3]},
            r"train_images are \(1, 4, 4\) and test_images \(1, 3, 4\)",
        ),
        ({"images": np.array([{"a": 1}, None], dtype=object)}, "holds pickled objects"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        saved(tmp_path, **arrays).load()
    assert "a.npz" in str(caught.value)


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "b.npz"
    source = NPZ(file=path)
    with pytest.raises(DataError, match=r"there is no file .*b.npz"):
        source.load()
    stream = io.BytesIO()
    np.savez_compressed(stream, images=RNG.integers(0, 256, (20, 9, 9), dtype=np.uint8))
    sound = stream.getvalue()
    for cut in (0, 3, 50, len(sound) // 2, len(sound) - 5):
        path.write_bytes(sound[:cut])
        with pytest.raises(DataError, match=r"b\.npz.*save it again"):
            source.load()
    damaged = bytearray(sound)
    damaged[len(sound) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"b\.npz is truncated or damaged"):
        source.load()
    path.write_bytes(b"\x80\x04\x95 a pickle")
    with pytest.raises(DataError, match="holds pickled objects"):
        source.load()
    stream = io.BytesIO()
    np.save(stream, GRAY)
    path.write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="holds arr_0; it needs images"):
        source.load()
    with pytest.raises(DataError, match="cannot be read"):
        NPZ(file=tmp_path).load()
