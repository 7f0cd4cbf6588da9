"""A user's own modules: tried before use, unchanged by the trial, named in the recipe."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch import Tensor, nn

from latentia.errors import ConfigurationError
from latentia.networks import Custom, Network


class Picky(nn.Module):
    """Takes labels; has parts in different modes, buffers that training changes, and dropout."""

    def __init__(self, outputs: int = 3):
        super().__init__()
        self.frozen, self.moving = nn.BatchNorm1d(64), nn.BatchNorm1d(64)
        self.dropout, self.linear = nn.Dropout(), nn.Linear(64, outputs)
        self.embedding = nn.Embedding(4, outputs)
        self.frozen.eval()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        hidden = self.dropout(self.moving(self.frozen(x.flatten(1))))
        return self.linear(hidden) + self.embedding(labels)


def small_encoder(outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


def small_decoder() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))


def test_the_given_modules_are_returned():
    encoder, decoder = small_encoder(), small_decoder()
    network = Custom(encoder=encoder, decoder=decoder)
    assert network.encoder((1, 8, 8), 4) is encoder
    assert network.decoder(2, (1, 8, 8)) is decoder


def test_the_trial_changes_no_mode_buffer_or_random_state():
    module = Picky()
    modes = [part.training for part in module.modules()]
    buffers = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    assert Custom(encoder=module).encoder((1, 8, 8), 3, classes=4) is module
    assert [part.training for part in module.modules()] == modes
    assert True in modes
    assert False in modes
    assert all(torch.equal(value, buffers[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_trial_uses_the_modules_precision():
    module = small_encoder().double()
    assert Custom(encoder=module).encoder((1, 8, 8), 4) is module


def test_a_wrong_shape_is_refused_with_both_shapes():
    network = Custom(encoder=small_encoder(3), decoder=small_decoder())
    with pytest.raises(
        ConfigurationError, match=r"network.encoder: Sequential maps .*\(2, 1, 8, 8\) to \(2, 3\), and \(2, 4\)"
    ):
        network.encoder((1, 8, 8), 4)
    with pytest.raises(ConfigurationError, match=r"to \(2, 1, 8, 8\), and \(2, 1, 4, 16\) is expected"):
        network.decoder(2, (1, 4, 16))


def test_a_module_that_fails_is_refused_with_its_error():
    module = small_encoder()
    module.eval()
    with pytest.raises(ConfigurationError, match=r"fails on zeros of shape \(2, 1, 9, 9\).*mat1 and mat2") as caught:
        Custom(encoder=module).encoder((1, 9, 9), 4)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not module.training
    with pytest.raises(ConfigurationError, match=r"forward must take \(x, labels\)"):
        Custom(encoder=small_encoder()).encoder((1, 8, 8), 4, classes=10)


def test_a_module_that_returns_no_tensor_is_refused():
    with pytest.raises(ConfigurationError, match="to tuple"):
        Custom(encoder=nn.LSTM(5, 4)).encoder((3, 5), 4)


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(x, x)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


@pytest.mark.parametrize(
    ("module", "cure"),
    [
        (Complex(), "complex64, and reals are expected"),
        (Doubling(), r"not x\.mul_\(2\)"),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2)), r"not x\.mul_\(2\)"),
    ],
)
def test_modules_that_would_give_wrong_numbers_are_refused(module, cure):
    with pytest.raises(ConfigurationError, match=f"network.decoder: {type(module).__name__} .*{cure}"):
        Custom(decoder=module).decoder(2, (2,))


def test_a_missing_module_is_named():
    with pytest.raises(ConfigurationError, match=r"no encoder.*Custom\(encoder=module\)"):
        Custom(decoder=small_decoder()).encoder((1, 8, 8), 4)


def test_recipes_hold_class_names_and_name_the_way_to_load():
    network = Custom(encoder=Picky(), decoder=small_decoder())
    mapping = network.to_mapping()
    assert mapping == {
        "type": "custom",
        "encoder": f"{Picky.__module__}.Picky",
        "decoder": "torch.nn.modules.container.Sequential",
    }
    read = Network.parse(yaml.safe_load(network.to_yaml()))
    assert read.to_mapping() == mapping
    for build in (lambda: read.encoder((1, 8, 8), 3), lambda: read.decoder(2, (1, 8, 8))):
        with pytest.raises(ConfigurationError, match=r"latentia.load\(run, network=Custom\(encoder="):
            build()
    assert Network.parse("custom").to_mapping() == {"type": "custom", "encoder": None, "decoder": None}
