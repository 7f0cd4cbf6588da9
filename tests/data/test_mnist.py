import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentia.data import KMNIST, MNIST, FashionMNIST, StackedMNIST
from latentia.data.mnist import read_idx
from latentia.errors import DataError


def header(*shape: int, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape)


GOOD = header(2, 2, 3) + bytes(range(12))


def test_reads_what_was_written(tmp_path):
    for name, content in {
        "plain": GOOD,
        "zipped.gz": gzip.compress(GOOD, mtime=0),
        "zipped without suffix": gzip.compress(GOOD, mtime=0),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert torch.equal(read_idx(tmp_path / name, 3), torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated: it has 0 bytes"),
        (b"\x00\x00", "truncated"),
        (b"PK\x03\x04 and more", "magic number is 0x504b0304"),
        (header(2, 2, 3, kind=13) + bytes(48), "magic number is 0x00000d03, and 0x00000803 is wanted"),
        (header(3) + bytes(3), "are images and labels swapped"),
        (header(2, 2, 3)[:9], "truncated within its IDX header"),
        (GOOD[:-1], r"truncated: its header claims 2 × 2 × 3 = 12 bytes, and 11 follow"),
        (GOOD + b"x", "damaged: its header claims"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1), "set data.limit="),
        (header(0, 28, 28), "empty"),
        (gzip.compress(GOOD, mtime=0)[:-9], "truncated: its gzip stream stops short"),
        (gzip.compress(GOOD, mtime=0)[:14], "truncated: its gzip stream stops short"),
        (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "damaged"),
        (b"\x1f\x8b" + bytes(30), "damaged"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_idx(tmp_path / "x", 3)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path, 3)


@given(st.integers(0, len(gzip.compress(GOOD, mtime=0)) - 1), st.integers(1, 255))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_changed_byte_never_passes_for_other_pixels(tmp_path, place, change):
    """gzip's checksum guards the content; whatever the damage, it is a DataError or does not touch the pixels."""
    content = bytearray(gzip.compress(GOOD, mtime=0))
    place = min(place, len(content) - 1)
    content[place] ^= change
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    try:
        read = read_idx(path, 3)
    except DataError:
        return
    assert torch.equal(read.flatten(), torch.arange(12, dtype=torch.uint8))


def test_set_of_four_files(idx_folder):
    folder, images, labels = idx_folder
    for place in (folder, folder.parent):
        splits = MNIST(folder=place, validation=8).load()
        assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [32, 8, 10]
        assert np.array_equal(splits.test.x[:, 0].numpy(), images[40:])
        assert np.array_equal(splits.test.labels.numpy(), labels[40:])
        trained = {
            (label, tuple(image))
            for part in (splits.train, splits.validation)
            for label, image in zip(part.labels.tolist(), part.x.flatten(1).tolist(), strict=True)
        }
        assert trained == {(int(b), tuple(a.flatten().tolist())) for a, b in zip(images[:40], labels[:40], strict=True)}
        assert splits.train.event_shape == (1, 3, 4)


def test_folder_of_the_environment(idx_folder, monkeypatch):
    folder, *_ = idx_folder
    expected = MNIST(validation=1, folder=folder).load().content_hash
    monkeypatch.setenv("LATENTIA_DATA", str(folder.parent))
    assert MNIST(validation=1).load().content_hash == expected


def test_layout_of_torchvision(idx_folder, tmp_path):
    folder, *_ = idx_folder
    expected = MNIST(validation=1, folder=folder).load().content_hash
    (tmp_path / "root" / "MNIST").mkdir(parents=True)
    folder.rename(tmp_path / "root" / "MNIST" / "raw")
    for place in (tmp_path / "root", tmp_path / "root" / "MNIST", tmp_path / "root" / "MNIST" / "raw"):
        assert MNIST(validation=1, folder=place).load().content_hash == expected


def test_layout_of_keras(idx_folder, tmp_path):
    folder, images, labels = idx_folder
    expected = MNIST(validation=1, folder=folder).load().content_hash
    parts = {"x_train": images[:40], "y_train": labels[:40], "x_test": images[40:], "y_test": labels[40:]}
    (tmp_path / "keras").mkdir()
    np.savez(tmp_path / "keras" / "mnist.npz", **{name: part.astype(np.uint8) for name, part in parts.items()})
    assert MNIST(validation=1, folder=tmp_path / "keras").load().content_hash == expected


@pytest.mark.parametrize("packed", [False, True])
def test_claims_beyond_the_limit_are_refused(tmp_path, packed):
    """10 GB of zeros in a gzip stream of 10 MB, of which the first kilobyte is enough."""
    content = header(10**7, 32, 32) + bytes(1000)
    (tmp_path / "x").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=r"set data\.limit=10240000000"):
        read_idx(tmp_path / "x", 3)


