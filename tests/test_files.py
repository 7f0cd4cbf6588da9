"""The one writer: a name holds its old content or all of its new one, whatever fails in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typing_extensions import TypedDict

from latentia.errors import RunError
from latentia.files import (
    atomic_write,
    parse_yaml,
    read_json,
    read_tensors,
    read_yaml,
    require_writable,
    write_tensors,
)

KILLED = """
import os, signal, sys
from latentia.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_and_replaced_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "page.html"
    write(path, "one")
    write(path, "two")
    assert path.read_text() == "two"
    assert names(path.parent) == ["page.html"]


def test_the_temporary_has_the_suffix_by_which_formats_are_chosen(tmp_path: Path) -> None:
    with atomic_write(tmp_path / ("n" * 251 + ".png")) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.touch()


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_content_and_no_leftovers(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "x.json", "old")

    def fail() -> None:
        with atomic_write(tmp_path / "x.json") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(RunError if error is OSError else error):
        fail()
    assert (tmp_path / "x.json").read_text() == "old"
    assert names(tmp_path) == ["x.json"]


def test_a_killed_writer_leaves_the_old_content_and_the_next_write_cleans_up(tmp_path: Path) -> None:
    write(tmp_path / "x.json", "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x.json")], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "x.json").read_text() == "old"
    assert len(names(tmp_path)) == 2
    write(tmp_path / "y.json", "new")
    assert names(tmp_path) == ["x.json", "y.json"]


def test_the_temporary_of_a_process_that_runs_stays(tmp_path: Path) -> None:
    others = tmp_path / f".latentia-{os.getppid()}-{'0' * 16}.json"
    others.touch()
    with atomic_write(tmp_path / "outer") as outer:
        outer.touch()
        write(tmp_path / "inner", "")
        assert outer.exists()
    assert names(tmp_path) == [others.name, "inner", "outer"]


def test_several_writers_of_one_file_each_write_it_whole(tmp_path: Path) -> None:
    path, texts = tmp_path / "x.json", [str(number) * 100_000 for number in range(4)]
    write(path, texts[0])
    writers = [threading.Thread(target=lambda text=text: [write(path, text) for _ in range(25)]) for text in texts]
    for writer in writers:
        writer.start()
    seen = {path.read_text() for _ in range(50)}
    for writer in writers:
        writer.join()
    assert seen <= set(texts)
    assert names(tmp_path) == ["x.json"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with atomic_write(tmp_path / "step") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert names(tmp_path / "step") == ["two"]
    assert names(tmp_path) == ["step"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ("file/x.json", "choose another folder"),
        ("n" * 300, "shorter name"),
        ("folder", "name of a file"),
        ("/dev/null", "another name"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_error_with_its_cure(tmp_path: Path, place: str, cure: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=cure):
        write(tmp_path / place, "")
    assert names(tmp_path) == ["file", "folder"]


HOSTILE_YAML = {
    "empty": b"",
    "text": b"just words",
    "list": b"- 1",
    "numbers as keys": b"1: 2",
    "unfinished": b"a: [1",
    "not UTF-8": b"\xff\xfe",
    "a NUL": b"a: \x00",
    "not a number": b"a: !!int abc",
    "digits": b"a: " + b"9" * 5000,
    "other tags": b"a: !!python/object/apply:os.system [ls]",
    "itself": b"a: &a [*a]",
    "deep": b"a: " + b"[" * 20_000,
    "deep mappings": b"{a: " * 8000,
    "long": b"a: [" + b"a," * 16_000 + b"]",
    "alias bomb": b"a0: &a0 [1,1,1,1,1,1,1,1,1]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)),
    "large": b"a: " + b"x" * 10_000_000,
}
HOSTILE_JSON = {
    "empty": b"",
    "another type": b"5",
    "wrong inside": b'{"a": ["x"]}',
    "missing": b"{}",
    "not UTF-8": b'{"a": "\xff"}',
    "digits": b'{"a": [' + b"9" * 5000 + b"]}",
    "deep": b'{"a": ' + b"[" * 100_000,
    "deep and whole": b'{"a": [1], "b": ' + b"[" * 500 + b"]" * 500 + b"}",
}


@pytest.mark.parametrize("content", HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_is_one_line_with_the_cure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"^.*recipe\.yaml is damaged: .*; write it again$") as raised:
        read_yaml(tmp_path / "recipe.yaml", "write it again")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("content", HOSTILE_JSON.values(), ids=HOSTILE_JSON)
def test_hostile_json_is_one_line_with_the_cure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)

    class Schema(TypedDict):
        a: list[int]

    with pytest.raises(RunError, match=r"^.*x\.json is damaged: .*; write it again$") as raised:
        read_json(tmp_path / "x.json", Schema, "write it again")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("read", [lambda p: read_yaml(p, "bring it"), lambda p: read_json(p, dict, "bring it")])
def test_a_file_that_is_not_there_and_a_folder_in_its_place(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("none", "folder"):
        with pytest.raises(RunError, match=rf"{name}.*bring it"):
            read(tmp_path / name)


def test_yaml_reads_as_people_do() -> None:
    text = "a: 1e-3\nb: 2024-01-31\nc: &c {d: [1, ~, true, .inf]}\ne: *c"
    c = {"d": [1, None, True, float("inf")]}
    assert parse_yaml(text) == {"a": 1e-3, "b": "2024-01-31", "c": c, "e": c}


TENSORS = {"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(7), "h": torch.ones(2, dtype=torch.bfloat16)}


def test_tensors_come_back_and_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, TENSORS)
    tensors, sealed = read_tensors(path, "train again")
    assert sealed
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    whole = path.read_bytes()
    generator = random.Random(0)
    read = 0
    for _ in range(300):
        place = generator.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << generator.randrange(8)]) + whole[place + 1 :])
        with suppress(RunError):
            tensors, _ = read_tensors(path, "train again")
            read += 1
            assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())  # the seal itself was hit
    assert read < 100
    for cut in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(RunError, match="train again"):
            read_tensors(path, "train again")


def test_tensors_without_a_seal_are_read_and_said_to_be(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "own.safetensors")
    tensors, sealed = read_tensors(tmp_path / "own.safetensors", "")
    assert not sealed
    assert torch.equal(tensors["w"], torch.ones(2))


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("file/page.html", "a part of the path is a file"),
        ("file/a/b/page.html", "a part of the path is a file"),
        ("folder", "give the name of a file"),
        ("x" * 300, "shorter name"),
    ],
)
def test_names_that_no_file_can_have_are_refused_before_any_work(tmp_path: Path, name: str, cure: str):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=cure):
        require_writable(tmp_path / name)
    assert names(tmp_path) == ["file", "folder"]


def test_new_names_in_folders_that_are_not_there_yet_are_allowed(tmp_path: Path):
    require_writable(tmp_path / "a" / "b" / "page.html")
    (tmp_path / "page.html").write_text("old")
    require_writable(tmp_path / "page.html")
    assert names(tmp_path) == ["page.html"]


def test_weights_are_as_readable_as_other_files(tmp_path: Path):
    write_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(2)})
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    before = os.umask(0o027)  # a program may change it after the import
    try:
        write_tensors(tmp_path / "others.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert (tmp_path / "others.safetensors").stat().st_mode & 0o777 == 0o640
