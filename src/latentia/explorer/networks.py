"""Networks as the page reads them: a list of layers, each with its weights in the payload.

`layers_of` knows the modules of `latentia.networks`, and any `nn.Sequential` of torch's usual layers. A module that it
does not know raises `UnsupportedError`; the page then shows an atlas of pictures that were made in Python.
"""

from __future__ import annotations

__all__: list[str] = []

import copy
from collections.abc import Callable
from functools import singledispatch
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentia.errors import UnsupportedError
from latentia.explorer.payload import Encoding, Payload, rounded
from latentia.networks.conditioning import LabeledDecoder, ProjectionEncoder
from latentia.networks.layers import Center, ResidualSum
from latentia.networks.mlp import FourierFeatures

Layer = dict[str, Any]
Store = Callable[[Tensor], dict[str, Any]]


def exported(network: nn.Module, payload: Payload, encoding: Encoding) -> list[Layer]:
    """The layers of a network in evaluation mode.

    Args:
        network: tensor in, tensor out; class-conditional networks of `latentia.networks` take labels as well.
        payload: takes the weights.
        encoding: of the weights, `float16` or `int8`; small vectors (biases, norms) are float32.

    Raises:
        UnsupportedError: naming the module that the page cannot compute.
    """

    def store(values: Tensor) -> dict[str, Any]:
        return payload.add(values.float(), encoding if values.dim() > 1 else "float32")

    return layers_of(plain(network), store)


