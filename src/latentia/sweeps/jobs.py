"""The runs of a sweep as jobs: processes of this machine, or jobs of a batch scheduler by submitit."""

from __future__ import annotations

__all__ = ["Job", "run_jobs"]

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentia.errors import ConfigurationError, Interrupted, LatentiaError
from latentia.files import atomic_write, read_yaml
from latentia.recipes import Recipe, train
from latentia.threads import training_environment
from latentia.training.progress import ProgressBar

STOP_SECONDS = 60.0  # that interrupted runs have to save where they are
WAIT_SECONDS = {"local": 0.05, "cluster": 1.0}  # between two looks at the jobs


@dataclass
class Job:
    """One run to train.

    Attributes:
        path: the run directory.
        recipe: what to train.
        cluster: "" for a process of this machine; a cluster of submitit, such as "slurm".
        options: parameters of submitit.
    """

    path: Path
    recipe: Recipe
    cluster: str = ""
    options: Mapping[str, Any] | None = None
    began: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _submitted: Any = None

    @property
    def ended(self) -> bool:
        """Whether the run was trained before."""
        return (self.path / "weights.safetensors").exists()

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    def start(self, threads: int) -> None:
        """Start the process that trains, or goes on; all that it prints goes to the log."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.with_name(f"{self.path.name}.yaml")
        with atomic_write(file) as temporary:
            temporary.write_text(self.recipe.to_yaml(), encoding="utf-8")
        self.began = time.perf_counter()
        if self.cluster:
            executor = _executor(self.cluster, self.path.parent.parent / "jobs", dict(self.options or {}))
            self._submitted = executor.submit(_Training(str(file.resolve()), str(self.path.resolve())))
            return
        code = "import sys; from latentia.sweeps.jobs import train_one; sys.exit(train_one(*sys.argv[1:]))"
        environment = {**training_environment(), **os.environ, "OMP_NUM_THREADS": str(threads), "NO_COLOR": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, str(file), str(self.path)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the job was started and has not ended."""
        if self._submitted is not None:
            return not self._submitted.done()
        return self._process is not None and self._process.poll() is None

    @property
    def succeeded(self) -> bool:
        """Whether an ended job trained its run."""
        if self._submitted is not None:
            return self._submitted.exception() is None and self._submitted.result() == 0
        return self._process is not None and self._process.returncode == 0

    def stop(self) -> None:
        """Ask the job to save and end."""
        if self._submitted is not None:
            self._submitted.cancel()
        elif self._process is not None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for the end; kill the process of this machine that goes on for longer."""
        if self._process is None:
            end = time.monotonic() + seconds
            while self.running and time.monotonic() < end:
                time.sleep(WAIT_SECONDS["local"])
            return
        try:
            self._process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()

    def reason(self) -> str:
        """The last line of what the job printed that says what went wrong."""
        if self._submitted is not None:
            text = self._submitted.stderr() or ""
        else:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = text.strip().splitlines()[-20:]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")


class _Training:
    """A run to train as a call that submitit sends; a scheduler that takes the machine back starts it again."""

    def __init__(self, file: str, out: str):
        self.file = file
        self.out = out

    def __call__(self) -> int:
        return train_one(self.file, self.out)

    def checkpoint(self) -> Any:
        """What submitit submits before the time limit of a job ends; the run resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def train_one(file: str, out: str) -> int:
    """Train a recipe from a file, or resume its run: what each job of a sweep does; returns its exit code."""
    try:
        recipe = Recipe.parse(read_yaml(Path(file), "run the sweep again"))
        train(recipe, out, resume=(Path(out) / "recipe.yaml").exists())
    except Interrupted:
        return 130
    except (LatentiaError, OSError, MemoryError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 2
    return 0


def run_jobs(
    jobs: Sequence[Job], workers: int, bar: ProgressBar, done: int, stopped: Callable[[], str]
) -> dict[Path, str]:
    """Train all that has not ended, so many at a time.

    Args:
        jobs: the runs.
        workers: jobs at a time.
        bar: shows the runs that have ended.
        done: the number of runs that ended before these.
        stopped: what to say after Ctrl-C.

    Returns:
        Why runs failed, by folder.

    Raises:
        Interrupted: after Ctrl-C, with all runs saved.
    """
    waiting = [job for job in jobs if not job.ended]
    done += len(jobs) - len(waiting)
    threads = max(1, (os.cpu_count() or 1) // workers)
    failed: dict[Path, str] = {}
    running: list[Job] = []
    with _interruptible():
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    running.append(job)
                    job.start(threads)
                time.sleep(WAIT_SECONDS["cluster" if running[0].cluster else "local"])
                for job in [job for job in running if not job.running]:
                    running.remove(job)
                    done += 1
                    said = f"run {done}/{bar.total}  {job.path.parent.name}  {job.path.name}"
                    if job.succeeded:
                        bar.say(f"{said}  {time.perf_counter() - job.began:.0f} s")
                    else:
                        failed[job.path] = job.reason()
                        bar.warn(f"{said} failed: {failed[job.path]}")
                    if bar.console.is_terminal:  # elsewhere the lines above say it
                        bar.advance(done, {})
        except KeyboardInterrupt:
            _stop(running, bar)
            raise Interrupted(stopped()) from None
        except BaseException:
            _stop(running, bar)
            raise
    return failed


def _stop(running: Sequence[Job], bar: ProgressBar) -> None:
    """Ask the jobs to save and end."""
    alive = [job for job in running if job.running]
    if alive:
        bar.say(f"waiting for {len(alive)} run{'s' if alive[1:] else ''} to save")
    for job in alive:
        job.stop()
    end = time.monotonic() + STOP_SECONDS
    for job in alive:
        job.wait(max(0.1, end - time.monotonic()))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM a KeyboardInterrupt inside the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _executor(cluster: str, folder: Path, options: dict[str, Any]) -> Any:
    """The executor of submitit.

    Raises:
        ConfigurationError: without submitit, for a cluster that is not there, for options that it does not have.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigurationError([("cluster", "it needs submitit: pip install 'latentia[cluster]'")]) from None
    logging.getLogger("submitit").setLevel(logging.ERROR)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**options)
    except (ValueError, NameError, TypeError, AssertionError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise ConfigurationError([("cluster", f"submitit refuses {cluster!r} with {options}: {text}")]) from None
    return executor


def check_cluster(cluster: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where submitit cannot serve a cluster with these options."""
    with tempfile.TemporaryDirectory() as folder:
        _executor(cluster, Path(folder), dict(options))
