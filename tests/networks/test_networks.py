"""Properties of every network, run over one table of (network, shape)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from latentia.errors import ConfigurationError
from latentia.networks import DCGAN, MLP, R3GAN, Conv, Network, Residual, ResidualMLP
from latentia.networks.network import require_memory
from latentia.networks.products import SkipZeros

# Small instances of every kind and option; each new entry inherits every test below.
NETWORKS: dict[str, Network] = {
    "mlp": MLP(hidden=(16, 12)),
    "mlp-tanh-spectral": MLP(hidden=(16, 12), activation="tanh", spectral_norm=True),
    "mlp-affine": MLP(hidden=()),
    "residual-mlp": ResidualMLP(width=12, blocks=2),
    "conv": Conv(width=4, hidden=16),
    "conv-group-gelu": Conv(width=4, hidden=16, norm="group", activation="gelu"),
    "residual": Residual(width=4),
    "residual-bare-deep": Residual(width=4, blocks=3, norm="none", activation="leaky-relu"),
    "dcgan": DCGAN(width=4),
    "dcgan-none": DCGAN(width=4, norm="none"),
    "dcgan-spectral": DCGAN(width=4, norm="spectral"),
    "r3gan": R3GAN(width=4),
    "r3gan-deep": R3GAN(width=4, blocks=3, expansion=2, group_width=4),
}
IMAGE_NETWORKS = {name: network for name, network in NETWORKS.items() if not isinstance(network, MLP | ResidualMLP)}
SHAPES = [(1, 8, 8), (3, 9, 13), (1, 28, 28), (5, 33, 40), (2, 8, 64)]
CLASSES = 3

every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
every_image_network = pytest.mark.parametrize("network", IMAGE_NETWORKS.values(), ids=IMAGE_NETWORKS.keys())
with_and_without_classes = pytest.mark.parametrize("classes", [0, CLASSES], ids=["plain", "labeled"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20)


def labels_for(classes: int, batch: int) -> tuple[Tensor, ...]:
    return (torch.arange(batch) % classes,) if classes else ()


def both(network: Network, shape: tuple[int, ...], classes: int = 0, batch: int = 4, dtype: torch.dtype | None = None):
    """Yield (module, arguments) for the encoder and for the decoder."""
    labels = labels_for(classes, batch)
    yield network.encoder(shape, 5, classes).to(dtype), (torch.rand(batch, *shape, dtype=dtype), *labels)
    yield network.decoder(6, shape, classes).to(dtype), (torch.randn(batch, 6, dtype=dtype), *labels)


def shake(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """Move every parameter off its initial value, so that branches which start at zero take part."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn_like(parameter)
    return module


@every_network
@with_and_without_classes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(network: Network, shape: tuple[int, ...], classes: int):
    (encoder, x), (decoder, z) = both(network, shape, classes)
    assert encoder(*x).shape == (4, 5)
    assert decoder(*z).shape == (4, *shape)


@every_image_network
@settings(max_examples=12, deadline=None, derandomize=True)
@given(height=st.integers(8, 128), width=st.integers(8, 128), channels=st.integers(1, 3))
def test_any_size_from_8_to_128_returns_to_itself(network: Network, height: int, width: int, channels: int):
    shape = (channels, height, width)
    (encoder, x), (decoder, z) = both(network, shape, batch=2)
    with torch.no_grad():
        assert encoder(*x).shape == (2, 5)
        assert decoder(*z).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(2,), (7,)], ids=str)
@with_and_without_classes
def test_mlp_takes_vectors(shape: tuple[int, ...], classes: int):
    for (module, arguments), expected in zip(
        both(MLP(hidden=(8,)), shape, classes), [(4, 5), (4, *shape)], strict=True
    ):
        assert module(*arguments).shape == expected


@every_network
@with_and_without_classes
def test_gradient_reaches_every_parameter_after_one_step(network: Network, classes: int):
    """After one step, because a zero-initialized branch blocks the gradient of its inner layers in the first."""
    for module, arguments in both(network, (3, 17, 12), classes, batch=8):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            output = module(*arguments)
            (output - torch.randn_like(output)).square().mean().backward()
            optimizer.step()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@every_network
def test_gradient_reaches_every_pixel(network: Network):
    """Rounding of odd sizes must not drop the last row or column."""
    module = shake(network.encoder((1, 27, 9), 3).double())
    x = torch.rand(6, 1, 27, 9, dtype=torch.float64, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(0) > 0).all()


