"""Convolutions as computed on a CPU: values, gradients and memory format equal those of torch's layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentia.networks import DCGAN, Conv
from latentia.networks.conditioning import MapsHead
from latentia.networks.strided import FeatureMaps, strided, transposed

SIZES = [((28, 28), (14, 14)), ((9, 14), (4, 7)), ((9, 5), (4, 5)), ((7, 6), (7, 6))]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def plain(layer: nn.Module) -> nn.Module:
    """torch's layer with the same weights."""
    kind = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    settings = {} if kind is nn.Conv2d else {"output_padding": layer.output_padding}
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    other = kind(*shape, bias=layer.bias is not None, dtype=torch.float64, **settings)  # pyright: ignore[reportArgumentType]
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("larger", "smaller"), SIZES, ids=str)
@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_it_equals_the_convolution_of_torch(up: bool, larger, smaller, bias: bool, channels: int):
    layer = (
        transposed((6, channels), smaller, larger, bias=bias)
        if up
        else strided((channels, 6), larger, smaller, bias=bias)
    )
    layer = layer.double()
    x = torch.randn(4, layer.in_channels, *(smaller if up else larger), dtype=torch.float64, requires_grad=True)
    results = []
    for module in (layer, plain(layer)):
        y = module(x)
        first = torch.autograd.grad(y.square().sum(), [x, *module.parameters()], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), list(module.parameters())[:1])
        results.append([y, *first, *second])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_under_autocast_it_is_within_bfloat16_of_float32(up: bool):
    layer = transposed((16, 1), (7, 7), (14, 14)) if up else strided((1, 16), (14, 14), (7, 7))
    x = torch.randn(8, layer.in_channels, *((7, 7) if up else (14, 14)))
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x)
    scale = exact.square().mean().sqrt()
    assert (rough - exact).abs().max() < 2**-6 * scale * 4  # inputs, weights and output each rounded to 8 bits
    assert not torch.equal(rough.float(), exact)


@pytest.mark.parametrize("network", [DCGAN(width=4), Conv(width=4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_are_channels_last(network: DCGAN | Conv, channels: int):
    layouts: list[bool] = []

    def note(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        x = args[0]
        if x.dim() == 4 and x.shape[1] > 1:
            layouts.append(x.is_contiguous(memory_format=torch.channels_last))

    shape = (channels, 16, 16)
    encoder, decoder = network.encoder(shape, 1), network.decoder(3, shape)
    inner = [
        part
        for part in [*encoder.modules(), *decoder.modules()]
        if isinstance(part, nn.BatchNorm2d | nn.ConvTranspose2d | nn.ReLU)
    ]
    for part in inner:
        part.register_forward_pre_hook(note)
    encoder(torch.rand(4, *shape))
    decoder(torch.randn(4, 3))
    assert len(layouts) >= 4
    assert all(layouts)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_head_reads_maps_of_any_memory_format(layout: torch.memory_format):
    head = MapsHead((5, 3, 4), 2).double()
    maps = torch.randn(6, 5, 3, 4, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    y = head(maps)
    torch.testing.assert_close(y, maps.flatten(1) @ head.weight.T + head.bias)
    (slope,) = torch.autograd.grad(y.sum(), maps)
    torch.testing.assert_close(slope, head.weight.sum(0).view(5, 3, 4).expand(6, -1, -1, -1))
    assert slope.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("network", [DCGAN(width=4), Conv(width=4)], ids=str)
def test_a_trace_serves_the_older_onnx_exporter(network: DCGAN | Conv):
    """That exporter has no `fold` of sizes that a trace computes; and the trace must take other batch sizes."""
    modules = (
        (network.encoder((1, 17, 12), 3), torch.rand(2, 1, 17, 12)),
        (network.decoder(4, (1, 17, 12)), torch.randn(2, 4)),
    )
    for module, x in modules:
        traced = torch.jit.trace(module.eval(), x)
        assert not {"aten::col2im", "aten::im2col"} & {node.kind() for node in traced.inlined_graph.nodes()}
        more = torch.cat([x, x + 0.1, x - 0.1])
        torch.testing.assert_close(traced(more), module(more))


def test_feature_maps_are_unflattened_vectors():
    x = torch.randn(2, 24)
    assert torch.equal(FeatureMaps((4, 2, 3))(x), x.view(2, 4, 2, 3))
