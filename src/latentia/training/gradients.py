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
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

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
    compute, make = _move(player, parameters, worker), _maker(player, worker)

    def gradients(batch: Batch, progress: Progress) -> Terms:
        return _step(player, parameters, compute, batch, progress, _shared(player, make, batch))

    return gradients


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
    no Python runs between the operations and neighboring ones become one loop. Examples that players share are made by
    a separate program, whose backward pass runs when the player that takes them steps.

    Args:
        player: whose cost.
        parameters: the player's.
        worker: whose precision, and of how many.
        say: shows a line of information.
        warn: shows a line of warning.
        cuda_graphs: on a GPU, record the program's kernels once and replay them. A replay writes to the memory of the
            one before, so terms, which records keep, are copied; gradients are used before the next replay. Shared
            examples outlive a replay, so the program that makes them runs without graphs.
    """
    compute, make = _move(player, parameters, worker), _maker(player, worker)
    programs: tuple[_Make, _Move] | None = None
    failed = False

    def program(function: Callable[..., Any], cuda_graphs: bool) -> Any:
        options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": cuda_graphs}
        if worker.device.type == "cpu":  # the calls between loops in C++, and biases in the loops
            options |= {"cpp_wrapper": True, "post_grad_custom_post_pass": _biases_apart()}
        return torch.compile(function, fullgraph=True, isolate_recompiles=True, options=options)  # pyright: ignore[reportCallIssue]

    def gradients(batch: Batch, progress: Progress) -> Terms:
        nonlocal programs, failed
        shared: Batch | None = None
        problem: str | None = None
        if not failed:
            try:
                if programs is None:
                    say(f"compiling the step of the {player.name}; the first time, this takes up to a minute")
                with _quiet_compiler() if programs is None else nullcontext():
                    making, moving = programs or (program(make, False), program(compute, cuda_graphs))
                    if cuda_graphs:
                        torch.compiler.cudagraph_mark_step_begin()
                    shared = _shared(player, making, batch)
                    terms = _step(player, parameters, moving, batch, progress, shared)
                programs = making, moving
                return {name: term.clone() for name, term in terms.items()} if cuda_graphs else terms
            except Exception as error:  # anything that a compiler may meet, or an error of the cost, repeated below
                # The move has computed, sampled and written nothing: a graph runs only once it is whole and compiled.
                problem = f"the steps of the {player.name} cannot be compiled: {first_line(error)}"
        shared = shared or _shared(player, make, batch)
        terms = _step(player, parameters, compute, batch, progress, shared)
        if problem is not None:
            failed = True
            warn(problem)
        return terms

    return gradients


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


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Show no warnings of torch's parts about one another, and leave the checks of distributions on.

    The first compilation of a process switches them off.
    """
    validates = Distribution._validate_args
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Distribution.set_default_validate_args(validates)


def _biases_apart() -> Any:
    """A pass over the compiler's graph that adds the bias of a float32 product after it, in the loop that follows.

    Together they are one call of oneDNN's, which writes the bias to the whole result before the product.
    """
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class BiasesApart(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            aten = torch.ops.aten
            for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
                bias, a, b = node.args
                if node.kwargs or node.meta["val"].dtype != torch.float32:
                    continue
                with graph.inserting_before(node):
                    product = graph.call_function(aten.mm.default, (a, b))
                    total = graph.call_function(aten.add.Tensor, (product, bias))
                product.meta.update(node.meta)
                total.meta.update(node.meta)
                node.replace_all_uses_with(total)
                graph.erase_node(node)

        def uuid(self) -> str:
            return "latentia.BiasesApart.1"  # a part of the key of the compiler's cache: change it with the pass

    return BiasesApart()


_Move = Callable[[Batch, Progress, Batch | None], tuple[Terms, Sequence[Tensor | None]]]
_Make = Callable[[Batch], Tensor]


def _move(player: Player, parameters: Sequence[nn.Parameter], worker: Worker) -> _Move:
    """The terms of a batch and gradients by the parameters, and by the shared examples that the player takes."""

    def move(batch: Batch, progress: Progress, shared: Batch | None) -> tuple[Terms, Sequence[Tensor | None]]:
        wanted: list[Tensor] = list(parameters)
        if shared is not None and player.takes is not None:
            shared = shared._replace(x=shared.x.detach().requires_grad_())
            wanted.append(shared.x)
        with worker.autocast():
            terms = player.cost(batch, progress) if shared is None else player.cost(batch, progress, shared)
        cost = cost_of(terms, player.name)
        weights = torch.full_like(cost, 1 / (len(cost) * worker.world_size))
        gradients = torch.autograd.grad(cost, wanted, weights, allow_unused=True)
        return {name: term.detach() for name, term in terms.items()}, gradients

    return move


def _maker(player: Player, worker: Worker) -> _Make:
    """What makes the examples that the player shares."""

    def make(batch: Batch) -> Tensor:
        assert player.makes is not None
        with worker.autocast():
            return player.makes.make(batch)

    return make


def _shared(player: Player, make: _Make, batch: Batch) -> Batch | None:
    """The shared examples with their graph: made and kept for a later player, or taken from an earlier one."""
    if player.makes is not None:
        player.makes.kept = Batch(make(batch), batch.labels)
        return player.makes.kept
    return None if player.takes is None else player.takes.take(batch)


def _step(
    player: Player,
    parameters: Sequence[nn.Parameter],
    move: _Move,
    batch: Batch,
    progress: Progress,
    shared: Batch | None,
) -> Terms:
    """Terms of a batch; sets the gradients, with those through shared examples."""
    values = None if shared is None else shared._replace(x=shared.x.detach())
    terms, gradients = move(batch, progress, values)
    if shared is not None and player.takes is not None:
        *gradients, slope = gradients
        if slope is not None:
            through = torch.autograd.grad(shared.x, parameters, slope, allow_unused=True)
            pairs = zip(gradients, through, strict=True)
            gradients = [a if b is None else b if a is None else a + b for a, b in pairs]
    _assign(gradients, parameters)
    return terms


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
