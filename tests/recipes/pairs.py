"""Two processes that have imported everything, for tests of what happens between them or to them.

A fork server imports latentia once; each process is then a fork of it, in milliseconds, that has run no thread yet.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from latentia.errors import Interrupted
from latentia.recipes import train

# What the processes run, which must be importable by name.


def train_here(chosen, out):
    try:
        train(chosen, out, resume=(out / "recipe.yaml").exists(), quiet=True)
    except Interrupted as error:
        return str(error)
    return "ended"


def two(chosen, out, resume=False):
    run = train(chosen, out, resume=resume, quiet=True)
    return str(run.path)


def unnamed(chosen, folder):
    os.chdir(folder)
    return str(train(chosen, quiet=True).path)


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["latentia.recipes", "torch._dynamo"])
PATIENCE = 90.0


def start(function: Callable[..., Any], *arguments: Any, environment: dict[str, str] | None = None) -> Process:
    """Run a function of a test module in another process."""
    return Process(function, arguments, environment or {})


class Process:
    """A running function; `result` waits for what it returned, or for the exception that it raised."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str]):
        self._here, there = CONTEXT.Pipe(duplex=False)
        self.process: BaseProcess = CONTEXT.Process(target=_run, args=(there, environment, function, arguments))
        self.process.start()
        there.close()

    def result(self) -> Any:
        """What the function returned, or the exception that it raised; an exit code if it was killed."""
        try:
            if not self._here.poll(PATIENCE):
                raise AssertionError("a process hangs")
            return self._here.recv()
        except EOFError:
            self.process.join(PATIENCE)
            return self.process.exitcode
        finally:
            self.process.kill()
            self.process.join()


def pair(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Results of two processes that see what torchrun would show them."""
    return [process.result() for process in start_two(function, *arguments)]


def start_two(function: Callable[..., Any], *arguments: Any) -> list[Process]:
    """The same before they have ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"} for rank in range(2)]
    return [start(function, *arguments, environment=rank) for rank in ranks]


def _run(pipe: Any, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    from latentia import files

    torch.set_num_threads(1)
    files._sync = lambda _: None  # a process that dies leaves the system's cache as it is
    os.environ.update(environment)
    try:
        result = function(*arguments)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        result = error
    pipe.send(result)
    pipe.close()
