"""The page's mathematics, in Node, against torch, SciPy and the library's own quadrature."""

# ruff: noqa: E501  (scripts of the page's language)
from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from latentia.divergences import jensen_shannon
from latentia.explorer.networks import exported
from latentia.explorer.payload import Payload
from latentia.likelihood import evaluate_gaps, exact_log_likelihood
from latentia.networks import DCGAN, MLP, R3GAN, Conv, Fourier, Residual, ResidualMLP
from tests.explorer.conftest import array_of, content_of

LOAD = """
import zlib from "node:zlib";
import { arrayOf } from "page/numbers.mjs";
const raw = zlib.inflateSync(Buffer.from(given.payload, "base64"));
const buffer = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length);
"""

NETWORKS = {
    "mlp": (MLP(hidden=(9, 7), activation="gelu"), (1, 8, 8), 0),
    "spectral": (MLP(hidden=(9, 7), activation="leaky-relu", spectral_norm=True), (1, 8, 8), 0),
    "residual-mlp": (ResidualMLP(width=16, blocks=2), (1, 8, 9), 0),
    "conv": (Conv(width=4, hidden=8, norm="group"), (1, 10, 13), 0),
    "residual": (Residual(width=4), (3, 9, 8), 0),
    "r3gan": (R3GAN(width=4, group_width=2), (1, 12, 9), 0),
    "dcgan": (DCGAN(width=4, norm="none"), (1, 11, 8), 3),
    "dcgan-batch": (DCGAN(width=4), (1, 8, 8), 0),
    "fourier": (Fourier(hidden=(8,), features=5), (2,), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_torch_does(name, node):
    network, shape, classes = NETWORKS[name]
    torch.manual_seed(1)
    modules = [network.encoder(shape, 3, classes)]
    if len(shape) > 1 or name == "fourier":
        modules.append(network.decoder(4, shape, classes))
    inputs = [torch.rand(2, *shape), torch.randn(2, 4)]
    labels = torch.tensor([2, 0])
    for module, x in zip(modules, inputs, strict=False):
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean = torch.randn(part.num_features)
                part.running_var = torch.rand(part.num_features) + 0.5
        payload = Payload()
        layers = exported(module, payload, "float32")
        found = node(
            LOAD
            + """
            import { apply, loadLayers } from "page/network.mjs";
            const layers = loadLayers(given.layers, buffer);
            const result = given.x.map((x, k) =>
              Array.from(apply(layers, { data: Float32Array.from(x), shape: given.shape }, given.labels[k]).data));
            """,
            layers=layers,
            payload=payload.text(),
            x=x.flatten(1).tolist(),
            shape=list(x.shape[1:]),
            labels=labels.tolist(),
        )
        with torch.no_grad():
            expected = module.eval()(x, labels) if classes else module.eval()(x)
        np.testing.assert_allclose(found, expected.flatten(1), rtol=2e-4, atol=2e-5)


def test_encodings_round_as_numpy_does(node):
    values = np.random.default_rng(0).normal(size=(4, 6)) * 10.0 ** np.arange(-2, 4)
    payload = Payload()
    references = {key: payload.add(values, key) for key in ("float32", "float16", "int8", "uint16")}
    references["bits"] = payload.add(values > 0, "bits")
    found = node(
        LOAD
        + "const result = Object.fromEntries(Object.entries(given.references).map(([k, r]) => [k, Array.from(arrayOf(r, buffer))]));",
        references=references,
        payload=payload.text(),
    )
    np.testing.assert_array_equal(found["float32"], values.astype(np.float32).ravel())
    np.testing.assert_array_equal(found["float16"], values.astype(np.float16).ravel())
    np.testing.assert_array_equal(found["bits"], (values > 0).ravel())
    assert np.abs(np.reshape(found["int8"], (4, 6)) - values).max() <= np.abs(values).max() / 127 / 2 * 1.001
    assert np.abs(np.reshape(found["uint16"], (4, 6)) - values).max() <= np.ptp(values) / 65535 * 0.51


def test_gauss_hermite_and_error_function_agree_with_scipy(node):
    found = node(
        """
        import { gaussHermite } from "page/gaps.mjs";
        import { erf } from "page/network.mjs";
        const result = { rules: [7, 9, 12].map((n) => gaussHermite(n).sort((a, b) => a.node - b.node)), erf: given.x.map(erf) };
        """,
        x=np.linspace(-7, 7, 57).tolist(),
    )
    for n, rule in zip((7, 9, 12), found["rules"], strict=True):
        nodes, weights = scipy.special.roots_hermitenorm(n)
        np.testing.assert_allclose([point["node"] for point in rule], nodes, atol=1e-11)
        np.testing.assert_allclose([point["weight"] for point in rule], weights / weights.sum(), atol=1e-12)
    np.testing.assert_allclose(found["erf"], scipy.special.erf(np.linspace(-7, 7, 57)), atol=1e-12)


def test_log_likelihoods_and_gaps_agree_with_the_quadrature(page, vae_run, node):
    """log p(x) within 0.05 nats of Python's on the same bits, and the encoder's bound; the heat map has mass 1."""
    scene = content_of(page)["scenes"][0]
    pixels = array_of(page, scene["images"]["pixels"])[:12]
    rng = np.random.default_rng(3)
    images = np.concatenate([pixels, rng.random((2, *pixels.shape[1:])) < 0.5]).astype(np.float32)
    found = node(
        """
        import fs from "node:fs";
        import zlib from "node:zlib";
        import { encode, loadModel } from "page/model.mjs";
        import { FINE, heatMap, Lattice, QUICK, solve, windowOf } from "page/posterior.mjs";
        import { bestGaussian, encoderBound } from "page/gaps.mjs";
        const html = fs.readFileSync(given.page, "utf8");
        const read = (id) => html.match(new RegExp(`id="${id}">([^]*?)</script>`))[1];
        const raw = zlib.inflateSync(Buffer.from(read("payload"), "base64"));
        const buffer = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length);
        const scene = JSON.parse(read("content")).scenes[0];
        const model = loadModel(scene, buffer);
        const lattice = new Lattice(model, scene.box);
        const result = given.images.map((x) => {
          const quick = solve(lattice, x, QUICK);
          const solution = solve(lattice, x, FINE);
          const q = encode(model, x);
          const { mass } = heatMap(lattice, solution, windowOf(lattice, solution, q), 64);
          const best = bestGaussian(lattice, solution, q, "diagonal");
          return { quick: quick.logEvidence, value: solution.logEvidence, error: solution.error, mass, mean: solution.mean,
            bound: encoderBound(lattice, solution, q), best: best.value, bestError: best.error };
        });
        """,
        page=str(page),
        images=images.reshape(len(images), -1).tolist(),
    )
    x = torch.from_numpy(images)
    exact = exact_log_likelihood(vae_run.model, x, tolerance=0.001).values.numpy()
    gaps = evaluate_gaps(vae_run.model, x, 0.001)
    read = {key: np.array([each[key] for each in found]) for key in ("quick", "value", "mass", "best", "mean")}
    bound = np.array([each["bound"]["value"] for each in found])
    rounding = 0.02  # of half floats, in nats; the page states its own
    assert np.abs(read["value"] - exact).max() < 0.05
    assert np.abs(read["quick"] - exact).max() < 0.15
    assert np.abs(read["mass"] - 1).max() < 0.01
    np.testing.assert_allclose(read["mean"], gaps.posterior.mean, atol=0.02)
    error = np.array([each["bound"]["error"] for each in found])
    assert (np.abs((exact - bound) - gaps.inference.numpy()) < 0.05 + 3 * error).all()
    assert (read["best"] <= exact + rounding + np.array([each["bestError"] for each in found])).all()
    assert (read["best"] >= bound - 1e-9).all()
    assert np.abs((exact - read["best"]) - gaps.approximation.numpy()).mean() < 0.05


READ = """
import fs from "node:fs";
import zlib from "node:zlib";
const html = fs.readFileSync(given.page, "utf8");
const read = (id) => html.match(new RegExp(`id="${id}">([^]*?)</script>`))[1];
const raw = zlib.inflateSync(Buffer.from(read("payload"), "base64"));
const buffer = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length);
const scene = JSON.parse(read("content")).scenes[given.scene];
"""


@pytest.mark.parametrize("name", ["labeled", "sphere"])
def test_log_likelihoods_given_a_label_and_on_the_sphere(name, page_of_kinds, kinds, node):
    """log p(x|y) with the prior p(z|y), and log p(x) over a sphere by its map, against the library's quadrature."""
    place, run = list(kinds).index(name), kinds[name]
    images = array_of(page_of_kinds, content_of(page_of_kinds)["scenes"][place]["images"]["pixels"])[:4]
    x = torch.from_numpy(images.astype(np.float32))
    labels = [0, 7, 2, 7] if name == "labeled" else [0] * 4
    found = node(
        READ
        + """
        import { encode, giveLabel, loadModel } from "page/model.mjs";
        import { FINE, heatMap, Lattice, solve, windowOf } from "page/posterior.mjs";
        import { encoderBound } from "page/gaps.mjs";
        const model = loadModel(scene, buffer);
        const result = given.images.map((x, k) => {
          giveLabel(model, given.labels[k]);
          const lattice = new Lattice(model, scene.box);
          const q = encode(model, x);
          const solution = solve(lattice, x, FINE);
          const { mass } = heatMap(lattice, solution, windowOf(lattice, solution, q.factor ? q : null), 64);
          return { value: solution.logEvidence, mass, mean: q.mean, bound: q.factor ? encoderBound(lattice, solution, q).value : 0 };
        });
        """,
        page=str(page_of_kinds),
        scene=place,
        images=x.flatten(1).tolist(),
        labels=labels,
    )
    for image, label, each in zip(x, labels, found, strict=True):
        vae = run.model.given(label) if name == "labeled" else run.model
        exact = exact_log_likelihood(vae, image[None], tolerance=0.001).values.item()
        assert each["value"] == pytest.approx(exact, abs=0.05)
        assert each["mass"] == pytest.approx(1, abs=0.02)
        q = vae.encode(image[None])
        if name == "labeled":
            np.testing.assert_allclose(each["mean"], q.mean[0].detach(), atol=0.01)
            torch.manual_seed(0)
            assert each["bound"] == pytest.approx(vae.elbo(image[None], samples=4000).item(), abs=0.1)
        else:
            direction = q.mean[0].detach() / q.mean[0].norm().detach()
            angle, height = np.pi * each["mean"][0], each["mean"][1]
            radius = np.sqrt(1 - height**2)
            np.testing.assert_allclose([radius * np.cos(angle), radius * np.sin(angle), height], direction, atol=0.01)


def test_sums_over_codes_are_those_of_the_library(page_of_kinds, kinds, node):
    place, vae = list(kinds).index("codes"), kinds["codes"].model
    scene = content_of(page_of_kinds)["scenes"][place]
    images = array_of(page_of_kinds, scene["images"]["pixels"])[:5].astype(np.float32)
    found = node(
        READ
        + """
        import { imageTerms, loadModel, logJoint, nodeAt } from "page/model.mjs";
        import { codeLogits, valuesOfCodes } from "page/enumeration.mjs";
        const model = loadModel(scene, buffer);
        const codes = valuesOfCodes(scene.variables, scene.values);
        const result = given.images.map((x) => ({
          joint: codes.map(({ z }) => logJoint(imageTerms(model, x), nodeAt(model, z))),
          q: codeLogits(model, scene, x),
        }));
        """,
        page=str(page_of_kinds),
        scene=place,
        images=images.reshape(len(images), -1).tolist(),
    )
    x = torch.from_numpy(images)
    exact = exact_log_likelihood(vae, x).values
    joint = torch.tensor([each["joint"] for each in found])
    np.testing.assert_allclose(joint.logsumexp(1), exact, atol=0.02)
    np.testing.assert_allclose([each["q"] for each in found], vae.encode(x).log_probs().detach(), atol=0.01)
    assert array_of(page_of_kinds, scene["usage"]).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["bigan", "vae-gan"])
def test_hybrids_encode_and_generate_as_in_python(name, page_of_kinds, kinds, node):
    place, gan = list(kinds).index(name), kinds[name].model
    x = kinds[name].test.x[:3]
    found = node(
        READ
        + """
        import { decode, encode, loadModel } from "page/model.mjs";
        const model = loadModel(scene, buffer);
        const result = given.images.map((x) => Array.from(decode(model, encode(model, x).mean)));
        """,
        page=str(page_of_kinds),
        scene=place,
        images=x.flatten(1).tolist(),
    )
    np.testing.assert_allclose(found, gan.reconstruct(x).flatten(1), atol=0.01)


def test_gaussian_fit_and_importance_bounds_on_a_linear_model(node):
    """With a Gaussian decoder that is linear in z the posterior is Gaussian: the best bound and L_K reach log p(x)."""
    rng = np.random.default_rng(5)
    weight, bias, scale = rng.normal(size=(2, 9)), rng.normal(size=9), 0.7
    x = rng.normal(size=9)
    payload = Payload()
    layer = {"op": "linear", "weight": payload.add(weight), "bias": payload.add(bias)}
    found = node(
        LOAD
        + """
        import { gaussian, loadModel } from "page/model.mjs";
        import { Lattice, solve } from "page/posterior.mjs";
        import { bestGaussian, importanceBounds, logWeights } from "page/gaps.mjs";
        import { meanAndError } from "page/numbers.mjs";
        const model = loadModel({ latent: 2, shape: [1, 3, 3], model: { encoder: null, decoder: [given.layer],
          prior: { name: "normal" }, posterior: { name: "full" }, likelihood: { name: "gaussian", mean: "identity", scale: given.scale } } }, buffer);
        const lattice = new Lattice(model, [-6, 6]);
        const solution = solve(lattice, given.x);
        const q = gaussian([0.3, 0.2], [[0.5, 0], [0.1, 0.4]]);
        const draws = logWeights(model, given.x, q, 3);
        const weights = Array.from({ length: 4096 }, () => draws.next().value);
        const result = { value: solution.logEvidence, best: bestGaussian(lattice, solution, q, "full"),
          bounds: [1, 16].map((K) => meanAndError(importanceBounds(weights, K))),
          evidence: importanceBounds(weights, 4096)[0], mean: solution.mean, covariance: solution.covariance };
        """,
        layer=layer,
        payload=payload.text(),
        scale=scale,
        x=x.tolist(),
    )
    w = weight.astype(np.float32).astype(np.float64)
    b = bias.astype(np.float32).astype(np.float64)
    model = MultivariateNormal(torch.from_numpy(b), torch.from_numpy(w.T @ w + scale**2 * np.eye(9)))
    exact = model.log_prob(torch.from_numpy(x)).item()
    covariance = np.linalg.inv(np.eye(2) + w @ w.T / scale**2)
    mean = covariance @ w @ (x - b) / scale**2
    assert found["value"] == pytest.approx(exact, abs=1e-4)  # the page computes in float32
    assert found["best"]["value"] == pytest.approx(exact, abs=1e-4)
    np.testing.assert_allclose(found["mean"], mean, atol=1e-4)
    np.testing.assert_allclose(found["covariance"], covariance, atol=1e-4)
    np.testing.assert_allclose(found["best"]["q"]["mean"], mean, atol=1e-3)
    first, second = found["bounds"]
    q = MultivariateNormal(torch.tensor([0.3, 0.2]).double(), scale_tril=torch.tensor([[0.5, 0], [0.1, 0.4]]).double())
    posterior = MultivariateNormal(torch.from_numpy(mean), torch.from_numpy(covariance))
    bound = exact - torch.distributions.kl_divergence(q, posterior).item()
    assert abs(first["mean"] - bound) < 5 * first["error"]
    assert first["mean"] < second["mean"] < exact + 5 * second["error"]


def test_mixture_priors_and_full_posteriors_have_torchs_densities(node):
    torch.manual_seed(0)
    means, factors = torch.randn(3, 2).double(), torch.tril(torch.rand(3, 2, 2).double() + 0.2)
    logits, z = torch.randn(3).double(), torch.randn(5, 2).double()
    payload = Payload()
    prior = {
        "name": "mixture",
        "logits": payload.add(logits),
        "means": payload.add(means),
        "factors": payload.add(factors),
    }
    found = node(
        LOAD
        + """
        import { loadModel } from "page/model.mjs";
        const model = loadModel({ latent: 2, shape: [1], model: { encoder: null, decoder: null, prior: given.prior,
          likelihood: { name: "none", mean: "identity" } } }, buffer);
        const result = given.z.map((z) => model.prior.logDensity(z));
        """,
        prior=prior,
        payload=payload.text(),
        z=z.tolist(),
    )
    parts = MultivariateNormal(means, scale_tril=factors)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=logits), parts)
    np.testing.assert_allclose(found, mixture.log_prob(z), rtol=1e-5)


