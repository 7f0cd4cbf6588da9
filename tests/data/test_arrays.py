import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from latentia.data import NPZ, read_arrays
from latentia.data.examples import layout_note
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
    assert splits.test.event_shape == expected
    assert splits.test.labels is None
    assert splits.classes == ()
    as_read = splits.test.x.numpy()
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
    assert np.array_equal(splits.test.x[:, 0].numpy(), images * 255)


GRAY = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds no arrays, or is damaged"),
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
    assert len(source.load().train) == 4  # an .npy holds the examples alone
    with pytest.raises(DataError, match="cannot be read"):
        NPZ(file=tmp_path).load()


@pytest.mark.parametrize("labels", [[7, 20_240_101], [0, 2**62], [3, 5], [2**63 + 1, 2**64 - 1]])
def test_labels_are_counted_and_never_sizes(tmp_path, labels):
    images = RNG.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    given = np.array([labels[number % 2] for number in range(40)], dtype=np.uint64)
    splits = saved(tmp_path, images=images, labels=given).load()
    assert splits.classes == tuple(map(str, labels))
    assert splits.test.labels.bincount().tolist() == [4, 4]


def test_words_may_be_labels(tmp_path):
    images = RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)
    splits = saved(tmp_path, images=images, labels=np.array(["no", "yes"] * 10)).load()
    assert splits.classes == ("no", "yes")


def test_layout_of_keras(tmp_path):
    images, labels = RNG.integers(0, 256, (30, 4, 4), dtype=np.uint8), np.arange(30, dtype=np.uint8) % 3
    splits = saved(tmp_path, x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6, None]).load()
    assert len(splits.test) == 6
    assert splits.test.labels.tolist() == labels[:6].tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["?", "u1", ">i4", "<f8", "f2", "c16", "<U3"])
def test_arrays_are_those_of_numpy(tmp_path, dtype, order):
    array = np.asarray(RNG.integers(0, 9, (3, 4, 2)).astype(dtype), order=order)
    empty = array[:0]
    np.savez_compressed(tmp_path / "a.npz", array=array, empty=empty)
    np.save(tmp_path / "b.npy", array)
    arrays = read_arrays(tmp_path / "a.npz")
    assert list(arrays) == ["array", "empty"]
    for read, saved_array in ((arrays["array"], array), (arrays["empty"], empty)):
        assert np.array_equal(read, saved_array)
        assert read.dtype == saved_array.dtype
    assert np.array_equal(read_arrays(tmp_path / "b.npy")["arr_0"], array)


def npy_header(shape, descr="|u1"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [10**10, 3 * 10**9, 2**62])
def test_claims_are_refused_before_memory_is_taken(tmp_path, size, packed):
    """A header that claims gigabytes: over the limit, or under it and not there."""
    path = tmp_path / ("a.npz" if packed else "a.npy")
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", npy_header((size,)))
    else:
        path.write_bytes(npy_header((size,)))
    tracemalloc.start()
    with pytest.raises(DataError, match="LATENTIA_LIMIT=" if size > 4e9 else "truncated"):
        list(read_arrays(path).values())
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_bombs_are_refused_and_what_is_not_asked_for_is_not_read(tmp_path):
    """50 MB of zeros in 50 kB, next to images: refused where it is read, harmless where it is not."""
    images = RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images, other=np.zeros(50_000_000, np.uint8))
    assert len(NPZ(file=tmp_path / "a.npz", limit=10**6).load().train) == 14
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.npz: other.*set LATENTIA_LIMIT=50000000"):
        read_arrays(tmp_path / "a.npz", limit=10**6)["other"]
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    with pytest.raises(DataError, match=r"set data\.limit="):
        NPZ(file=tmp_path / "a.npz", limit=100).load()


@pytest.mark.parametrize(
    "header",
    [
        npy_header((5,), "|O"),
        npy_header((5,), [("a", "<f4")]),
        npy_header((-1,)),
        npy_header((True,)),
        npy_header(5),
        npy_header((2,), "|V8"),
        npy_header((1,) * 40),
        b"\x93NUMPY\x09\x00\x04\x00{}  ",
        b"\x93NUMPY\x01\x00\x04\x00(((( ",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"[" * 9000,
        b"\x93NUM",
    ],
    ids=range(12),
)
def test_odd_headers_are_one_line(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(header + bytes(16))
    with pytest.raises(DataError, match=r"a\.npy.*save it again") as caught:
        list(read_arrays(tmp_path / "a.npy").values())
    assert "\n" not in str(caught.value)


def test_limit_of_the_environment_raises_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTIA_LIMIT", "1_000_000")
    np.save(tmp_path / "a.npy", np.arange(100.0))
    assert read_arrays(tmp_path / "a.npy")["arr_0"].sum() == 4950


@pytest.mark.parametrize("limit", ["100", "0", "-1", "many", "1" * 30])
def test_limit_of_the_environment_is_named(tmp_path, monkeypatch, limit):
    monkeypatch.setenv("LATENTIA_LIMIT", limit)
    np.save(tmp_path / "a.npy", np.arange(100.0))
    with pytest.raises(DataError, match="LATENTIA_LIMIT"):
        read_arrays(tmp_path / "a.npy")["arr_0"]


@pytest.mark.parametrize("copy", [0, 1])
def test_a_damaged_name_of_an_array_does_not_hide_the_array(tmp_path, copy):
    """A zip archive has each name twice, and no checksum covers it: in the array's own header and in the directory."""
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4))
    data = bytearray(path.read_bytes())
    at = [i for i in range(len(data)) if data[i : i + 10] == b"labels.npy"][copy]
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        NPZ(file=path).load()


def test_a_damaged_list_of_arrays_does_not_hide_all_of_them(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((4, 2, 2), np.uint8))
    content = bytearray(path.read_bytes())
    content[-10:-6] = bytes(4)  # the size of the list
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz .*save it again"):
        dict(read_arrays(path))


def test_a_comment_of_an_archive_does_not_hide_an_array(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4))
    content = bytearray(path.read_bytes())
    first = content.find(b"PK\x01\x02")
    second = content.find(b"PK\x01\x02", first + 1)
    content[first + 32] = (
        len(content) - 22 - second
    )  # the length of the first comment, which then holds the second entry
    path.write_bytes(content)
    with pytest.raises(DataError, match="lists 1 of 2 arrays"):
        dict(read_arrays(path))


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((28, 28), "(N, 1, 28, 28)"),
        ((16, 20), "(N, 1, 16, 20)"),
        ((32, 32, 3), "(N, 3, 32, 32)"),
        ((9, 8, 1), "(N, 1, 9, 8)"),
        ((1, 28, 28), None),
        ((3, 32, 32), None),
        ((3, 3, 3), None),
        ((1, 100), None),
        ((3, 50), None),
        ((22, 250), None),
        ((12,), None),
        ((), None),
    ],
)
def test_arrays_that_look_like_images_in_another_layout_are_named(shape, cure):
    note = layout_note(shape)
    assert (cure in note) if cure else note == ""
