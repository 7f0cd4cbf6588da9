"""The site: every page is in its navigation, all that a user meets is described, and it builds without a warning."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

import latentia
from latentia.cli.application import app
from latentia.configuration import Component, _attribute_docs

ROOT = Path(__file__).resolve().parent.parent


def test_every_page_of_docs_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    navigation = re.findall(r"([\w/.-]+\.md)$", text.split("\nnav:\n")[1], re.MULTILINE)
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    generated = {"index.md", "contributing.md", "changelog.md", "glossary.md"}
    named = {page for page in navigation if not page.startswith("reference/")} - generated
    assert named == pages
    assert yaml.safe_load(text)["strict"] is True


def modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(latentia.__path__, "latentia."):
        if not module.name.endswith("__main__"):
            yield module.name


def components(cls: type[Component]) -> Iterator[type[Component]]:
    for member in cls.__subclasses__():
        if member.__module__.startswith("latentia.") and not member.__name__.startswith("_"):
            yield member
        yield from components(member)


def test_every_key_says_what_it_is() -> None:
    for name in modules():
        importlib.import_module(name)
    found = {
        f"{member.__name__}.{key}": field.description or _attribute_docs(member).get(key, "")
        for member in components(Component)
        for key, field in member.model_fields.items()
        if not field.exclude
    }
    assert len(found) > 500
    assert [key for key, words in found.items() if len(words.split()) < 2] == []


def test_every_command_and_option_says_what_it_is() -> None:
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    words = {name: command.help or "" for name, command in commands.items()}
    for name, command in commands.items():
        words |= {f"{name} {option.name}": getattr(option, "help", None) or "" for option in command.params}
    assert len(words) > 100
    assert [name for name, text in words.items() if len(text.split()) < 2] == []


def test_every_public_name_has_a_docstring_and_a_page() -> None:
    without = []
    for name in modules():
        module = importlib.import_module(name)
        for thing in (getattr(module, public) for public in getattr(module, "__all__", [])):
            if inspect.isfunction(thing) or inspect.isclass(thing):
                text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
                without += [] if text else [f"{name}.{thing.__name__}"]
    assert without == []
    pages = re.findall(r'"(\w+)"', (ROOT / "docs" / "hooks.py").read_text().split("PACKAGES = (")[1].split(")")[0])
    packages = {module.name for module in pkgutil.iter_modules(latentia.__path__) if module.ispkg}
    public = {name for name in packages if getattr(importlib.import_module(f"latentia.{name}"), "__all__", [])}
    assert public - {"cli"} <= set(pages)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    call = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', page.read_text()), page
    for package in ("likelihood", "metrics", "sharing"):
        names = __import__(f"latentia.{package}", fromlist=["__all__"]).__all__
        text = (tmp_path / f"reference/latentia.{package}.html").read_text()
        assert [name for name in names if name not in text] == []