@every_network
def test_every_output_pixel_depends_on_the_code(network: Network):
    module = shake(network.decoder(4, (2, 27, 9)).double())
    images = module(torch.randn(6, 4, dtype=torch.float64))
    assert (images.std(0) > 0).all()


@every_network
@with_and_without_classes
def test_same_seed_same_module(network: Network, classes: int):
    def build(seed: int) -> list[dict[str, Tensor]]:
        torch.manual_seed(seed)
        return [module.state_dict() for module, _ in both(network, (1, 10, 9), classes)]

    first, second, other = build(1), build(1), build(2)
    for a, b, c in zip(first, second, other, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert any(not torch.equal(a[key], c[key]) for key in a)


@every_network
@with_and_without_classes
def test_outputs_depend_on_labels(network: Network, classes: int):
    for module, (x, *labels) in both(network, (1, 9, 8), classes):
        module.eval()
        if not classes:
            with pytest.raises(TypeError):
                module(x, torch.zeros(4, dtype=torch.int64))
            continue
        shifted = module(x, (labels[0] + 1) % classes) - module(x, *labels)
        assert (shifted.abs().flatten(1).amax(1) > 1e-3 * module(x, *labels).std()).all()


@pytest.mark.parametrize("network", [network for name, network in NETWORKS.items() if "spectral" not in name], ids=str)
def test_projection_adds_an_inner_product_linear_in_the_embedding(network: Network):
    """Doubling the embedding doubles what labels add to the plain head: f(x, y) = ψ(φ) + V_y φ."""
    module = network.encoder((1, 9, 8), 2, CLASSES).double().eval()
    x, labels = torch.rand(5, 1, 9, 8, dtype=torch.float64), torch.arange(5) % CLASSES
    outputs = []
    for factor in (0.0, 1.0, 2.0):
        scaled = copy.deepcopy(module)
        with torch.no_grad():
            scaled.get_submodule("embedding").get_parameter("weight").mul_(factor)
            outputs.append(scaled(x, labels))
    plain, once, twice = outputs
    torch.testing.assert_close(twice - plain, 2 * (once - plain))


@every_network
@with_and_without_classes
def test_double_backward_matches_finite_differences(network: Network, classes: int):
    """A gradient penalty differentiates the input gradient: gradgradcheck in float64, in x and in the parameters."""
    module = shake(network.encoder((1, 9, 8), 1, classes).double())
    module.eval()  # spectral normalization updates its vectors at every call in training
    x = torch.rand(2, 1, 9, 8, dtype=torch.float64, requires_grad=True)
    labels = labels_for(classes, 2)
    assert torch.autograd.gradgradcheck(lambda x: module(x, *labels), (x,), fast_mode=True)

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(module(x, *labels).sum(), x, create_graph=True)
        return slope.square().sum()

    # A derivative of the penalty along one direction of all parameters together.
    parameters = list(module.parameters())
    direction = [torch.randn_like(p) for p in parameters]
    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    along = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    step, values = 1e-7, []  # short, so that hardly any rectifier changes sign
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
        values.append(penalty().detach())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * step * d
    # Central differences err by rounding, about 1e-16/step of the value, and by step² times a third derivative.
    torch.testing.assert_close(torch.as_tensor(along), (values[0] - values[1]) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("network", [DCGAN(width=4), MLP(hidden=(8,), spectral_norm=True)], ids=["batch", "spectral"])
def test_gradient_penalty_trains_in_training_mode(network: Network):
    module = network.encoder((1, 16, 16), 1)
    x = torch.rand(4, 1, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters() if p.dim() > 1)


@every_image_network
@with_and_without_classes
def test_channels_last_equals_contiguous(network: Network, classes: int):
    """Sums in another order differ by rounding only; float32 has separate kernels for this memory format."""
    for module, arguments in both(network, (3, 17, 12), classes, dtype=torch.float64):
        shake(module).eval()
        expected = module(*arguments)
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        x, *labels = arguments
        x = x.to(memory_format=torch.channels_last) if x.dim() == 4 else x
        torch.testing.assert_close(module(x, *labels), expected, rtol=1e-10, atol=1e-10)
        single = module.float()(x.float(), *labels)
        assert (single - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())
        # The decoder returns the memory format of its weights.
        assert x.dim() != 2 or single.is_contiguous(memory_format=torch.channels_last)


@every_network
@with_and_without_classes
def test_weights_survive_safetensors(network: Network, classes: int):
    originals, twins = (list(both(network, (1, 9, 8), classes)) for _ in range(2))
    for (module, arguments), (twin, _) in zip(originals, twins, strict=True):
        module.eval()
        twin.eval()
        assert not torch.equal(twin(*arguments), module(*arguments))
        twin.load_state_dict(load(save(module.state_dict())))
        assert torch.equal(twin(*arguments), module(*arguments))


def smooth_images(batch: int, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    return nn.functional.interpolate(torch.rand(batch, channels, 4, 4), (height, width), mode="bilinear")


@pytest.mark.parametrize("side", [8, 28, 64])
@pytest.mark.parametrize(
    "network",
    [
        Conv(width=8),
        Residual(width=8),
        Residual(width=8, norm="none"),
        Residual(width=8, blocks=8, norm="none"),
        R3GAN(width=8),
        R3GAN(width=8, blocks=8),
        ResidualMLP(width=64),
        ResidualMLP(width=64, blocks=16),
    ],
    ids=str,
)
def test_initial_scale_does_not_depend_on_the_depth(network: Network, side: int):
    """Logits that neither saturate nor vanish: root mean square between 0.05 and 3 at the start."""
    encoder, decoder = network.encoder((1, side, side), 16), network.decoder(16, (1, side, side))
    with torch.no_grad():
        for output in (encoder(smooth_images(32, (1, side, side))), decoder(torch.randn(32, 16))):
            assert 0.05 < output.square().mean().sqrt() < 3


def test_r3gan_steps_do_not_grow_with_depth():
    """Fixup: a step of the branches changes the output by an amount that does not depend on the depth.

    Without the factor L^(−1/4), sixteen times the blocks change it by sixteen times as much.
    """

    def moved(blocks: int, seed: int) -> float:
        torch.manual_seed(seed)
        module = R3GAN(width=8, blocks=blocks).encoder((1, 16, 16), 1)
        x = smooth_images(16, (1, 16, 16))
        branches = [p for name, p in module.named_parameters() if "branch" in name]
        optimizer = torch.optim.SGD(branches, lr=1e-3)
        before = module(x)
        before.mean().backward()
        optimizer.step()
        return (module(x) - before).detach().abs().mean().item()

    shallow, deep = (sum(moved(blocks, seed) for seed in range(5)) for blocks in (1, 16))
    assert 0.5 < deep / shallow < 2


@every_network
def test_network_from_its_mapping_is_equal(network: Network):
    assert Network.parse(network.to_mapping()) == network


@every_image_network
@pytest.mark.parametrize("shape", [(2,), (28, 28), (1, 7, 28), (28, 28, 1), (0, 8, 8)], ids=str)
def test_shapes_that_are_not_images_are_refused_with_the_cure(network: Network, shape: tuple[int, ...]):
    for build in (lambda: network.encoder(shape, 2), lambda: network.decoder(2, shape)):
        with pytest.raises(ConfigurationError, match="network=mlp"):
            build()


@every_network
def test_counts_below_one_are_refused(network: Network):
    with pytest.raises(ConfigurationError, match=r"outputs: must be at least 1 \(given: 0\)"):
        network.encoder((1, 8, 8), 0)
    with pytest.raises(ConfigurationError, match=r"inputs: must be at least 1 \(given: 0\)"):
        network.decoder(0, (1, 8, 8))
    with pytest.raises(ConfigurationError, match="classes: must be"):
        network.decoder(2, (1, 8, 8), -1)


def test_the_family_lists_every_network():
    assert {"mlp", "conv", "residual", "dcgan", "r3gan", "custom"} <= set(Network.members())


@every_network
def test_a_network_that_does_not_fit_into_memory_is_refused_before_it_is_built(network: Network):
    cpu, state = torch.device("cpu"), torch.get_rng_state()
    require_memory(lambda: network.decoder(6, (1, 16, 16)), cpu, 5, "latent")
    with pytest.raises(ConfigurationError, match="smaller latent"):
        require_memory(lambda: network.decoder(10**13, (1, 16, 16)), cpu, 5, "latent")
    assert torch.equal(torch.get_rng_state(), state)


def test_leaving_out_inputs_that_are_zero_keeps_the_result():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).double()
    near = torch.tensor([0.7, -0.4]) + 0.01 * torch.randn(300, 2).double()
    with torch.no_grad():
        assert (network[:2](near) == 0).all(0).sum() > 13  # so many that they are left out
        plain = network(near)
        with SkipZeros():
            torch.testing.assert_close(network(near), plain, rtol=0, atol=1e-14)
            network[2].weight.fill_(torch.inf)
            assert network(near).isnan().all()  # 0 · ∞, as without
