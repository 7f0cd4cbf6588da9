"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00012345/
      state.safetensors    weights (`model.…`), optimizers (`optimizer.<player>.<index>.<name>`), averages (`ema.…`),
                           and what the costs came to since the last record (`tally.table`)
      state.json           step, progress of early stopping, the SHA-256 of the other file, and its own

A checkpoint is written into a folder beside, synced to the disk, and renamed into place: a crash at any moment leaves
either no checkpoint of that name or a whole one. Randomness and the position in the data are functions of the step.
Nothing is pickled.
"""

from __future__ import annotations

__all__ = [
    "Checkpoint",
    "find_checkpoints",
    "newest_sound",
    "optimizer_tensors",
    "prune",
    "read_checkpoint",
    "restore_optimizer",
    "set_aside",
    "write_checkpoint",
]

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentia.errors import RunError


@dataclass
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: steps finished.
        tensors: flat names to tensors.
        progress: small facts: the best validation figure, validations since, whether the run has ended.
    """

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, without it."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(prefix + ".")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as `<index>.<name>`; its settings come from the recipe."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        if value.shape == like.shape:  # fused steps want the parameter's own layout in memory
            value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write into `folder`, atomically; returns the checkpoint's own folder.

    Raises:
        RunError: when the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    beside, replaced = (folder / f".{doing}-{final.name}" for doing in ("writing", "replaced"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (beside, replaced):
            shutil.rmtree(path, ignore_errors=True)
        beside.mkdir()
        tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
        save_file(_unshared(tensors), beside / "state.safetensors")
        about = {
            "step": checkpoint.step,
            "progress": checkpoint.progress,
            "sha256": hash_of(beside / "state.safetensors"),
        }
        (beside / "state.json").write_text(json.dumps({**about, "seal": _seal(about)}, indent=2), encoding="utf-8")
        for path in (beside / "state.safetensors", beside / "state.json", beside):
            sync(path)
        if final.exists():  # of a run that was set back, and plays this step again
            final.rename(replaced)
        beside.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        kept = find_checkpoints(folder)
        last = f"the last good one is {kept[-1].name}" if kept else "there is none before it"
        raise RunError(
            f"could not write the checkpoint of step {checkpoint.step} to {folder}: {error}; {last}. Make room on the "
            "disk and go on with --resume"
        ) from error
    return final


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check that it is sound.

    Raises:
        RunError: if a file is missing or damaged.
    """
    try:
        about = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if about.pop("seal") != _seal(about):
            raise RunError(f"the checkpoint {path} is damaged: state.json is not what was written")
        if hash_of(path / "state.safetensors") != about["sha256"]:
            raise RunError(f"the checkpoint {path} is damaged: state.safetensors is not what was written")
        return Checkpoint(int(about["step"]), load_file(path / "state.safetensors"), about["progress"])
    except RunError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise RunError(f"the checkpoint {path} is damaged: {error}") from error


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = {path: re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*")}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name[5:]))


def newest_sound(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint that is sound, or None, and what is wrong with each newer one."""
    complaints = {}
    for path in reversed(find_checkpoints(folder)):
        try:
            return read_checkpoint(path), complaints
        except RunError as error:
            complaints[path] = str(error)
    return None, complaints


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it neither counts as one nor is lost; returns its new path."""
    aside = path.with_name(f"damaged-{path.name}")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        return path.rename(aside)
    except OSError as error:
        raise RunError(f"could not set the damaged checkpoint {path} aside: {error}; remove it") from error


def prune(folder: Path, keep: int, spare: Sequence[int] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and those of `spare`, and what a crash left half done."""
    spared = {f"step-{step:08d}" for step in spare}
    old = [path for path in find_checkpoints(folder)[:-keep] if path.name not in spared]
    for path in [*old, *folder.glob(".writing-*"), *folder.glob(".replaced-*")]:
        shutil.rmtree(path, ignore_errors=True)


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make the disk hold what was written to a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors that share memory, which safetensors refuses to write."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        pointer = value.untyped_storage().data_ptr()
        result[name] = value.clone() if pointer in seen else value
        seen.add(pointer)
    return result