def test_divergences_of_uniforms_and_gaussians(node):
    found = node(
        """
        import { normalJensenShannon, normalKL, uniformDivergences } from "page/toys.mjs";
        const [p, q] = [{ mean: 0, sigma: 1 }, { mean: 1.5, sigma: 0.4 }];
        const result = { uniform: [0, 0.5, 1, 2].map(uniformDivergences), jsd: normalJensenShannon(p, q), kl: normalKL(p, q) };
        """
    )
    p, q = (
        torch.distributions.Normal(torch.tensor(m).double(), torch.tensor(s).double())
        for m, s in ((0.0, 1.0), (1.5, 0.4))
    )
    assert found["jsd"]["value"] == pytest.approx(jensen_shannon.quadrature(p, q).value, abs=1e-8)
    assert found["kl"] == pytest.approx(torch.distributions.kl_divergence(p, q).item())
    assert [each["w1"] for each in found["uniform"]] == [0, 0.5, 1, 2]
    np.testing.assert_allclose([each["jsd"] for each in found["uniform"]], np.log(2) * np.array([0, 0.5, 1, 1]))
    assert [each["kl"] for each in found["uniform"]] == [0, None, None, None]  # JSON writes infinities as null


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating", "wasserstein"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_dirac_gan_moves_as_the_librarys_losses_do(loss, gamma, node):
    from latentia.objectives import Minimax, NonSaturating, Wasserstein

    used = {"minimax": Minimax(), "nonsaturating": NonSaturating(), "wasserstein": Wasserstein()}[loss]
    found = node(
        """
        import { diracEigenvalues, diracField, diracStepRadius } from "page/dirac.mjs";
        const settings = { loss: given.loss, gamma: given.gamma, generatorRate: 0.3, discriminatorRate: 0.2, alternating: false };
        const result = { field: diracField(settings, [0.7, -0.4]), eigenvalues: diracEigenvalues(settings), radius: diracStepRadius(settings) };
        """,
        loss=loss,
        gamma=gamma,
    )

    def field(state: torch.Tensor) -> torch.Tensor:
        theta, psi = state
        real, fake = torch.zeros(1).double() * psi, (psi * theta).reshape(1)
        cost = used.discriminator(real, fake).sum() + gamma / 2 * psi**2
        (by_psi,) = torch.autograd.grad(cost, psi, create_graph=True)
        (by_theta,) = torch.autograd.grad(used.generator(real, fake).sum(), theta, create_graph=True)
        return torch.stack([-0.3 * by_theta, -0.2 * by_psi])

    state = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(found["field"], field(state).detach(), rtol=1e-9)
    jacobian = torch.autograd.functional.jacobian(field, torch.zeros(2, dtype=torch.float64))
    expected = sorted(np.linalg.eigvals(jacobian.numpy()), key=lambda v: (v.real, v.imag))
    written = sorted((complex(*pair) for pair in found["eigenvalues"]), key=lambda v: (v.real, v.imag))
    np.testing.assert_allclose(written, expected, atol=1e-9)
    step = np.abs(np.linalg.eigvals(np.eye(2) + jacobian.numpy())).max()
    assert found["radius"] == pytest.approx(step, abs=1e-5)


