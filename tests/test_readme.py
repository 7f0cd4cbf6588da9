"""The README's and the documentation's code: Python blocks run, commands exist and their settings are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentia.objectives import Objective

from .test_sweeps import train_in_this_process

ROOT = Path(__file__).parent.parent
FOLDERS = ("docs", "docs/tutorials", "docs/models")
PAGES = [ROOT / "README.md", *(page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md")))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(where, code) of each block of a language, page by page."""
    found = []
    for page in PAGES:
        codes = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        found += [(f"{page.name} block {number}", code) for number, code in enumerate(codes, 1)]
    return found


def test_commands_stand_in_fenced_blocks() -> None:
    found = {page.name: re.findall(r"\n\n    ((?:latentia|python) .*)", page.read_text("utf-8")) for page in PAGES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def commands() -> list[str]:
    lines = "\n".join(code for _, code in blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith(("latentia ", ".venv/bin/latentia "))]


@pytest.mark.parametrize(("where", "code"), [pytest.param(*block, id=block[0]) for block in blocks("python")])
def test_python_block_runs(where: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Objective, "_members", dict(Objective._members))  # a block may define one
    train_in_this_process(monkeypatch)
    assert code.strip(), "an empty block shows nothing"
    exec(compile(code, where, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", commands())
def test_command_exists_and_its_settings_are_valid(command: str) -> None:
    from latentia.cli import app

    _, name, *rest = shlex.split(command)
    arguments = [name, *rest, "--keys"] if name == "train" else [name, "--help"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{command}: {result.output} {result.exception}"
