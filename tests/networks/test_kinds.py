"""Properties of single kinds of networks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from torch import nn

from latentia.errors import ConfigurationError
from latentia.networks import DCGAN, MLP, R3GAN, Conv, Custom, Network, Residual, ResidualMLP
from latentia.networks.layers import ACTIVATIONS, Center, PreciseLinear, activation, ladder, scaled
from latentia.networks.strided import strided, transposed


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(21)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_is_one_over_the_root_mean_square(name):
    module = ACTIVATIONS[name][0]()

    def integrand(u: float) -> float:
        return module(torch.tensor(u, dtype=torch.float64)).item() ** 2 * math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    mean_square = sum(quad(integrand, *ends)[0] for ends in [(-12, 0), (0, 12)])
    assert ACTIVATIONS[name][1] == pytest.approx(mean_square**-0.5, rel=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(300, 100),
        nn.Conv2d(16, 40, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(32, 64, 3, padding=1, groups=4, padding_mode="circular"),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.ConvTranspose2d(64, 32, (3, 4), (1, 2), 1),
    ],
    ids=str,
)
def test_scaled_layers_keep_the_variance(layer):
    """Output variance is gain² times the inputs' mean square; its spread over draws gives the tolerance."""
    outputs = []
    for _ in range(40):
        scaled(layer, 1.5)
        shape = (64, 300) if isinstance(layer, nn.Linear) else (8, layer.in_channels, 12, 12)
        with torch.no_grad():
            y = layer(torch.randn(shape))
        y = y if y.dim() == 2 else y[:, :, 3:-3, 3:-3]  # away from the padded edge
        outputs.append(y.square().mean())
    values = torch.stack(outputs)
    assert abs(values.mean() - 1.5**2) < 5 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("size", [(n, m) for n in range(8, 129, 5) for m in (8, 13, 128)])
def test_ladders_halve_until_below_eight_and_convolutions_follow(size):
    for round_up in (False, True):
        sizes = ladder(*size, round_up=round_up)
        assert sizes[0] == size
        assert all(4 <= side < 8 for side in sizes[-1])
    sizes = ladder(*size)
    for larger, smaller in pairwise(sizes):
        x = torch.zeros(1, 1, *larger)
        y = strided((1, 1), larger, smaller)(x)
        assert y.shape[2:] == smaller
        assert transposed((1, 1), smaller, larger)(y).shape[2:] == larger


def kinds(module: nn.Module) -> list[type]:
    return [type(part) for part in module.modules() if not isinstance(part, nn.Sequential) and part is not module]


def test_mlp_is_a_sequence_of_its_layers():
    network = MLP(hidden=(400,))
    encoder, decoder = network.encoder((1, 28, 28), 40), network.decoder(20, (1, 28, 28))
    assert type(encoder) is type(decoder) is nn.Sequential
    assert [type(layer) for layer in encoder.children()] == [nn.Flatten, nn.Linear, nn.ReLU, PreciseLinear]
    assert [type(layer) for layer in decoder.children()] == [PreciseLinear, nn.ReLU, nn.Linear, nn.Unflatten]
    assert [type(layer) for layer in network.encoder((2,), 1).children()] == [nn.Linear, nn.ReLU, PreciseLinear]


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_rectifiers_in_place_change_no_value(name, spectral):
    """Values, slopes in x and in the weights, and the gradient of a penalty on the slope in x."""
    network = MLP(hidden=(7, 5), activation=name, spectral_norm=spectral)
    encoder = network.encoder((1, 2, 3), 2).double().eval()
    rectifiers = [part for part in encoder.modules() if isinstance(part, nn.ReLU | nn.LeakyReLU)]
    assert len(rectifiers) == (2 if "relu" in name else 0)
    assert all(rectifier.inplace for rectifier in rectifiers)
    x, weights, results = torch.rand(4, 1, 2, 3).double().requires_grad_(), list(encoder.parameters()), []
    for in_place in (True, False):
        for rectifier in rectifiers:
            rectifier.inplace = in_place
        value = encoder(x)
        (slope,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
        results.append([value, slope, *torch.autograd.grad(value.sum() + slope.square().sum(), weights)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert bool(results[0][1].any())


def test_activations_keep_their_input_by_default():
    for name in ACTIVATIONS:
        x = torch.randn(5)
        before = x.clone()
        activation(name)(x)
        assert torch.equal(x, before)


def test_mlp_takes_images_as_they_are_and_reverses_for_the_decoder():
    network = MLP(hidden=(7, 5), activation="silu")
    encoder, decoder = network.encoder((1, 2, 3), 4), network.decoder(4, (1, 2, 3))
    sizes = [[tuple(p.shape) for p in module.parameters() if p.dim() == 2] for module in (encoder, decoder)]
    assert sizes == [[(7, 6), (5, 7), (4, 5)], [(5, 4), (7, 5), (6, 7)]]
    x = torch.rand(3, 1, 2, 3)
    first, second, third = (layer for layer in encoder.children() if isinstance(layer, nn.Linear))
    silu = nn.functional.silu
    torch.testing.assert_close(encoder(x), third(silu(second(silu(first(x.flatten(1)))))))


@pytest.mark.parametrize("network", [Conv(width=4), Residual(width=4), DCGAN(width=4), R3GAN(width=4)], ids=str)
def test_image_networks_center_their_inputs(network):
    encoder = network.encoder((1, 8, 8), 1)
    assert type(next(encoder.children())) is Center
    assert Center()(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    "network", [MLP(hidden=(20, 30), spectral_norm=True), DCGAN(width=6, norm="spectral")], ids=str
)
@pytest.mark.parametrize("classes", [0, 4])
def test_spectral_normalization_brings_every_weight_to_norm_one(network, classes):
    module = network.encoder((1, 12, 12), 1, classes)
    arguments = (torch.rand(3, 1, 12, 12), *([torch.tensor([0, 1, 2])] if classes else []))
    for _ in range(100):  # power iteration
        module(*arguments)
    module.eval()
    weights = [part.weight for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d | nn.Embedding)]
    assert len(weights) == 3 + bool(classes)
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    assert not any("parametrizations" in key for key in network.decoder(4, (1, 12, 12)).state_dict())
    assert network.bounds_slope
    assert Custom(encoder=module).bounds_slope


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("batch", nn.BatchNorm2d), ("none", None), ("spectral", None)],
    ids=["batch", "none", "spectral"],
)
def test_dcgan_discriminator_normalizes_after_all_but_the_first_convolution(norm, expected):
    module = DCGAN(width=4, norm=norm).encoder((1, 32, 32), 1)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [part.num_features for part in norms] == ([8, 16] if expected else [])


