"""Start one run as several processes on this machine: a small torchrun of our own.

Each process is a new interpreter that gets the same variables as torchrun would give it, so that there is one way of
being one of several. The function and its arguments reach it pickled. The caller's script is imported anew only where
they name something that is defined in it; then the script's own call must stand under `if __name__ == "__main__":`.

Ctrl-C and SIGTERM reach this process alone, which passes them on, waits, and raises what the workers raised.
If this process dies, however it dies, the workers see their standard input close, and die too.
"""

from __future__ import annotations

__all__ = ["launch", "refuse_while_importing", "work"]

import os
import pickle
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentia.errors import LatentiaError, RunError
from latentia.training.interruption import Interrupted, Stop

GRACE_SECONDS = 20.0  # between the first worker's failure and the end of the others
POLL_SECONDS = 0.05
GUARD = 'put the call under `if __name__ == "__main__":`'

_importing_caller = False


def launch(function: Callable[..., Any], processes: int, **arguments: Any) -> Any:
    """Call a function in each of several new processes, and return what it returned in the first.

    Args:
        function: importable by name.
        processes: how many.
        **arguments: anything that can be pickled.

    Raises:
        Exception: what the function raised, of the first process that raised anything.
        RunError: if a process ended without a word, or the arguments cannot reach it.
    """
    with tempfile.TemporaryDirectory(prefix="latentia-") as name, Stop(lambda: _pass_on(workers)) as stop:
        folder = Path(name)
        workers: list[subprocess.Popen[bytes]] = []
        (folder / "task").write_bytes(_pack(function, arguments))
        port = _free_port()
        try:
            workers.extend(_start(folder, rank, processes, port) for rank in range(processes))
            codes = _wait(workers)
        finally:
            for worker in workers:
                worker.kill()
                with worker:  # waits for its end, and closes the pipe to it
                    pass
        errors = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("error-*"))]
        for error in sorted(errors, key=lambda error: not isinstance(error, LatentiaError)):
            raise error
        if any(codes):
            if stop.asked:
                raise Interrupted("stopped before the first step; start again")
            rank, code = next((rank, code) for rank, code in enumerate(codes) if code)
            raise RunError(f"process {rank} of {processes} ended with exit code {code}; go on with --resume")
        return pickle.loads((folder / "result").read_bytes())


def refuse_while_importing() -> None:
    """Refuse to train while a worker imports the script that started it.

    Raises:
        RunError: if that is what is going on.
    """
    if _importing_caller:
        raise RunError(f"devices=2 and more import your script anew, for the classes that it defines: {GUARD}")


def work() -> None:
    """What a worker process runs: the task in the folder that its first argument names."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        sys.path[:], caller, task = pickle.loads((folder / "task").read_bytes())
        if caller:
            _import_caller(*caller)
        function, arguments = pickle.loads(task)
        result = function(**arguments)
        if rank == 0:
            (folder / "result").write_bytes(pickle.dumps(result))
    except Exception as error:
        if not isinstance(error, LatentiaError):
            error.add_note(f"in process {rank}:\n{traceback.format_exc()}")
        (folder / f"error-{rank:05d}").write_bytes(_pickled_error(error))
        os._exit(1)  # without waiting for other processes' messages


def _pack(function: Callable[..., Any], arguments: dict[str, Any]) -> bytes:
    """(search path, how to import the caller's script where that is needed, the pickled task)."""
    try:
        task = pickle.dumps((function, arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RunError(
            f"devices=2 and more need a recipe that can be sent to other processes: {error}. Define your classes at "
            "the top of a module, not inside a function"
        ) from error
    caller: tuple[str, str] | None = None
    if b"__main__" in task:
        main = sys.modules["__main__"]
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is None and (path is None or not Path(path).exists()):
            raise RunError("devices=2 and more cannot import classes of an interactive session; write them to a module")
        caller = ("module", spec.name) if spec is not None else ("path", str(path))
    return pickle.dumps((sys.path, caller, task))


def _import_caller(kind: str, name: str) -> None:
    global _importing_caller
    _importing_caller = True
    try:
        run = runpy.run_module if kind == "module" else runpy.run_path
        module = types.ModuleType("__mp_main__")
        module.__dict__.update(run(name, run_name="__mp_main__"))
    finally:
        _importing_caller = False
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _start(folder: Path, rank: int, processes: int, port: int) -> subprocess.Popen[bytes]:
    threads = max(1, torch.get_num_threads() // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    command = [sys.executable, "-c", "from latentia.training.launch import work; work()", str(folder)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, process_group=0)


def _wait(workers: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes, once all have ended or the first failure lies far enough back."""
    failed_at = None
    while True:
        codes = [worker.poll() for worker in workers]
        if None not in codes:
            return [code or 0 for code in codes]
        if failed_at is None and any(codes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            return [code or 0 for code in codes]
        time.sleep(POLL_SECONDS)


def _pass_on(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _pickled_error(error: Exception) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(RunError("".join(traceback.format_exception(error))))
    return data


def _die_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
