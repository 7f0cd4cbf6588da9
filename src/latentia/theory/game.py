"""Chapter 3 of the sheet, 3a to 3c: the game of a generative adversarial network, and its best discriminator.

    C(D) = −E_p[log D] − E_q[log(1 − D)],   least at D* = p/(p + q), where C = log 4 − 2 JSD(p, q)

with p the distribution of the data and q the generator's. The discriminator makes C small and the generator makes it
large.
"""

from __future__ import annotations

__all__: list[str] = []

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Chi2, Distribution, Normal

from latentia.divergences import jensen_shannon
from latentia.estimate import Estimate, exact
from latentia.integration import integrate
from latentia.objectives import Minimax, NonSaturating
from latentia.theory.instances import LOG_4, Logit, cost_of, generator_of, largest, pairs
from latentia.theory.small_models import PAIR, trained_discriminator
from latentia.theory.statement import Erratum, Relations, at_least, at_most, differ, equal, statement

# ── 3a: the two costs ───────────────────────────────────────────────────────────────────────────────────────────────


def _unequal_sums(_seed: int) -> Relations:
    """With N images and M draws, sums are least at D = N p/(N p + M q), which is not D* unless N = M."""
    p, q = 0.3, 0.5
    for images, draws in ((2, 1), (1, 5)):
        logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        for _ in range(200):  # Newton's steps on the sum at one x
            cost = images * p * nn.functional.softplus(-logit) + draws * q * nn.functional.softplus(logit)
            (slope,) = torch.autograd.grad(cost.sum(), logit, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), logit)
            logit = (logit - slope / bend).detach().requires_grad_()
        best = exact(torch.sigmoid(logit).item(), "D that makes the sums least", unit="1", method="newton")
        yield equal(best, images * p / (images * p + draws * q), note=f"{images} images to {draws} draws")
        yield differ(best, exact(p / (p + q), "D*", unit="1"), note=f"{images} images to {draws} draws")


@statement(
    "3a",
    "The costs are functions of the logit: the generator's minimax cost undoes the discriminator's, and saturates; the "
    "non-saturating one does not.",
    latex=r"C(t) = \log(1 + e^{-t(x)}) + \log(1 + e^{t(G(z))}), \quad "
    r"C_G = -\log(1 + e^{t}) \text{ (minimax)}, \; \log(1 + e^{-t}) \text{ (non-saturating)}",
    source="sheet, 3a; Goodfellow et al. 2014, eq. 1 and section 3",
    erratum=Erratum(
        stated=r"\max_\theta \min_\omega -\sum_x \log D_\omega(x) - \sum_z \log(1 - D_\omega(G_\theta(z)))",
        right=r"\max_\theta \min_\omega -\tfrac1N \sum_x \log D_\omega(x) "
        r"- \tfrac1M \sum_z \log(1 - D_\omega(G_\theta(z)))",
        words="The signs and the order of max and min are right. But sums stand for the expectations of 3b only where "
        "N images meet as many draws: otherwise the best D is N p/(N p + M q), and 3c and 3d fail. Take means.",
        counter_example=_unequal_sums,
    ),
)
def costs_from_logits(seed: int) -> Relations:
    """The library's losses against the sheet's formula in D, and their slopes where the discriminator is sure."""
    real, fake = 3 * torch.randn(2, 1000, dtype=torch.float64, generator=generator_of(seed))
    minimax, other = Minimax(), NonSaturating()
    on_real, on_fake = torch.sigmoid(real), torch.sigmoid(fake)
    written = -on_real.log() - (1 - on_fake).log()
    rounding = torch.finfo(torch.float64).eps / (1 - on_fake).min().item()  # of log(1 − D), where D is rounded
    yield equal(largest(minimax.discriminator(real, fake) - written, "largest |C(t) − C(D)|"), 0, tolerance=rounding)
    gap = other.discriminator(real, fake) - minimax.discriminator(real, fake)
    yield equal(largest(gap, "largest difference"), 0, note="both games have one discriminator")
    gap = minimax.generator(None, fake) - (1 - on_fake).log()
    yield equal(largest(gap, "largest |C_G(t) − log(1 − D)|"), 0, tolerance=rounding, note="minimax")
    gap = other.generator(None, fake) + on_fake.log()
    yield equal(largest(gap, "largest |C_G(t) + log D|"), 0, note="non-saturating")
    zero_sum = minimax.generator(None, fake) + minimax.discriminator(real, fake) - nn.functional.softplus(-real)
    yield equal(largest(zero_sum, "largest |C_G + C|, but for the data's part"), 0, tolerance=1e-12, note="zero sum")
    for t in (-40.0, 0.0, 40.0):
        for loss, slope in ((minimax, -1 / (1 + math.exp(-t))), (other, -1 / (1 + math.exp(t)))):
            logit = torch.tensor(t, dtype=torch.float64, requires_grad=True)
            (found,) = torch.autograd.grad(loss.generator(None, logit), logit)
            left = exact(found.item(), f"dC_G/dt, {loss.type_name}", unit="1", method="differentiation")
            yield equal(left, slope, tolerance=abs(slope) * 1e-12, note=f"t = {t:g}")
            if t < 0 and loss is minimax:
                yield at_most(exact(abs(found.item()), "|dC_G/dt|", unit="1"), 1e-17, note="saturated")
            if t < 0 and loss is other:
                yield at_most(left, -0.99, note="not saturated")


