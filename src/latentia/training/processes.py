"""One run on several processes: gradients are summed here, and the first process speaks for all.

Each process sees its share of the same global batch; after a player's backward pass, one all-reduce sums the gradients
of all its parameters, laid end to end. That is what DistributedDataParallel does in buckets, without its wrapper: a
player may call its networks any number of times in a step, differentiate twice for a gradient penalty, or own bare
parameters, and all of it still adds up.
"""

from __future__ import annotations

__all__ = [
    "by_first",
    "check_devices",
    "join_processes",
    "make_fabric",
    "same_start",
    "sum_over_processes",
    "sum_table",
    "under_torchrun",
]

import atexit
import logging
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from latentia.errors import ConfigurationError, LatentiaError, RunError
from latentia.training.settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_T = TypeVar("_T")


def under_torchrun() -> bool:
    """Whether torchrun, or `devices=…` of this package, has started this process as one of several."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def check_devices(training: Training) -> str:
    """The accelerator for these settings, by name.

    Raises:
        RunError: for a device that is not there.
        ConfigurationError: for a batch that the processes cannot share.
    """
    accelerator = training.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise RunError("there is no CUDA device on this machine; set accelerator=cpu or auto")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise RunError("there is no MPS device on this machine; set accelerator=cpu or auto")
    if accelerator == "mps" and training.devices > 1:
        raise RunError("MPS serves one process; set devices=1")
    if accelerator == "cuda" and training.devices > torch.cuda.device_count() and not under_torchrun():
        raise RunError(f"devices={training.devices}, and this machine has {torch.cuda.device_count()} CUDA devices")
    if not under_torchrun() and training.batch_size % training.devices:
        raise ConfigurationError(
            [
                (
                    "batch_size",
                    f"{training.devices} processes cannot share batches of {training.batch_size} evenly; "
                    f"choose a batch_size that {training.devices} divides",
                )
            ]
        )
    return accelerator


def make_fabric(training: Training) -> Fabric:
    """Fabric for this process: alone, or one of those that torchrun or `latentia.training.launch` started.

    Raises:
        RunError: for a device that is not there.
    """
    # Slow to import (it brings torch's compiler), and only training needs it: a run is opened without.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    accelerator = check_devices(training)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # without its roll-call of processes
    if under_torchrun():
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return Fabric(
            accelerator=accelerator,
            devices=local,
            num_nodes=int(os.environ["WORLD_SIZE"]) // local,
            strategy="ddp",
            precision=training.precision,
            plugins=[TorchElasticEnvironment()],
        )
    # Said outright, so that the variables of a batch scheduler around a single process do not confuse it.
    return Fabric(accelerator=accelerator, devices=1, precision=training.precision, plugins=[LightningEnvironment()])


def join_processes(fabric: Fabric) -> None:
    """Bring the processes together, and see that a group made here ends before the interpreter does.

    Fabric ends the groups of NCCL alone. One of gloo would live on until the process tears its statics down, in no
    order that its threads could rely on; one of them still running then aborts the process, its work done
    ("terminate called without an active exception").

    The group ends at exit, by Ctrl-C and errors too, and not with training: a second call of `train` in the same
    process goes on with it. (To end it and make it anew would let a quick process read the addresses that a slow one
    had left behind.)
    """
    found = torch.distributed.is_available() and torch.distributed.is_initialized()
    fabric.launch()
    if fabric.world_size > 1 and not found:
        atexit.register(_end_group)


def _end_group() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process is ending; one more Ctrl-C shall not cut that short
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def by_first(fabric: Fabric, action: Callable[[], _T]) -> _T:
    """Do it in the first process; every process gets its result, or its error, so that none waits in vain."""
    if fabric.world_size == 1:
        return action()
    result, failed = None, None
    if fabric.is_global_zero:
        try:
            result = action()
        except LatentiaError as error:
            failed = error
    result, failed = fabric.broadcast((result, failed))
    if failed is not None:
        raise failed
    return result  # pyright: ignore[reportReturnType]


def same_start(fabric: Fabric, module: nn.Module) -> None:
    """Give every process the first one's weights."""
    if fabric.world_size > 1:
        for value in module.state_dict().values():
            torch.distributed.broadcast(value, 0)


def sum_over_processes(fabric: Fabric, parameters: Sequence[nn.Parameter], stop: bool) -> bool:
    """Sum the gradients over all processes, in place, and tell whether any process wants to stop.

    The wish travels in the same message, so that all processes leave after the same step. So does whether each
    parameter had a gradient: one that no process used is left without, as it would be in a single process.
    """
    if fabric.world_size == 1:
        return stop
    facts = torch.tensor([*(p.grad is not None for p in parameters), stop], dtype=torch.float32)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), facts.to(gradients[0].device)])
    torch.distributed.all_reduce(flat)
    *used, wishes = flat[-len(facts) :].tolist()
    for parameter, gradient, count, part in zip(
        parameters, gradients, used, flat[: -len(facts)].split([g.numel() for g in gradients]), strict=True
    ):
        parameter.grad = gradient.copy_(part.view_as(gradient)) if count else None
    return wishes > 0


def sum_table(fabric: Fabric, table: Tensor) -> Tensor:
    """Sum of a float64 table over all processes, on the CPU."""
    if fabric.world_size == 1:
        return table
    table = table.to(fabric.device)
    torch.distributed.all_reduce(table)
    return table.cpu()
