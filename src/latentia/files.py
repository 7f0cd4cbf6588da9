"""One way to write: a file appears whole under its name, or not at all.

Every file that latentia makes (pictures, arrays, pages, estimates, weights, checkpoints) goes through `atomic_write`.
"""

from __future__ import annotations

__all__ = ["atomic_write"]

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from latentia.errors import RunError

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
    errno.EISDIR: "it is a folder; give the name of a file",
}


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; on success it replaces `path`.

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


def _publish(temporary: Path, final: Path) -> None:
    """Sync, rename and sync the folder; then remove what killed processes left in it."""
    old = None
    if temporary.is_dir():
        for part in temporary.iterdir():
            _sync(part)
        if final.exists():  # a folder cannot replace a folder that is not empty
            old = temporary.with_name(f"{temporary.stem[:-16]}{secrets.token_hex(8)}")
            final.rename(old)
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
