"""Bounds of a network's outputs, module by module, and the register of modules whose function is known.

**What is enclosed** is the function that the modules stand for with their stored weights as real numbers, in real
arithmetic. Modules of unknown type are refused, and so are modules with hooks, with parametrizations, with
half-precision weights, or in a training mode that changes the function. `register_bounds` teaches a new type.
"""

from __future__ import annotations

__all__ = ["register_bounds"]

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from latentia.errors import UnsupportedError
from latentia.likelihood.proof.affine import AffineBounds, joined
from latentia.likelihood.proof.curves import (
    COS,
    GELU,
    INVERSE_ROOT,
    RELU,
    SIGMOID,
    SILU,
    SIN,
    SQUARE,
    TANH,
    Curve,
    floored,
    rectifier,
    softplus,
)
from latentia.likelihood.proof.rounding import ELEMENTARY, TINY, gamma_of
from latentia.networks.dcgan import BatchNorm
from latentia.networks.layers import Center, PreciseLinear, ResidualSum
from latentia.networks.mlp import FourierFeatures
from latentia.networks.strided import FeatureMaps, StridedConvolution, TransposedConvolution

Rule = Callable[[Any, AffineBounds], AffineBounds]
_Rule = TypeVar("_Rule", bound=Rule)

_RULES: dict[type[nn.Module], Rule] = {}


def register_bounds(*types: type[nn.Module]) -> Callable[[_Rule], _Rule]:
    """Register how modules of these types map the bounds of their input: a decorator of `rule(module, bounds)`.

    A subclass inherits the rule as long as it does not override `forward`. Rules compose the methods of `AffineBounds`
    (`linear`, `scaled`, `through`, `reshaped`, `+`, `*`) and `bound_network` for modules inside.

    Examples:
        >>> class Square(nn.Module):
        ...     def forward(self, x):
        ...         return x * x
        >>> @register_bounds(Square)
        ... def _(module, bounds):
        ...     return bounds.through(SQUARE)
    """

    def register(rule: _Rule) -> _Rule:
        for kind in types:
            _RULES[kind] = rule
        return rule

    return register


def bound_network(network: nn.Module, bounds: AffineBounds) -> AffineBounds:
    """Bounds of the network's outputs, from bounds of its inputs.

    Args:
        network: a module of known parts, without hooks, in evaluation mode.
        bounds: of its inputs on T boxes, such as `AffineBounds.of_boxes`.

    Raises:
        UnsupportedError: for a part whose function is not known, naming the part and the cure.
    """
    return rule_of(network)(network, bounds).cleaned()


def rule_of(module: nn.Module) -> Rule:
    """The rule of the class whose `forward` this module runs."""
    kind, name = type(module), type(module).__name__
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    if any(hooks) or "forward" in vars(module):
        raise UnsupportedError(
            f"the decoder's {name} has hooks, which may change what it computes; remove them for a proven bound, or "
            f"use "
            "method='importance'"
        )
    if parametrize.is_parametrized(module):
        raise UnsupportedError(
            f"the decoder's {name} computes its weights by a parametrization; make them plain with "
            "torch.nn.utils.parametrize.remove_parametrizations for a proven bound"
        )
    for tensor in module.parameters(recurse=False):
        if tensor.dtype not in (torch.float32, torch.float64):
            raise UnsupportedError(
                f"the decoder's {name} holds {tensor.dtype} weights, and proven bounds serve float32 and float64; "
                "convert the model by model.float()"
            )
    for base in kind.__mro__:
        if base in _RULES:
            if kind.forward is not base.forward:
                break
            return _RULES[base]
    raise UnsupportedError(
        f"no proven bound is known for the decoder's part {name}; register one with "
        "latentia.likelihood.register_bounds, build the decoder from known modules, or use the numerical quadrature "
        "(exact_log_likelihood)"
    )


def _activation(curve: Curve, _: nn.Module, bounds: AffineBounds) -> AffineBounds:
    return bounds.through(curve)


