"""Random hard models whose log p(x) is known by another route than latentia's: one short function for each class."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.special import betaln, gammaln, i0e, logsumexp, voigt_profile
from torch import Tensor, nn
from torch import distributions as td

from attack_case import (
    DOUBLE,
    VAE,
    Array,
    Bernoulli,
    Case,
    Conditional,
    Diagonal,
    Finite,
    FlowPrior,
    Gaussian,
    LatentModel,
    Mixture,
    MixturePrior,
    VampPrior,
    attack,
    gaussian,
    likelihood,
    log_uniform,
    pick,
    rotation,
    short,
    standard,
    tensor,
)
from attack_oracles import (
    around,
    log_integral,
    log_multivariate_normal,
    log_normal,
    log_normal_between,
    log_piecewise,
    relu_pieces,
)

ROUNDING = 1e-15  # of a float64 oracle's sum, times its size
WIDE = np.linspace(-40, 40, 321)


def rounding(value: float) -> float:
    return 1e-12 + 64 * ROUNDING * abs(value)


# --- 1. linear decoders ---------------------------------------------------------------------------------------------


@attack("linear")
def linear(rng: np.random.Generator) -> Case:
    """x = W z + b + noise in one to three dimensions, the prior's axes scaled and shifted; images near, far, off."""
    d = int(rng.integers(1, 4))
    pixels = d + int(rng.integers(0, 5))
    noise = log_uniform(rng, 1e-5, 10) if d < 3 else log_uniform(rng, 1e-2, 10)
    scale = pick(rng, np.ones(d), np.ones(d), log_uniform(rng, 1e-2, 1e2, d))
    center = pick(rng, np.zeros(d), rng.normal(size=d) * 10 * scale)
    weight = np.linalg.qr(rng.normal(size=(pixels, d)))[0] * log_uniform(rng, 0.3, 3, d) / scale
    z = center + scale * rng.normal(size=(3, d)) * np.array([1, 1, pick(rng, 1, 3, 10)])[:, None]
    x = z @ weight.T + noise * rng.normal(size=(3, pixels))
    values = [log_multivariate_normal(row, weight @ center, [weight * scale], noise) for row in x]
    w = tensor(weight)
    prior = td.Independent(td.Normal(tensor(center), tensor(scale)), 1)
    tolerance = pick(rng, 0.1, 0.01, 1e-3, 1e-6)
    # The decoder's own rounding: |x| 1e-16 against the noise.
    errors = [rounding(v) + 1e-15 * float(np.abs(row).max()) / noise * 10 for v, row in zip(values, x, strict=True)]
    model = LatentModel(gaussian(lambda z: z @ w.T, noise), prior)
    return likelihood(model, tensor(x), values, errors, tolerance=tolerance, about=f"d={d} noise={noise:.1e}")


@attack("narrow-and-far")
def narrow_and_far(rng: np.random.Generator) -> Case:
    """x = z + noise of 1e-4 to 1e-2 at many prior deviations; sometimes with ordinary images in the same batch."""
    d = int(rng.integers(1, 3))
    noise = log_uniform(rng, 1e-4, 1e-2)
    z = rng.normal(size=(2, d))
    z[0] *= rng.uniform(8, 25) / np.linalg.norm(z[0])
    x = z + noise * rng.normal(size=(2, d))
    values = [float(log_normal(row, 0.0, math.hypot(1, noise)).sum()) for row in x]
    model = LatentModel(gaussian(lambda z: z, noise), standard(d))
    return likelihood(model, tensor(x), values, [rounding(v) for v in values], about=f"d={d} noise={noise:.1e}")


@attack("batch")
def batch(rng: np.random.Generator) -> Case:
    """One image far off the manifold among ordinary ones, whose certificates it must not touch."""
    d = int(rng.integers(1, 3))
    noise = log_uniform(rng, 1e-3, 1e-1)
    weight = np.linalg.qr(rng.normal(size=(6, d)))[0]
    x = rng.normal(size=(4, d)) @ weight.T + noise * rng.normal(size=(4, 6))
    x[0] += log_uniform(rng, 1, 1e3) * rng.normal(size=6)
    values = [log_multivariate_normal(row, np.zeros(6), [weight], noise) for row in x]
    w = tensor(weight)
    errors = [rounding(v) + 1e-11 for v in values]
    case = likelihood(LatentModel(gaussian(lambda z: z @ w.T, noise), standard(d)), tensor(x), values, errors)

    def ask(seconds: float) -> list[Any]:
        answers = case.ask(seconds)
        answers[0] = type(answers[0])(**{**vars(answers[0]), "wanted": math.inf})  # this one may be given up
        return answers if answers[0].value is not None else answers[1:]

    return Case(ask, True, f"d={d} noise={noise:.1e}")


@attack("correlated")
def correlated(rng: np.random.Generator) -> Case:
    """A normal prior of correlation up to 0.999 (as covariance, precision or factor), x = W z + noise."""
    d = int(rng.integers(2, 4))
    rho = pick(rng, -1, 1) * (1 - log_uniform(rng, 1e-3, 0.3))
    covariance = np.eye(d)
    covariance[0, 1] = covariance[1, 0] = rho
    covariance *= np.outer(*[log_uniform(rng, 0.3, 3, d)] * 2)
    noise = log_uniform(rng, 0.02, 1)
    factor = np.linalg.cholesky(covariance)
    x = rng.normal(size=(2, d)) @ factor.T + noise * rng.normal(size=(2, d))
    values = [log_multivariate_normal(row, np.zeros(d), [factor], noise) for row in x]
    prior = td.MultivariateNormal(torch.zeros(d, dtype=DOUBLE), scale_tril=tensor(factor))
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    return likelihood(model, tensor(x), values, 1e-10, about=f"d={d} rho={rho:.4f} noise={noise:.2f}")


# --- 2. mixtures ----------------------------------------------------------------------------------------------------


def _mixture_of_all_scales(rng: np.random.Generator, d: int) -> tuple[Array, Array, Array]:
    """Weights (K,) down to 1e-6, means (K, d) as far as 1000, scales (K, d) down to 1e-4."""
    k = int(rng.integers(2, 6))
    weight = log_uniform(rng, 1e-6, 1, k)
    weight[0] = 1.0
    weight = weight / weight.sum()
    mean = rng.normal(size=(k, d)) * pick(rng, 2, 5, log_uniform(rng, 10, 1000))
    mean[0] = 0
    scale = np.repeat(log_uniform(rng, 1e-4, 1, k)[:, None], d, axis=1)
    scale[0] = 1
    return weight, mean, scale


def _diagonal_mixture(weight: Array, mean: Array, scale: Array, noise: float, x: Array) -> list[float]:
    """log p(x) of x = z + noise, z from a mixture of diagonal Gaussians."""
    spread = np.hypot(scale, noise)
    parts = np.log(weight) + log_normal(x[:, None], mean, spread).sum(-1)
    return [float(v) for v in logsumexp(parts, axis=-1)]


def _mixture_images(rng: np.random.Generator, mean: Array, scale: Array, noise: float) -> Array:
    """Images from a rare component, from the first one, and at the middle of a narrow one."""
    k, d = mean.shape
    rare, narrow = int(rng.integers(k)), int(scale[:, 0].argmin())
    z = np.stack([mean[rare] + scale[rare] * rng.normal(size=d), rng.normal(size=d), mean[narrow]])
    return z + noise * rng.normal(size=(3, d)) * np.array([1, 1, 0])[:, None]


@attack("mixture-prior")
def mixture_prior(rng: np.random.Generator) -> Case:
    """torch's MixtureSameFamily, components of every scale and place, seen through noise."""
    d = int(rng.integers(1, 3))
    weight, mean, scale = _mixture_of_all_scales(rng, d)
    noise = log_uniform(rng, 0.01, 1)
    x = _mixture_images(rng, mean, scale, noise)
    prior = td.MixtureSameFamily(
        td.Categorical(probs=tensor(weight)), td.Independent(td.Normal(tensor(mean), tensor(scale)), 1)
    )
    values = _diagonal_mixture(weight, mean, scale, noise, x)
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    about = f"d={d} K={len(weight)} scale>={scale.min():.0e} weight>={weight.min():.0e} reach={np.abs(mean).max():.0f}"
    return likelihood(model, tensor(x), values, [rounding(v) for v in values], about=about)


