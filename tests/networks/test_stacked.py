"""A stacked network computes what its copies compute, each on its examples."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from latentia.errors import ConfigurationError
from latentia.networks import DCGAN, MLP, R3GAN, Conv, Fourier, Network, Residual
from latentia.networks.mlp import FourierFeatures
from latentia.networks.stacked import STACKED_FORMS, stack_networks

SEEDS = 3
IMAGE = (2, 8, 8)


def encoder(network: Network, shape: tuple[int, ...], classes: int = 0) -> Any:
    return lambda: network.encoder(shape, 4, classes)


CASES = {
    "mlp of points": (encoder(MLP(hidden=(8, 6)), (3,)), (3,), 0),
    "mlp of images": (encoder(MLP(hidden=(8,), activation="gelu"), IMAGE), IMAGE, 0),
    "mlp with labels": (encoder(MLP(hidden=(8,)), IMAGE, 5), IMAGE, 5),
    "mlp decoder": (lambda: MLP(hidden=(8,), activation="silu").decoder(3, IMAGE), (3,), 0),
    "mlp decoder with labels": (lambda: MLP(hidden=(8,)).decoder(3, IMAGE, 5), (3,), 5),
    "fourier": (encoder(Fourier(hidden=(8, 8), features=4), (2,)), (2,), 0),
    "convolutions": (encoder(Conv(width=4), IMAGE), IMAGE, 0),
    "convolutions decoder": (lambda: Conv(width=4).decoder(3, IMAGE), (3,), 0),
    "residual": (encoder(Residual(width=4), IMAGE), IMAGE, 0),
    "r3gan": (encoder(R3GAN(width=4), IMAGE), IMAGE, 0),
    "r3gan decoder": (lambda: R3GAN(width=4).decoder(3, IMAGE), (3,), 0),
    "dcgan without norm": (encoder(DCGAN(width=4, norm="none"), IMAGE), IMAGE, 0),
    "dcgan decoder": (lambda: DCGAN(width=4).decoder(3, IMAGE), (3,), 0),
    "a layer without bias": (lambda: nn.Sequential(nn.Linear(3, 4, bias=False)), (3,), 0),
    "nothing": (nn.Sequential, (3,), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_each_example_is_mapped_by_its_copy(name: str):
    build, shape, classes = CASES[name]
    torch.manual_seed(0)
    copies, network = [build() for _ in range(SEEDS)], build()
    alone = copy.deepcopy(copies)
    stack_networks(network, copies)
    x = torch.randn(5, SEEDS, *shape, requires_grad=True)
    labels = [torch.randint(classes, (5, SEEDS))] if classes else []
    got = network(x.flatten(0, 1), *(y.flatten() for y in labels)).unflatten(0, (-1, SEEDS))
    for s, one in enumerate(alone):
        expected = one(x[:, s], *(y[:, s] for y in labels))
        torch.testing.assert_close(got[:, s], expected, rtol=1e-4, atol=1e-5)
        viewed = copies[s](x[:, s], *(y[:, s] for y in labels))
        torch.testing.assert_close(viewed, expected, rtol=0, atol=0)
    parameters = list(network.parameters())
    if parameters:
        weights = torch.randn_like(got)
        found = torch.autograd.grad((got * weights).sum(), parameters)
        for s, one in enumerate(alone):
            cost = (one(x[:, s], *(y[:, s] for y in labels)) * weights[:, s]).sum()
            for mine, own in zip(found, torch.autograd.grad(cost, list(one.parameters())), strict=True):
                torch.testing.assert_close(mine[s], own, rtol=1e-3, atol=1e-4)


def test_names_stay_and_copies_are_views():
    copies, network = [MLP(hidden=(4,)).encoder((3,), 2) for _ in range(SEEDS)], MLP(hidden=(4,)).encoder((3,), 2)
    names = list(network.state_dict())
    stack_networks(network, copies)
    assert list(network.state_dict()) == names
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[1] = 7.0
    assert all((parameter == 7).all() for parameter in copies[1].parameters())
    assert not any((parameter == 7).any() for parameter in copies[0].parameters())
    assert [p.shape for p in copies[0].parameters()] == [p.shape[1:] for p in network.parameters()]


def test_frozen_parameters_stay_frozen():
    def build() -> nn.Module:
        layer = nn.Linear(2, 2)
        layer.weight.requires_grad_(False)
        return layer

    network = build()
    stack_networks(network, [build(), build()])
    assert [p.requires_grad for p in network.parameters()] == [False, True]


def test_joined_batches_keep_every_example_with_its_copy():
    torch.manual_seed(0)
    copies, network = [nn.Linear(2, 1) for _ in range(SEEDS)], nn.Linear(2, 1)
    stack_networks(network, copies)
    first, second = torch.randn(4, SEEDS, 2), torch.randn(4, SEEDS, 2)
    joined = network(torch.cat([first.flatten(0, 1), second.flatten(0, 1)])).chunk(2)[1].unflatten(0, (-1, SEEDS))
    for s, one in enumerate(copies):
        torch.testing.assert_close(joined[:, s], one(second[:, s]))


def test_under_autocast_a_stacked_network_keeps_its_copies_precision():
    torch.manual_seed(0)
    copies, network = [MLP(hidden=(8,)).encoder((3,), 2) for _ in range(SEEDS)], MLP(hidden=(8,)).encoder((3,), 2)
    stack_networks(network, copies)
    x = torch.randn(6, SEEDS, 3)
    with torch.autocast("cpu", torch.bfloat16):
        got = network(x.flatten(0, 1)).unflatten(0, (-1, SEEDS))
        for s, one in enumerate(copies):
            expected = one(x[:, s])
            assert got.dtype == expected.dtype
            torch.testing.assert_close(got[:, s], expected, rtol=2e-2, atol=2e-2)


def test_pointwise_forms_are_their_layers():
    x = torch.randn(2, 4, 6)
    for kind in STACKED_FORMS:
        if issubclass(kind, nn.Linear | nn.Flatten | nn.Unflatten | FourierFeatures):
            continue
        layer = kind()
        assert torch.equal(STACKED_FORMS[kind](layer)(x), layer(x)), kind


def test_one_object_for_all_seeds_is_refused():
    shared = nn.Linear(2, 2)
    with pytest.raises(ConfigurationError, match="custom") as caught:
        stack_networks(nn.Linear(2, 2), [shared, shared])
    assert "one by one" in str(caught.value)


@pytest.mark.parametrize("normalized", [nn.BatchNorm1d(4), nn.Identity()], ids=["batch norm", "spectral norm"])
def test_buffers_are_kept_by_seed(normalized: nn.Module):
    def build() -> nn.Module:
        last = nn.Linear(4, 1) if isinstance(normalized, nn.BatchNorm1d) else spectral_norm(nn.Linear(4, 1))
        return nn.Sequential(nn.Linear(2, 4), copy.deepcopy(normalized), last)

    torch.manual_seed(0)
    copies, network = [build() for _ in range(SEEDS)], build()
    alone = copy.deepcopy(copies)
    stack_networks(network, copies)
    for _ in range(3):
        x = torch.randn(8, SEEDS, 2)
        got = network(x.flatten(0, 1)).unflatten(0, (-1, SEEDS))
        for s, one in enumerate(alone):
            torch.testing.assert_close(got[:, s], one(x[:, s]), rtol=1e-4, atol=1e-5)
    for one, viewed in zip(alone, copies, strict=True):
        for a, b in zip(one.state_dict().values(), viewed.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
