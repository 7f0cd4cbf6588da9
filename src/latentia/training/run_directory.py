"""The run directory: a run's recipe, records, checkpoints and weights, all of them text or safetensors.

    recipe.yaml           the whole recipe, defaults written out
    environment.json      versions, machine, data, the checksum of the recipe, and its own
    metrics.jsonl         records of the costs and of validation, one JSON object a line
    checkpoints/          see `checkpoint.py`
    weights.safetensors   the weights that the run ended with, sealed by a checksum
    evaluation/           lists of estimates
    figures/              pictures
    .lock                 held by the process that trains here

One process trains in a run directory at a time: two that wrote checkpoints and records there would leave a mixture.
The lock is the operating system's, on the file `.lock`, and not the file itself: after `kill -9` or a loss of power
nothing is left to clear away. On POSIX it is a record lock, which belongs to the process, so that a forked worker of
the data does not keep it. Before each write the process checks that the file it holds is still the one in the folder.
"""

from __future__ import annotations

__all__ = ["RunDirectory"]

import json
import math
import os
import platform
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, NotRequired, Self

import torch
import yaml
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from latentia.errors import RunError, how_to_go_on
from latentia.estimate import Estimate, read_estimates
from latentia.files import atomic_write, read_json, read_tensors, read_yaml, write_tensors
from latentia.training.checkpoint import find_checkpoints, records_counted, seal_of

LOCK_FILE = ".lock"
_WINDOWS_BYTE = 1 << 30  # the byte that Windows locks, past the note, which others may then read
_LOCK_TRIES = 5  # a reader that asks who holds the lock holds it for a moment itself

_held: set[Path] = set()  # a record lock does not keep its own process out

WithDefaults = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@with_config(ConfigDict(extra="allow"))
class _Environment(TypedDict):
    """environment.json."""

    shape: list[int]
    classes: list[str]
    data_hash: str
    devices: int
    parameters: int
    recipe_hash: str
    seal: str
    seed: NotRequired[int]
    training_seconds: NotRequired[float]
    init_from: NotRequired[dict[str, Any]]
    extended: NotRequired[list[dict[str, Any]]]


