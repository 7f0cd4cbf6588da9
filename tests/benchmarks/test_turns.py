"""Peers that take turns: what is reported, which may run when, and that all are stopped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmarks import turns

BENCHMARKS = Path(turns.__file__).parent
VARIABLES = os.environ | {"PYTHONPATH": str(BENCHMARKS / "peers"), "BENCHMARK_DEVICE": "cpu"}
PRELUDE = """
import json, os, subprocess, sys, threading, time
from gate import Gate
print("not for the driver")
"""


@pytest.fixture
def peer(tmp_path):
    """Writes the script of a peer and returns the words that start it."""

    def write(name: str, text: str) -> list[str]:
        path = tmp_path / f"{name}.py"
        path.write_text(PRELUDE + textwrap.dedent(text))
        return [str(path)]

    return write


def sleeper(seconds: float) -> str:
    return f"""
        made = 0
        gate = Gate(7, lambda: {{"made": made, "at": (began, time.monotonic()), "loss": float("nan")}})
        while True:
            gate.wait()
            began = time.monotonic()
            time.sleep({seconds})
            made += 1
    """


def gone(number: int) -> bool:
    """Whether no process of this number runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def soon_gone(number: int) -> bool:
    """The same, for processes that somebody else has to see off: a signal takes its time."""
    until = time.monotonic() + 10
    while not gone(number) and time.monotonic() < until:
        time.sleep(0.05)
    return gone(number)


def test_turns_are_taken_one_after_another_and_reported(peer):
    commands = {"slow": peer("slow", sleeper(0.004)), "quick": peer("quick", sleeper(0.002))}
    with turns.started(commands, VARIABLES) as peers:
        turns.warm_up(peers, lambda one: one.about["epoch"])
        turns.play_rounds(peers, 5, lambda _, number: 2 + number % 2)
    slow, quick = peers
    for one in peers:
        assert one.error is None
        assert [turn["steps"] for turn in one.turns] == [2, 3, 2, 3, 2]
        assert [turn["made"] for turn in one.turns] == [9, 12, 14, 17, 19]  # with those of the warm-up
        assert one.turns[-1]["loss"] is None
    spans = sorted(tuple(turn["at"]) for one in peers for turn in one.turns)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert min(slow.values("wall", each_step=True)) >= 0.004
    assert turns.paired_ratios(slow.values("wall"), [1.0] * 5) == slow.values("wall")
    assert all(gone(one.process.pid) for one in peers)
    assert quick.process.returncode == 0


@pytest.mark.parametrize("child", ["", "subprocess.Popen(['sleep', '60'], stdout=gate._answers)"])
def test_a_peer_that_dies_is_reported_and_stops_no_other(peer, child):
    dying = f"""
        gate = Gate(1)
        {child}
        gate.wait(), gate.wait(), gate.wait()
        raise OSError("no more paper")
    """
    commands = {"dead": peer("dead", "import nothing_of_the_kind"), "dying": peer("dying", dying)}
    began = time.monotonic()
    with turns.started(commands | {"sound": peer("sound", sleeper(0.001))}, VARIABLES) as peers:
        turns.warm_up(peers, lambda _: 1)
        turns.play_rounds(peers, 4, lambda *_: 1)
    dead, dying, sound = peers
    assert dead.error == "ModuleNotFoundError: No module named 'nothing_of_the_kind' (exit status 1)"
    assert dying.error == "OSError: no more paper (exit status 1)"
    assert [len(one.turns) for one in peers] == [0, 1, 4]
    assert sound.error is None
    assert time.monotonic() - began < 30


def test_who_never_answers_is_given_up(peer, monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 1.0)
    with turns.started({"mute": peer("mute", "Gate(1)\ntime.sleep(60)")}, VARIABLES) as (mute,):
        assert mute.play(1) is None
        assert mute.error == "not for the driver (no answer in 1 s)"
        mute.process.wait(5.0)


def test_a_peer_that_is_not_on_turn_does_not_run(peer):
    busy = """
        threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
        worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        gate = Gate(1, lambda: {"worker": worker.pid})
        while True:
            gate.wait()
            time.sleep(0.01)
    """

    def used(number: int) -> int:
        user, system = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    with turns.started({"busy": peer("busy", busy)}, VARIABLES) as (one,):
        worker = (one.play(1) or {})["worker"]
        time.sleep(0.1)  # until the signal has come
        before = used(one.process.pid), used(worker)
        time.sleep(0.4)
        assert (used(one.process.pid), used(worker)) == before
        assert (one.play(10) or {})["wall"] >= 0.1
    assert gone(one.process.pid)
    assert soon_gone(worker)


def test_an_interruption_leaves_no_process_behind(peer):
    worker = "worker = subprocess.Popen(['sleep', '60'])\ngate = Gate(1, lambda: {'worker': worker.pid})\n"
    words = peer("one", worker + "while True: gate.wait()")
    numbers = []
    with pytest.raises(KeyboardInterrupt), turns.started({"one": words, "two": words}, VARIABLES) as peers:  # noqa: PT012
        numbers += [one.process.pid for one in peers] + [(one.play(1) or {})["worker"] for one in peers]
        raise KeyboardInterrupt
    assert len(numbers) == 4
    assert all(map(soon_gone, numbers))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_peers_end_with_a_driver_that_is_killed(peer, number):
    words = peer("one", "gate = Gate(1)\nwhile True: gate.wait()")
    driver = f"""
        import os, time
        from benchmarks import turns
        with turns.started({{"one": {words!r}}}, os.environ) as (one,):
            one.play(1)
            print(one.process.pid, flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(driver)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=VARIABLES, cwd=BENCHMARKS.parent, start_new_session=True
    ) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        assert not gone(orphan)
        process.send_signal(number)
    assert soon_gone(orphan)


def test_quartiles():
    assert turns.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert turns.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
