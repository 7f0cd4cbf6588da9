"""Several networks of one architecture as one: their tensors gain a leading dimension, the seed.

Networks that train at the same time on different examples are one network with S times the parameters and a batch S
times as large, in which the *last* of the batch's indices is the seed: example i belongs to network i mod S. With this
order, concatenating two batches, halving one, or adding a dimension of draws in front leaves every example with its
network, so that the code around the networks does not change.

Networks of `Linear` layers, Fourier features and pointwise functions run as one: the S products of a layer are one call
(`baddbmm`), and the overhead of a step is paid once. Other networks run one after another, with the same result and no
gain: convolutions use the processor fully for one seed.
"""

from __future__ import annotations

__all__ = ["stack_networks"]

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from latentia.errors import ConfigurationError
from latentia.networks.layers import PreciseLinear
from latentia.networks.mlp import FourierFeatures

ALONE = "Train such seeds one by one, with `latentia sweep RECIPE --seeds 3` or seed=…"

Forward = Callable[..., Tensor]

POINTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Softplus, nn.ELU)


def stack_networks(network: nn.Module, copies: Sequence[nn.Module]) -> None:
    """Turn `network`, in place, into all of the copies at once, and every copy into a view of its part.

    Its modules keep their names and its state its keys; each tensor becomes (S, …). It maps inputs (N·S, …) to
    (N·S, …), example i by copy i mod S. The copies share the memory of its tensors, so that training it trains them.

    Args:
        network: of the same architecture as the copies; its weights are lost.
        copies: S networks.

    Raises:
        ConfigurationError: if copies are the same object.
    """
    if len({id(one) for one in (network, *copies)}) <= len(copies):
        text = "the same modules are given for every seed (network=custom), so the seeds would share their weights"
        raise ConfigurationError([("network", f"{text}. {ALONE}, each with its own modules")])
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

    setattr(network, "forward", forward)  # noqa: B010  (overrides the class's method in this module only)


def _features_first(body: Forward) -> Forward:
    """From a function on (S, …, N) to one on (N, S, …).

    Inside, examples come last, so that weights come first in a product, W x. Their gradient then has their memory
    format; that of x Wᵀ would be copied at every step.
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
    """The same, in float32 under autocast."""
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
    """The index in (S, …, N) of a dimension of (N, …)."""
    return dimension if dimension >= 0 else dimension - 1


STACKED_FORMS: dict[type[nn.Module], Callable[..., Forward]] = {
    nn.Linear: _linear,
    PreciseLinear: _precise,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    FourierFeatures: _fourier,
    **dict.fromkeys(POINTWISE, lambda layer: layer.forward),
}
"""How each kind of module, with stacked tensors, runs on (S, …, N)."""


def _batched(module: nn.Module) -> Forward | None:
    """How the module, with stacked tensors, runs on (S, …, N) at once; None if a part of it has no such form."""
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
    """How a network with stacked tensors runs on (N, S, …), seed by seed: `skeleton` with the seed's tensors."""

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