@attack("our-mixtures")
def our_mixtures(rng: np.random.Generator) -> Case:
    """MixturePrior and VampPrior with components of every scale: the parameters are set, the mixture is read back."""
    d = int(rng.integers(1, 3))
    weight, mean, scale = _mixture_of_all_scales(rng, d)
    noise = log_uniform(rng, 0.01, 1)
    pixels, k = 6, len(weight)
    if pick(rng, True, False):
        module: Any = MixturePrior(components=k).build(d, (1, 1, pixels)).double()
        with torch.no_grad():
            module.logits.copy_(tensor(weight).log())
            module.means.copy_(tensor(mean))
            module.log_scales.copy_(tensor(scale).log())
        prior, name = module(), "MixturePrior"
    else:
        module = VampPrior(components=k).build(d, (1, 1, pixels)).double()
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * d)).double()
        with torch.no_grad():
            module.logits.copy_(tensor(weight).log())
            # Each component's numbers are a linear function of its pseudo-image.
            pseudo = module.pseudo_inputs.sigmoid().flatten(1)
            wanted = torch.cat([tensor(mean), tensor(scale).log()], -1)
            ones = torch.cat([pseudo, torch.ones(k, 1, dtype=DOUBLE)], -1)
            solution = torch.linalg.pinv(ones) @ wanted
            encoder[1].weight.copy_(solution[:-1].T)
            encoder[1].bias.copy_(solution[-1])
        posterior = Conditional(encoder, Diagonal(), event_shape=(d,), condition_shape=(1, 1, pixels))
        prior, name = module(posterior), "VampPrior"
    with torch.no_grad():
        parts = prior.component_distribution
        mean, scale = parts.mean.numpy(), parts.variance.sqrt().numpy()
        weight = prior.mixture_distribution.probs.numpy()
    x = _mixture_images(rng, mean, scale, noise)
    values = _diagonal_mixture(weight, mean, scale, noise, x)
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    about = f"{name} d={d} K={k} scale>={scale.min():.0e} weight>={weight.min():.0e}"
    return likelihood(model, tensor(x), values, 1e-7, about=about)


@attack("user-mixture")
def user_mixture(rng: np.random.Generator) -> Case:
    """latentia's Mixture of Normals and Uniforms of every width on the line."""
    k = int(rng.integers(2, 5))
    weight = log_uniform(rng, 1e-4, 1, k)
    weight = weight / weight.sum()
    noise = log_uniform(rng, 0.02, 1)
    parts, scores = [], []
    x = rng.normal(size=2) * 2
    for index in range(k):
        place, width = rng.normal() * pick(rng, 2, 50), log_uniform(rng, 1e-3, 2)
        if index == k - 1:
            x[0] = place + noise * rng.normal()
        parts.append((pick(rng, "normal", "uniform"), place, width))
    parts_of_prior = []
    for kind, place, width in parts:
        if kind == "normal":
            part = td.Normal(tensor([place]), tensor([width]))
            scores.append(log_normal(x, place, math.hypot(width, noise)))
        else:
            part = td.Uniform(tensor([place]), tensor([place + width]))
            inside = log_normal_between((place - x) / noise, (place + width - x) / noise)
            scores.append(inside - math.log(width))
        parts_of_prior.append(td.Independent(part, 1))
    values = [float(v) for v in logsumexp(np.array(scores) + np.log(weight)[:, None], axis=0)]
    prior = Mixture(tensor(weight), parts_of_prior)
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    about = " + ".join(f"{w:.1e}*{kind}({p:.2f},{s:.1e})" for w, (kind, p, s) in zip(weight, parts, strict=True))
    return likelihood(model, tensor(x)[:, None], values, 1e-7, about=about)


@attack("far-component")
def far_component(rng: np.random.Generator) -> Case:
    """A far component that alone explains the image, the decoder saturating on the way to it."""
    far, weight = rng.uniform(15, 500), log_uniform(rng, 1e-5, 0.3)
    height, noise, bend = rng.uniform(3, 8), rng.uniform(0.3, 1), log_uniform(rng, 0.1, 3)
    spread = log_uniform(rng, 0.01, 2)
    mean = lambda z: height * torch.sigmoid((z - far / 2) / bend)  # noqa: E731
    prior = td.MixtureSameFamily(
        td.Categorical(probs=tensor([1 - weight, weight])),
        td.Independent(td.Normal(tensor([[0.0], [far]]), tensor([[1.0], [spread]])), 1),
    )

    def log_f(z: Array, x: float) -> Array:
        t = (z[:, 0] - far / 2) / bend
        place = height * np.where(t > 0, 1 / (1 + np.exp(-np.abs(t))), np.exp(-np.abs(t)) / (1 + np.exp(-np.abs(t))))
        first = math.log1p(-weight) + log_normal(z[:, 0], 0.0, 1.0)
        second = math.log(weight) + log_normal(z[:, 0], far, spread)
        return np.logaddexp(first, second) + log_normal(x, place, noise)

    edges = np.concatenate([WIDE, around(far, spread), around(far / 2, bend), np.linspace(-40, far + 80, 400)])
    x = [height, 0.3]
    found = [log_integral(lambda z, x=x: log_f(z, x), [edges]) for x in x]
    model = LatentModel(gaussian(mean, noise), prior)
    about = f"far={far:.0f} weight={weight:.0e} spread={spread:.2f}"
    return likelihood(model, tensor(x)[:, None], [v for v, _ in found], [e for _, e in found], about=about)


# --- 3. jumps -------------------------------------------------------------------------------------------------------


def _steps(rng: np.random.Generator, count: int, pixels: int = 1) -> tuple[Array, Array]:
    """Breaks (K − 1,) and levels (K, pixels) of a step function; some steps are narrow."""
    breaks = rng.normal(size=count)
    if count > 1 and pick(rng, True, False):
        breaks[1] = breaks[0] + log_uniform(rng, 1e-3, 0.3)
    return np.sort(breaks), rng.normal(size=(count + 1, pixels)) * log_uniform(rng, 0.5, 5)


def _step_function(breaks: Array, levels: Array) -> Callable[[Tensor], Tensor]:
    ends, values = tensor(breaks), tensor(levels)
    return lambda u: values[torch.searchsorted(ends, u.contiguous())]  # (M,) → (M, pixels)


def _log_steps(breaks: Array, levels: Array, scale: Any, x: Array) -> float:
    k, pixels = levels.shape
    return log_piecewise(breaks, levels, np.zeros((k, pixels)), np.broadcast_to(scale, (k, pixels)), x)


@attack("steps-line")
def steps_line(rng: np.random.Generator) -> Case:
    """A decoder that is constant between random places on the line."""
    pixels, noise = int(rng.integers(1, 5)), log_uniform(rng, 0.05, 1)
    breaks, levels = _steps(rng, int(rng.integers(1, 12)), pixels)
    x = levels[rng.integers(len(levels), size=3)] + noise * rng.normal(size=(3, pixels))
    values = [_log_steps(breaks, levels, noise, row) for row in x]
    step = _step_function(breaks, levels)
    model = LatentModel(gaussian(lambda z: step(z[:, 0]), noise), standard(1))
    about = f"{len(breaks)} jumps, noise={noise:.2f}"
    return likelihood(model, tensor(x), values, 1e-10, serve=False, about=about)