def plain(network: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode."""
    return copy.deepcopy(network).cpu().eval()


def as_read(network: nn.Module, encoding: Encoding) -> nn.Module:
    """A copy with the weights that the page reads: what it computes is off by the rounding of these."""
    network = plain(network)
    with torch.no_grad():
        for part in network.modules():
            for parameter in part.parameters(recurse=False):
                if parameter.dim() > 1:
                    if isinstance(part, nn.Linear):  # which is stored by inputs
                        parameter.copy_(rounded(parameter.T, encoding).T)
                    else:
                        parameter.copy_(rounded(parameter, encoding))
    return network


@singledispatch
def layers_of(module: nn.Module, store: Store) -> list[Layer]:
    """The layers of a module.

    Raises:
        UnsupportedError: for a module that the page cannot compute.
    """
    raise UnsupportedError(
        f"the page cannot compute {type(module).__name__}; build the network of torch's usual layers in an "
        "nn.Sequential, or use the pictures made in Python that the page shows in its place"
    )


@layers_of.register
def _(module: nn.Sequential, store: Store) -> list[Layer]:
    return [layer for part in module for layer in layers_of(part, store)]


@layers_of.register(nn.Identity)
@layers_of.register(nn.Dropout)
def _(module: nn.Module, store: Store) -> list[Layer]:
    return []


@layers_of.register
def _(module: nn.Linear, store: Store) -> list[Layer]:
    bias = module.bias if module.bias is not None else torch.zeros(module.out_features)
    return [{"op": "linear", "weight": store(module.weight.T.contiguous()), "bias": store(bias)}]


@layers_of.register
def _(module: nn.Flatten, store: Store) -> list[Layer]:
    return [{"op": "reshape", "shape": None}]


@layers_of.register
def _(module: nn.Unflatten, store: Store) -> list[Layer]:
    return [{"op": "reshape", "shape": list(module.unflattened_size)}]


@layers_of.register
def _(module: nn.ReLU, store: Store) -> list[Layer]:
    return [{"op": "leaky", "slope": 0.0}]


@layers_of.register
def _(module: nn.LeakyReLU, store: Store) -> list[Layer]:
    return [{"op": "leaky", "slope": module.negative_slope}]


@layers_of.register
def _(module: nn.GELU, store: Store) -> list[Layer]:
    if module.approximate != "none":
        raise UnsupportedError("the page computes the exact GELU; use nn.GELU()")
    return [{"op": "gelu"}]


@layers_of.register
def _(module: nn.Tanh, store: Store) -> list[Layer]:
    return [{"op": "tanh"}]


@layers_of.register
def _(module: nn.Sigmoid, store: Store) -> list[Layer]:
    return [{"op": "sigmoid"}]


@layers_of.register
def _(module: nn.Softplus, store: Store) -> list[Layer]:
    if (module.beta, module.threshold) != (1, 20):
        raise UnsupportedError("the page computes softplus with its usual settings; use nn.Softplus()")
    return [{"op": "softplus"}]


@layers_of.register
def _(module: nn.SiLU, store: Store) -> list[Layer]:
    return [{"op": "silu"}]


@layers_of.register
def _(module: nn.LayerNorm, store: Store) -> list[Layer]:
    size = module.normalized_shape
    if len(size) != 1 or module.weight is None:
        raise UnsupportedError("the page computes layer normalization of vectors with weights; use nn.LayerNorm(n)")
    bias = module.bias if module.bias is not None else torch.zeros(size)
    return [{"op": "layernorm", "weight": store(module.weight), "bias": store(bias), "epsilon": module.eps}]


@layers_of.register
def _(module: ResidualSum, store: Store) -> list[Layer]:
    return [{"op": "residual", "layers": layers_of(module.branch, store)}]


@layers_of.register
def _(module: Center, store: Store) -> list[Layer]:
    return [{"op": "center"}]


@layers_of.register
def _(module: FourierFeatures, store: Store) -> list[Layer]:
    return [{"op": "fourier", "directions": store(module.directions)}]


@layers_of.register(nn.Conv2d)
@layers_of.register(nn.ConvTranspose2d)
def _(module: nn.Conv2d | nn.ConvTranspose2d, store: Store) -> list[Layer]:
    if module.dilation != (1, 1) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise UnsupportedError("the page computes convolutions without dilation, padded by a number of zeros")
    back = isinstance(module, nn.ConvTranspose2d)
    bias = module.bias if module.bias is not None else torch.zeros(module.out_channels)
    return [
        {
            "op": "transposed" if back else "conv",
            "weight": store(module.weight),
            "bias": store(bias),
            "stride": list(module.stride),
            "padding": list(module.padding),
            "extra": list(module.output_padding) if back else [0, 0],
            "groups": module.groups,
        }
    ]


@layers_of.register(nn.BatchNorm1d)
@layers_of.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm1d | nn.BatchNorm2d, store: Store) -> list[Layer]:
    if module.running_var is None or module.running_mean is None:
        raise UnsupportedError("the page needs the running statistics of batch normalization")
    scale = (module.running_var + module.eps).rsqrt()
    scale = scale * module.weight if module.weight is not None else scale
    shift = -module.running_mean * scale
    shift = shift + module.bias if module.bias is not None else shift
    return [{"op": "affine", "scale": store(scale), "shift": store(shift)}]


@layers_of.register
def _(module: nn.GroupNorm, store: Store) -> list[Layer]:
    channels = module.num_channels
    weight = module.weight if module.weight is not None else torch.ones(channels)
    bias = module.bias if module.bias is not None else torch.zeros(channels)
    about = {"groups": module.num_groups, "epsilon": module.eps}
    return [{"op": "groupnorm", "weight": store(weight), "bias": store(bias), **about}]


@layers_of.register
def _(module: nn.AvgPool2d, store: Store) -> list[Layer]:
    window = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
    stride = module.stride if isinstance(module.stride, tuple) else (module.stride,) * 2
    if window != stride or module.padding not in (0, (0, 0)):
        raise UnsupportedError("the page averages windows that neither overlap nor are padded")
    return [{"op": "average", "window": list(window), "ceil": module.ceil_mode}]


@layers_of.register
def _(module: nn.Upsample, store: Store) -> list[Layer]:
    if module.mode != "bilinear" or module.align_corners or module.size is None:
        raise UnsupportedError(
            "the page enlarges maps bilinearly to a given size; use nn.Upsample(size, mode='bilinear')"
        )
    size = module.size if isinstance(module.size, tuple) else (module.size,) * 2
    return [{"op": "upsample", "size": list(size)}]


@layers_of.register
def _(module: LabeledDecoder, store: Store) -> list[Layer]:
    return [{"op": "append", "rows": store(module.embedding.weight)}, *layers_of(module.decoder, store)]


@layers_of.register
def _(module: ProjectionEncoder, store: Store) -> list[Layer]:
    head = layers_of(module.head, store)
    return [
        *layers_of(module.body, store),
        {"op": "project", "rows": store(cast(Tensor, module.embedding.weight)), "head": head},
    ]
