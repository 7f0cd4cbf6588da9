"""Several networks of one build as one: their tensors gain a leading dimension, the seed.

Networks that train side by side, each on examples of its own, are one network with S times the parameters and a batch
S times as large in which the *last* of the batch's indices is the seed: example i belongs to network i mod S. So laid,
everything around the networks stays what it is, for concatenating two batches, halving one, or adding a dimension of
draws in front leaves every example with its network.

Networks made of `Linear` layers, Fourier features and what acts on each number alone run as one: the S products of a
layer go in one call (`baddbmm`), and what a step costs beside arithmetic is paid once. Any others are run one after
another, which is right and gains nothing: convolutions have enough to do for one seed.
"""

from __future__ import annotations

__all__ = ["STACKED_FORMS", "stack_networks"]

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from latentia.errors import ConfigurationError
from latentia.networks.fourier import FourierFeatures
from latentia.networks.layers import PreciseLinear

ALONE = "Train such seeds one by one, with seed=…"

Forward = Callable[..., Tensor]

POINTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Softplus, nn.ELU)


def stack_networks(network: nn.Module, copies: Sequence[nn.Module]) -> None:
    """Make `network`, in place, all of the copies at once, and every copy a view of its part.

    Its modules keep their names and its state its keys; each tensor becomes (S, …). Called with inputs (N·S, …), it
    gives (N·S, …), example i being mapped by copy i mod S. The copies share the memory of its tensors: what training
    changes in the one is changed in the others.

    Args:
        network: of the same build as the copies; its own weights are lost.
        copies: S networks.

    Raises:
        ConfigurationError: for copies that are one and the same object.
    """
    if len({id(one) for one in (network, *copies)}) <= len(copies):
        text = "the same modules are given for every seed (network=custom), so the seeds would share their weights"
        raise ConfigurationError([("network", f"{text}. {ALONE}, each with modules of its own")])
    skeleton = copy.deepcopy(network).to("meta")
    states = [dict(one.state_dict(keep_vars=True)) for one in copies]
    for name in states[0]:
        stacked = torch.stack([state[name].detach() for state in states])
        for own, state in zip(stacked, states, strict=True):
            state[name].data = own
        *path, leaf = name.split(".")
        owner = network.get_submodule(".".join(path))
        if leaf in owner._parameters:
            trained = cast(nn.Parameter, owner._parameters[leaf]).requires_grad
            owner._parameters[leaf] = nn.Parameter(stacked, requires_grad=trained)
        else:
            owner._buffers[leaf] = stacked
    body, count = _batched(network), len(copies)
    run = _one_by_one(network, skeleton) if body is None else _features_first(body)

    def forward(*inputs: Tensor) -> Tensor:
        return run(*(x.unflatten(0, (-1, count)) for x in inputs)).flatten(0, 1)

    setattr(network, "forward", forward)  # noqa: B010  (a method of the class, and from now on of this module alone)


def _features_first(body: Forward) -> Forward:
    """From a form on (S, …, N) to one on (N, S, …).

    Examples come last within, so that weights stand first in a product, W x: their gradient then lies in memory as they
    do, where that of x Wᵀ would be copied into their order at every step.
    """
    return lambda x: body(x.movedim(0, -1)).movedim(-1, 0)


def _linear(layer: nn.Linear) -> Forward:
    """(S, in, N) → (S, out, N), by one call for all seeds."""

    def forward(x: Tensor) -> Tensor:
        if layer.bias is None:
            return torch.bmm(layer.weight, x)
        return torch.baddbmm(layer.bias.unsqueeze(2), layer.weight, x)

    return forward


def _precise(layer: nn.Linear) -> Forward:
    """The same, in float32 where autocast would halve it."""
    product = _linear(layer)

    def forward(x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return product(x)
        with torch.autocast(x.device.type, enabled=False):
            return product(x.float())

    return forward


def _fourier(layer: FourierFeatures) -> Forward:
    """(S, D, N) → (S, D + 2 count, N)."""

    def forward(x: Tensor) -> Tensor:
        phase = torch.bmm(layer.directions.mT, x)
        return torch.cat([x, phase.sin(), phase.cos()], dim=1)

    return forward


def _flatten(layer: nn.Flatten) -> Forward:
    return lambda x: x.flatten(_place(layer.start_dim), _place(layer.end_dim))


def _unflatten(layer: nn.Unflatten) -> Forward:
    return lambda x: x.unflatten(_place(cast(int, layer.dim)), cast(tuple[int, ...], layer.unflattened_size))


def _place(dimension: int) -> int:
    """Where a dimension of (N, …) stands in (S, …, N)."""
    return dimension if dimension >= 0 else dimension - 1


STACKED_FORMS: dict[type[nn.Module], Callable[..., Forward]] = {
    nn.Linear: _linear,
    PreciseLinear: _precise,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    FourierFeatures: _fourier,
    **dict.fromkeys(POINTWISE, lambda layer: layer.forward),
}
"""How modules with a batched form of their own run on (S, …, N), from the module with stacked tensors."""


def _batched(module: nn.Module) -> Forward | None:
    """How the module, its tensors stacked, runs on (S, …, N) in one go; None if a part of it has no such form."""
    if type(module) is not nn.Sequential:
        form = STACKED_FORMS.get(type(module))
        return None if form is None else form(module)
    forms = [_batched(child) for child in module]
    known = [form for form in forms if form is not None]
    if len(known) < len(forms):
        return None

    def in_turn(x: Tensor) -> Tensor:
        for form in known:
            x = form(x)
        return x

    return in_turn


def _one_by_one(network: nn.Module, skeleton: nn.Module) -> Forward:
    """How a network, its tensors stacked, runs on (N, S, …), seed by seed: `skeleton` with the seed's tensors."""

    def forward(*inputs: Tensor) -> Tensor:
        skeleton.train(network.training)
        parts = {name: tensor.unbind(0) for name, tensor in network.state_dict(keep_vars=True).items()}
        return torch.stack(
            [
                functional_call(skeleton, {name: own[seed] for name, own in parts.items()}, x)
                for seed, x in enumerate(zip(*(part.unbind(1) for part in inputs), strict=True))
            ],
            dim=1,
        )

    return forward