@register_bounds(nn.Sequential)
def _sequential(module: nn.Sequential, bounds: AffineBounds) -> AffineBounds:
    for part in module:
        bounds = bound_network(part, bounds)
    return bounds


@register_bounds(ResidualSum)
def _residual(module: ResidualSum, bounds: AffineBounds) -> AffineBounds:
    if any(getattr(part, "inplace", False) for part in list(module.branch.modules())[:2]):
        raise UnsupportedError(
            f"the branch of the decoder's {type(module).__name__} overwrites its input, so that x + branch(x) is "
            "another function; start the branch without inplace=True"
        )
    return bounds + bound_network(module.branch, bounds)


@register_bounds(nn.Linear, PreciseLinear)
def _linear(module: nn.Linear, bounds: AffineBounds) -> AffineBounds:
    return bounds.linear(functional.linear, module.weight, module.bias, module.in_features)


@register_bounds(nn.Conv1d, nn.Conv2d, StridedConvolution)
def _convolution(module: nn.Conv1d | nn.Conv2d, bounds: AffineBounds) -> AffineBounds:
    _require_zero_padding(module)
    convolve = functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d

    def operation(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, None, module.stride, module.padding, module.dilation, module.groups)  # pyright: ignore

    return bounds.linear(operation, module.weight, _per_channel(module.bias, module), module.weight[0].numel())


@register_bounds(nn.ConvTranspose1d, nn.ConvTranspose2d, TransposedConvolution)
def _transposed(module: nn.ConvTranspose1d | nn.ConvTranspose2d, bounds: AffineBounds) -> AffineBounds:
    _require_zero_padding(module)
    convolve = functional.conv_transpose1d if isinstance(module, nn.ConvTranspose1d) else functional.conv_transpose2d

    places: Any = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)

    def operation(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, None, *places)

    return bounds.linear(operation, module.weight, _per_channel(module.bias, module), module.weight[:, 0].numel())


@register_bounds(nn.BatchNorm1d, nn.BatchNorm2d, BatchNorm)
def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, bounds: AffineBounds) -> AffineBounds:
    if module.training or module.running_mean is None or module.running_var is None:
        raise UnsupportedError(
            f"{type(module).__name__} takes its statistics from the batch, so p(x|z) depends on which z are evaluated "
            "together; call model.eval() (with running statistics) first"
        )
    factor = (module.running_var.double() + module.eps).rsqrt()
    shift = -module.running_mean.double()
    moved = bounds.scaled(torch.ones((), dtype=torch.float64), _channels_first(shift, bounds))
    if module.affine:
        factor = factor * module.weight.detach().double()
    result = moved.scaled(_channels_first(factor, bounds), torch.zeros((), dtype=torch.float64))
    if not module.affine:
        return result
    return result.scaled(torch.ones((), dtype=torch.float64), _channels_first(module.bias.detach().double(), bounds))


@register_bounds(nn.LayerNorm)
def _layer_norm(module: nn.LayerNorm, bounds: AffineBounds) -> AffineBounds:
    dims = len(module.normalized_shape)
    grouped = bounds.reshaped(lambda x: x.flatten(-dims))
    result = _normalized(grouped, module.eps).reshaped(lambda x: x.unflatten(-1, module.normalized_shape))
    return _with_gain(result, module.weight, module.bias)


@register_bounds(nn.GroupNorm)
def _group_norm(module: nn.GroupNorm, bounds: AffineBounds) -> AffineBounds:
    shape = bounds.error.shape[1:]
    grouped = bounds.reshaped(lambda x: x.reshape(len(x), module.num_groups, -1))
    result = _normalized(grouped, module.eps).reshaped(lambda x: x.reshape(len(x), *shape))
    if not module.affine:
        return result
    return _with_gain(result, _channels_first(module.weight, bounds), _channels_first(module.bias, bounds))


