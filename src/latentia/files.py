"""Files: one way to write, and strict ways to read.

Every file that latentia makes (pictures, arrays, pages, estimates, weights, checkpoints) goes through `atomic_write`,
so that it appears whole under its name, or not at all. What is read may be damaged or hostile: JSON, YAML and tensors
are read here, within limits of size and depth, and what is wrong with them is one line that names the file.
"""

from __future__ import annotations

__all__ = [
    "atomic_write",
    "cache_folder",
    "hash_of_file",
    "parse_yaml",
    "read_json",
    "read_tensors",
    "read_yaml",
    "require_writable",
    "write_tensors",
]

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from latentia.errors import RunError, first_line

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON_BYTES = 1 << 26
MAX_YAML_BYTES = 1 << 15  # PyYAML reads some 50 KB a second; a recipe has 2 KB
MAX_DEPTH = 32
MAX_NODES = 5_000

_TEMPORARY = re.compile(r"\.latentia-(\d+)-[0-9a-f]{16}(\..*)?")
_active: set[Path] = set()  # the temporary paths of this process

_CURES = {
    errno.ENOSPC: "make room on the disk",
    getattr(errno, "EDQUOT", errno.ENOSPC): "make room on the disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "a part of the path is a file; choose another folder",
    errno.EISDIR: "it is a folder; give the name of a file",
}


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, with the same suffix; on success it replaces `path`.

    The block may make a file or a folder there. It is synced to the disk before it is renamed, so that after a crash or
    a loss of power `path` holds either what it held before or all of the new content. If the block raises, the
    temporary is removed and `path` stays as it was. The temporaries of processes that were killed are removed by the
    next write into the same folder. Several writers of one path do not disturb each other; the last one wins.

        with atomic_write(path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    Args:
        path: the file or folder to write; its parents are made. A link is followed.

    Raises:
        RunError: if it cannot be written (OSError and SafetensorError inside the block included).
    """
    final = Path(path)
    temporary: Path | None = None
    try:
        final = Path(os.path.realpath(final))
        if final.exists() and not (final.is_file() or final.is_dir()):
            raise RunError(f"could not write {path}: it is not a regular file; give another name")
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".latentia-{os.getpid()}-{secrets.token_hex(8)}{final.suffix}")
        _active.add(temporary)
        yield temporary
        _publish(temporary, final)
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        cure = _CURES.get(number or 0, "check the folder and the disk, or choose another folder")
        reason = os.strerror(number) if number else error
        raise RunError(f"could not write {path}: {reason}; {cure}") from error
    finally:
        if temporary is not None:
            _remove(temporary)
            _active.discard(temporary)


def require_writable(path: Path | str) -> None:
    """See before any work that a file could be made under this name.

    Raises:
        RunError: with the cure.
    """
    final = Path(os.path.realpath(path))
    try:
        there = next(folder for folder in final.parents if folder.exists())
        number = errno.ENOTDIR if not there.is_dir() else None if os.access(there, os.W_OK) else errno.EACCES
        number = errno.EISDIR if final.is_dir() else number
    except OSError as error:  # a name that is too long
        number = error.errno
    if number is not None:
        raise RunError(f"could not write {path}: {os.strerror(number)}; {_CURES.get(number, 'give another name')}")


def _publish(temporary: Path, final: Path) -> None:
    """Sync, rename and sync the folder; then remove what killed processes left in it."""
    old = None
    if temporary.is_dir():
        for part in temporary.iterdir():
            _open_to_others(part)
            _sync(part)
        if final.exists():  # a folder cannot replace a folder that is not empty
            old = temporary.with_name(f"{temporary.stem[:-16]}{secrets.token_hex(8)}")
            final.rename(old)
    _open_to_others(temporary)
    _sync(temporary)
    temporary.replace(final)
    if old is not None:
        _remove(old)
    _sync(final.parent)
    with suppress(OSError):
        for name in os.listdir(final.parent):
            match = _TEMPORARY.fullmatch(name)
            if match and final.with_name(name) not in _active and not _runs(int(match[1])):
                _remove(final.with_name(name))


def _umask() -> int:
    """The permissions that this process takes from new files."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as status:  # reading changes nothing
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _open_to_others(path: Path) -> None:
    """Give a file the permissions of any new file; safetensors makes files that the owner alone may read."""
    if path.is_file():
        with suppress(OSError):
            path.chmod(0o666 & ~_umask())


def _sync(path: Path) -> None:
    """Make the disk hold what was written to a file or folder."""
    if os.name == "nt" and path.is_dir():  # Windows does not open folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _runs(process: int) -> bool:
    """Whether another process with this number runs on this machine."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # where os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def read_json(path: Path, schema: Any, cure: str) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        schema: a type that pydantic checks, such as `list[dict[str, float]]`.
        cure: what to do if the file is damaged; ends the message.

    Raises:
        RunError: if it is missing, too large, not JSON, or not of that type.
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import, and needed here alone

    try:
        content = json.loads(_read_text(path, MAX_JSON_BYTES))
        _check_depth(content)
        return TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(f"{path} is damaged: {place + ': ' if place else ''}{first['msg']}; {cure}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {first_line(error)}; {cure}") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; {cure}") from None


def read_yaml(path: Path, cure: str) -> dict[str, Any]:
    """The content of a YAML file that holds a mapping, read as by `parse_yaml`.

    Raises:
        RunError: if it is missing, or damaged; the message ends in `cure`.
    """
    try:
        content = parse_yaml(_read_text(path, MAX_YAML_BYTES))
    except ValueError as error:
        raise RunError(f"{path} is damaged: {first_line(error)}; {cure}") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; {cure}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RunError(f"{path} is damaged: it is not a mapping of keys; {cure}")
    return content


def parse_yaml(text: str) -> Any:
    """Plain data from YAML: null, booleans, numbers, text, lists and mappings.

    1e-3 is a number (YAML 1.1 asks for 1.0e-3), and 2024-01-31 is text. No other tags are known.

    Raises:
        ValueError: if it is not YAML, or deeper or larger, with its aliases expanded, than any recipe.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it is longer than {MAX_YAML_BYTES} characters")
    try:
        loader = _yaml_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, TypeError, AttributeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or first_line(error)
        raise ValueError(f"line {mark.line + 1}: {what}" if mark else str(what)) from None


_loader_class: Any = None


def _yaml_loader() -> Any:
    """PyYAML's safe loader with fewer tags and bounded depth; made at the first call, as yaml is slow to import."""
    global _loader_class
    if _loader_class is not None:
        return _loader_class
    import yaml

    class Loader(yaml.SafeLoader):
        depth = nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.depth >= MAX_DEPTH:
                raise yaml.YAMLError(f"it is nested deeper than {MAX_DEPTH} levels")
            self.depth, self.nodes = self.depth + 1, self.nodes + 1
            if self.nodes > MAX_NODES:
                raise yaml.YAMLError(f"it has more than {MAX_NODES} parts")
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

    plain = [f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")]
    known = yaml.SafeLoader.yaml_constructors
    Loader.yaml_constructors = {tag: known[tag] for tag in [*plain, None]}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
    _loader_class = Loader
    return Loader


def _count_nodes(node: Any, counts: dict[int, int]) -> int:
    """Nodes of a YAML document with all aliases expanded."""
    if id(node) not in counts:
        counts[id(node)] = MAX_NODES  # stands while the node is open: one that holds itself has no end
        parts = node.value if isinstance(node.value, list) else []
        flat = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        counts[id(node)] = 1 + sum(_count_nodes(part, counts) for part in flat)
    if counts[id(node)] > MAX_NODES:
        raise ValueError(f"it has more than {MAX_NODES} parts, with its aliases expanded")
    return counts[id(node)]


def cache_folder() -> Path:
    """The folder for things that can be computed or fetched again; it need not exist."""
    place = os.environ.get("LATENTIA_CACHE")
    return Path(place).expanduser() if place else Path.home() / ".cache" / "latentia"


def hash_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; bring it back from a copy") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, sealed by a checksum of their names, types, shapes and numbers.

    Raises:
        RunError: if the file cannot be written.
    """
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(plain, temporary, metadata={"sha256": _checksum(plain)})


def read_tensors(path: Path, cure: str) -> tuple[dict[str, Tensor], bool]:
    """The tensors of a safetensors file, and whether it is sealed (one that latentia did not write may not be).

    Raises:
        RunError: if it is missing, damaged, or not what was sealed; the message ends in `cure`.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            seal = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"there is no file {path}; {cure}") from None
    except (OSError, SafetensorError, ValueError, RuntimeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {first_line(error)}; {cure}") from None
    if seal is not None and seal != _checksum(tensors):
        raise RunError(f"{path} is damaged: its numbers are not those of its checksum; {cure}")
    return tensors, seal is not None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            part for x in level if isinstance(x, dict | list) for part in (x.values() if isinstance(x, dict) else x)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _read_text(path: Path, limit: int) -> str:
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content.decode("utf-8")