@attack("steps-plane")
def steps_plane(rng: np.random.Generator) -> Case:
    """Steps along two axes of a rotated frame."""
    turn, noise = rotation(rng, 2), log_uniform(rng, 0.1, 1)
    first, second = _steps(rng, int(rng.integers(1, 5))), _steps(rng, int(rng.integers(1, 5)))
    x = np.stack([first[1][rng.integers(len(first[1]), size=2), 0], second[1][rng.integers(len(second[1]), size=2), 0]])
    x = x.T + noise * rng.normal(size=(2, 2))
    values = [_log_steps(*first, noise, row[:1]) + _log_steps(*second, noise, row[1:]) for row in x]
    one, two, q = _step_function(*first), _step_function(*second), tensor(turn)

    def mean(z: Tensor) -> Tensor:
        u = z @ q
        return torch.cat([one(u[:, 0]), two(u[:, 1])], -1)

    model = LatentModel(gaussian(mean, noise), standard(2))
    return likelihood(model, tensor(x), values, 1e-10, serve=False, about=f"noise={noise:.2f}")


@attack("quantized")
def quantized(rng: np.random.Generator) -> Case:
    """x = round(k z)/k + noise, in one dimension or in both of two."""
    d, k, noise = int(rng.integers(1, 3)), log_uniform(rng, 0.7, 30), log_uniform(rng, 0.01, 0.5)
    index = np.arange(-math.ceil(12 * k), math.ceil(12 * k) + 1)
    levels = (index / k)[:, None]
    breaks = (index[:-1] + 0.5) / k
    x = rng.normal(size=(2, d)) + noise * rng.normal(size=(2, d))
    values = [sum(_log_steps(breaks, levels, noise, row[i : i + 1]) for i in range(d)) for row in x]
    model = LatentModel(gaussian(lambda z: torch.round(z * k) / k, noise), standard(d))
    return likelihood(model, tensor(x), values, 1e-9, serve=False, about=f"d={d} k={k:.2f} noise={noise:.2f}")


@attack("arg-max")
def arg_max(rng: np.random.Generator) -> Case:
    """In the plane, the template of the largest of K linear scores: a sum of Gaussian masses of polygons."""
    k, pixels, noise = int(rng.integers(2, 6)), 3, log_uniform(rng, 0.1, 1)
    weight, bias = rng.normal(size=(k, 2)), rng.normal(size=k) * 0.5
    templates = rng.normal(size=(k, pixels)) * 2
    # Along a vertical line z₁ = c, each score is a line in z₂: the maximum changes where two of them cross.
    corners = []
    for i, j, m in itertools.combinations(range(k), 3):
        system = np.array([weight[i] - weight[j], weight[i] - weight[m]])
        if abs(np.linalg.det(system)) > 1e-9:
            corners.append(np.linalg.solve(system, [bias[j] - bias[i], bias[m] - bias[i]])[0])
    edges = np.unique(np.concatenate([np.clip(corners, -12, 12) if corners else [], np.linspace(-12, 12, 49)]))

    def mass(template: int) -> float:
        def log_f(z: Array) -> Array:
            low, high = np.full(len(z), -np.inf), np.full(len(z), np.inf)
            for other in range(k):
                slope = weight[template, 1] - weight[other, 1]
                rest = (weight[template, 0] - weight[other, 0]) * z[:, 0] + bias[template] - bias[other]
                if other != template:
                    cut = -rest / slope
                    low = np.maximum(low, cut) if slope > 0 else low
                    high = np.minimum(high, cut) if slope < 0 else high
            with np.errstate(invalid="ignore"):
                return log_normal(z[:, 0], 0.0, 1.0) + log_normal_between(low, np.maximum(low, high))

        return log_integral(log_f, [edges], 1e-9)[0]

    masses = np.array([mass(i) for i in range(k)])
    # Regions may be empty, or lie outside ±12.
    x = templates[rng.choice(np.nonzero(masses > -12)[0], size=2)] + noise * rng.normal(size=(2, pixels))
    values = [float(logsumexp(masses + log_normal(row, templates, noise).sum(-1))) for row in x]
    w, b, t = tensor(weight), tensor(bias), tensor(templates)
    model = LatentModel(gaussian(lambda z: t[(z @ w.T + b).argmax(-1)], noise), standard(2))
    # The masses add up to one, which is a check of them; what is missing is the oracle's error.
    error = 10 * abs(math.exp(logsumexp(masses)) - 1) + 1e-7
    return likelihood(model, tensor(x), values, error, serve=False, about=f"K={k} noise={noise:.2f}")


@attack("scale-jump")
def scale_jump(rng: np.random.Generator) -> Case:
    """The decoder's scale jumps at a place on the line, or at a line in the plane; the mean is linear."""
    pixels, place = int(rng.integers(1, 30)), rng.uniform(-2, 5)
    scales = log_uniform(rng, 1e-3, 1, 2)
    slope = pick(rng, np.zeros(pixels), rng.normal(size=pixels) * 0.3)
    z = rng.normal() if pick(rng, True, False) else place + abs(rng.normal()) * 0.3
    k = int(z > place)
    x = np.stack([slope * z + scales[k] * rng.normal(size=pixels), slope * z + scales.max() * rng.normal(size=pixels)])
    pieces = np.array([place]), np.zeros((2, pixels)), np.stack([slope] * 2), np.repeat(scales[:, None], pixels, 1)
    values = [log_piecewise(*pieces, row) for row in x]
    s, w = tensor(scales), tensor(slope)
    plane = pick(rng, True, False)
    if plane:
        q = tensor(rotation(rng, 2))
        extra = rng.normal(size=(2, 1))
        x = np.concatenate([x, extra], -1)
        values = [v + float(log_normal(e[0], 0.0, math.hypot(1, 0.5))) for v, e in zip(values, extra, strict=True)]

    def mean(z: Tensor) -> Tensor:
        u = z @ q if plane else z
        first = u[:, :1] * w
        return torch.cat([first, u[:, 1:]], -1) if plane else first

    def scale(z: Tensor) -> Tensor:
        u = z @ q if plane else z
        first = torch.where(u[:, :1] > place, s[1], s[0]).expand(-1, pixels)
        return torch.cat([first, torch.full_like(u[:, 1:], 0.5)], -1) if plane else first

    model = LatentModel(gaussian(mean, scale), standard(2 if plane else 1))
    about = f"{'plane' if plane else 'line'} P={pixels} at {place:.2f}: {scales[0]:.1e} to {scales[1]:.1e}"
    return likelihood(model, tensor(x), values, [rounding(v) + 1e-9 for v in values], serve=False, about=about)


@attack("scale-smooth")
def scale_smooth(rng: np.random.Generator) -> Case:
    """The decoder's scale changes smoothly by orders of magnitude, sometimes far out in the prior's tail."""
    pixels, place, bend = int(rng.integers(1, 40)), rng.uniform(-2, 12), log_uniform(rng, 0.05, 2)
    wide, narrow = rng.uniform(0.3, 2), log_uniform(rng, 0.003, 0.3)
    level = rng.normal(size=pixels)
    size = pick(rng, narrow, wide)
    x = np.stack([level + size * rng.normal(size=pixels), level + narrow * rng.normal(size=pixels)])

    def log_scale(t: Any, tanh: Any) -> Any:
        return math.log(wide) + (math.log(narrow) - math.log(wide)) * (tanh((t - place) / bend) + 1) / 2

    def log_f(z: Array, x: Array) -> Array:
        spread = np.exp(log_scale(z, np.tanh))
        return log_normal(z[:, 0], 0.0, 1.0) + log_normal(x, level, spread).sum(-1)

    edges = np.concatenate([WIDE, around(place, bend)])
    found = [log_integral(lambda z, row=row: log_f(z, row), [edges]) for row in x]
    m = tensor(level)
    model = LatentModel(gaussian(lambda z: m.expand(len(z), -1), lambda z: log_scale(z, torch.tanh).exp()), standard(1))
    about = f"P={pixels} at {place:.2f}±{bend:.2f}: {wide:.2f} to {narrow:.3f}"
    return likelihood(model, tensor(x), [v for v, _ in found], [e + 1e-9 for _, e in found], about=about)