@register_bounds(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
def _dropout(module: nn.Module, bounds: AffineBounds) -> AffineBounds:
    if module.training:
        raise UnsupportedError(f"{type(module).__name__} in training mode makes p(x|z) random; call model.eval() first")
    return bounds


@register_bounds(nn.Identity)
def _identity(_: nn.Identity, bounds: AffineBounds) -> AffineBounds:
    return bounds


@register_bounds(nn.Flatten, nn.Unflatten, FeatureMaps, nn.PixelShuffle, nn.ZeroPad2d)
def _reshape(module: nn.Module, bounds: AffineBounds) -> AffineBounds:
    return bounds.reshaped(module.forward)


@register_bounds(nn.AvgPool1d, nn.AvgPool2d)
def _average(module: nn.AvgPool1d | nn.AvgPool2d, bounds: AffineBounds) -> AffineBounds:
    if getattr(module, "divisor_override", None) is not None:
        raise UnsupportedError("no proven bound is known for nn.AvgPool2d(divisor_override=…); use a convolution")
    size = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
    return _positive_map(bounds, module.forward, math.prod(size))


@register_bounds(nn.Upsample)
def _upsample(module: nn.Upsample, bounds: AffineBounds) -> AffineBounds:
    if module.mode not in ("nearest", "nearest-exact", "linear", "bilinear"):
        raise UnsupportedError(
            f"no proven bound is known for nn.Upsample(mode={module.mode!r}); use mode='bilinear' or mode='nearest', "
            f"or "
            "the numerical quadrature (exact_log_likelihood)"
        )
    return _positive_map(bounds, module.forward, 1024)  # source positions up to 128 pixels are rounded to 128 u


@register_bounds(Center)
def _centered(_: Center, bounds: AffineBounds) -> AffineBounds:
    return bounds.scaled(torch.tensor(2.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64))


@register_bounds(FourierFeatures)
def _fourier(module: FourierFeatures, bounds: AffineBounds) -> AffineBounds:
    directions = module.directions
    phase = bounds.linear(lambda x, weight: x @ weight, directions, None, len(directions))
    parts = (bounds, phase.through(SIN), phase.through(COS))
    return joined(*parts)


for _kind, _curve in ((nn.ReLU, RELU), (nn.Tanh, TANH), (nn.Sigmoid, SIGMOID), (nn.SiLU, SILU)):
    register_bounds(_kind)(partial(_activation, _curve))


@register_bounds(nn.PReLU)
def _prelu(module: nn.PReLU, bounds: AffineBounds) -> AffineBounds:
    slope = module.weight.detach().double()
    return bounds.through(rectifier(slope if module.num_parameters == 1 else _channels_first(slope, bounds)))


@register_bounds(nn.Hardtanh, nn.ReLU6)
def _clipped(module: nn.Hardtanh, bounds: AffineBounds) -> AffineBounds:
    low, one = float(module.min_val), torch.ones((), dtype=torch.float64)
    above = bounds.scaled(one, -low * one).through(RELU)
    missing = above.scaled(-one, (float(module.max_val) - low) * one).through(RELU)
    return missing.scaled(-one, float(module.max_val) * one)


@register_bounds(nn.LogSigmoid)
def _log_sigmoid(_: nn.LogSigmoid, bounds: AffineBounds) -> AffineBounds:
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return bounds.scaled(-one, zero).through(softplus(1.0)).scaled(-one, zero)


@register_bounds(nn.LeakyReLU)
def _leaky_relu(module: nn.LeakyReLU, bounds: AffineBounds) -> AffineBounds:
    return bounds.through(rectifier(module.negative_slope))


@register_bounds(nn.ELU)
def _elu(module: nn.ELU, bounds: AffineBounds) -> AffineBounds:
    alpha = float(module.alpha)

    def first(u: Tensor) -> Tensor:
        return torch.where(u > 0, 1.0, alpha * torch.exp(u.clamp(max=0)))

    # φ' jumps to 1 at 0 unless α = 1, so its range there holds both; φ'' is not bounded then, and is not used.
    rough = Curve(
        lambda u: torch.where(u > 0, u, alpha * torch.expm1(u.clamp(max=0))),
        first,
        lambda u: torch.full_like(u, math.inf),
        (0.0, 1e-300),
        monotone=alpha > 0,
    )
    return bounds.through(rough)


@register_bounds(nn.GELU)
def _gelu(module: nn.GELU, bounds: AffineBounds) -> AffineBounds:
    if module.approximate != "none":
        raise UnsupportedError("no proven bound is known for nn.GELU(approximate='tanh'); use nn.GELU()")
    return bounds.through(GELU)


@register_bounds(nn.Softplus)
def _softplus_rule(module: nn.Softplus, bounds: AffineBounds) -> AffineBounds:
    if module.threshold < 20 or module.beta <= 0:
        raise UnsupportedError("no proven bound is known for nn.Softplus with beta <= 0 or threshold < 20")
    return bounds.through(softplus(float(module.beta)))


# --- parts of rules --------------------------------------------------------------------------------------------------


def _require_zero_padding(module: Any) -> None:
    if module.padding_mode != "zeros":
        raise UnsupportedError(
            f"no proven bound is known for {type(module).__name__}(padding_mode={module.padding_mode!r}); use "
            "padding_mode='zeros'"
        )


def _per_channel(bias: Tensor | None, module: nn.Module) -> Tensor | None:
    spatial = 1 if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) else 2
    return None if bias is None else bias.detach().view(-1, *[1] * spatial)


