"""The site: every page is in its navigation, all that a user meets is described, and it builds without a warning."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

import latentia
from latentia import distributions, objectives
from latentia.cli.application import app
from latentia.configuration import Component, _attribute_docs
from latentia.recipes import Recipe

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


SECTIONS = ["Idea", "Generative process", "Training objective", "When to use it", "Keys", "Example", "References"]
MODELS = sorted((ROOT / "docs/models").glob("*.md"))
FAMILIES = {
    "recipe": Recipe,
    "posterior": distributions.Posterior,
    "prior": distributions.Prior,
    "likelihood": distributions.Likelihood,
    "objective": objectives.Objective,
    "adversarial loss": objectives.AdversarialLoss,
    "penalty": objectives.Penalty,
    "augmentation": objectives.Augmentation,
}


def keys_named(page: Path) -> set[tuple[str, str]]:
    """The members whose keys a page shows: `<!-- keys: prior: vamp, flow -->`."""
    parts = [part for line in re.findall(r"^<!-- keys: (.*) -->$", page.read_text(), re.M) for part in line.split("; ")]
    return {(part.split(": ")[0], name) for part in parts for name in part.split(": ")[1].split(", ")}


@pytest.mark.parametrize("page", MODELS, ids=lambda page: page.stem)
def test_a_model_page_has_all_sections_in_order(page: Path) -> None:
    title, *rest = re.split(r"^## (.*)\n", page.read_text(), flags=re.MULTILINE)
    sections = dict(zip(rest[::2], rest[1::2], strict=True))
    assert title.startswith("# ")
    assert list(sections) == SECTIONS
    assert [name for name in SECTIONS[1:3] if "\n$$\n" not in sections[name]] == []
    assert "latentia train " in sections["Keys"]
    assert keys_named(page)
    example = sections["Example"]
    assert "```bash\nlatentia train " in example
    assert "```python\n" in example
    assert re.search(r"\d ± \d", example), "no measured value with its error"
    assert re.search(r"exact|proven|numerical|lower bound|upper bound|estimate", example), "no kind of a value"
    assert re.search(r"\b\d{4}\b", sections["References"])


def test_every_choice_of_a_model_has_a_page() -> None:
    named = set().union(*map(keys_named, MODELS))
    known = {
        (label, name)
        for label, family in FAMILIES.items()
        for name, member in family.members().items()
        if member.__module__.startswith("latentia.")
    }
    assert known - named == set()
    assert {(label, name) for label, name in named - known if label in FAMILIES} == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_asks_no_other_host_and_has_every_name(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', page.read_text()), page
    for package in ("likelihood", "metrics", "sharing"):
        names = __import__(f"latentia.{package}", fromlist=["__all__"]).__all__
        text = (site / f"reference/latentia.{package}.html").read_text()
        assert [name for name in names if name not in text] == []
    model = (site / "models/priors.html").read_text()
    assert "<code>components</code>" in model  # a key, from the types
    assert "<math" in model
    assert "$$" not in model


@pytest.mark.slow
def test_the_search_works_from_disk(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for start in ("index.html", "models/vae.html"):
            page.goto((site / start).as_uri())
            page.locator("input.md-search__input").click()
            page.keyboard.type("vampprior")
            first = page.locator(".md-search-result__item a").first
            first.wait_for(timeout=60_000)
            assert "VampPrior" in first.inner_text()
            assert "models/priors.html" in (first.get_attribute("href") or "")
        browser.close()
