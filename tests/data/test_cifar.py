import io
import tarfile

import numpy as np
import pytest

from latentia.data import CIFAR10
from latentia.data import cifar as module
from latentia.errors import DataError

FILES = (*module.TRAIN, module.TEST)


@pytest.fixture
def batches(monkeypatch):
    """Six files of ten records each; the number of records of the real ones is set down for the test."""
    monkeypatch.setattr(module, "RECORDS", 10)
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8) for name in FILES}
    contents = {
        name: b"".join(bytes([number]) + image.tobytes() for number, image in enumerate(images))
        for name, images in arrays.items()
    }
    return arrays, contents


def write_archive(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_files_and_archive_give_the_same(batches, tmp_path):
    arrays, contents = batches
    inner = tmp_path / "files" / module.INNER
    inner.mkdir(parents=True)
    for name, content in contents.items():
        (inner / name).write_bytes(content)
    (tmp_path / "cifar10").mkdir()
    write_archive(tmp_path / "cifar10" / module.ARCHIVE, contents)
    loaded = [CIFAR10(folder=place).load() for place in (tmp_path / "files", inner, tmp_path)]
    assert len({splits.content_hash for splits in loaded}) == 1
    splits = loaded[0]
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45, 5, 10]
    assert np.array_equal(splits.test.x.numpy(), arrays[module.TEST])
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.train.event_shape == (3, 32, 32)
    assert splits.classes[3] == "cat"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1], "data_batch_3.bin is truncated"),
        (lambda content: content + b"x", "data_batch_3.bin is damaged"),
        (lambda content: bytes([10]) + content[1:], "has the label 10"),
        (lambda _: None, "lacks data_batch_3.bin"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_spoilt_batches_are_named(batches, tmp_path, spoil, message, packed):
    _, contents = batches
    contents = {name: spoil(content) if "3" in name else content for name, content in contents.items()}
    contents = {name: content for name, content in contents.items() if content is not None}
    if packed:
        write_archive(tmp_path / module.ARCHIVE, contents)
    else:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        CIFAR10(folder=tmp_path).load()


def test_truncated_archive(batches, tmp_path):
    write_archive(tmp_path / module.ARCHIVE, batches[1])
    content = (tmp_path / module.ARCHIVE).read_bytes()
    for cut in (0, 1, 100, len(content) // 2, len(content) - 10):
        (tmp_path / module.ARCHIVE).write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz (is truncated|lacks)"):
            CIFAR10(folder=tmp_path).load()


def test_pickled_form_and_empty_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds neither data_batch_1\.bin nor cifar-10-binary\.tar\.gz"):
        CIFAR10(folder=tmp_path).load()
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match="which is pickled; put https"):
        CIFAR10(folder=tmp_path).load()


def test_an_archive_with_more_than_it_should_have_is_refused(batches, tmp_path, monkeypatch):
    """A member of 40 MB in a few kilobytes: refused after a tenth of it."""
    monkeypatch.setattr(module, "SURPLUS", 4_000_000)
    write_archive(tmp_path / module.ARCHIVE, {"bomb.bin": bytes(40_000_000), **batches[1]})
    with pytest.raises(DataError, match="unpacks to more than CIFAR-10 has"):
        CIFAR10(folder=tmp_path).load()