# --- 4. networks ----------------------------------------------------------------------------------------------------

ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU, "softplus": nn.Softplus, "sigmoid": nn.Sigmoid}


def network(rng: np.random.Generator, widths: Sequence[int], activation: Callable[[], nn.Module], gain: float) -> Any:
    """A random network in float64 whose parameters float32 holds exactly."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        if number:
            layers.append(activation())
        layer = nn.Linear(inputs, outputs).double()
        size = gain if number == 0 else gain / math.sqrt(inputs)
        with torch.no_grad():
            layer.weight.copy_(tensor(short(rng.normal(size=(outputs, inputs)) * size)))
            layer.bias.copy_(tensor(short(rng.normal(size=outputs) * (1.0 if number == 0 else 0.3))))
        layers.append(layer)
    return nn.Sequential(*layers)


def layers_of(net: nn.Sequential) -> list[tuple[Array, Array]]:
    return [
        (m.weight.detach().numpy(), m.bias.detach().numpy())  # pyright: ignore
        for m in net
        if isinstance(m, nn.Linear)
    ]


def log_bernoulli(x: Array, logits: Array) -> Array:
    return (x * logits - np.logaddexp(0, logits)).sum(-1)


def forms(net: nn.Sequential, kind: str, noise: float | None, pixels: int, d: int) -> tuple[Any, torch.dtype, tuple]:
    """A model of this network as users write them, the float type of images, and an image's shape."""
    family = Bernoulli() if noise is None else Gaussian(scale=noise)
    shape = (1, 1, pixels)
    if kind in ("module64", "module32", "vae64", "vae32"):
        dtype = DOUBLE if kind.endswith("64") else torch.float32
        used = copy.deepcopy(net).to(dtype)
        if kind.startswith("vae"):
            encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * d))
            vae = VAE(encoder, used, latent=d, event_shape=shape, likelihood=family).to(dtype).eval()
            return vae, dtype, shape
        decoder = Conditional(used, family, event_shape=shape, condition_shape=(d,))
        return LatentModel(decoder.eval(), standard(d, dtype), family=family), dtype, shape
    dtype = DOUBLE if kind == "callable64" else torch.float32
    used = copy.deepcopy(net).to(dtype)

    def decoder(z: Tensor) -> td.Distribution:
        out = used(z.to(dtype))
        base = td.Bernoulli(logits=out) if noise is None else td.Normal(out, torch.full_like(out, noise))
        return td.Independent(base, 1)

    return LatentModel(decoder, standard(d, dtype)), dtype, (pixels,)


KINDS = ("module64", "module32", "vae64", "vae32", "callable64", "callable32")


def network_case(
    rng: np.random.Generator,
    net: nn.Sequential,
    noise: float | None,
    truth: Callable[[Array], tuple[float, float]],
    *,
    about: str,
    images: int = 2,
    serve: bool = True,
) -> Case:
    """Images from the model itself, one of them with a pixel changed; `truth` gives value and error."""
    d, pixels = net[0].in_features, net[-1].out_features  # pyright: ignore
    kind = pick(rng, *KINDS)
    with torch.no_grad():
        out = net(tensor(rng.normal(size=(images, d)))).numpy()
    if noise is None:
        x = (rng.random(size=out.shape) < 1 / (1 + np.exp(-np.clip(out, -500, 500)))).astype(float)
        x[-1, 0] = 1 - x[-1, 0]
    else:
        x = out + noise * rng.normal(size=out.shape)
        if not kind.startswith("callable"):
            x = np.clip(x, 0, 1)
        x = short(x)
    model, dtype, shape = forms(net, kind, noise, pixels, d)
    found = [truth(row) for row in x]
    data = tensor(x).to(dtype).reshape(len(x), *shape)
    return likelihood(
        model, data, [v for v, _ in found], [e + 1e-8 for _, e in found], serve=serve, about=f"{kind} {about}"
    )


@attack("relu-line")
def relu_line(rng: np.random.Generator) -> Case:
    """A (leaky) ReLU network of one input, its integral summed over its linear pieces."""
    leak = pick(rng, 0.0, 0.01, 0.2)
    pixels, gain = int(rng.integers(1, 20)), log_uniform(rng, 0.5, 3)
    noise = pick(rng, None, short(log_uniform(rng, 0.01, 1)))
    hidden = [int(rng.integers(4, 32)) for _ in range(rng.integers(1, 4))]
    net = network(rng, [1, *hidden, pixels], lambda: nn.LeakyReLU(leak) if leak else nn.ReLU(), gain)
    leak = float(net[1].negative_slope) if leak else 0.0
    breaks, intercept, slope = relu_pieces(layers_of(net), leak)

    def truth(x: Array) -> tuple[float, float]:
        if noise is not None:
            value = log_piecewise(breaks, intercept, slope, np.full_like(slope, noise), x)
            return value, rounding(value) + 1e-9

        def log_f(z: Array) -> Array:
            piece = np.searchsorted(breaks, z[:, 0])
            return log_normal(z[:, 0], 0.0, 1.0) + log_bernoulli(x, intercept[piece] + slope[piece] * z)

        return log_integral(log_f, [np.concatenate([breaks, np.linspace(-15, 15, 301)])])

    about = f"{'Bernoulli' if noise is None else f'noise={noise:.3f}'} widths={hidden} gain={gain:.1f} leak={leak}"
    return network_case(rng, net, noise, truth, about=about)


@attack("smooth-line")
def smooth_line(rng: np.random.Generator) -> Case:
    """A smooth network of one input."""
    name, activation = pick(rng, *ACTIVATIONS.items())
    pixels, gain = int(rng.integers(1, 20)), log_uniform(rng, 0.5, 6)
    noise = pick(rng, None, short(log_uniform(rng, 0.003, 1)))
    net = network(rng, [1, *[16] * int(rng.integers(1, 4)), pixels], activation, gain)
    truth = network_truth(net, noise, [with_tails(np.linspace(-13, 13, 521), 200)])
    return network_case(rng, net, noise, truth, about=f"{name} gain={gain:.1f} noise={noise}")


@attack("smooth-plane")
def smooth_plane(rng: np.random.Generator) -> Case:
    """A smooth network of two inputs."""
    name, activation = pick(rng, *ACTIVATIONS.items())
    pixels, gain = int(rng.integers(2, 12)), log_uniform(rng, 0.5, 3)
    noise = pick(rng, None, short(log_uniform(rng, 0.03, 1)))
    net = network(rng, [2, 16, pixels], activation, gain)
    truth = network_truth(net, noise, [with_tails(np.linspace(-8.5, 8.5, 35), 12)] * 2, 1e-7)
    return network_case(rng, net, noise, truth, about=f"{name} gain={gain:.1f} noise={noise}", images=1)


@attack("relu-plane")
def relu_plane(rng: np.random.Generator) -> Case:
    """A ReLU network of two inputs, by panels refined along its kinks."""
    pixels, gain = int(rng.integers(2, 8)), log_uniform(rng, 0.5, 2)
    noise = pick(rng, None, short(log_uniform(rng, 0.1, 1)))
    net = network(rng, [2, 12, pixels], nn.ReLU, gain)
    truth = network_truth(net, noise, [with_tails(np.linspace(-8.5, 8.5, 35), 12)] * 2, 3e-5)
    return network_case(rng, net, noise, truth, about=f"gain={gain:.1f} noise={noise}", images=1)


def with_tails(inner: Array, count: int) -> Array:
    """Edges that go on to ±3000: images far off the manifold may be explained best where the prior is tiny."""
    outer = np.geomspace(inner[-1], 3000.0, count + 1)[1:]
    return np.concatenate([-outer[::-1], inner, outer])


def network_truth(
    net: nn.Sequential, noise: float | None, edges: Sequence[Array], relative: float = 1e-9
) -> Callable[[Array], tuple[float, float]]:
    """Panels over the network in float64 and N(0, I)."""

    def truth(x: Array) -> tuple[float, float]:
        def log_f(z: Array) -> Array:
            with torch.no_grad():
                out = net(torch.from_numpy(z)).numpy()
            score = log_bernoulli(x, out) if noise is None else log_normal(x, out, noise).sum(-1)
            return score + log_normal(z, 0.0, 1.0).sum(-1)

        return log_integral(log_f, edges, relative)

    return truth


