"""One run on several processes: Lightning Fabric starts them, and gradients are summed here.

Each process sees its share of the same global batch; after a player's backward pass, one all-reduce sums the gradients
of all its parameters, laid end to end. That is what DistributedDataParallel does in buckets, without its wrapper: a
player may call its networks any number of times in a step, differentiate twice for a gradient penalty, or own bare
parameters, and all of it still adds up.
"""

from __future__ import annotations

__all__ = ["make_fabric", "sum_over_processes", "under_torchrun"]

import os
from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from latentia.errors import RunError
from latentia.training.settings import Training


def under_torchrun() -> bool:
    """Whether torchrun (or a scheduler that sets the same variables) has started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def make_fabric(training: Training) -> Fabric:
    """Fabric for these settings: one process, several spawned here, or those that torchrun started.

    Raises:
        RunError: for a device that is not there.
    """
    accelerator = training.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise RunError("there is no CUDA device on this machine; set accelerator=cpu or auto")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise RunError("there is no MPS device on this machine; set accelerator=cpu or auto")
    if accelerator == "cuda" and training.devices > torch.cuda.device_count() and not under_torchrun():
        raise RunError(f"devices={training.devices}, and this machine has {torch.cuda.device_count()} CUDA devices")
    if under_torchrun():
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        nodes = int(os.environ["WORLD_SIZE"]) // local
        return Fabric(
            accelerator=accelerator, devices=local, num_nodes=nodes, strategy="ddp", precision=training.precision
        )
    strategy = "ddp_spawn" if training.devices > 1 else "auto"
    return Fabric(accelerator=accelerator, devices=training.devices, strategy=strategy, precision=training.precision)


def sum_over_processes(fabric: Fabric, parameters: Sequence[nn.Parameter], stop: bool) -> bool:
    """Sum the gradients over all processes, in place, and tell whether any process wants to stop.

    The wish travels in the same message, so that all processes leave after the same step.
    """
    if fabric.world_size == 1:
        return stop
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), gradients[0].new_tensor([float(stop)])])
    torch.distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return bool(flat[-1] > 0)


def sum_tensor(fabric: Fabric, value: Tensor) -> Tensor:
    """Sum of a tensor over all processes."""
    if fabric.world_size > 1:
        torch.distributed.all_reduce(value)
    return value
