"""Beyond the sheet: the linear VAE is probabilistic PCA; transport and its duals; the smallest GAN."""

from __future__ import annotations

__all__: list[str] = []

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import optimize
from torch import Tensor
from torch.distributions import Normal

from latentia.distributions.finite import Finite
from latentia.divergences import empirical, wasserstein
from latentia.estimate import Estimate, exact
from latentia.objectives import (
    R1,
    AdversarialLoss,
    DiscriminatorOutput,
    Minimax,
    NonSaturating,
    NoPenalty,
    Penalty,
    Wasserstein,
)
from latentia.theory.instances import LinearGaussian, generator_of, largest, random_gaussian
from latentia.theory.statement import Relations, at_least, at_most, differ, equal, statement

# ── the linear VAE ──────────────────────────────────────────────────────────────────────────────────────────────────


def _linear_vae_bound(covariance: Tensor, latent: int, seed: int) -> tuple[float, Tensor, float]:
    """Train a linear VAE on data of this covariance by its exact mean bound: the bound, the decoder (G, d), and σ.

    q(z|x) = N(V(x − mean), diag s²), p(x|z) = N(Wz + mean, σ²): the bound depends on the data by its covariance alone.
    """
    pixels = len(covariance)
    generator = generator_of(seed)

    def random(*shape: int) -> Tensor:
        return (0.3 * torch.randn(shape, dtype=torch.float64, generator=generator)).requires_grad_()

    decoder, encoder, log_scale, log_sigma = random(pixels, latent), random(latent, pixels), random(latent), random()
    parameters = [decoder, encoder, log_scale, log_sigma]

    def cost() -> Tensor:
        residual = torch.eye(pixels, dtype=torch.float64) - decoder @ encoder
        variance = (2 * log_scale).exp()
        spread = torch.trace(residual @ covariance @ residual.T) + (decoder.square() * variance).sum()
        distortion = pixels * (log_sigma + 0.5 * math.log(2 * math.pi)) + spread / (2 * (2 * log_sigma).exp())
        means = torch.trace(encoder @ covariance @ encoder.T)
        rate = 0.5 * (means + (variance - 1 - 2 * log_scale).sum())
        return distortion + rate

    optimizer = torch.optim.LBFGS(
        parameters, max_iter=400, history_size=40, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = cost()
        value.backward()
        return value

    optimizer.step(closure)
    return -cost().item(), decoder.detach(), log_sigma.exp().item()


@statement(
    "beyond.ppca",
    "A linear VAE's best bound is the likelihood of probabilistic PCA, and its decoder spans the principal axes.",
    latex=r"\max_{\theta, \phi} \mathrm{ELBO} = \max_{W, \sigma} \log N(x; \bar x, W W^\top + \sigma^2 I), \quad "
    r"\sigma^2 = \frac{1}{G - d} \sum_{j > d} \lambda_j",
    source="Lucas et al. 2019, section 4; Tipping and Bishop 1999, eqs. 7 and 8; scikit-learn for the axes",
)
def linear_vae_is_pca(seed: int) -> Relations:
    """Trained from a random start on the exact bound, against scikit-learn's decomposition of the same data."""
    from sklearn.decomposition import PCA

    truth = LinearGaussian.random(3, 8, 0.7, generator_of(seed))
    noise = torch.randn(500, 8, dtype=torch.float64, generator=generator_of(seed + 1))
    x = truth.evidence.mean + noise @ truth.evidence.scale_tril.T
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    for latent in (1, 3):
        fitted = PCA(latent).fit(x.numpy())
        shrink = (len(x) - 1) / len(x)  # scikit-learn divides by n − 1, the greatest likelihood by n
        sigma = math.sqrt(fitted.noise_variance_ * shrink)
        axes = torch.from_numpy(fitted.components_)
        scales = (torch.from_numpy(fitted.explained_variance_) * shrink - sigma**2).sqrt()
        model = LinearGaussian(axes.T * scales, mean, sigma)
        likelihood = model.evidence.log_prob(x).mean().item()
        bound, decoder, trained_sigma = _linear_vae_bound(covariance, latent, seed)
        note = f"d = {latent}"
        left = exact(bound, "best mean bound", method="L-BFGS")
        yield equal(left, exact(likelihood, "log p(x) of PPCA"), tolerance=1e-6, note=note)
        yield equal(exact(trained_sigma, "σ", unit="1", method="L-BFGS"), sigma, tolerance=1e-4, note=note)
        basis = torch.linalg.qr(decoder).Q
        outside = decoder - axes.T @ (axes @ decoder)
        yield equal(largest(outside, "largest part off the principal axes", "1"), 0, tolerance=1e-3, note=note)
        yield equal(exact(float(torch.linalg.matrix_rank(basis)), "rank", unit="1"), latent, note=note)
        # PCA.score uses n − 1, so it lies just below the greatest likelihood.
        yield at_most(exact(float(fitted.score(x.numpy())), "PCA.score", method="scikit-learn"), likelihood, note=note)
        posterior = model.posterior(x).covariance_matrix
        off = posterior - torch.diag_embed(posterior.diagonal(dim1=-2, dim2=-1))
        yield equal(largest(off, "posterior covariance off the diagonal", "1"), 0, tolerance=1e-10, note=note)


# ── transport ───────────────────────────────────────────────────────────────────────────────────────────────────────


@statement(
    "beyond.kantorovich",
    "Kantorovich and Rubinstein: the least cost of moving P to Q is the greatest rise of a 1-Lipschitz function.",
    latex=r"W_1(P, Q) = \min_\pi \sum_{ij} \pi_{ij} |x_i - y_j| = \max_{\|f\|_L \leq 1} E_P f - E_Q f",
    source="Kantorovich and Rubinstein 1958; Villani 2003, theorem 1.14",
)
def duality(seed: int) -> Relations:
    """Finite distributions on the line and in the plane: two linear programs, and the library's exact distance."""
    generator = generator_of(seed)
    for dimension in (1, 2):
        points = torch.randn(9, dimension, dtype=torch.float64, generator=generator)
        p, q = torch.rand(2, 9, dtype=torch.float64, generator=generator)
        p, q = p / p.sum(), torch.where(torch.arange(9) < 3, 0.0, q) / q[3:].sum()
        cost = torch.cdist(points, points).numpy()
        space = points[:, 0] if dimension == 1 else points
        found = wasserstein.exact(Finite(space, p), Finite(space, q))
        note = f"R^{dimension}"
        yield equal(found, _least_transport(cost, p.numpy(), q.numpy()), tolerance=1e-9, note=f"{note}: primal")
        yield equal(found, _greatest_rise(cost, p.numpy(), q.numpy()), tolerance=1e-9, note=f"{note}: dual")
        kept = q > 0
        matched = empirical.assignment(points, points[kept], 1, p, q[kept])
        yield equal(matched, found, tolerance=1e-9, note=f"{note}: between weighted samples")


def _least_transport(cost: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    n = len(p)
    rows = np.kron(np.eye(n), np.ones(n))
    columns = np.kron(np.ones(n), np.eye(n))
    found = optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]), method="highs")
    return float(found.fun)