@attack("foreign")
def foreign(rng: np.random.Generator) -> Case:
    """The documented few lines for a model trained elsewhere: a float32 callable over a few hundred binary pixels."""
    pixels, gain = int(rng.integers(100, 784)), log_uniform(rng, 0.3, 1.5)
    net = network(rng, [1, 32, pixels], nn.Tanh, gain)
    truth = network_truth(net, None, [with_tails(np.linspace(-9, 9, 181), 100)])
    with torch.no_grad():
        logits = net(tensor(rng.normal(size=(3, 1))))
    x = torch.bernoulli(logits.sigmoid())
    model, dtype, _ = forms(net, "callable32", None, pixels, 1)
    found = [truth(row.numpy()) for row in x]
    values, errors = [v for v, _ in found], [e + 1e-8 for _, e in found]
    return likelihood(model, x.to(dtype), values, errors, about=f"P={pixels} gain={gain:.1f}")


# --- 5. curves ------------------------------------------------------------------------------------------------------


@attack("ring")
def ring(rng: np.random.Generator) -> Case:
    """x = |z − c| + noise in two or three dimensions: a ring, or a shell, by its radius."""
    d, noise = int(rng.integers(2, 4)), log_uniform(rng, 1e-3, 0.3)
    noise = max(noise, 0.05) if d == 3 else noise
    off = pick(rng, 0.0, rng.uniform(0, 2))
    center = rotation(rng, d)[0] * off
    radius = rng.uniform(0.3, 4)

    def log_f(r: Array, x: float) -> Array:
        r = r[:, 0]
        if d == 2:
            density = np.log(r) - 0.5 * (r - off) ** 2 + np.log(i0e(r * off))
        else:
            t = 2 * r * off
            ratio = np.where(t < 1e-6, 1.0, -np.expm1(-np.maximum(t, 1e-9)) / np.maximum(t, 1e-9))
            density = 2 * np.log(r) - 0.5 * (r - off) ** 2 + np.log(ratio) + 0.5 * math.log(2 / math.pi)
        return density + log_normal(x, r, noise)

    edges = np.concatenate([np.geomspace(1e-8, 0.02, 40), np.linspace(0.02, 25, 1500), around(radius, noise)])
    edges = edges[edges > 0]
    x = radius + noise * rng.normal(size=1)
    value, error = log_integral(lambda r: log_f(r, x[0]), [edges])
    c = tensor(center)
    model = LatentModel(gaussian(lambda z: (z - c).norm(dim=-1, keepdim=True), noise), standard(d))
    return likelihood(
        model, tensor(x)[:, None], [value], [error + 1e-9], serve=d == 2, about=f"d={d} noise={noise:.1e} off={off:.1f}"
    )


@attack("banana")
def banana(rng: np.random.Generator) -> Case:
    """x = (u, v + b u²) + noise in a rotated frame: the second noise is integrated by hand."""
    b, (s, t) = rng.uniform(0.2, 3), log_uniform(rng, 0.01, 1, 2)
    u = rng.normal(size=2)
    x = np.array([u[0] + s * rng.normal(), u[1] + b * u[0] ** 2 + t * rng.normal()])

    def log_f(z: Array) -> Array:
        u = z[:, 0]
        return log_normal(u, 0.0, 1.0) + log_normal(x[0], u, s) + log_normal(x[1], b * u**2, math.hypot(1, t))

    value, error = log_integral(log_f, [np.concatenate([WIDE, around(x[0], s)])])
    q, noise = tensor(rotation(rng, 2)), tensor([s, t])

    def mean(z: Tensor) -> Tensor:
        u = z @ q
        return torch.stack([u[:, 0], u[:, 1] + b * u[:, 0] ** 2], -1)

    model = LatentModel(gaussian(mean, noise), standard(2))
    return likelihood(model, tensor(x)[None], [value], [error + 1e-9], about=f"b={b:.1f} noise={s:.2f},{t:.2f}")


@attack("ridge")
def ridge(rng: np.random.Generator) -> Case:
    """One pixel, v − h(u), known to 1e-4 to 1e-1: the posterior is a thin ridge along a curve in the plane."""
    noise, a, k = log_uniform(rng, 3e-4, 1e-1), rng.uniform(0, 2), rng.uniform(0.5, 5)
    kind = pick(rng, "sine", "parabola", "line")
    h: Any = {
        "sine": lambda u, sin: a * sin(k * u),
        "parabola": lambda u, _: a * u**2,
        "line": lambda u, _: a * u,
    }[kind]
    x = rng.normal() * pick(rng, 1, 2)

    def log_f(z: Array) -> Array:
        return log_normal(z[:, 0], 0.0, 1.0) + log_normal(x, -h(z[:, 0], np.sin), math.hypot(1, noise))

    value, error = log_integral(log_f, [WIDE])
    q = tensor(rotation(rng, 2))

    def mean(z: Tensor) -> Tensor:
        u = z @ q
        return (u[:, 1] - h(u[:, 0], torch.sin))[:, None]

    model = LatentModel(gaussian(mean, noise), standard(2))
    return likelihood(model, tensor([[x]]), [value], [error + 1e-9], about=f"{kind} noise={noise:.1e}")


# --- 6. features between the nodes ----------------------------------------------------------------------------------


@attack("needle")
def needle(rng: np.random.Generator) -> Case:
    """The mean is A exp(−|z − c|²/2w²), w far below any first spacing; the image is the needle's height, or zero."""
    d, width = int(rng.integers(1, 4)), log_uniform(rng, 3e-4, 0.05)
    height, noise = rng.uniform(2, 6), rng.uniform(0.3, 1)
    center = rng.normal(size=d)
    distance = float(np.linalg.norm(center))

    def gain(r: Array, x: float) -> Array:
        """p(x|z)/p(x|0) − 1 at distance r, of one sign for x = A and x ≤ 0 alike up to its sign."""
        bump = height * np.exp(-r * r / (2 * width**2))
        return np.expm1((x * bump - 0.5 * bump**2) / noise**2)

    def mass(r: Array) -> Array:
        """log of the prior's density of r = |z − c|."""
        if d == 1:
            return np.logaddexp(log_normal(center[0] + r, 0.0, 1.0), log_normal(center[0] - r, 0.0, 1.0))
        if d == 2:
            return np.log(r) - 0.5 * (r - distance) ** 2 + np.log(i0e(r * distance))
        t = 2 * r * distance
        return 2 * np.log(r) - 0.5 * (r - distance) ** 2 + np.log(-np.expm1(-t) / t) + 0.5 * math.log(2 / math.pi)

    edges = np.concatenate([[1e-9 * width], width * np.linspace(0.02, 10, 200), width * np.geomspace(10, 30, 20)])
    values, errors, x = [], [], [height, 0.0]
    for image in x:
        sign = 1 if image else -1

        def log_f(r: Array, image: float = image, sign: int = sign) -> Array:
            with np.errstate(divide="ignore"):
                return np.log(np.maximum(sign * gain(r[:, 0], image), 0)) + mass(r[:, 0])

        excess, error = log_integral(log_f, [edges])
        # p(x) = p(x|0) (1 ± excess), and the part of the excess within 1e-9 widths is below 1e-9 of it.
        values.append(float(log_normal(image, 0.0, noise)) + math.log1p(sign * math.exp(excess)))
        errors.append(error + 1e-7)
    c = tensor(center)
    model = LatentModel(
        gaussian(lambda z: height * torch.exp(-((z - c) ** 2).sum(-1, keepdim=True) / (2 * width**2)), noise),
        standard(d),
    )
    about = f"d={d} width={width:.1e} height={height / noise:.1f} noises"
    return likelihood(model, tensor(x)[:, None], values, errors, serve=False, about=about)


