"""Pages of the site that are made from the code: the start page, the reference, the glossary and llms.txt."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PACKAGES = (
    "estimate",
    "configuration",
    "recipes",
    "sweeps",
    "models",
    "distributions",
    "networks",
    "objectives",
    "data",
    "training",
    "likelihood",
    "samplers",
    "integration",
    "metrics",
    "diagnostics",
    "divergences",
    "theory",
    "reports",
    "sharing",
    "errors",
)
KEY_OF = {"adversarial loss": "loss"}  # the key of a family whose label is another


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {target: _moved((ROOT / source).read_text(encoding="utf-8")) for source, target in OUTSIDE.items()}
    pages["glossary.md"] = _glossary()
    pages["reference/commands.md"] = "".join(_commands())
    pages["reference/keys.md"] = "".join(_keys())
    pages["reference/python.md"] = _python()
    for package in PACKAGES:
        pages[f"reference/latentia.{package}.md"] = f"# latentia.{package}\n\n::: latentia.{package}\n"
    pages["reference/latentia.md"] = "# latentia\n\n" + "".join(_top_level())
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", content=path.read_text(encoding="utf-8")))
    files.append(File.generated(config, "llms.txt", content=_llms(files, pages)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in keys and formulas, and point links to files outside of docs/ at the generated pages and copies."""
    markdown = re.sub(r"^<!-- keys: (.*) -->$", lambda found: "".join(_chosen(found[1])), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^\$\$\n(.*?)\n\$\$$", _formula, markdown, flags=re.MULTILINE | re.DOTALL)
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+notebooks/", f"]({up}notebooks/", markdown)
    for source, target in OUTSIDE.items():
        markdown = re.sub(rf"\]\((?:\.\./)+{re.escape(source)}", f"]({up}{target}", markdown)
    return markdown


def on_post_page(output: str, **_: Any) -> str:
    """Put a script of this folder in the place of the one that the offline plugin loads from the network."""
    script = (ROOT / "docs" / "search-from-disk.js").read_text(encoding="utf-8")
    return re.sub(r'<script src="https://[^"]*"></script>', lambda _: f"<script>\n{script}</script>", output)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for pages without a Markdown file."""
    return on_post_page(output_content)


def _moved(text: str) -> str:
    """A page of the root folder with its links as from docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, target in OUTSIDE.items():
        text = text.replace(f"]({source}", f"]({target}")
    return text


def _glossary() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"## Vocabulary\n(.*?)\n## ", text, re.DOTALL)
    assert found is not None, "CONTRIBUTING.md has no section 'Vocabulary'"
    return f"# Glossary\n{found[1]}\n"


def _python() -> str:
    lines = ["# Python\n\nThe names of `import latentia`: [latentia](latentia.md).\n\n| package | |\n|---|---|\n"]
    for package in PACKAGES:
        summary = (importlib.import_module(f"latentia.{package}").__doc__ or "").strip().splitlines()[0]
        lines.append(f"| [latentia.{package}](latentia.{package}.md) | {summary} |\n")
    return "".join(lines)


def _top_level() -> Iterator[str]:
    import latentia

    for name in sorted(latentia.__all__, key=str.lower):
        thing = getattr(latentia, name)
        yield f"## {name}\n\n::: {thing.__module__}.{thing.__qualname__}\n\n"


def _commands() -> Iterator[str]:
    from latentia.cli.application import app

    yield "# Commands\n\nEvery command prints this with `--help`.\n"
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.rstrip("_").replace("_", "-")
        call = [sys.executable, "-m", "latentia.cli", name, "--help"]
        shown = subprocess.run(call, capture_output=True, text=True, check=True, env=environment).stdout
        yield f"\n## latentia {name}\n\n```text\n{shown.strip()}\n```\n"


def _families() -> Iterator[tuple[str, Any]]:
    from latentia import data, distributions, networks, objectives, recipes, training

    yield "recipe", recipes.Recipe
    for package in (data, networks, distributions, objectives, training):
        for name in sorted(package.__all__):
            thing = getattr(package, name)
            if inspect.isclass(thing) and thing.__dict__.get("_members") and thing.__dict__.get("_family") is thing:
                yield thing._label(), thing


def _keys() -> Iterator[str]:
    yield (
        "# Keys\n\nEvery setting and its default. On the command line `objective=iwae objective.k=50`, in recipe.yaml "
        "`objective: {type: iwae, k: 50}`, in Python `objective=IWAE(k=50)`.\n"
    )
    for label, family in _families():
        yield f"\n## {label[:1].upper()}{label[1:]}\n"
        for name, member in family.members().items():
            if member.__module__.startswith("latentia."):
                yield f"\n### {name}\n\n{_summary(member)}\n\n{_table(member)}"


def _chosen(text: str) -> Iterator[str]:
    """The keys that a page names as `recipe: vae; prior: vamp, flow`; of a recipe without those of all training."""
    from latentia.training.settings import Training

    families = dict(_families())
    for part in text.split("; "):
        label, _, names = part.partition(": ")
        for name in names.split(", "):
            member = families[label].members()[name]
            shared = Training.model_fields if label == "recipe" else {}
            command = f"latentia train {name}" if label == "recipe" else f"{KEY_OF.get(label, label)}={name}"
            yield f"\n`{command}`: {_summary(member)}\n\n"
            yield _table(member, shared) if set(member.model_fields) - set(shared) else ""
    yield "\nEvery other key, such as `epochs`, and what each value takes: [all keys](../reference/keys.md).\n"


def _formula(found: re.Match[str]) -> str:
    """A formula between lines of `$$` as MathML, which browsers show without a script."""
    from latex2mathml.converter import convert

    text = convert(" ".join(found[1].split()), display="block")
    text = text.replace("<mi>log</mi>", '<mi>log</mi><mspace width="0.17em" />')
    text = text.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    return f'<div class="formula">{text}</div>'


def _summary(member: Any) -> str:
    summary = inspect.getdoc(member).split("\n\n")[0]
    return f"`{member.__module__.rsplit('.', 1)[0]}.{member.__qualname__}`. {summary}"


def _table(member: Any, left_out: Container[str] = ()) -> str:
    rows = []
    for key, field in member.model_fields.items():
        if key in left_out:
            continue
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        rows.append(f"| `{key}` | {default} | {_described(member, key, field)} |\n")
    return ("| key | default | |\n|---|---|---|\n" + "".join(rows)) if rows else "No keys.\n"


def _described(member: Any, key: str, field: Any) -> str:
    """The field's description, or the line of the docstring that names it."""
    found = re.search(rf"^ *{key}: (.*(?:\n {{8,}}.*)*)", inspect.getdoc(member) or "", re.MULTILINE)
    text = field.description or (found[1] if found else "")
    return " ".join(text.split()).replace("|", "\\|")


def _shown(value: Any) -> str:
    name = getattr(value, "type_name", None)
    text = name if name else "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`".replace("|", "\\|")


def _llms(files: Files, pages: dict[str, str]) -> str:
    """An index of the pages for language models, one line each."""
    lines = [
        "# Latentia\n\n> A Python laboratory for latent-variable generative models: VAEs, GANs and their theory.\n"
    ]
    for file in sorted(files.documentation_pages(), key=lambda file: file.src_uri):
        text = pages.get(file.src_uri) or file.content_string
        title = re.search(r"^# (.*)$", text, re.MULTILINE)
        lines.append(f"- [{title[1] if title else file.src_uri}]({file.url})")
    return "\n".join(lines) + "\n"
