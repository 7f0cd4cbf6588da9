"""Ctrl-C at any moment of a command: one line, exit code 130, and a run that goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BEGIN = "import latentia.cli, os, sys; os.write(1, b'.'); sys.argv = ['latentia', *sys.argv[1:]]; latentia.cli.main()"
TRAIN = [
    "train",
    "vae",
    "data=digits",
    "data.binarize=dynamic",
    "network.hidden=[16]",
    "epochs=3",
    "--out",
    "run",
    "--quiet",
]
CHANCE = random.Random(0)
MOMENTS = [0.1, *(CHANCE.uniform(0.1, 6.0) for _ in range(7))]


def interrupt(arguments: list[str], moment: float, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a command that gets a SIGINT so many seconds after its first import."""
    command = [sys.executable, "-c", BEGIN, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == "."
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("moment", MOMENTS)
def test_one_ctrl_c_ends_with_one_line(tmp_path: Path, moment: float) -> None:
    code, errors = interrupt(TRAIN, moment, tmp_path)
    assert code in (130, 0)  # 0: it had ended before
    assert len(errors.splitlines()) == (code == 130)
    assert "Traceback" not in errors
    left = [path for path in tmp_path.rglob(".latentia-*") if path.is_file()]
    assert len(left) <= 1  # what was being written, which the next write removes