@attack("tent")
def tent(rng: np.random.Generator) -> Case:
    """A needle made of three ReLUs, in modules whose parts are known: a proof can find it."""
    width, center = short(log_uniform(rng, 1e-3, 0.05)), short(rng.normal())
    height, noise = rng.uniform(0.5, 0.9), short(rng.uniform(0.1, 0.2))
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(tensor(short(np.array([-center + width, -center, -center - width]))))
        net[2].weight.copy_(tensor(short(np.array([[1, -2, 1]]) * height / width)))
        net[2].bias.zero_()
    breaks, intercept, slope = relu_pieces(layers_of(net), 0.0)
    kind = pick(rng, *KINDS[:4])
    x = short(np.array([[height], [0.0]]))
    values = [log_piecewise(breaks, intercept, slope, np.full_like(slope, noise), row) for row in x]
    model, dtype, shape = forms(net, kind, noise, 1, 1)
    about = f"{kind} width={width:.1e} height={height / noise:.1f} noises"
    # float32 subtracts numbers of size height/width · z.
    return likelihood(model, tensor(x).to(dtype).reshape(-1, *shape), values, 1e-8, serve=False, about=about)


@attack("aliasing")
def aliasing(rng: np.random.Generator) -> Case:
    """x = A cos(2πkz + φ) + noise along each axis: at the wrong spacing the cosine looks constant."""
    d = int(rng.integers(1, 4))
    k = float({1: pick(rng, 20, 40, 80, 160, 8), 2: pick(rng, 5, 10, 20), 3: pick(rng, 2.5, 5, 10)}[d])
    k *= pick(rng, 1.0, 1.0, rng.uniform(0.8, 1.2))
    height, noise, phase = rng.uniform(0.5, 3), rng.uniform(0.3, 1), pick(rng, 0.0, rng.uniform(0, 6))
    x = height * np.cos(rng.uniform(0, 6, size=d)) + noise * rng.normal(size=d)

    def axis(x: float) -> tuple[float, float]:
        def log_f(z: Array) -> Array:
            mean = height * np.cos(2 * math.pi * k * z[:, 0] + phase)
            return log_normal(z[:, 0], 0.0, 1.0) + log_normal(x, mean, noise)

        return log_integral(log_f, [np.linspace(-9, 9, int(18 * k * 2) + 1)])

    found = [axis(float(v)) for v in x]
    value, error = sum(v for v, _ in found), sum(e for _, e in found) + 1e-8
    model = LatentModel(gaussian(lambda z: height * torch.cos(2 * math.pi * k * z + phase), noise), standard(d))
    about = f"d={d} k={k:.1f} height={height / noise:.1f} noises"
    return likelihood(model, tensor(x)[None], [value], [error], serve=False, about=about)


# --- 7. rounding ----------------------------------------------------------------------------------------------------


@attack("saturated")
def saturated(rng: np.random.Generator) -> Case:
    """Callables in float32 whose pixels but one are constant and saturated, right, or some of them wrong."""
    d, pixels = int(rng.integers(1, 3)), int(rng.integers(500, 6000))
    slope, level = short(rng.uniform(1, 4)), short(log_uniform(rng, 10, 1e5))
    signs = np.sign(rng.normal(size=pixels))
    wrong = int(pick(rng, 0, 0, 0, 1, 5))
    pixel = int(pick(rng, 0, 1))
    x = np.concatenate([[pixel], signs > 0]).astype(float)
    x[1 : 1 + wrong] = 1 - x[1 : 1 + wrong]
    constant = np.where(x[1:] == (signs > 0), -np.logaddexp(0, -level), -np.logaddexp(0, level))
    value = math.log(0.5) + math.fsum(constant)  # E sigmoid(±slope z) = 1/2 by symmetry
    s = torch.tensor(signs * level, dtype=torch.float32)

    def decoder(z: Tensor) -> td.Distribution:
        z = z.float()
        logits = torch.cat([slope * z[..., :1], s.expand(*z.shape[:-1], -1)], -1)
        return td.Independent(td.Bernoulli(logits=logits), 1)

    model = LatentModel(decoder, standard(d, torch.float32))
    served = wrong * level * 6e-8 < 1e-3  # else float32 itself cannot
    about = f"d={d} P={pixels} logits=±{level:.0f} wrong={wrong}"
    return likelihood(model, torch.tensor(x, dtype=torch.float32)[None], [value], 1e-9, serve=served, about=about)


@attack("cast")
def cast(rng: np.random.Generator) -> Case:
    """A decoder that casts z to bfloat16 or float16: the truth lies between the function that rounds and its ideal."""
    dtype, noise = pick(rng, torch.bfloat16, torch.float16), log_uniform(rng, 0.01, 0.5)
    pixels = int(rng.integers(1, 6))
    weight = short(rng.normal(size=pixels))
    z = rng.normal()
    x = weight * z + noise * rng.normal(size=pixels)
    ideal = log_multivariate_normal(x, np.zeros(pixels), [weight[:, None]], noise)
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).double()
    bits = torch.unique(bits[torch.isfinite(bits) & (bits.abs() < 20)]).numpy()
    literal = _log_steps((bits[:-1] + bits[1:]) / 2, bits[:, None] * weight, noise, x)
    w = tensor(weight)
    model = LatentModel(gaussian(lambda z: z[:, :1].to(dtype).double() * w, noise), standard(1))
    about = f"{dtype} noise={noise:.2f} P={pixels} |ideal - rounded|={abs(ideal - literal):.1e}"
    return likelihood(model, tensor(x)[None], [(ideal, literal)], 1e-8, serve=False, about=about)


@attack("finite")
def finite(rng: np.random.Generator) -> Case:
    """A finite latent space; the callable's logits, in float32, are as large as 1e5 on thousands of pixels."""
    k, pixels = int(rng.integers(2, 20)), int(rng.integers(100, 4000))
    level = log_uniform(rng, 1, 1e5)
    points = short(rng.normal(size=(k, 2)))
    weight = log_uniform(rng, 1e-5, 1, k)
    weight = weight / weight.sum()
    matrix = short(np.sign(rng.normal(size=(2, pixels))) * level)
    logits = points @ matrix
    chosen = int(rng.integers(k))
    x = (logits[chosen] > 0).astype(float)
    x[: int(pick(rng, 0, 0, 2))] = 1
    scores = np.array([math.fsum(row) for row in x * logits - np.logaddexp(0, logits)])
    value = float(logsumexp(scores + np.log(weight)))
    m = torch.tensor(matrix, dtype=torch.float32)

    def decoder(z: Tensor) -> td.Distribution:
        return td.Independent(td.Bernoulli(logits=z.float() @ m), 1)

    prior = Finite(torch.tensor(points, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32))
    model = LatentModel(decoder, prior)
    images = torch.tensor(x, dtype=torch.float32)[None]
    served = abs(value) * 6e-8 < 1e-3
    # The prior's weights are float32 numbers, normalized again.
    about = f"K={k} P={pixels} logits~{level:.0f}"
    return likelihood(model, images, [value], 1e-6 + rounding(value), serve=served, about=about)


# --- 8. supports with an edge, singular edges -----------------------------------------------------------------------


