"""The terms of a batch, and the gradient of their mean cost: eagerly, or as one compiled program.

Both draw the same random numbers and agree to rounding. The mean is over the global batch: each of its examples weighs
1/size, and the processes' gradients are summed later.

This is the only file of the engine that uses private interfaces of torch. Tracing `torch.autograd.grad` inside a
compiled function has no public switch yet, nor has the table of numbers that the compiler takes for constants; and the
compiler switches the checks of all distributions off, which only a private attribute shows.
"""

from __future__ import annotations

__all__: list[str] = []

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.data import Batch
from latentia.errors import first_line
from latentia.objectives import Progress, Terms
from latentia.training.distributed import Worker
from latentia.training.game import Player, cost_of

GradientFn = Callable[[Batch, Progress], Terms]
"""Returns the terms of a batch, each (B,), and puts the gradient of their mean cost into the parameters' `grad`."""


def eager_gradients(player: Player, parameters: Sequence[nn.Parameter], worker: Worker) -> GradientFn:
    """Terms and gradients operation by operation.

    The returned function raises ConfigurationError for terms without a cost, or of other shapes than (B,).
    """

    def compute(batch: Batch, progress: Progress) -> Terms:
        terms, gradients = _terms_and_gradients(player, parameters, worker, batch, progress)
        _assign(gradients, parameters)
        return terms

    return compute


def compiled_gradients(
    player: Player,
    parameters: Sequence[nn.Parameter],
    worker: Worker,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    cuda_graphs: bool = False,
) -> GradientFn:
    """Terms and gradients as one program, compiled at the first call; if that fails, warns and goes on eagerly.

    The cost, every derivative inside it (a gradient penalty's too) and the gradients are traced into one graph, so that
    no Python runs between the operations and neighboring ones become one loop.

    Args:
        player: whose cost.
        parameters: the player's.
        worker: whose precision, and of how many.
        say: shows a line of information.
        warn: shows a line of warning.
        cuda_graphs: on a GPU, record the program's kernels once and replay them. A replay writes to the memory of the
            one before, so terms, which records keep, are copied; gradients are used before the next replay.
    """
    eager = eager_gradients(player, parameters, worker)
    program: Callable[[Batch, Progress], tuple[Terms, Sequence[Tensor | None]]] | None = None
    failed = False

    def traced(batch: Batch, progress: Progress) -> tuple[Terms, Sequence[Tensor | None]]:
        return _terms_and_gradients(player, parameters, worker, batch, progress)

    def first(batch: Batch, progress: Progress) -> tuple[Terms, Sequence[Tensor | None]]:
        nonlocal program
        say(f"compiling the step of the {player.name}; the first time, this takes up to a minute")
        validates = Distribution._validate_args  # the first compilation of a process switches it off
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own parts about one another
                options = {"fallback_random": True, "triton.cudagraphs": cuda_graphs}
                made = torch.compile(traced, fullgraph=True, isolate_recompiles=True, options=options)  # pyright: ignore[reportCallIssue]
                result = made(batch, progress)
        finally:
            Distribution.set_default_validate_args(validates)
        program = made
        return result

    def compute(batch: Batch, progress: Progress) -> Terms:
        nonlocal failed
        if failed:
            return eager(batch, progress)
        try:
            if cuda_graphs:
                torch.compiler.cudagraph_mark_step_begin()
            terms, gradients = (program or first)(batch, progress)
            if cuda_graphs:
                terms = {name: term.clone() for name, term in terms.items()}
        except Exception as error:  # anything that a compiler may meet, or an error of the cost, which `eager` repeats
            # Nothing has been computed, sampled or written yet: a graph runs only once it is whole and compiled.
            terms = eager(batch, progress)
            failed = True
            warn(f"the steps of the {player.name} cannot be compiled: {first_line(error)}")
            return terms
        _assign(gradients, parameters)
        return terms

    return compute


@contextmanager
def traceable_gradients() -> Iterator[None]:
    """Let torch's compiler trace `torch.autograd.grad` inside the block, which compiled gradients need.

    `step` and `epoch` are marked as dynamic, so that Dynamo does not specialize on their first values. The numbers that
    an earlier game needed as constants are forgotten, as Dynamo would take them for constants in this one too.
    """
    with ExitStack() as stack:
        with suppress(
            ImportError, AttributeError
        ):  # an older torch, or one without a compiler: compilation fails later
            from torch._dynamo import config
            from torch._dynamo.symbolic_convert import TensorifyState

            dynamic = "L['progress'].step,L['progress'].epoch"
            stack.enter_context(config.patch(trace_autograd_ops=True))
            stack.enter_context(torch.compiler.config.patch(dynamic_sources=dynamic))  # pyright: ignore[reportAttributeAccessIssue]
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


def _assign(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> None:
    """Set `grad`: each a tensor that no other parameter shares, with the parameter's layout in memory.

    torch's fused Adam on the CPU reads both in the order of memory, and a convolution's gradient may have another one.
    Two parameters that are added may get one tensor from autograd, which would then be clipped twice.
    """
    given: set[int] = set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and (gradient.stride() != parameter.stride() or gradient.data_ptr() in given):
            gradient = torch.empty_like(parameter).copy_(gradient)
        if gradient is not None:
            given.add(gradient.data_ptr())
        parameter.grad = gradient