class RunDirectory:
    """The folder of a run. Made directly, it is for reading; `open` holds it for training.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock: int | None = None
        self._folder = self.path

    @property
    def recipe_file(self) -> Path:
        """The whole recipe, defaults written out."""
        return self.path / "recipe.yaml"

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

    # Opening

    @classmethod
    @contextmanager
    def open(
        cls, path: Path | str, recipe: Mapping[str, Any], *, resume: bool = False, with_defaults: WithDefaults = dict
    ) -> Iterator[Self]:
        """Make the folder, or reopen it with `resume`, and hold it inside the block.

        If the block raises before `begin`, the folders that were made are removed.

        Args:
            path: the folder.
            recipe: the recipe to train; a resumed run must be of the same.
            resume: whether the folder must hold a run, or must not.
            with_defaults: fills in the defaults of keys that a recipe on disk lacks, as one does that was written
                before there were such keys. Without it, recipes are compared as they are written.

        Raises:
            RunError: if the folder is in use, holds another recipe's run, holds none to resume, or cannot be written.
        """
        directory = cls(path)
        with directory._holding(recipe, resume, with_defaults):
            yield directory

    @contextmanager
    def _holding(self, recipe: Mapping[str, Any], resume: bool | None, with_defaults: WithDefaults) -> Iterator[None]:
        """Hold the folder inside the block; `resume=None` takes a folder with or without a run."""
        self._check(recipe, resume, with_defaults)
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"cannot make the run directory {self.path}: {error}; give another --out") from error
            with self._locked():
                self._check(recipe, resume, with_defaults)  # what another process did before the lock was held
                self._recipe = dict(recipe)
                yield
        finally:
            with suppress(OSError):
                if made and not self.recipe_file.exists():
                    (self.path / LOCK_FILE).unlink(missing_ok=True)
                    for folder in made:
                        folder.rmdir()

    def _check(self, recipe: Mapping[str, Any], resume: bool | None, with_defaults: WithDefaults) -> None:
        """See that this recipe may be trained here; changes nothing."""
        try:
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"{self.path} is a file; give another --out")
            names = [path.name for path in self.path.iterdir()] if self.path.exists() else []
        except OSError as error:
            raise RunError(f"cannot read the directory {self.path}: {error}; give another --out") from error
        if self.recipe_file.name in names:
            if resume is False:
                raise RunError(
                    f"{self.path} holds a run already; "
                    f"{self.how_to_go_on}, or give another --out (in Python resume=True, out=...)"
                )
            other = _differences(with_defaults(self.recipe()), recipe)
            if other:
                listed = "; ".join(f"{key}: {old!r} there, {new!r} here" for key, old, new in other)
                raise RunError(f"{self.path} holds a run of another recipe ({listed}); give another --out")
        elif resume is not None and not (resume and find_checkpoints(self.checkpoints)):
            if any(not name.startswith(".") and not _is_bare(self.path / name) for name in names):
                raise RunError(f"{self.path} is not empty and holds no run; give another --out")
            if resume:
                raise RunError(f"{self.path} holds no run to go on with; leave --resume out to begin one")

    def begin(self, **facts: Any) -> list[str]:
        """Write recipe.yaml and environment.json, once it is seen that a resumed run has its own data and processes.

        Args:
            **facts: of environment.json, besides versions and machine; `data_hash` and `devices` must not change.

        Returns:
            Warnings: what was missing or damaged, and is written again.

        Raises:
            RunError: for other data, or another number of processes.
        """
        complaints = []
        if not self.recipe_file.exists():
            if find_checkpoints(self.checkpoints):
                complaints.append(f"{self.recipe_file} was missing; it is written again from the settings given now")
            self._write(self.recipe_file, yaml.safe_dump(self._recipe, sort_keys=False, allow_unicode=True))
        before: Mapping[str, Any] = {}
        if self._environment_file.exists():
            try:
                before = self.environment()
            except RunError as error:
                complaints.append(f"{str(error).split(';')[0]}; it is written again, its data unchecked")
        if before.get("data_hash", facts.get("data_hash")) != facts.get("data_hash"):
            raise RunError(
                f"the data that are loaded now are not those that {self.path} began with; bring the files back, or "
                "give another --out"
            )
        if before.get("devices", facts.get("devices")) != facts.get("devices"):
            raise RunError(
                f"{self.path} began on {before['devices']} processes and would go on with {facts['devices']}, to other "
                "results; start as many as before, or give another --out"
            )
        about = {
            "latentia": version("latentia"),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }
        kept = {key: before[key] for key in ("init_from", "extended") if key in before}
        if before.get("recipe_hash", self._recipe_hash()) != self._recipe_hash():
            complaints.append(f"{self.recipe_file} was changed after the run began")
        self._write_environment({**about, **kept, **facts, "recipe_hash": self._recipe_hash()})
        return complaints

    def extend(self, recipe: Mapping[str, Any], epochs: int, facts: Mapping[str, Any]) -> None:
        """Make this the directory of a longer run; what a finished one ended with is kept under another name.

        A process that is killed here leaves a run that `resume` goes on with; where the disk is full, the run stays as
        it was.

        Args:
            recipe: the longer one.
            epochs: of the shorter one, for the names.
            facts: what environment.json says of it.
        """
        self.check_held()
        ended = self._weights_file.exists()
        extensions = [*self.environment().get("extended", []), dict(facts)]
        kept: list[tuple[Path, Path]] = []
        try:
            for path in (self._weights_file, self.evaluation) if ended else ():
                if path.exists():
                    kept.append((path, path.with_name(f"{path.stem}-epoch-{epochs}{path.suffix}")))
                    path.replace(kept[-1][1])
            self.add_to_environment(extended=extensions, recipe_hash=seal_of(dict(recipe)))
            self._write(self.recipe_file, yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))
        except RunError:
            for path, other in kept:
                other.replace(path)
            raise

    # The lock

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder = self.path.resolve()
        path = self._folder / LOCK_FILE
        if path in _held:
            raise RunError(f"{self.path} is being trained by another call in this process; give another --out")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"cannot write in the run directory {self.path}: {error}; give another --out") from error
        try:
            try:
                _take(lock)
            except BlockingIOError:
                who, process = _describe_holder(lock)
                stop = f"stop it (kill {process})" if process else "stop it"
                raise RunError(
                    f"{self.path} is being trained by {who}; wait for it, or {stop} and {self.how_to_go_on}, "
                    "or give another --out"
                ) from None
            except OSError as error:
                text = f"{self.path} cannot be locked ({error}): make sure that no other process trains there"
                warnings.warn(text, RuntimeWarning, stacklevel=5)
            _held.add(path)
            self._lock = lock
            note = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            with suppress(OSError):  # the note is a help and no more
                os.ftruncate(lock, 0)
                os.lseek(lock, 0, os.SEEK_SET)
                os.write(lock, json.dumps(note).encode())
            yield
        finally:
            _held.discard(path)
            self._lock = None
            os.close(lock)  # releases the lock

    def holder(self) -> str | None:
        """Who trains here now, such as `process 12 on host since …`; None for nobody."""
        path = self.path.resolve() / LOCK_FILE
        if path in _held:  # opening and closing the file would release this process's lock
            return "this process"
        try:
            lock = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            _take(lock, shared=True)
        except BlockingIOError:
            return _describe_holder(lock)[0]
        except OSError:
            return None
        finally:
            os.close(lock)
        return None

    def check_held(self) -> None:
        """See that this process, if it trains here, still holds the folder's lock.

        Raises:
            RunError: if the folder was moved or removed, or its lock file was.
        """
        if self._lock is None:
            return
        own = os.fstat(self._lock)
        with suppress(OSError):
            there = os.stat(self._folder / LOCK_FILE)
            if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return
        if not self._folder.is_dir():
            text = "was moved or removed while the run trained; go on with `latentia resume` where it is now"
        else:
            text = "may be in use by another process: its .lock was removed while the run trained; "
            text += how_to_go_on(self._folder)
        raise RunError(f"{self.path} {text}")

    @property
    def how_to_go_on(self) -> str:
        """The cure of what has stopped here."""
        return how_to_go_on(self.path)

    # Recipe and environment

    def recipe(self) -> dict[str, Any]:
        """The recipe as plain data.

        Raises:
            RunError: if there is none, or it cannot be read.
        """
        if not self.recipe_file.exists():
            if self._environment_file.exists() or find_checkpoints(self.checkpoints):
                cure = "bring it back from a copy, or go on with --resume and the settings that the run began with"
                raise RunError(f"{self.path} has lost its {self.recipe_file.name}; {cure}")
            inside = sorted(path.parent for path in self.path.glob("*/recipe.yaml"))
            cure = f"the runs in it are {', '.join(map(str, inside))}" if inside else "give a folder that `train` wrote"
            raise RunError(f"{self.path} is not a run directory: it has no {self.recipe_file.name}; {cure}")
        cure = (
            "bring it back from a copy, or remove it and go on with --resume and the settings that the run began with"
        )
        return read_yaml(self.recipe_file, cure)

    @property
    def _environment_file(self) -> Path:
        return self.path / "environment.json"

    def environment(self) -> dict[str, Any]:
        """The content of environment.json.

        Raises:
            RunError: if it is missing or damaged.
        """
        cure = f"to write it again, {how_to_go_on(self.path)}"
        if not self._environment_file.exists():
            raise RunError(f"{self.path} has no environment.json: its run did not begin; {cure}")
        content = read_json(self._environment_file, _Environment, cure)
        if content.pop("seal") != seal_of(content):
            raise RunError(f"{self._environment_file} is damaged: it is not what was written; {cure}")
        return content

    def add_to_environment(self, **facts: Any) -> None:
        """Add facts to environment.json."""
        self._write_environment({**self.environment(), **facts})

    def _write_environment(self, facts: Mapping[str, Any]) -> None:
        plain = json.loads(json.dumps(facts))  # as it will be read
        self._write(self._environment_file, json.dumps({**plain, "seal": seal_of(plain)}, indent=2) + "\n")

    def changes_of_recipe(self) -> str:
        """A sentence for a recipe.yaml that is not the one that the run began with; else nothing.

        Raises:
            RunError: if environment.json or the recipe cannot be read.
        """
        if self.environment()["recipe_hash"] == self._recipe_hash():
            return ""
        cure = f"bring it back from a copy, or take it over: {how_to_go_on(self.path)}"
        return f"{self.recipe_file} was changed after the run began; {cure}"

    def _recipe_hash(self) -> str:
        return seal_of(self.recipe())

    def evaluations(self) -> dict[str, list[Estimate]]:
        """The estimates under evaluation/ by file, `training` first; a damaged file is left out with a warning."""
        found = {}
        for path in sorted(self.evaluation.glob("[!.]*.json"), key=lambda path: (path.stem != "training", path.stem)):
            try:
                found[path.stem] = read_estimates(path)
            except RunError as error:
                warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        return found

    def _write(self, path: Path, text: str) -> None:
        self.check_held()
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    # Records

    @property
    def _records_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def append_records(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Append to metrics.jsonl, values that are not finite as text; returns how many were appended."""
        self.check_held()
        lines = [_line(record) for record in records]
        try:
            with self._records_file.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            cure = f"make room on the disk and {how_to_go_on(self.path)}"
            raise RunError(f"could not write {self._records_file}: {error.strerror}; {cure}") from error
        return len(lines)

    def sync_records(self) -> None:
        """Make the disk hold the records, before a checkpoint that counts on them."""
        with suppress(OSError), self._records_file.open("rb") as file:
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All sound records; a warning says how many lines are damaged and left out, and how many are missing."""
        records, damaged = self._read_records()
        if damaged:
            warnings.warn(_say_damaged(self._records_file, damaged), RuntimeWarning, stacklevel=2)
        counted = records_counted(self.checkpoints)
        if counted is not None:
            step, count = counted
            missing = count - sum(record["step"] <= step for record in records) - len(damaged)
            if missing > 0:
                text = f"{self._records_file}: {missing} of the {count} records up to step {step} are missing"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
        return records

    def rewind_records(self, step: int) -> tuple[int, list[str]]:
        """Drop the records of steps that a resumed run will train again, and lines that are damaged.

        Returns:
            How many records remain, and what was damaged.
        """
        records, damaged = self._read_records()
        kept = [record for record in records if record["step"] <= step]
        self._write(self._records_file, "".join(_line(record) for record in kept))
        return len(kept), [_say_damaged(self._records_file, damaged)] if damaged else []

    def _read_records(self) -> tuple[list[dict[str, Any]], list[int]]:
        """Records, and numbers of damaged lines; a last line that a crash cut short is neither."""
        try:
            lines = self._records_file.read_bytes().split(b"\n")
        except OSError:
            return [], []
        records, damaged = [], []
        for number, line in enumerate(lines, 1):
            record = _parse_record(line)
            if record is not None:
                records.append(record)
            elif line.strip() and number < len(lines):
                damaged.append(number)
        return records, damaged

    @property
    def _weights_file(self) -> Path:
        return self.path / "weights.safetensors"

    def write_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write weights.safetensors."""
        self.check_held()
        write_tensors(self._weights_file, state)

    def weights(self) -> dict[str, Tensor]:
        """Read weights.safetensors; a warning says if it has no checksum, as training would have written.

        Raises:
            RunError: if they are missing (a run that has not ended) or damaged.
        """
        if not self._weights_file.exists():
            holder = self.holder()
            if holder:
                raise RunError(
                    f"{self.path} has no weights yet: it is being trained by {holder}; wait until it has ended"
                )
            cure = how_to_go_on(self.path)
            raise RunError(f"{self.path} has no weights.safetensors: its run has not ended; {cure}")
        cure = f"to write them again from its checkpoint, remove the file and {how_to_go_on(self.path)}"
        tensors, sealed = read_tensors(self._weights_file, cure)
        if not sealed:
            warnings.warn(f"{self._weights_file} has no checksum: training did not write it", stacklevel=2)
        return tensors