def log_edge(
    log_f: Callable[[Array, Array], Array], upper: bool, place: Sequence[float], scale: float
) -> tuple[float, float]:
    """log ∫ over (0, 1), or (0, ∞) if not `upper`, of exp f(z, 1 − z), in log z and log(1 − z), so that edges are far.

    Args:
        log_f: z and 1 − z → log of the integrand.
        upper: whether the support ends at 1.
        place: where it is narrow.
        scale: and how narrow.
    """
    fine = np.concatenate([around(p, scale) for p in place])
    # With α = 0.1 at the edge, z^α is below 1e-16 where log z = −370.
    low = np.concatenate([np.linspace(-700, -20, 120), np.linspace(-20, 0, 200), np.log(fine[(fine > 0) & (fine < 1)])])
    if not upper:
        low = np.concatenate([low, np.linspace(0, 12, 200), np.log(fine[fine > 1])])
        return log_integral(lambda t: log_f(np.exp(t[:, 0]), 1 - np.exp(t[:, 0])) + t[:, 0], [low])
    half = math.log(0.5)
    left = np.append(low[low < half], half)
    rest = 1 - fine
    right = np.concatenate([np.linspace(-700, -20, 120), np.linspace(-20, half, 200), np.log(rest[rest > 0])])
    right = np.append(right[right < half], half)
    first, e1 = log_integral(lambda t: log_f(np.exp(t[:, 0]), -np.expm1(t[:, 0])) + t[:, 0], [left])
    second, e2 = log_integral(lambda t: log_f(-np.expm1(t[:, 0]), np.exp(t[:, 0])) + t[:, 0], [right])
    return float(np.logaddexp(first, second)), e1 + e2


@attack("bounded")
def bounded(rng: np.random.Generator) -> Case:
    """Uniform, Beta and Kumaraswamy priors, with torch's checks or without, seen through noise; one or two axes."""
    kind, validate = pick(rng, "uniform", "beta", "kumaraswamy"), pick(rng, None, True, False)
    noise = log_uniform(rng, 1e-3, 1)
    a, b = rng.uniform(1, 4, size=2)
    d = int(pick(rng, 1, 1, 2))
    x = pick(rng, rng.random(size=d), pick(rng, 0.0, 1.0) + noise * rng.normal(size=d))
    ones = torch.ones(d, dtype=DOUBLE)
    if kind == "uniform":
        low = rng.normal()
        high = low + log_uniform(rng, 0.1, 10)
        x = low + (high - low) * x
        base = td.Uniform(low * ones, high * ones, validate_args=validate)
        value = float((log_normal_between((low - x) / noise, (high - x) / noise) - math.log(high - low)).sum())
        error = 1e-9
    else:
        if kind == "beta":
            base: td.Distribution = td.Beta(a * ones, b * ones, validate_args=validate)
            density = lambda z, w: (a - 1) * np.log(z) + (b - 1) * np.log(w) - betaln(a, b)  # noqa: E731
        else:
            base = td.Kumaraswamy(a * ones, b * ones, validate_args=validate)
            density = _kumaraswamy(a, b)
        found = [
            log_edge(lambda z, w, p=p: density(z, w) + log_normal(p, z, noise), True, [float(np.clip(p, 0, 1))], noise)
            for p in x
        ]
        value, error = sum(v for v, _ in found), sum(e for _, e in found) + 1e-9
    prior = td.Independent(base, 1, validate_args=validate)
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    about = f"{kind} d={d} validate={validate} noise={noise:.1e}"
    return likelihood(model, tensor(x)[None], [value], [error], about=about)


def _kumaraswamy(a: float, b: float) -> Callable[[Array, Array], Array]:
    """log density as a function of z and 1 − z."""

    def density(z: Array, rest: Array) -> Array:
        log_z = np.where(z < 0.5, np.log(z), np.log1p(-np.minimum(rest, 0.75)))
        return math.log(a * b) + (a - 1) * log_z + (b - 1) * np.log(-np.expm1(a * log_z))

    return density


@attack("singular-edge")
def singular_edge(rng: np.random.Generator) -> Case:
    """Priors whose density is infinite at the edge, or cut off there: Beta and Gamma down to 0.1, half normals."""
    kind = pick(rng, "beta", "gamma", "gamma", "exponential", "half normal", "log normal")
    validate, noise = pick(rng, None, False), log_uniform(rng, 0.01, 1)
    a, b = pick(rng, (0.5, 0.5), (0.5, 2.0), tuple(rng.uniform(0.1, 1, size=2)))
    one = lambda v: torch.full((1,), float(v), dtype=DOUBLE)  # noqa: E731
    half = 0.5 * math.log(2 * math.pi)
    table: dict[str, tuple[td.Distribution, Callable[[Array, Array], Array], bool]] = {
        "beta": (
            td.Beta(one(a), one(b), validate_args=validate),
            lambda z, w: (a - 1) * np.log(z) + (b - 1) * np.log(w) - betaln(a, b),
            True,
        ),
        "gamma": (
            td.Gamma(one(a), one(b), validate_args=validate),
            lambda z, _: (a - 1) * np.log(z) - b * z + a * math.log(b) - gammaln(a),
            False,
        ),
        "exponential": (td.Exponential(one(b), validate_args=validate), lambda z, _: math.log(b) - b * z, False),
        "half normal": (
            td.HalfNormal(one(b), validate_args=validate),
            lambda z, _: math.log(2) - 0.5 * (z / b) ** 2 - math.log(b) - half,
            False,
        ),
        "log normal": (
            td.LogNormal(one(0), one(b), validate_args=validate),
            lambda z, _: -0.5 * (np.log(z) / b) ** 2 - math.log(b) - half - np.log(z),
            False,
        ),
    }
    base, density, upper = table[kind]
    x = np.array([pick(rng, 0.0, 0.3, 1.0, rng.uniform(0, 1.5)) + noise * rng.normal()])
    place = [float(np.clip(x[0], 1e-6, 1 - 1e-6 if upper else np.inf))]
    value, error = log_edge(lambda z, w: density(z, w) + log_normal(x[0], z, noise), upper, place, noise)
    prior = td.Independent(base, 1, validate_args=validate)
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    about = f"{kind}({a:.2f},{b:.2f}) validate={validate} noise={noise:.2f}"
    return likelihood(model, tensor(x)[None], [value], [error + 1e-9], about=about)


@attack("conjugate")
def conjugate(rng: np.random.Generator) -> Case:
    """Conjugate pairs: Beta-Bernoulli, Gamma-Poisson, Gamma-exponential, and a Gamma precision of normal pixels."""
    kind = pick(rng, "beta-bernoulli", "gamma-poisson", "gamma-exponential", "gamma-normal")
    a, b, n = rng.uniform(0.3, 4), rng.uniform(0.3, 4), int(rng.integers(1, 40))
    one = lambda v: torch.full((1,), float(v), dtype=DOUBLE)  # noqa: E731
    prior = td.Independent(td.Beta(one(a), one(b)) if kind == "beta-bernoulli" else td.Gamma(one(a), one(b)), 1)
    z = rng.beta(a, b) if kind == "beta-bernoulli" else rng.gamma(a, 1 / b)
    if kind == "beta-bernoulli":
        x = (rng.random(n) < z).astype(float)
        value = betaln(a + x.sum(), b + n - x.sum()) - betaln(a, b)
        base: Callable[[Tensor], td.Distribution] = lambda z: td.Bernoulli(probs=z)  # noqa: E731
    elif kind == "gamma-poisson":
        x = rng.poisson(z, size=n).astype(float)
        total = x.sum()
        value = a * math.log(b) - gammaln(a) + gammaln(a + total) - (a + total) * math.log(b + n) - gammaln(x + 1).sum()
        base = lambda z: td.Poisson(z)  # noqa: E731
    elif kind == "gamma-exponential":
        x = rng.exponential(1 / max(z, 1e-3), size=n)
        value = a * math.log(b) - gammaln(a) + gammaln(a + n) - (a + n) * math.log(b + x.sum())
        base = lambda z: td.Exponential(z)  # noqa: E731
    else:
        x = rng.normal(size=n) / math.sqrt(max(z, 1e-3))
        shape, rate = a + n / 2, b + 0.5 * np.square(x).sum()
        value = a * math.log(b) - gammaln(a) + gammaln(shape) - shape * math.log(rate) - n / 2 * math.log(2 * math.pi)
        base = lambda z: td.Normal(torch.zeros_like(z), z**-0.5)  # noqa: E731

    def decoder(z: Tensor) -> td.Distribution:
        return td.Independent(base(z.double().expand(*z.shape[:-1], n)), 1)

    about = f"{kind} a={a:.2f} b={b:.2f} n={n}"
    return likelihood(LatentModel(decoder, prior), tensor(x)[None], [float(value)], 1e-9, about=about)