# ── 3b: from z to x ─────────────────────────────────────────────────────────────────────────────────────────────────


def _generators(seed: int) -> Iterator[tuple[str, Logit, Logit, list[float]]]:
    """Name, G(z), the density of G(z) under z ~ N(0, 1) by change of variables, and the range of x."""
    generator = generator_of(seed)
    a, b = (torch.rand(2, dtype=torch.float64, generator=generator) + 0.5).tolist()
    base = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))

    def affine(x: Tensor) -> Tensor:
        return (base.log_prob((x - a) / b) - math.log(b)).exp()

    def exponential(x: Tensor) -> Tensor:
        return (base.log_prob(x.log() / b) - math.log(b) - x.log()).exp()

    def cubic(z: Tensor) -> Tensor:
        return a * z + b * z**3

    def density_of_cubic(x: Tensor) -> Tensor:
        # Cardano: the one real root of b z³ + a z = x.
        half, third = x / (2 * b), a / (3 * b)
        root = (half.abs() + (half**2 + third**3).sqrt()).pow(1 / 3)
        z = half.sign() * (root - third / root)
        return base.log_prob(z).exp() / (a + 3 * b * z**2)

    line = [-math.inf, 0.0, math.inf]
    yield "affine", lambda z: a + b * z, affine, [-math.inf, a, math.inf]
    yield "exponential", lambda z: (b * z).exp(), exponential, [0.0, 1.0, math.inf]
    yield "cubic", cubic, density_of_cubic, line
    # Two z for every x: the density sums over both.
    yield (
        "square, two to one",
        lambda z: z**2,
        lambda x: Chi2(torch.ones((), dtype=x.dtype)).log_prob(x).exp(),
        [0.0, 1.0, math.inf],
    )


@statement(
    "3b",
    "The generator's term over z is an integral over x against the density that G gives to x.",
    latex=r"E_{p(z)}[\log(1 - D(G(z)))] = \int p_G(x) \log(1 - D(x))\,dx, \quad "
    r"p_G(x) = \sum_{z: G(z) = x} \frac{p(z)}{|G'(z)|}",
    source="sheet, 3b",
)
def change_of_variables(seed: int) -> Relations:
    """Both sides by quadrature, over z and over x, with random discriminators; and the density has mass one."""
    generator = generator_of(seed)
    for name, image, density, points in _generators(seed):
        for _ in range(2):
            c = torch.randn(3, dtype=torch.float64, generator=generator)

            def log_fake(x: Tensor, c: Tensor = c) -> Tensor:
                return Minimax().generator(None, c[0] + c[1] * (-((x - 1) ** 2)).exp() + c[2] * torch.tanh(x))

            def over_z(z: Tensor, image: Logit = image, log_fake: Logit = log_fake) -> Tensor:
                return (-0.5 * z**2).exp() / math.sqrt(2 * math.pi) * log_fake(image(z))

            def over_x(x: Tensor, density: Logit = density, log_fake: Logit = log_fake) -> Tensor:
                return density(x) * log_fake(x)

            left = integrate(over_z, [-math.inf, 0.0, math.inf], name="E_z log(1 − D(G(z)))", tolerance=1e-9)
            right = integrate(over_x, points, name="∫ p_G log(1 − D)", tolerance=1e-9)
            yield equal(left, right, note=name)
        yield equal(integrate(density, points, name="∫ p_G", unit="1", tolerance=1e-9), 1, note=name)


# ── 3c: the best discriminator ──────────────────────────────────────────────────────────────────────────────────────


