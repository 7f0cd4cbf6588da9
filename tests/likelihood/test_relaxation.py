"""Bounds of decoders over boxes: no sampled point may leave them, and they must tighten as the boxes shrink."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from latentia.errors import UnsupportedError
from latentia.likelihood.proof.affine import AffineBounds
from latentia.likelihood.proof.curves import EXP, SQUARE
from latentia.likelihood.proof.modules import bound_network, register_bounds
from latentia.likelihood.proof.restriction import Restriction
from latentia.networks import DCGAN, MLP, R3GAN, Conv, Residual, ResidualMLP
from latentia.networks.mlp import FourierFeatures

SHAPE = (1, 8, 8)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 12),
        nn.Unflatten(1, (3, 2, 2)),
        nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.1),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 2, 3, padding=1, groups=2),
        nn.AvgPool2d(2),
        nn.Flatten(),
    )


def with_norms() -> nn.Module:
    norms = nn.Sequential(
        nn.Linear(2, 24), nn.GroupNorm(4, 24), nn.SiLU(), nn.Linear(24, 12), nn.LayerNorm(12), nn.Linear(12, 5)
    )
    nn.init.normal_(norms[1].weight)
    nn.init.normal_(norms[4].bias)
    return norms


def with_batch_norm() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3))
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.2, 3.0)
    nn.init.normal_(module[1].weight)
    return module


def shuffled() -> nn.Module:
    maps = nn.Sequential(nn.Unflatten(1, (4, 2, 2)), nn.PixelShuffle(2), nn.PReLU(), nn.ZeroPad2d((1, 0, 2, 1)))
    return nn.Sequential(nn.Linear(2, 16), *maps, nn.Conv2d(1, 2, 3), nn.Flatten())


def perceptron(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), activation, nn.Linear(16, 16), activation, nn.Linear(16, 4))


NETWORKS = {
    **{
        type(activation).__name__: lambda activation=activation: perceptron(activation)
        for activation in (nn.ReLU(), nn.LeakyReLU(0.3), nn.ELU(), nn.SiLU(), nn.GELU(), nn.Tanh(), nn.Sigmoid())
    },
    "PReLU": lambda: perceptron(nn.PReLU(16)),
    "ReLU6": lambda: perceptron(nn.ReLU6()),
    "Hardtanh": lambda: perceptron(nn.Hardtanh(-0.5, 0.3)),
    "LogSigmoid": lambda: perceptron(nn.LogSigmoid()),
    "pixel shuffle": shuffled,
    "ELU of another slope": lambda: perceptron(nn.ELU(2.5)),
    "Softplus": lambda: perceptron(nn.Softplus(2.0)),
    "convolutions": convolutions,
    "normalizations": with_norms,
    "batch normalization": with_batch_norm,
    "Fourier features": lambda: nn.Sequential(FourierFeatures(2, 6, 3.0), nn.Linear(14, 3)),
    "mlp": lambda: MLP(hidden=(20, 20)).decoder(2, SHAPE),
    "residual-mlp": lambda: ResidualMLP(width=16, blocks=2).decoder(2, SHAPE),
    "conv": lambda: Conv(width=4, hidden=8, norm="group").decoder(2, SHAPE),
    "residual": lambda: Residual(width=2).decoder(2, SHAPE),
    "residual relu": lambda: Residual(width=2, norm="none", activation="relu").decoder(2, SHAPE),
    "dcgan": lambda: DCGAN(width=4).decoder(2, SHAPE),
    "r3gan": lambda: R3GAN(width=4).decoder(2, SHAPE),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = NETWORKS[name]().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() < 2 or parameter.std() < 0.1:  # small initial weights test nothing
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def boxes(count: int, radius: float) -> tuple[Tensor, Tensor]:
    centers = torch.round(torch.randn(count, 2, dtype=torch.float64) * 1.5 * 64) / 64
    return centers, torch.full((count, 2), radius, dtype=torch.float64)


def inside(centers: Tensor, radii: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """t and z, (boxes, points, d); corners and points on the edges among them."""
    t = 2 * torch.rand(len(centers), points, 2, dtype=torch.float64) - 1
    t[:, : points // 2] = (1.5 * t[:, : points // 2]).clamp(-1, 1)
    return t, centers.unsqueeze(1) + radii.unsqueeze(1) * t


def excess(bounds: AffineBounds, module: nn.Module, centers: Tensor, radii: Tensor) -> float:
    """By how much f leaves its bounds at most, relative to the size of f."""
    t, z = inside(centers, radii, 200)
    with torch.no_grad():
        f = module(z.flatten(0, 1)).flatten(1).unflatten(0, t.shape[:2])
    line = bounds.center.flatten(1).unsqueeze(1) + t @ bounds.slopes.flatten(2)
    return float(((f - line).abs() - bounds.error.flatten(1).unsqueeze(1)).max() / (1 + f.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_point_leaves_the_bounds(name):
    module = network(name)
    for radius in (4.0, 0.5, 2.0**-6, 2.0**-20):
        centers, radii = boxes(10, radius)
        bounds = bound_network(module, AffineBounds.of_boxes(centers, radii))
        assert bool(torch.isfinite(bounds.error).all())
        assert excess(bounds, module, centers, radii) <= 1e-12  # the modules' own rounding
        assert excess(AffineBounds(bounds.coefficients, 0 * bounds.error), module, centers, radii) > 0


SMOOTH = ["SiLU", "GELU", "Tanh", "Sigmoid", "ELU", "normalizations", "Fourier features", "residual-mlp", "residual"]


@pytest.mark.parametrize("name", SMOOTH)
def test_errors_of_smooth_networks_are_of_second_order(name):
    module, (centers, _) = network(name), boxes(20, 1.0)
    radii = [torch.full((20, 2), 2.0**-k, dtype=torch.float64) for k in (12, 13, 14)]
    errors = [bound_network(module, AffineBounds.of_boxes(centers, r)).error.mean().log2() for r in radii]
    assert float(errors[0] - errors[1]) == pytest.approx(2, abs=0.15)
    assert float(errors[1] - errors[2]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "mlp", "dcgan"])
def test_rectifiers_are_exact_on_small_boxes(name):
    module, (centers, _) = network(name), boxes(50, 1.0)
    bounds = bound_network(module, AffineBounds.of_boxes(centers, torch.full_like(centers, 2.0**-30)))
    assert float(bounds.error.flatten(1).amax(1).median()) < 1e-11


PIECEWISE = [
    "ReLU",
    "LeakyReLU",
    "PReLU",
    "Hardtanh",
    "pixel shuffle",
    "convolutions",
    "mlp",
    "residual relu",
    "dcgan",
    "r3gan",
]


@pytest.mark.parametrize("name", PIECEWISE)
def test_restricted_networks_bound_smaller_boxes(name):
    """Down a chain of boxes the restricted network stays sound, shrinks, and is never looser than the whole."""
    module = network(name)
    whole = Restriction.of_network(module, torch.zeros(2), torch.ones(2), limit=3000)
    center, chain, sizes = torch.tensor([[0.375, -0.625]], dtype=torch.float64), whole, []
    for radius in (2.0, 0.5, 0.125, 2.0**-6, 2.0**-10):
        radii = torch.full((1, 2), radius, dtype=torch.float64)
        chain = chain.restricted(AffineBounds.of_boxes(center, radii))
        steps = torch.cartesian_prod(*[torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64)] * 2)
        centers, small = center + radius * steps, (radii / 4).expand(16, 2)
        variables = chain.variables(AffineBounds.of_boxes(centers, small))
        found = AffineBounds(
            torch.cat([chain.outputs(variables.center)[:, None], chain.linear(variables.slopes)], 1),
            chain.absolute(variables.error) + chain.error,
        )
        assert excess(found, module, centers, small) <= 1e-12
        direct = bound_network(module, AffineBounds.of_boxes(centers, small)).error.flatten(1)
        assert float(found.error.mean()) <= float(direct.mean()) * 1.001 + 1e-9
        sizes.append(variables.error.shape[1])
        center = center + radius / 8
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_rounding_is_within_the_bounds():
    """A float64 network is compared with itself in exact rational arithmetic, on boxes of no extent."""
    from fractions import Fraction

    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(2, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 3)).double()
    centers = torch.randn(20, 2, dtype=torch.float64) * 1e3
    bounds = bound_network(module, AffineBounds.of_boxes(centers, torch.zeros_like(centers)))
    for center, value, error in zip(centers, bounds.center, bounds.error, strict=True):
        h = [Fraction(float(x)) for x in center]
        for layer in module:
            if isinstance(layer, nn.ReLU):
                h = [max(x, Fraction(0)) for x in h]
                continue
            rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            h = [sum((Fraction(w) * x for w, x in zip(row, h, strict=True)), Fraction(b)) for row, b in rows]
        gaps = [abs(Fraction(float(v)) - x) for v, x in zip(value, h, strict=True)]
        assert all(gap <= Fraction(float(e)) for gap, e in zip(gaps, error, strict=True))
        assert float(error.max()) < 1e-8


def test_overflow_is_no_bound():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).double()
    nn.init.constant_(module[0].weight, 1e200)
    nn.init.constant_(module[1].weight, 1e200)
    bounds = bound_network(module, AffineBounds.of_boxes(*boxes(3, 1.0)))
    assert bool((bounds.error == math.inf).all())


class Needle(nn.Module):
    """exp(−|z|²): a part of a user's own."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(-z.square().sum(-1, keepdim=True))