def _channels_first(numbers: Tensor, bounds: AffineBounds) -> Tensor:
    """(C,) → (C, 1, …), against the shape (C, …) of the bounds."""
    return numbers.detach().double().view(-1, *[1] * (bounds.error.dim() - 2))


def _positive_map(bounds: AffineBounds, operation: Callable[[Tensor], Tensor], terms: int) -> AffineBounds:
    """The image under local averages, whose weights are positive and sum to at most 1, with so many roundings."""
    boxes, rows = bounds.coefficients.shape[:2]
    coefficients = operation(bounds.coefficients.flatten(0, 1)).unflatten(0, (boxes, rows))
    largest = bounds.magnitude.flatten(1).amax(1).view(boxes, *[1] * (bounds.error.dim() - 1))
    gamma = 2 * gamma_of(terms)
    error = operation(bounds.error) * (1 + gamma) + gamma * largest + TINY
    return AffineBounds(coefficients, error, bounds.kinks)


def _normalized(bounds: AffineBounds, eps: float) -> AffineBounds:
    """(v − mean v)/√(var v + ε) over the last axis, v of shape (…, n)."""
    count = bounds.error.shape[-1]
    one = torch.ones((), dtype=torch.float64)
    mean = AffineBounds(-bounds.coefficients.mean(-1, keepdim=True), bounds.error.mean(-1, keepdim=True))
    gamma = gamma_of(count)
    mean = AffineBounds(
        mean.coefficients, mean.error * (1 + gamma) + gamma * bounds.magnitude.mean(-1, keepdim=True) * 2 + TINY
    )
    # The error of v − mean v: each number enters with 1 − 1/n and the others with 1/n.
    centered = bounds + mean
    squares = centered.through(SQUARE)
    variance = AffineBounds(
        squares.coefficients.mean(-1, keepdim=True),
        squares.error.mean(-1, keepdim=True) * (1 + 2 * gamma)
        + 2 * gamma * squares.magnitude.mean(-1, keepdim=True)
        + TINY,
    ).scaled(one, torch.tensor(eps, dtype=torch.float64))
    inverse = variance.through(floored(INVERSE_ROOT, eps * (1 - ELEMENTARY)))
    return centered * AffineBounds(inverse.coefficients.expand_as(centered.coefficients), inverse.error)


def _with_gain(bounds: AffineBounds, weight: Tensor | None, bias: Tensor | None) -> AffineBounds:
    if weight is None:
        return bounds
    shift = torch.zeros((), dtype=torch.float64) if bias is None else bias.detach().double()
    return bounds.scaled(weight.detach().double(), shift)
