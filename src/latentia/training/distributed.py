"""One run on several processes: each trains on its share of every batch, and gradients are summed over all of them.

After a player's gradients are computed, one all-reduce sums them, laid end to end. `DistributedDataParallel` does the
same in buckets, but wraps the module: here a player may call its networks any number of times in a step, differentiate
twice for a gradient penalty, or own bare parameters.

Processes are started by torchrun, or by `launch`, which gives them the variables that torchrun would.
"""

from __future__ import annotations

__all__ = ["Worker", "start_worker"]

import atexit
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from latentia.errors import ConfigurationError, Interrupted, LatentiaError, RunError
from latentia.threads import training_environment
from latentia.training.settings import Training

_T = TypeVar("_T")
_GRACE_SECONDS = 20.0  # between the first worker's failure and the end of the others
_POLL_SECONDS = 0.05
_GUARD = 'put the call under `if __name__ == "__main__":`'

_importing_caller = False


class LostWorker(RunError):
    """Another process of the run has ended."""


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a run together; by default the only one.

    Attributes:
        device: where its tensors are.
        rank: its number, from 0.
        world_size: how many there are.
        precision: `32-true` or `bf16-mixed`.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 (it is immutable)
    rank: int = 0
    world_size: int = 1
    precision: str = "32-true"

    def autocast(self) -> AbstractContextManager[Any]:
        """The block in which costs are computed: bfloat16 where the precision is mixed."""
        if self.precision == "bf16-mixed":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


def launched_by_torchrun() -> bool:
    """Whether torchrun or `launch` has started this process as one of several."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def check_devices(training: Training) -> str:
    """The type of device for these settings.

    Raises:
        RunError: for a device that this machine does not have.
        ConfigurationError: for a batch that the processes cannot share.
    """
    kind = training.accelerator
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise RunError("there is no CUDA device on this machine; set accelerator=cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RunError("there is no MPS device on this machine; set accelerator=cpu or auto")
    if kind == "mps" and training.devices > 1:
        raise RunError("MPS serves one process; set devices=1")
    if launched_by_torchrun():
        return kind
    if kind == "cuda" and training.devices > torch.cuda.device_count():
        raise RunError(f"devices={training.devices}, and this machine has {torch.cuda.device_count()} CUDA devices")
    cores = os.cpu_count() or 1
    if kind == "cpu" and training.devices > max(4, 2 * cores):
        text = f"{training.devices} processes on {cores} cores would only slow each other down"
        raise ConfigurationError([("devices", f"{text}. Set devices={cores} or fewer")])
    if training.batch_size % training.devices:
        text = f"{training.devices} processes cannot share batches of {training.batch_size} evenly"
        raise ConfigurationError(
            [("batch_size", f"{text}; choose a batch_size that {training.devices} divides, or another devices")]
        )
    return kind


def start_worker(training: Training) -> Worker:
    """This process as a worker: alone, or one of those that torchrun or `launch` started, which it joins.

    Raises:
        RunError: for a device that this machine does not have.
        ConfigurationError: for a batch that the processes cannot share.
    """
    kind = check_devices(training)
    if not launched_by_torchrun():
        return Worker(torch.device(kind, 0) if kind != "cpu" else torch.device("cpu"), precision=training.precision)
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])
    if world_size > 1 and not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
        except RuntimeError as error:
            raise LostWorker(f"the processes of this run did not find one another: {error}; start again") from error
        # The group ends at exit and not with training: another call of `train` goes on with it. (A new group in the
        # same process could read the addresses that a slower process has left of the old one.) Without this, gloo's
        # threads may run when the interpreter takes down its statics, which aborts the process.
        atexit.register(_end_group)
    return Worker(device, rank, world_size, training.precision)


def _end_group() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process is ending already
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _talking() -> Iterator[None]:
    """Turn the backend's errors, which come when another process has ended, into one that says so."""
    try:
        yield
    except RuntimeError as error:
        raise LostWorker("another process of this run has ended") from error


def on_rank_zero(worker: Worker, action: Callable[[], _T]) -> _T:
    """Call `action` in the first process alone; every process gets its result, or its error."""
    if worker.world_size == 1:
        return action()
    message: list[Any] = [None, None]
    if worker.rank == 0:
        try:
            message[0] = action()
        except LatentiaError as error:
            message[1] = error
    with _talking():
        torch.distributed.broadcast_object_list(message)
    if message[1] is not None:
        raise message[1]
    return message[0]


