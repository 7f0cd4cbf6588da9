"""Measures of the structure of the code, and the goals for them.

    python benchmarks/structure.py                 every measure, with the goals
    python benchmarks/structure.py --check         the rules alone; exit code 1 if one is broken (part of `make check`)

The rules: the words that CONTRIBUTING lists as avoided occur nowhere in src, docs and README; no import cycle; no
dispatch on `type_name`, on the name of a class, or by `hasattr`.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "latentia"
GOALS = {"files": 165, "public names": 300, "lines of src and tests": 39_578, "files of a training": 25, "frames": 8}
WORDS = [
    "law",
    "laws",
    "judge",
    "judges",
    "judged",
    "judging",
    "critic",
    "critics",
    "told",
    "tell",
    "tells",
    "anew",
    "beside",
    "lest",
    "mend",
    "mends",
    "mended",
    "mending",
    "shall",
]
PHRASES = (r"of its own", r"of their own", r"no affair", r"(?<!there )\bis no\b(?! longer)")
# Words that another library or format spells so, or that mean something else where they stand.
ALLOWED = {"tell": ("f.tell(", ".tell()", "study.tell("), "law": ("power law", "law of large numbers", "law of total")}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the package and its syntax tree."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def public_names() -> set[str]:
    """Distinct names over all `__all__`."""
    names: set[str] = set()
    for _, tree in modules():
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "__all__"
            ):
                names |= {element.value for element in node.value.elts}
    return names


def lines(folder: str) -> int:
    """Lines of Python below a folder."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py"))


def avoided_words() -> list[str]:
    """Where src, docs and README use a word that the vocabulary avoids."""
    pattern = re.compile(rf"\b({'|'.join(WORDS)})\b|{'|'.join(PHRASES)}", re.IGNORECASE)
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.html"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    found = []
    for path in sorted(files):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in pattern.finditer(line):
                word = match.group(0).lower()
                if not any(allowed in line for allowed in ALLOWED.get(word, ())):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {word}")
    return found


def import_cycles() -> list[str]:
    """Cycles among the modules' imports at run time, without those inside functions or for type checking."""
    names = {path: "latentia." + ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path, _ in modules()}
    names = {path: name.removesuffix(".__init__").removesuffix(".") for path, name in names.items()}
    known = set(names.values())
    graph: dict[str, set[str]] = {}
    for path, tree in modules():
        targets = graph.setdefault(names[path], set())
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                targets |= {f"{node.module}.{alias.name}" for alias in node.names} & known
                if node.module in known and not {f"{node.module}.{alias.name}" for alias in node.names} <= known:
                    targets.add(node.module)
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names} & known
        # A package's __init__ runs before its modules do, so importing it from inside is not a cycle by itself.
        targets.discard(names[path].rpartition(".")[0])
        targets.discard(names[path])
    return [" → ".join(cycle) for cycle in _cycles(graph)]


def _cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
            return
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            yield from visit(target, [*path, name])
        done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def dispatches() -> list[str]:
    """Where code decides by `hasattr`, by a component's `type_name`, or by the name of a class."""
    found = []
    for path, tree in modules():
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                found.append(f"{where}: hasattr")
            if isinstance(node, ast.Compare):
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                named = any(re.search(r"\.type_name\b|__name__\b|__qualname__", side) for side in sides)
                if named and "__main__" not in ast.unparse(node):
                    found.append(f"{where}: {ast.unparse(node)}")
    return found


def training_path() -> tuple[list[str], int, int]:
    """Files that `train(VAERecipe())` calls functions of, the deepest stack of ours in a step, and calls a step."""
    sys.path.insert(0, str(SOURCE.parent))
    import latentia

    base = str(SOURCE) + "/"
    files: Counter[str] = Counter()
    depth = deepest = calls = steps = 0
    inside = False

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal depth, deepest, calls, steps, inside
        name = frame.f_code.co_filename
        if not name.startswith(base) or frame.f_code.co_name == "<module>":
            return
        if event == "call":
            files[name.removeprefix(base)] += 1
            if frame.f_code.co_name == "_step":
                inside, depth, steps = True, 0, steps + 1
            if inside:
                depth, calls = depth + 1, calls + 1
                deepest = max(deepest, depth)
        elif event == "return" and inside:
            depth -= 1
            inside = frame.f_code.co_name != "_step"

    with tempfile.TemporaryDirectory() as folder:
        recipe = latentia.VAERecipe(epochs=1)
        sys.setprofile(profile)
        try:
            latentia.train(recipe, f"{folder}/run", quiet=True)
        finally:
            sys.setprofile(None)
    return sorted(files), deepest, round(calls / max(1, steps))


def main() -> None:
    """Print the measures; with --check, only the rules that are broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="the rules alone; exit code 1 if one is broken")
    parser.add_argument("--files", action="store_true", help="also name the files of a training")
    chosen = parser.parse_args()
    rules = {"avoided words": avoided_words(), "import cycles": import_cycles(), "dispatches by name": dispatches()}
    for rule, found in rules.items():
        print(f"{rule:24} {len(found)} (goal 0)")
        print(*(f"    {line}" for line in found), sep="\n", end="\n" if found else "")
    if chosen.check:
        raise SystemExit(any(rules.values()))
    files, deepest, calls = training_path()
    measures = {
        "files": sum(1 for _ in modules()),
        "public names": len(public_names()),
        "lines of src and tests": lines("src") + lines("tests"),
        "files of a training": len(files),
        "frames": deepest,
    }
    for name, value in measures.items():
        print(f"{name:24} {value} (goal at most {GOALS[name]})")
    print(f"{'calls of a step':24} {calls}")
    if chosen.files:
        print(*files, sep="\n")


if __name__ == "__main__":
    main()