def new_folder(name: str) -> Path:
    """A name under runs/ that is free: runs/name, runs/name-2 and so on."""
    base = Path("runs") / name
    names = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in count(1))
    return next(path for path in names if not path.exists())


def _is_bare(path: Path) -> bool:
    """Whether a folder holds nothing but hidden files, as one does whose run was killed before it began."""
    return path.is_dir() and all(inner.name.startswith(".") for inner in path.iterdir())


def _take(lock: int, shared: bool = False) -> None:
    """Take the lock, or raise `BlockingIOError` if another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(lock, _WINDOWS_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except PermissionError as error:
            raise BlockingIOError from error
        return
    for trial in range(_LOCK_TRIES):
        try:
            fcntl.lockf(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # EACCES, which some systems give in place of EAGAIN
            if shared or trial == _LOCK_TRIES - 1:
                raise BlockingIOError from error
            time.sleep(0.02)
        else:
            return


def _describe_holder(lock: int) -> tuple[str, int | None]:
    """Who holds the lock, in words, and the process's number."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        os.lseek(lock, 0, os.SEEK_SET)
        note = json.loads(os.read(lock, 4096))
        return f"process {note['process']} on {note['host']} since {note['since']}", int(note["process"])
    return "another process", None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted keys at which two recipes differ, with both values."""
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps({key: _jsonable(value) for key, value in record.items()}, allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """A record with its numbers, or None for a line that is not one."""
    try:
        record = json.loads(line)
        numbers: dict[str, float | None] = {key: float(record[key]) for key in ("value", "epoch", "seconds")}
        stderr = record.get("stderr")
        numbers["stderr"] = None if stderr is None else float(stderr)
        sound = isinstance(record["step"], int) and isinstance(record["name"], str)
        sound = sound and not math.isnan(float(record["value"])) and (stderr is None or float(stderr) >= 0)
        return {**record, **numbers} if sound else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _say_damaged(path: Path, lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:5])) + (", …" if len(lines) > 5 else "")
    return f"{path}: {len(lines)} damaged line{'s' if lines[1:] else ''} left out (line {shown})"
