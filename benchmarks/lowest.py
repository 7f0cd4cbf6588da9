"""Print constraints that pin every package that latentia needs at the lowest version that pyproject.toml declares.

    python benchmarks/lowest.py constraints.txt > lowest.txt

torch is pinned as in the file given, since other versions need other builds; all other packages are free.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lowest(requirements: list[str], pins: str) -> list[str]:
    """A line NAME==VERSION for each requirement; that of torch from `pins`."""
    lines = []
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
        if found is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} has no lower bound of the form NAME>=VERSION")
        name, version = found.groups()
        kept = re.search(rf"^{name}==.*$", pins, re.MULTILINE) if name == "torch" else None
        lines.append(kept[0] if kept else f"{name}=={version}")
    return lines


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("\n".join(lowest(project["dependencies"], Path(sys.argv[1]).read_text(encoding="utf-8"))))
