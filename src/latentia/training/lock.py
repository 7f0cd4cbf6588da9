"""One process trains in a run directory at a time: a lock that the operating system lets go of when its holder dies.

Two processes that wrote checkpoints and records into one directory would leave a mixture of both. The lock is one of
the system's own on the file `.lock`, not the file itself: after `kill -9` or a loss of power nothing is left to clear
away. On POSIX it is a record lock, which belongs to the process, so that a forked worker of the data does not keep it.
"""

from __future__ import annotations

__all__ = ["LOCK_FILE", "locked"]

import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentia.errors import RunError

LOCK_FILE = ".lock"
PLACE = 1 << 30  # the byte that Windows locks, past the note, which others may then read

_held: set[Path] = set()  # a record lock does not keep its own process out


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run inside the block. It must exist.

    Where the file system knows no locks, a warning says so, and the block is entered.

    Raises:
        RunError: if another process, or another call in this one, trains there, naming it.
    """
    path = folder.resolve() / LOCK_FILE
    if path in _held:
        raise RunError(f"{folder} is being trained by another call of train in this process; give another --out")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"cannot write in the run directory {folder}: {error}; give another --out") from error
    try:
        try:
            _lock(file)
        except BlockingIOError:
            raise RunError(_who_holds(folder, file)) from None
        except OSError as error:
            text = f"{folder} cannot be locked ({error}): see to it that no other process trains there"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        _held.add(path)
        try:
            note = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            with suppress(OSError):  # a full disk is told where something is lost by it
                os.ftruncate(file, 0)
                os.lseek(file, 0, os.SEEK_SET)
                os.write(file, json.dumps(note).encode())
            yield
        finally:
            _held.discard(path)
    finally:
        os.close(file)  # which lets go of the lock


def _lock(file: int) -> None:
    """Take the lock, or raise `BlockingIOError` if another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(file, PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except PermissionError as error:
            raise BlockingIOError from error
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # EACCES, which some systems give in place of EAGAIN
        raise BlockingIOError from error


def _who_holds(folder: Path, file: int) -> str:
    """One sentence with the cure."""
    who, stop = "another process", "stop it"
    with suppress(OSError, ValueError, KeyError, TypeError):
        os.lseek(file, 0, os.SEEK_SET)
        note = json.loads(os.read(file, 4096))
        who = f"process {note['process']} on {note['host']} since {note['since']}"
        stop = f"stop it (kill {note['process']})"
    return f"{folder} is being trained by {who}; wait for it, or {stop} and go on with --resume, or give another --out"