def test_drawn_strokes_are_centered_by_their_mass(node):
    """A thick ring in a corner of the pad: 20 pixels wide, and its center of mass at the middle of the image."""
    side = 160
    y, x = np.mgrid[:side, :side]
    radius = np.hypot(y - 45, x - 40)
    pixels = ((radius < 34) & (radius > 20)).astype(float)
    found = node(
        """
        import { binarized, centered } from "page/digits.mjs";
        const image = centered(given.pixels, given.side, [28, 28]);
        const result = { image: Array.from(image), bits: Array.from(binarized(image, "static")), edge: Array.from(binarized(image, "threshold")),
          empty: Array.from(centered(new Float32Array(given.side ** 2), given.side, [28, 28])) };
        """,
        pixels=pixels.ravel().tolist(),
        side=side,
    )
    image = np.array(found["image"]).reshape(28, 28)
    rows = np.flatnonzero(image.max(1) > 0.2)
    assert 19 <= rows[-1] - rows[0] + 1 <= 21
    center = (image * (np.mgrid[:28, :28] + 0.5)).sum((1, 2)) / image.sum()
    np.testing.assert_allclose(center, 14, atol=0.15)
    assert set(found["bits"]) | set(found["edge"]) == {0, 1}
    assert abs(np.sum(found["bits"]) - image.sum()) < 5 * np.sqrt((image * (1 - image)).sum() + 1)
    assert not any(found["empty"])
