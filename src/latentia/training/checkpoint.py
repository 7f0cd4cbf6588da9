"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00012345/
      state.safetensors    weights (`model.…`), optimizers (`optimizer.<player>.<index>.<name>`), averaged weights
                           (`ema.…`), and sums of the costs since the last record (`costs`)
      state.json           step, progress of the run, the SHA-256 of the other file, and its own

A checkpoint is written under a temporary name, synced to the disk and renamed, so that a crash at any moment leaves
either no checkpoint of that name or a whole one. Random numbers and the position in the data are functions of the step.
Nothing is pickled.
"""

from __future__ import annotations

__all__ = ["find_checkpoints"]

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import TypedDict

from latentia.errors import RunError, how_to_go_on
from latentia.files import atomic_write, read_json


def _cure(path: Path) -> str:
    """What serves in the place of a damaged checkpoint of a run."""
    return f"an older checkpoint serves: {how_to_go_on(path.parent.parent)}, which takes the newest sound one"


@dataclass
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: steps finished.
        tensors: tensors by flat names.
        progress: small facts: the best value on validation data, validations since, whether the run has ended.
    """

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with the prefix and a dot, without both."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(prefix + ".")}


class _State(TypedDict):
    """state.json."""

    step: int
    progress: dict[str, Any]
    sha256: str
    seal: str


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
        if value.shape == like.shape:  # torch's fused steps read both in the order of memory
            value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write into `folder`, atomically; returns the checkpoint's own folder.

    Raises:
        RunError: if it cannot be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    try:
        with atomic_write(final) as temporary:
            temporary.mkdir()
            save_file(_unshared(tensors), temporary / "state.safetensors")
            about = {
                "step": checkpoint.step,
                "progress": checkpoint.progress,
                "sha256": _hash_of(temporary / "state.safetensors"),
            }
            text = json.dumps({**about, "seal": seal_of(about)}, indent=2)
            (temporary / "state.json").write_text(text, encoding="utf-8")
    except RunError as error:
        raise RunError(f"{error}; {describe_last(folder)}; then {how_to_go_on(folder.parent)}") from error
    return final


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check that it is sound.

    Raises:
        RunError: if a file is missing or damaged.
    """
    state, cure, tensors = _read_state(path), _cure(path), path / "state.safetensors"
    try:
        if _hash_of(tensors) != state["sha256"]:
            raise RunError(f"{tensors} is damaged: it is not what was written; {cure}")
        return Checkpoint(state["step"], load_file(tensors), state["progress"])
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{tensors} is damaged: {error}; {cure}") from error


def _read_state(path: Path) -> dict[str, Any]:
    """What a checkpoint's state.json holds.

    Raises:
        RunError: if it is missing or damaged.
    """
    state = read_json(path / "state.json", _State, _cure(path))
    if state.pop("seal") != seal_of(state):
        raise RunError(f"{path / 'state.json'} is damaged: it is not what was written; {_cure(path)}")
    return state


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = {path: re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*")}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name[5:]))


def describe_last(folder: Path) -> str:
    """A clause that names the newest checkpoint, for error messages."""
    found = find_checkpoints(folder)
    return f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint before it"


def newest_sound(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest sound checkpoint, or None, and what is wrong with each newer one."""
    complaints = {}
    for path in reversed(find_checkpoints(folder)):
        try:
            return read_checkpoint(path), complaints
        except RunError as error:
            complaints[path] = str(error)
    return None, complaints


def records_counted(folder: Path) -> tuple[int, int] | None:
    """The step of the newest checkpoint, and how many records were written up to it; None without a sound one."""
    for path in reversed(find_checkpoints(folder)):
        with suppress(RunError):
            state = _read_state(path)
            count = state["progress"].get("records")
            return (state["step"], count) if isinstance(count, int) else None
    return None


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
    """Remove all but the newest `keep` checkpoints and those of the steps in `spare`."""
    spared = {f"step-{step:08d}" for step in spare}
    for path in find_checkpoints(folder)[:-keep]:
        if path.name not in spared:
            shutil.rmtree(path, ignore_errors=True)


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_of(about: Any) -> str:
    """The SHA-256 of plain data."""
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