@register_bounds(Needle)
def _needle(module: Needle, bounds: AffineBounds) -> AffineBounds:
    minus = -torch.ones(1, bounds.error.shape[1], dtype=torch.float64)
    square = bounds.through(SQUARE)
    return square.linear(nn.functional.linear, minus, None, minus.shape[1]).through(EXP)


def test_a_users_part_with_its_rule_is_bounded():
    for radius in (2.0, 0.125):
        centers, radii = boxes(20, radius)
        bounds = bound_network(Needle(), AffineBounds.of_boxes(centers, radii))
        assert excess(bounds, Needle(), centers, radii) <= 1e-12


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Halved(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input.bfloat16(), self.weight.bfloat16()).float()


def hooked() -> nn.Module:
    module = nn.Linear(2, 2)
    module.register_forward_hook(lambda *values: values[-1] + 1)
    return module


def replaced() -> nn.Module:
    module = nn.Linear(2, 2)
    module.forward = lambda x: 3 * x
    return module


REFUSED = {
    "an overridden forward": lambda: Doubled(2, 2),
    "a cast inside": lambda: Halved(2, 2),
    "a hook": hooked,
    "a forward of the instance": replaced,
    "a parametrization": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)),
    "an unknown module": lambda: nn.Softmax(-1),
    "half precision": lambda: nn.Linear(2, 2).bfloat16(),
    "batch statistics": lambda: nn.BatchNorm1d(2),
    "dropout": lambda: nn.Dropout(),
    "circular padding": lambda: nn.Conv2d(1, 1, 3, padding_mode="circular", padding=1),
    "an approximate gelu": lambda: nn.GELU(approximate="tanh"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused(name):
    with pytest.raises(UnsupportedError):
        bound_network(nn.Sequential(REFUSED[name]()), AffineBounds.of_boxes(*boxes(2, 1.0)))
