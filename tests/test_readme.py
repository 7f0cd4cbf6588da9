"""The README's code: its Python blocks run, its commands exist and their settings are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith(("latentia ", ".venv/bin/latentia "))]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_block_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[number]
    assert code.strip(), "an empty block shows nothing"
    exec(compile(code, f"README block {number + 1}", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", commands())
def test_command_exists_and_its_settings_are_valid(command: str) -> None:
    from latentia.cli import app

    _, name, *rest = shlex.split(command)
    arguments = [name, *rest, "--keys"] if name == "train" else [name, "--help"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{command}: {result.output} {result.exception}"
