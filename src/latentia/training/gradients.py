"""A player's move: the terms of a batch, and the gradient of their mean cost.

A move is computed in one of two ways: `plain`, operation by operation, or `compiled`, as one program made by
`torch.compile` from the cost and its gradients together. They draw the same random numbers and agree to rounding.

The mean is over the global batch: each of its examples weighs 1/size, and the processes' gradients are summed later.
"""

from __future__ import annotations

__all__ = ["Move", "compiled", "gradients_traced", "plain"]

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.data import Batch
from latentia.objectives import Progress, Terms
from latentia.training.distributed import Worker
from latentia.training.game import Player, cost_of

Move = Callable[[Batch, Progress], Terms]
"""Gives the terms of a batch, each (B,), and leaves the gradient of their mean cost in the player's parameters."""


def plain(player: Player, parameters: Sequence[nn.Parameter], worker: Worker) -> Move:
    """The move as it is written.

    Raises (by the move):
        ConfigurationError: for terms without a cost, or of other shapes than (B,).
    """

    def move(batch: Batch, progress: Progress) -> Terms:
        terms, gradients = _terms_and_gradients(player, parameters, worker, batch, progress)
        _leave(gradients, parameters)
        return terms

    return move


def compiled(
    player: Player,
    parameters: Sequence[nn.Parameter],
    worker: Worker,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Move:
    """The move as one compiled program, made when it is first called; where that fails, say so and go on plainly.

    The cost, every derivative inside it (a gradient penalty's too) and the gradients are traced into one graph, so that
    nothing of Python is left between the operations and neighboring ones become one loop. Random numbers are drawn by
    torch's own generators, as in the plain move.

    Args:
        player: whose move.
        parameters: the player's.
        worker: whose device and precision.
        say: shows a line of bar.
        warn: shows a line of warning.
    """
    fallback = plain(player, parameters, worker)
    program: Callable[[Batch, Progress], tuple[Terms, Sequence[Tensor | None]]] | None = None
    failed = False

    def traced(batch: Batch, progress: Progress) -> tuple[Terms, Sequence[Tensor | None]]:
        return _terms_and_gradients(player, parameters, worker, batch, progress)

    def first(batch: Batch, progress: Progress) -> tuple[Terms, Sequence[Tensor | None]]:
        nonlocal program
        say(f"compiling the move of the {player.name}; the first time, this takes up to a minute")
        options = {"fallback_random": True}
        validates = (
            Distribution._validate_args
        )  # the first compilation of a process switches this off for all distributions
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own parts about one another
                made = torch.compile(traced, fullgraph=True, isolate_recompiles=True, options=options)  # pyright: ignore[reportCallIssue]
                result = made(batch, progress)
        finally:
            Distribution.set_default_validate_args(validates)
        program = made
        return result

    def move(batch: Batch, progress: Progress) -> Terms:
        nonlocal failed
        if failed:
            return fallback(batch, progress)
        try:
            terms, gradients = (program or first)(batch, progress)
        except Exception as error:  # whatever a compiler may run into, or an error of the cost, which `plain` repeats
            # Nothing has been computed, drawn or written yet: a graph runs only once it is whole and compiled.
            terms = fallback(batch, progress)
            failed = True
            warn(f"compile=true has no effect on the {player.name}, whose move runs uncompiled: {_first_line(error)}")
            return terms
        _leave(gradients, parameters)
        return terms

    return move


@contextmanager
def gradients_traced() -> Iterator[None]:
    """Let torch's compiler follow `torch.autograd.grad` inside the block, which compiled moves need.

    It is told that clocks run, lest it make a program for the first step alone, and forgets which of their numbers an
    earlier game needed as constants: it would take them for constants in this one.
    """
    with ExitStack() as stack:
        with suppress(ImportError, AttributeError):  # an older torch, or one without a compiler: the moves will tell
            from torch._dynamo import config
            from torch._dynamo.symbolic_convert import TensorifyState

            running = "L['progress'].step,L['progress'].epoch"
            stack.enter_context(config.patch(trace_autograd_ops=True))
            stack.enter_context(torch.compiler.config.patch(dynamic_sources=running))  # pyright: ignore[reportAttributeAccessIssue]
            TensorifyState.clear()
        yield


def _terms_and_gradients(
    player: Player, parameters: Sequence[nn.Parameter], worker: Worker, batch: Batch, progress: Progress
) -> tuple[Terms, Sequence[Tensor | None]]:
    with worker.autocast():
        terms = player.cost(batch, progress)
    cost = cost_of(terms, player.name)
    weights = torch.full_like(cost, 1 / (len(cost) * worker.world_size))
    gradients = torch.autograd.grad(cost, parameters, weights, allow_unused=True)
    return {name: term.detach() for name, term in terms.items()}, gradients


def _leave(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> None:
    """Put the gradients where optimizers look for them: each a tensor of its own, laid out as its parameter is.

    torch's fused Adam on the CPU reads both in the order of memory, and a convolution's gradient may have another one.
    Two parameters that are added may be given one tensor, which would then be clipped twice.
    """
    given: set[int] = set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and (gradient.stride() != parameter.stride() or gradient.data_ptr() in given):
            gradient = torch.empty_like(parameter).copy_(gradient)
        if gradient is not None:
            given.add(gradient.data_ptr())
        parameter.grad = gradient


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