def _derivative_as_written(seed: int) -> Relations:
    for p, q in torch.rand(3, 2, dtype=torch.float64, generator=generator_of(seed)).tolist():
        best = p / (p + q)
        right = exact(-p / best + q / (1 - best), "−p/D* + q/(1 − D*)", unit="1")
        yield equal(right, 0, note=f"p = {p:.3f}, q = {q:.3f}")
        written = exact(p / best + q / (1 - best), "p/D* + q/(1 − D*), as in the sheet", unit="1")
        yield differ(written, 0, note="it is 2(p + q)")
        root = exact(abs(p / (p - q) - 0.5), "|root − ½| of the sheet's equation", unit="1")
        yield at_least(root, 0.5, note="p/(p − q) is not a probability")


@statement(
    "3c",
    "The cost is least at D* = p_data/(p_data + p_G), and nowhere else.",
    latex=r"D^*(x) = \frac{p_{data}(x)}{p_{data}(x) + p_G(x)}, \quad "
    r"\frac{\partial L}{\partial D} = -\frac{p_{data}}{D} + \frac{p_G}{1 - D} = 0, \quad "
    r"\frac{\partial^2 L}{\partial D^2} > 0",
    source="sheet, 3c; Goodfellow et al. 2014, proposition 1",
    erratum=Erratum(
        stated=r"\frac{\partial L}{\partial D} = \frac{p_{data}(x)}{D(x)} + \frac{p_G(x)}{1 - D(x)} = 0",
        right=r"\frac{\partial L}{\partial D} = -\frac{p_{data}(x)}{D(x)} + \frac{p_G(x)}{1 - D(x)} = 0",
        words="L = −p log D − q log(1 − D) has the derivative −p/D + q/(1 − D): the sign of the first term was lost. "
        "A sum of two positive terms is never 0 in (0, 1); the D* that the sheet then states solves the right "
        "equation.",
        counter_example=_derivative_as_written,
    ),
)
def best_discriminator(seed: int) -> Relations:
    """Symbolically; against other discriminators by quadrature; and by the library's loss, differentiated at D*."""
    import sympy

    p, q, d = sympy.symbols("p q D", positive=True)
    lagrangian = -p * sympy.log(d) - q * sympy.log(1 - d)
    slope = sympy.diff(lagrangian, d)  # Euler and Lagrange's equation, as L does not hold D′
    roots = sympy.solve(sympy.Eq(slope, 0), d)
    yield equal(exact(len(roots), "solutions", unit="1", method="symbolic"), 1)
    yield equal(exact(float(sympy.simplify(roots[0] - p / (p + q))), "solution − D*", unit="1", method="symbolic"), 0)
    bend = sympy.simplify(sympy.diff(lagrangian, d, 2) - p / d**2 - q / (1 - d) ** 2)
    yield equal(exact(float(bend), "L″ − (p/D² + q/(1 − D)²)", unit="1", method="symbolic"), 0, note="so L″ > 0")

    generator = generator_of(seed)
    for name, first, second in pairs(seed):

        def best(x: Tensor, first: Distribution = first, second: Distribution = second) -> Tensor:
            return Minimax().optimal_logit(first.log_prob(x), second.log_prob(x))

        x = torch.linspace(-3, 3, 61, dtype=torch.float64)
        densities = first.log_prob(x).exp(), second.log_prob(x).exp()
        gap = torch.sigmoid(best(x)) - densities[0] / (densities[0] + densities[1])
        yield equal(largest(gap, "largest |σ(t*) − D*|", unit="1"), 0, note=name)
        least = cost_of(best, first, second, "C(D*)")
        for size in (0.1, 1.0):
            c = size * torch.randn(2, dtype=torch.float64, generator=generator)
            other = cost_of(lambda x, c=c, best=best: best(x) + c[0] * torch.sin(3 * x) + c[1], first, second)
            yield at_least(other, least, note=f"{name}: another D costs more")
            yield differ(other, least, note=f"{name}: and not the same")


@statement(
    "3c.trained",
    "A trained discriminator approaches D* as its capacity grows, and never costs less than D* does.",
    latex=r"\sup_x |D_\omega(x) - D^*(x)| \to 0, \quad C(D_\omega) \geq \log 4 - 2\,\mathrm{JSD}(p_{data}, p_G)",
    source="sheet, 3c",
)
def trained_discriminators(seed: int) -> Relations:
    """Networks with one hidden layer of 1, 4 and 16 units, trained on the exact cost."""
    p, q = PAIR
    least = LOG_4 - 2 * jensen_shannon.quadrature(p, q).value
    before: Estimate | None = None
    for width in (1, 4, 16):
        found = trained_discriminator(width, seed)
        gap = exact(found.largest_gap, "sup |D − D*|", unit="1", method="grid")
        yield at_least(cost_of(found.logit, p, q), least, note=f"width {width}")
        if before:
            yield at_most(gap, before, note=f"width {width} against less")
        before = gap
    if before:
        yield at_most(before, 0.01, note="width 16")