def _greatest_rise(cost: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """Over functions on the points with f(x) − f(y) ≤ |x − y|; f is 0 at the first."""
    n = len(p)
    differences = (np.eye(n)[:, None, :] - np.eye(n)[None, :, :]).reshape(n * n, n)
    bounds = [(0, 0)] + [(None, None)] * (n - 1)
    found = optimize.linprog(q - p, A_ub=differences, b_ub=cost.ravel(), bounds=bounds, method="highs")
    return -float(found.fun)


@statement(
    "beyond.bures",
    "Between Gaussians, W₂ has Bures's closed form, and the map that reaches it is linear.",
    latex=r"W_2^2 = |m_p - m_q|^2 + \operatorname{tr}\left(\Sigma_p + \Sigma_q - 2 (\Sigma_p^{1/2} \Sigma_q "
    r"\Sigma_p^{1/2})^{1/2}\right)",
    source="Dowson and Landau 1982; Gelbrich 1990",
)
def between_gaussians(seed: int) -> Relations:
    """By quantiles on the line; in Rᵈ by the linear map, and from below by Kantorovich's dual on samples."""
    generator = generator_of(seed)
    mean, scale = torch.rand(2, 2, dtype=torch.float64, generator=generator) + 0.3
    p, q = Normal(mean[0], scale[0]), Normal(mean[1], scale[1])
    yield equal(wasserstein.exact(p, q, 2), wasserstein.quadrature(p, q, 2), note="line")
    for dimension in (2, 5):
        p, q = random_gaussian(dimension, generator), random_gaussian(dimension, generator)
        square = wasserstein.exact(p, q, 2).value ** 2
        # T(x) = m_q + A (x − m_p) with A Σp A = Σq, A symmetric and positive: the gradient of a convex function.
        root = _square_root(p.covariance_matrix)
        inverse = torch.linalg.inv(root)
        a = inverse @ _square_root(root @ q.covariance_matrix @ root) @ inverse
        pushed = a @ p.covariance_matrix @ a - q.covariance_matrix
        yield equal(largest(pushed, "largest |A Σp A − Σq|", "1"), 0, tolerance=1e-9, note=f"d = {dimension}")
        x = p.mean + torch.randn(20_000, dimension, dtype=torch.float64, generator=generator) @ p.scale_tril.T
        y = q.mean + torch.randn(20_000, dimension, dtype=torch.float64, generator=generator) @ q.scale_tril.T
        image = q.mean + (x - p.mean) @ a
        moved = Estimate.mean((x - image).square().sum(-1), name="E |x − T(x)|²", unit="1")
        yield equal(moved, square, note=f"d = {dimension}: the map's cost")
        potential, conjugate = _potentials(p.mean, q.mean, a)
        on_p, on_q = Estimate.mean(potential(x)), Estimate.mean(conjugate(y))
        stderr = math.hypot(on_p.stderr or 0, on_q.stderr or 0)
        dual = Estimate(on_p.value + on_q.value, "E_P f + E_Q g", stderr, unit="1", method="monte carlo")
        yield equal(dual, square, note=f"d = {dimension}: the dual")
        slack = (x - y).square().sum(-1) - potential(x) - conjugate(y)
        yield at_least(exact(slack.min().item(), "least |x − y|² − f(x) − g(y)", unit="1"), 0, 1e-9)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


def _potentials(mean_p: Tensor, mean_q: Tensor, a: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """f and g with f(x) + g(y) ≤ |x − y|², and equality on the map: |x|² − 2φ(x) and |y|² − 2φ*(y), φ quadratic."""
    inverse = torch.linalg.inv(a)

    def f(x: Tensor) -> Tensor:
        u = x - mean_p
        return x.square().sum(-1) - (u @ a * u).sum(-1) - 2 * x @ mean_q

    def g(y: Tensor) -> Tensor:
        v = y - mean_q
        return y.square().sum(-1) - (v @ inverse * v).sum(-1) - 2 * v @ mean_p

    return f, g


# ── the smallest GAN ────────────────────────────────────────────────────────────────────────────────────────────────


def _field(loss: AdversarialLoss, penalty: Penalty, state: Tensor) -> Tensor:
    """Where both players' gradients push (θ, ψ): data at 0, a generator at θ, the discriminator t(x) = ψ x."""
    theta, psi = state[0], state[1]
    real = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    fake = theta.reshape(1, 1)

    def score(x: Tensor) -> Tensor:
        return (psi * x)[:, 0]

    seen = DiscriminatorOutput(real, fake, score(real), score(fake), score)
    cost = loss.discriminator(seen.real_logits, seen.fake_logits) + penalty.weight(0.0) * penalty(seen)
    (by_psi,) = torch.autograd.grad(cost.sum(), psi, create_graph=True)
    (by_theta,) = torch.autograd.grad(loss.generator(seen.real_logits, score(fake)).sum(), theta, create_graph=True)
    return -torch.stack([by_theta, by_psi])


def _eigenvalues(loss: AdversarialLoss, penalty: Penalty) -> list[complex]:
    """Of the field's Jacobian at the equilibrium (0, 0), by falling imaginary, then real part."""
    state = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    pushes = _field(loss, penalty, state)
    rows = [torch.autograd.grad(push, state, retain_graph=True)[0] for push in pushes]
    values = torch.linalg.eigvals(torch.stack(rows)).tolist()
    return sorted(values, key=lambda value: (-round(value.imag, 9), -value.real))


@statement(
    "beyond.dirac",
    "The Dirac-GAN circles its equilibrium without converging; with a gradient penalty it converges, fastest at γ = 1.",
    latex=r"\lambda = -\frac{\gamma}{2} \pm \sqrt{\frac{\gamma^2}{4} - f'(0)^2}, \quad f'(0) = \tfrac12",
    source="Mescheder et al. 2018, lemmas 2.3 and 4.1",
)
def dirac_gan(_seed: int) -> Relations:
    """Eigenvalues by differentiating the library's losses and its R1 penalty; and the game itself, step by step."""
    for loss, slope in ((Minimax(), 0.5), (NonSaturating(), 0.5), (Wasserstein(), 1.0)):
        for gamma in (0.0, 0.5, 1.0, 2.0, 4.0):
            penalty = R1(gamma=gamma) if gamma else NoPenalty()
            root = complex(gamma**2 / 4 - slope**2) ** 0.5
            expected = sorted((-gamma / 2 + s * root for s in (1, -1)), key=lambda v: (-round(v.imag, 9), -v.real))
            for number, (found, known) in enumerate(zip(_eigenvalues(loss, penalty), expected, strict=True), start=1):
                note = f"{loss.type_name}, γ = {gamma:g}"
                # At the critical γ the matrix is defective, and eigenvalues carry the root of the rounding.
                slack = 1e-7 if abs(root) < 1e-9 else 1e-12
                for part, name in (("real", "Re λ"), ("imag", "Im λ")):
                    left = exact(getattr(found, part), f"{name}, {number}", unit="1", method="differentiation")
                    yield equal(left, getattr(known, part), tolerance=slack, note=note)
    slowest = {gamma: max(v.real for v in _eigenvalues(Minimax(), R1(gamma=gamma))) for gamma in (0.8, 1.0, 1.25)}
    for gamma in (0.8, 1.25):
        left = exact(slowest[1.0], "slowest rate at γ = 1", unit="1", method="differentiation")
        yield at_most(left, exact(slowest[gamma], f"at γ = {gamma}", unit="1"), note="γ = 1 is critical")
        yield differ(left, exact(slowest[gamma], f"at γ = {gamma}", unit="1"))
    for penalty, name in ((NoPenalty(), "no penalty"), (R1(gamma=1.0), "γ = 1")):
        state = torch.tensor([1.0, 0.0], dtype=torch.float64)
        for _ in range(400):
            leaf = state.requires_grad_()
            state = (leaf + 0.1 * _field(Minimax(), penalty, leaf)).detach()
        distance = exact(state.norm().item(), "distance to equilibrium after 400 steps", unit="1", method="play")
        yield at_least(distance, 1, note=name) if name == "no penalty" else at_most(distance, 1e-3, note=name)