# --- 9. flows and heavy tails ---------------------------------------------------------------------------------------


@attack("affine-flow")
def affine_flow(rng: np.random.Generator) -> Case:
    """A TransformedDistribution of N(0, I) under an affine map: a Gaussian, though its type does not say so."""
    d, noise = int(rng.integers(1, 4)), log_uniform(rng, 0.03, 1)
    scale, shift = log_uniform(rng, 0.1, 10, d), rng.normal(size=d) * 3
    prior = td.TransformedDistribution(standard(d), [td.AffineTransform(tensor(shift), tensor(scale), event_dim=1)])
    x = shift + scale * rng.normal(size=(2, d)) + noise * rng.normal(size=(2, d))
    values = [float(log_normal(row, shift, np.hypot(scale, noise)).sum()) for row in x]
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    return likelihood(model, tensor(x), values, 1e-10, about=f"d={d} noise={noise:.2f}")


@attack("flow-prior")
def flow_prior(rng: np.random.Generator) -> Case:
    """FlowPrior, spline or autoregressive affine, weights enlarged; integrated in the base's own variable."""
    kind = pick(rng, "maf", "nsf")
    d = 2 if kind == "maf" else int(pick(rng, 1, 1, 1, 1, 1, 1, 2))
    gain = rng.uniform(1, 4 if (kind, d) != ("nsf", 2) else 2)
    noise = log_uniform(rng, 0.03 if d == 1 or kind == "maf" else 0.3, 1)
    module = FlowPrior(kind=kind, transforms=1, hidden=(16,)).build(d, (1, 1, d)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(gain)
    prior = module()

    def to_z(u: Array) -> Array:
        with torch.no_grad():
            return prior.transform.inv(torch.from_numpy(u)).numpy()

    x = to_z(rng.normal(size=(1, d))) + noise * rng.normal(size=(1, d))

    def log_f(u: Array) -> Array:
        return log_normal(u, 0.0, 1.0).sum(-1) + log_normal(x[0], to_z(u), noise).sum(-1)

    def log_f_of_first(u: Array) -> Array:
        """z₂ is affine in u₂, so that it is integrated by hand."""
        origin, one = (to_z(np.concatenate([u, np.full_like(u, end)], -1)) for end in (0.0, 1.0))
        spread = np.hypot(one[:, 1] - origin[:, 1], noise)
        first = log_normal(u[:, 0], 0.0, 1.0) + log_normal(x[0, 0], origin[:, 0], noise)
        return first + log_normal(x[0, 1], origin[:, 1], spread)

    if kind == "maf":
        value, error = log_integral(log_f_of_first, [np.linspace(-12, 12, 481)])
    else:
        value, error = log_integral(log_f, [np.linspace(-7, 7, 15 if d == 2 else 281)] * d, 3e-3 if d == 2 else 1e-8)
    model = LatentModel(gaussian(lambda z: z, noise), prior)
    about = f"{kind} d={d} gain={gain:.1f} noise={noise:.2f}"
    return likelihood(model, tensor(x), [value], [error + 1e-8], about=about)


@attack("heavy-tails")
def heavy_tails(rng: np.random.Generator) -> Case:
    """StudentT and Cauchy priors on the line, images as far as 1000 scales; Cauchy's is a Voigt profile."""
    df = float(pick(rng, 1.0, 1.0, rng.uniform(0.5, 10)))
    scale, noise = log_uniform(rng, 0.1, 10), log_uniform(rng, 0.01, 1)
    x = np.array([rng.normal() * scale, pick(rng, -1, 1) * scale * log_uniform(rng, 3, 1000)])
    one = lambda v: torch.full((1,), float(v), dtype=DOUBLE)  # noqa: E731
    base = td.Cauchy(one(0), one(scale)) if df == 1 else td.StudentT(one(df), one(0), one(scale))
    if df == 1:
        values, errors = [math.log(voigt_profile(v, noise, scale)) for v in x], [1e-9] * 2
    else:
        found = [
            log_integral(
                lambda z, v=v: stats.t.logpdf(z[:, 0], df, scale=scale) + log_normal(v, z[:, 0], noise),
                [np.concatenate([around(v, noise), around(0.0, scale)])],
            )
            for v in x
        ]
        values, errors = [v for v, _ in found], [e + 1e-9 for _, e in found]
    model = LatentModel(gaussian(lambda z: z, noise), td.Independent(base, 1))
    about = f"df={df:.2f} scale={scale:.2f} noise={noise:.2f} x={x[1]:.0f}"
    return likelihood(model, tensor(x)[:, None], values, errors, serve=False, about=about)


# --- 10. modules in the wrong state ---------------------------------------------------------------------------------


@attack("training-mode")
def training_mode(rng: np.random.Generator) -> Case:
    """Batch normalization or dropout in training mode: refused, or evaluated as in evaluation, and left as it was."""
    pixels, noise = int(rng.integers(2, 8)), short(rng.uniform(0.1, 0.5))
    kind = pick(rng, "batch norm", "dropout")
    net = network(rng, [1, 8, pixels], nn.Tanh, 1.0)
    if kind == "batch norm":
        norm = nn.BatchNorm1d(8).double()
        with torch.no_grad():
            norm.running_mean.copy_(tensor(short(rng.normal(size=8) * 0.3)))  # pyright: ignore
            norm.running_var.copy_(tensor(short(rng.uniform(0.5, 2, size=8))))  # pyright: ignore
        net.insert(1, norm)
    else:
        net.insert(2, nn.Dropout(0.3))
    net.eval()
    with torch.no_grad():
        x = net(tensor(rng.normal(size=(2, 1)))).numpy() + noise * rng.normal(size=(2, pixels))
    x = short(np.clip(x, 0, 1))
    reference = copy.deepcopy(net).eval()
    found = [network_truth(reference, noise, [np.linspace(-13, 13, 261)])(row) for row in x]
    model, dtype, shape = forms(net, pick(rng, "module64", "vae64"), noise, pixels, 1)
    owner = model if isinstance(model, nn.Module) else model.decoder
    owner.train()
    data = tensor(x).to(dtype).reshape(len(x), *shape)
    values, errors = [v for v, _ in found], [e + 1e-8 for _, e in found]
    return likelihood(model, data, values, errors, serve=False, about=kind, unchanged=owner)


@attack("random-decoder")
def random_decoder(rng: np.random.Generator) -> Case:
    """A callable that draws dropout at each call has no log p(x): any number is wrong, and it must end."""
    net = network(rng, [1, 16, 3], nn.Tanh, 2.0)

    def mean(z: Tensor) -> Tensor:
        return nn.functional.dropout(net(z), 0.5, training=True)

    x = tensor(rng.normal(size=(1, 3)))
    model = LatentModel(gaussian(mean, 0.3), standard(1))
    return likelihood(model, x, [(math.inf, math.inf)], serve=False, about="dropout in a callable")


@attack("bad-encoder")
def bad_encoder(rng: np.random.Generator) -> Case:
    """An encoder that gives NaN, infinities or a place far away: only a hint, so the answer must not notice."""
    bad = pick(rng, math.nan, math.inf, 1e6, -50.0)
    noise, w = log_uniform(rng, 0.01, 0.5), rng.normal(size=(4, 2))
    x = rng.normal(size=(3, 2)) @ w.T + noise * rng.normal(size=(3, 4))
    values = [log_multivariate_normal(row, np.zeros(4), [w], noise) for row in x]

    def encoder(x: Tensor) -> td.Distribution:
        place = torch.full((len(x), 2), bad, dtype=DOUBLE)
        return td.Independent(td.Normal(place, torch.ones_like(place), validate_args=False), 1, validate_args=False)

    weight = tensor(w)
    model = LatentModel(gaussian(lambda z: z @ weight.T, noise), standard(2), encoder)
    return likelihood(model, tensor(x), values, [rounding(v) + 1e-10 for v in values], about=f"encoder gives {bad}")