def broadcast_weights(worker: Worker, module: nn.Module) -> None:
    """Give every process the first one's weights and buffers."""
    if worker.world_size > 1:
        with _talking():
            for value in module.state_dict().values():
                torch.distributed.broadcast(value, 0)


def all_reduce_gradients(worker: Worker, parameters: Sequence[nn.Parameter], stop: bool) -> bool:
    """Sum the gradients over all processes, in place; returns whether any process has set its stop flag.

    The stop flag is reduced together with the gradients, so that all ranks stop after the same step. So is whether each
    parameter has a gradient: one without a gradient in every process keeps none, as it would in a single process.
    """
    if worker.world_size == 1:
        return stop
    flags = torch.tensor([*(p.grad is not None for p in parameters), stop], dtype=torch.float32)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), flags.to(gradients[0].device)])
    with _talking():
        torch.distributed.all_reduce(flat)
    *used, stops = flat[-len(flags) :].tolist()
    parts = flat[: -len(flags)].split([g.numel() for g in gradients])
    for parameter, gradient, count, part in zip(parameters, gradients, used, parts, strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient)) if count else None
    return stops > 0


def all_reduce_sum(worker: Worker, values: Tensor) -> Tensor:
    """Sum of a tensor over all processes, on the CPU."""
    if worker.world_size == 1:
        return values
    values = values.to(worker.device)
    with _talking():
        torch.distributed.all_reduce(values)
    return values.cpu()


class Stop:
    """Inside the block, the first SIGINT or SIGTERM sets `asked`; the second one goes to the handler of before.

    A signal that is ignored when the block begins (SIGINT of a job in the background) stays ignored.

    Args:
        and_then: called at the first signal, in the handler.
    """

    def __init__(self, and_then: Callable[[], None] | None = None) -> None:
        self.asked = False
        self._and_then = and_then
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: a handler written in C

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            before = self._before.get(number)
            if callable(before):
                before(number, frame)
            raise KeyboardInterrupt
        self.asked = True
        if self._and_then is not None:
            self._and_then()


# Starting several processes on this machine


def launch(function: Callable[..., Any], processes: int, cure: str, **arguments: Any) -> Any:
    """Call a function in each of several new processes; returns what it returned in the first.

    Each process is a new interpreter with the variables that torchrun would give it. The function and its arguments
    are sent as a pickle. The caller's script is imported again only where they name something that it defines; then
    the script's own call must stand under `if __name__ == "__main__":`.

    Ctrl-C and SIGTERM reach this process alone, which passes them on, waits, and raises what the workers raised.
    If this process dies, however it dies, the workers see their standard input close, and die too.

    Args:
        function: importable by name.
        processes: how many.
        cure: how to go on where one of them was killed.
        **arguments: anything that can be pickled.

    Raises:
        Exception: what the function raised, of the first process that raised anything.
        RunError: if a process was killed, or the arguments cannot be sent.
    """
    workers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="latentia-") as name, Stop(lambda: _terminate(workers)) as stop:
        folder = Path(name)
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
        own = [error for error in errors if not isinstance(error, LostWorker)]
        for error in sorted(own, key=lambda error: not isinstance(error, LatentiaError)):
            raise error
        if any(codes):
            if stop.asked:
                raise Interrupted("stopped before the first step; start again")
            rank, code = min(((rank, code) for rank, code in enumerate(codes) if code), key=lambda pair: pair[1] >= 0)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise RunError(f"process {rank} of {processes} {how}; {cure}")
        return pickle.loads((folder / "result").read_bytes())


def refuse_while_importing() -> None:
    """Refuse to train while a worker imports the script that started it.

    Raises:
        RunError: if that is so.
    """
    if _importing_caller:
        raise RunError(f"devices=2 and more import your script again, for the classes that it defines: {_GUARD}")


def work() -> None:
    """The main function of a worker that `launch` started: the task in the folder that its first argument names."""
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
    environment = {
        **training_environment(),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    command = [sys.executable, "-c", f"from {__name__} import work; work()", str(folder)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, process_group=0)


def _wait(workers: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes, once all have ended or the grace after the first failure is over."""
    failed_at = None
    while True:
        codes = [worker.poll() for worker in workers]
        if None not in codes:
            return [code or 0 for code in codes]
        if failed_at is None and any(codes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_SECONDS:
            return [code or 0 for code in codes]
        time.sleep(_POLL_SECONDS)


def _terminate(workers: list[subprocess.Popen[bytes]]) -> None:
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
