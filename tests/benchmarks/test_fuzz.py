"""Damaged files never end in a traceback, a hang or wrong data; and the harness that says so sees each of these."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import fuzz_readers
import fuzz_runs
import fuzz_text
from fuzzing import OUTCOMES, Reader, always, damaged, fuzz, never, outcome
from latentia.errors import DataError


def faults(reader: Reader, each: int) -> tuple[dict[str, int], dict[str, int]]:
    """All counts, and those of what may not be."""
    counts = fuzz([reader], each=each, seed=7)[reader.name]
    return dict(counts), {kind: counts[kind] for kind in OUTCOMES[2:] if counts[kind]}


@pytest.mark.parametrize("reader", fuzz_readers.READERS, ids=lambda reader: reader.name)
def test_damage_is_one_line_or_harmless(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    counts, bad = faults(reader, each=40)
    assert not bad, capfd.readouterr().err
    assert counts["clean"] > 0


@pytest.mark.parametrize("reader", [*fuzz_runs.READERS, *fuzz_text.READERS], ids=lambda reader: reader.name)
def test_damaged_runs_and_odd_text_are_one_line_or_harmless(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    _, bad = faults(reader, each=12)
    assert not bad, capfd.readouterr().err


def raising(error: BaseException):
    def read(folder: Path) -> object:
        raise error

    return read


def spinning(folder: Path) -> object:
    while True:
        try:
            time.sleep(0.01)
        except Exception:  # as a reader that takes every error for damage
            continue


@pytest.mark.parametrize(
    ("read", "sealed", "kind"),
    [
        (raising(DataError("a is damaged")), False, "clean"),
        (raising(DataError("a is\ndamaged")), False, "wrong"),
        (raising(KeyError("a")), False, "traceback"),
        (spinning, False, "hang"),
        (lambda _: len(bytearray(10**10)), False, "memory"),
        (lambda _: 2, True, "wrong"),
        (lambda _: 2, False, "accepted"),
        (lambda _: 1, True, "accepted"),
    ],
)
def test_every_outcome_is_seen(tmp_path: Path, read, sealed: bool, kind: str) -> None:
    reader = Reader("a", {}, read, may_differ=never if sealed else always)
    assert outcome(reader, tmp_path, 1, seconds=0.2, megabytes=500)[0] == kind


def test_refusals_that_may_not_be_and_silence_are_wrong(tmp_path: Path) -> None:
    refuses = Reader("a", {}, raising(DataError("a is damaged")), may_refuse=lambda name: name == "needed")
    assert outcome(refuses, tmp_path, 1, seconds=1, megabytes=500, name="needed")[0] == "clean"
    assert outcome(refuses, tmp_path, 1, seconds=1, megabytes=500, name="other")[0] == "wrong"
    silent = Reader("a", {}, lambda _: 2, must_warn=lambda name: name == "recipe")
    assert outcome(silent, tmp_path, 1, seconds=1, megabytes=500, name="recipe")[0] == "wrong"
    assert outcome(silent, tmp_path, 1, seconds=1, megabytes=500, name="other")[0] == "accepted"


@pytest.mark.parametrize("works", [True, False])
def test_cures_are_followed(works: bool) -> None:
    def read(folder: Path) -> object:
        if (folder / "a").read_bytes() != b"sound":
            raise DataError("a is damaged; remove it")
        return 1

    def cure(folder: Path, name: str, _: str) -> None:
        (folder / name).write_bytes(b"sound" if works else b"worse")

    reader = Reader("a", {"a": b"sound"}, read, cure=cure)
    counts = fuzz([reader], each=40, seed=0)["a"]
    assert (counts["wrong"] == 0) == works
    assert counts["clean"] > 0


def test_damage_depends_on_the_seed_alone() -> None:
    import random

    content = bytes(range(200))
    first, same, other = (damaged(content, random.Random(seed)) for seed in ("a", "a", "b"))
    assert first == same
    assert len({first, other, content}) == 3