def test_missing_member_names_the_cure(idx_folder):
    folder, *_ = idx_folder
    (folder / "t10k-labels.idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks t10k-labels-idx1-ubyte\[\.gz\].*LATENTIA_DATA"):
        MNIST(folder=folder).load()


def test_labels_of_another_number_or_range(idx_folder):
    folder, *_ = idx_folder
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(header(39) + bytes(39))
    with pytest.raises(DataError, match=r"40 images and .*39 labels"):
        MNIST(folder=folder).load()
    path.write_bytes(header(40) + bytes([10] * 40))
    with pytest.raises(DataError, match="has the label 10, and mnist has 10 classes"):
        MNIST(folder=folder).load()


def test_one_set_is_not_taken_for_another(idx_folder, monkeypatch):
    """The three sets' files have the same names; published files are known by their hash."""
    folder, *_ = idx_folder
    labels = folder / "train-labels-idx1-ubyte"
    published = KMNIST()._publication()
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    monkeypatch.setattr(KMNIST, "_publication", lambda _: published._replace(sha256={"train-labels": digest}))
    with pytest.raises(DataError, match="belongs to kmnist, not to mnist"):
        MNIST(folder=folder).load()


@pytest.mark.parametrize("source", [MNIST, FashionMNIST, KMNIST])
def test_publications_are_well_formed(source):
    publication = source()._publication()
    assert len(publication.classes) == len(set(publication.classes)) == 10
    assert len(set(publication.sha256.values())) == 4
    assert all(len(value) == 64 and int(value, 16) for value in publication.sha256.values())
    assert all(mirror.endswith("/") for mirror in publication.mirrors)


def test_real_mnist(mnist_folder):
    splits = MNIST(folder=mnist_folder, binarize="dynamic").load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [55_000, 5_000, 10_000]
    assert splits.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    whole = torch.cat([splits.train.labels, splits.validation.labels]).bincount()
    assert whole.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    images = read_idx(next(mnist_folder.glob("train-images*")), 3)
    header_bytes = struct.pack(">HBB3I", 0, 8, 3, *images.shape)
    digest = hashlib.md5(header_bytes + images.numpy().tobytes()).hexdigest()
    assert digest == "6bbc9ace898e44ae57da46a324031adb"


def test_published_hash_is_that_of_real_mnist(mnist_folder):
    published = MNIST()._publication().sha256
    path = mnist_folder / "t10k-images-idx3-ubyte.gz"
    if not path.exists():
        pytest.skip("the gzipped files are absent")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == published["t10k-images-idx3-ubyte"]


def test_real_mnist_is_not_taken_for_fashion(mnist_folder):
    if not (mnist_folder / "train-labels-idx1-ubyte.gz").exists():
        pytest.skip("the gzipped files are absent")
    with pytest.raises(DataError, match="belongs to mnist, not to fashion-mnist"):
        FashionMNIST(folder=mnist_folder).load()


def write_mnist(folder: Path) -> None:
    for name, count in (("train", 60), ("t10k", 30)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.repeat(labels[:, None], 28 * 28, 1).reshape(count, 28, 28)  # each digit in its own gray
        header = (0x00000803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = (0x00000801).to_bytes(4, "big") + count.to_bytes(4, "big")
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_stacks_spell_their_label(tmp_path: Path):
    write_mnist(tmp_path)
    assert read_idx(tmp_path / "train-images-idx3-ubyte", dimensions=3).shape == (60, 28, 28)
    splits = StackedMNIST(folder=tmp_path, count=3000, validation=500).load()
    assert splits.shape == (3, 28, 28)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2500, 500, 10_000)
    assert len(splits.classes) == 1000
    for split in (splits.train, splits.test):
        digits = split.x[:, :, 0, 0].long()  # the gray is the digit
        assert split.labels is not None
        assert torch.equal((digits * torch.tensor([100, 10, 1])).sum(1), split.labels)
        assert torch.equal(split.x.amin((2, 3)), split.x.amax((2, 3)))
    counts = torch.bincount(splits.test.labels // 100, minlength=10).double()  # pyright: ignore
    assert ((counts - 1000).abs() < 5 * 900**0.5).all()


def test_stacks_follow_from_their_seed(tmp_path: Path):
    write_mnist(tmp_path)
    first, same, other = (
        StackedMNIST(folder=tmp_path, count=50, validation=5, stack_seed=seed).load() for seed in (0, 0, 1)
    )
    assert first.content_hash == same.content_hash
    assert first.content_hash != other.content_hash
