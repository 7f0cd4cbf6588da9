"""The run directory: a run's recipe, records, checkpoints and weights, all of them text or safetensors."""

from __future__ import annotations

__all__ = ["Complete", "RunDirectory"]

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentia.errors import RunError
from latentia.training.checkpoint import sync

Complete = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class RunDirectory:
    """A folder as described in docs/design.md, `runs/<name>/`.

    Args:
        path: the folder.
        complete: writes out the defaults of keys that a recipe lacks, as one does that was written before there were
            such keys: only then can it be compared with a recipe of today. Without it, recipes are compared as they
            are written.
    """

    def __init__(self, path: Path | str, complete: Complete = dict):
        self.path = Path(path)
        self.with_defaults = complete

    @property
    def recipe_file(self) -> Path:
        """The whole recipe, defaults written out."""
        return self.path / "recipe.yaml"

    @property
    def has_environment(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "environment.json").exists()

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.path / "figures"

    @property
    def evaluation(self) -> Path:
        """Folder of lists of estimates."""
        return self.path / "evaluation"

    def check(self, recipe: Mapping[str, Any], resume: bool) -> None:
        """See that this recipe may be run here; changes nothing.

        Raises:
            RunError: if the folder is in use and `resume` is not set, or if it holds another recipe's run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; give another --out")
        if self.recipe_file.exists():
            if not resume:
                raise RunError(f"{self.path} holds a run already; go on with it by --resume, or give another --out")
            other = differences(self.with_defaults(self.recipe()), recipe)
            if other:
                listed = "; ".join(f"{key}: {old!r} there, {new!r} here" for key, old, new in other)
                raise RunError(f"{self.path} holds a run of another recipe ({listed}); give another --out")
        try:
            foreign = self.path.exists() and any(not path.name.startswith(".") for path in self.path.iterdir())
        except OSError as error:
            raise RunError(f"cannot read the directory {self.path}: {error}; give another --out") from error
        if foreign and not self.recipe_file.exists():
            raise RunError(f"{self.path} is not empty and holds no run; give another --out")

    def make(self, recipe: Mapping[str, Any], resume: bool) -> None:
        """Make the folder, once it is seen that this recipe may be run here.

        Raises:
            RunError: as `check`, or if the folder cannot be written.
        """
        self.check(recipe, resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run directory {self.path}: {error}; give another --out") from error

    def create(self, recipe: Mapping[str, Any], resume: bool) -> None:
        """Make the folder for this recipe and write recipe.yaml into it, once it is seen that it may be run here.

        Raises:
            RunError: as `check`, or if the folder cannot be written.
        """
        self.make(recipe, resume)
        if not self.recipe_file.exists():
            self._write(self.recipe_file, yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))

    def _write(self, path: Path, text: str) -> None:
        """Write a text file, atomically."""
        beside = path.with_name(f".{path.name}")
        with _writing(path, beside):
            beside.write_text(text, encoding="utf-8")
            sync(beside)
            beside.replace(path)

    def recipe(self) -> dict[str, Any]:
        """The recipe as plain data.

        Raises:
            RunError: if there is none, or it cannot be read.
        """
        try:
            recipe = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            inside = sorted(path.parent for path in self.path.glob("*/recipe.yaml"))
            cure = f"the runs in it are {', '.join(map(str, inside))}" if inside else "give a folder that `train` wrote"
            raise RunError(f"{self.path} is no run directory: it has no recipe.yaml; {cure}") from None
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(f"cannot read {self.recipe_file}: {error}") from error
        if not isinstance(recipe, dict):
            raise RunError(f"{self.recipe_file} is damaged: it holds no keys")
        return recipe

    def write_environment(self, **facts: Any) -> None:
        """Write environment.json: versions and machine, and the facts given."""
        about = {
            "latentia": version("latentia"),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **facts,
        }
        self._write(self.path / "environment.json", json.dumps(about, indent=2) + "\n")

    def add_to_environment(self, **facts: Any) -> None:
        """Put more facts into environment.json."""
        self._write(self.path / "environment.json", json.dumps({**self.environment(), **facts}, indent=2) + "\n")

    def environment(self) -> dict[str, Any]:
        """What environment.json says.

        Raises:
            RunError: if it is missing or damaged.
        """
        path = self.path / "environment.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path} has no environment.json, as if its run had not begun; train again") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}; write it anew with `latentia train … --resume`") from error

    def append_records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append to metrics.jsonl, one JSON object a line; values that are not finite become strings."""
        lines = "".join(json.dumps(_finite(record), allow_nan=False) + "\n" for record in records)
        path = self.path / "metrics.jsonl"
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(lines)

    def records(self) -> list[dict[str, Any]]:
        """All whole records; a last line cut short by a crash is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                if number == len(lines):
                    break
                raise RunError(f"line {number} of {self.path / 'metrics.jsonl'} is damaged") from None
            stderr = record.get("stderr")
            records.append(
                {**record, "value": float(record["value"]), "stderr": None if stderr is None else float(stderr)}
            )
        return records

    def forget_records_after(self, step: int) -> None:
        """Drop records of steps that a resumed run will play again."""
        kept = [record for record in self.records() if record["step"] <= step]
        self._write(self.path / "metrics.jsonl", "".join(json.dumps(_finite(record)) + "\n" for record in kept))

    def write_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write weights.safetensors, atomically."""
        path, beside = self.path / "weights.safetensors", self.path / ".weights.safetensors"
        with _writing(path, beside):
            save_file({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, beside)
            sync(beside)
            beside.replace(path)

    def weights(self) -> dict[str, Tensor]:
        """Read weights.safetensors.

        Raises:
            RunError: if they are missing (a run that has not ended) or damaged.
        """
        path = self.path / "weights.safetensors"
        try:
            return load_file(path)
        except FileNotFoundError:
            cure = f"it has not ended: go on with `latentia train … --out {self.path} --resume`"
            raise RunError(f"{self.path} has no weights.safetensors; {cure}") from None
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} is damaged: {error}") from error


@contextmanager
def _writing(path: Path, beside: Path | None = None) -> Iterator[None]:
    """Turn a failure to write into an error with its cure, and remove the half-written file beside."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if beside is not None:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        raise RunError(f"could not write {path}: {error}. Make room on the disk and go on with --resume") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted keys at which two recipes differ, with both values."""
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    infinite = (float("inf"), float("-inf"))
    return {key: str(value) if value in infinite or value != value else value for key, value in record.items()}
