"""The one writer: a name holds its old content or all of its new one, whatever fails in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latentia.errors import RunError
from latentia.files import atomic_write

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
