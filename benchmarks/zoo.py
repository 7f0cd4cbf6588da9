"""Train the models that a release carries, evaluate them and pack each as a zip, with the commands that made them.

    python benchmarks/zoo.py --out dist/zoo                  # all, some ten minutes on two cores
    python benchmarks/zoo.py --out dist/zoo --only ring-gan

A zip holds a run directory without checkpoints: unzip it and call `latentia.load("mnist-vae")`.
The folder also has README.md, with the commands and the estimates of every model.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

from latentia.files import atomic_write
from latentia.sharing.hub import shared_files
from latentia.training import RunDirectory

MODELS = {
    "mnist-vae": ("train vae", "evaluate"),
    "mnist-gan": ("train gan", "evaluate --samples"),
    "mnist-sphere-vae": ("train vae posterior=von-mises-fisher prior=sphere latent=3", "evaluate"),
    "mnist-conditional-vae": ("train conditional-vae", "evaluate"),
    "ring-gan": ("train gan data=ring", "evaluate --samples"),
    "breast-cancer-vae": ("train vae data=breast-cancer likelihood=gaussian-per-column", "evaluate"),
}


def commands(name: str) -> list[str]:
    """The commands that make a model, as they are typed in the folder of the zoo."""
    train, evaluate = MODELS[name]
    return [f"latentia {train} --out {name}", f"latentia {evaluate} {name}"]


def make(name: str, out: Path, extra: list[str]) -> str:
    """Run the commands of a model, with extra settings of the training, and pack its run; returns a text about it."""
    done = commands(name)
    done[0] = shlex.join([*shlex.split(done[0]), *extra])
    for command in done:
        print(f"$ {command}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "latentia.cli", *shlex.split(command)[1:]], cwd=out, check=True)
    directory = RunDirectory(out / name)
    with (
        atomic_write(out / f"{name}.zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for file in shared_files(directory.path):
            archive.write(file, Path(name) / file.relative_to(directory.path))
    lines = [f"## {name}", "", "```bash", *done, "```", "", "| | value | kind |", "|---|---|---|"]
    for estimates in directory.evaluations().values():
        lines += [f"| {estimate.name} | {estimate} | {estimate.kind} |" for estimate in estimates]
    return "\n".join([*lines, ""])


def main(given: list[str] | None = None) -> None:
    """Make the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist/zoo"))
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--set", nargs="*", default=[], help="settings of every training, such as epochs=1")
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    texts = [make(name, options.out, options.set) for name in options.only]
    with atomic_write(options.out / "README.md") as temporary:
        temporary.write_text("\n".join(["# Models of this release", "", *texts]), encoding="utf-8")


if __name__ == "__main__":
    main()