def test_dcgan_initial_weights():
    """N(0, 0.02²) everywhere, N(1, 0.02²) for batch normalization's scales; five standard errors."""
    for module in (DCGAN().encoder((1, 32, 32), 1), DCGAN().decoder(64, (1, 32, 32))):
        biases = {name: parameter for name, parameter in module.named_parameters() if name.endswith("bias")}
        weights = {name: parameter for name, parameter in module.named_parameters() if name not in biases}
        assert not any(parameter.any() for parameter in biases.values())
        for name, parameter in weights.items():
            n, mean = parameter.numel(), 1.0 if parameter.dim() == 1 else 0.0
            assert abs(parameter.mean().item() - mean) < 5 * 0.02 / math.sqrt(n), name
            assert abs(parameter.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * n), name


@pytest.mark.parametrize("network", [MLP(), DCGAN(), R3GAN(), Conv(), Custom(encoder=nn.Linear(2, 1))], ids=str)
def test_networks_without_spectral_normalization_do_not_bound_the_slope(network):
    assert not network.bounds_slope


def test_batch_normalization_refuses_a_batch_of_one_in_training_only():
    discriminator, generator = DCGAN(width=4).encoder((1, 16, 16), 1), DCGAN(width=4).decoder(3, (1, 16, 16))
    for module, one in ((discriminator, torch.rand(1, 1, 16, 16)), (generator, torch.randn(1, 3))):
        with pytest.raises(ConfigurationError, match=r"two or more.*network=r3gan"):
            module(one)
        assert module.eval()(one).shape[0] == 1
    for norm in ("none", "spectral"):
        assert DCGAN(width=4, norm=norm).encoder((1, 16, 16), 1)(torch.rand(1, 1, 16, 16)).shape == (1, 1)


def test_r3gan_starts_as_identities_without_normalization():
    shallow = R3GAN(width=8, blocks=1)
    module = shallow.decoder(3, (1, 28, 28))
    assert not any("Norm" in kind.__name__ for kind in kinds(module))
    z = torch.randn(5, 3)
    # With every branch zero and biases zero, the generator is linear at the start: odd, as a leaky rectifier is not.
    torch.testing.assert_close(module(-z), -module(z))


def test_r3gan_groups_divide_odd_widths():
    module = R3GAN(width=5, expansion=2, group_width=4).encoder((1, 8, 8), 1)
    grouped = [part.groups for part in module.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    assert grouped == [10 // 2, 20 // 4]


def test_unknown_settings_name_the_nearest_known_one():
    with pytest.raises(ConfigurationError, match="Did you mean width"):
        Network.parse({"type": "conv", "widht": 3})
    with pytest.raises(ConfigurationError, match="activation"):
        Network.parse({"type": "mlp", "activation": "sine"})
    with pytest.raises(ConfigurationError, match="hidden"):
        Network.parse({"type": "mlp", "hidden": [400, 0]})


@pytest.mark.parametrize("network", [MLP(hidden=(32,)), ResidualMLP(width=32)], ids=str)
def test_half_precision_keeps_the_digits_of_z(network: Network):
    """2.000 and 2.001, which bfloat16 cannot distinguish, are decoded differently; means are in float32."""
    encoder, decoder = network.encoder((1, 8, 8), 4), network.decoder(2, (1, 8, 8))
    z = torch.tensor([[2.0, -2.0], [2.001, -2.0]])
    assert torch.equal(*z.bfloat16())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert next(iter(decoder.children()))(z).diff(dim=0).abs().max() > 0
        assert encoder(torch.rand(2, 1, 8, 8)).dtype == torch.float32
    with torch.no_grad():
        assert next(iter(decoder.double().children()))(z.double()).dtype == torch.float64
