"""What the page gets of a VAE: its model, encoded test images, images to choose from, and how exact all of it is."""

from __future__ import annotations

__all__: list[str] = []

import copy
import math
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from latentia.distributions import (
    Bernoulli,
    CategoricalPosterior,
    ContinuousBernoulli,
    Diagonal,
    Fixed,
    Full,
    Gaussian,
    GaussianLearnedScale,
    OneHotCodes,
    VonMisesFisher,
)
from latentia.distributions.conditional import Family
from latentia.distributions.gaussians import StandardGaussian
from latentia.distributions.sphere import is_on_sphere
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.explorer.networks import as_read, exported
from latentia.explorer.payload import Encoding, Payload
from latentia.models import VAE, VAEGAN, AdversarialAutoencoder, BiGAN, ConditionalVAE, EncodedGAN
from latentia.recipes import Run
from latentia.training import seed_of, seeded

ModelT = TypeVar("ModelT", bound=nn.Module)

ENCODED = 5_000  # test images whose q(z|x) the page shows
CHOSEN = 300  # test images that a reader can choose
NEIGHBORS = 2_000  # training images that the nearest ones are searched in
COMPARED = 256  # test images that measure the rounding of the weights
FACTS = {  # estimates of the run that the page repeats, with their names there
    "log_likelihood": "log p(x)",
    "elbo": "bound (ELBO)",
    "inference_gap": "inference gap",
    "approximation_gap": "approximation gap",
    "amortization_gap": "amortization gap",
}
MOST_CODES = 400  # that a page shows
PLANE = 2  # dimensions of z, at most, for a heat map of the posterior
ATLAS = 28  # decoded pictures along a side, where the decoder cannot be exported
TITLES: dict[type[nn.Module], str] = {
    ConditionalVAE: "Class-conditional VAE",
    AdversarialAutoencoder: "Adversarial autoencoder",
    BiGAN: "BiGAN",
    VAEGAN: "VAE/GAN",
}


@dataclass
class Scene:
    """A tab of the page: what its script reads, and what a reader should know of what is missing or inexact."""

    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def vae_scene(run: Run, payload: Payload, encoding: Encoding) -> Scene:
    """The tab of a VAE; a class-conditional one is shown for one label at a time.

    Args:
        run: a finished run whose model is a `VAE`.
        payload: takes the arrays.
        encoding: of the weights.

    Raises:
        UnsupportedError: for examples that are not images.
    """
    vae = cast(VAE, run.model)
    scene = _images_scene(run, payload)
    content, test = scene.content, run.test
    if content["kind"] == "codes":
        content |= _codes(vae, payload, test.x[:ENCODED])
    content["model"] = _model(vae, payload, encoding, scene)
    content["facts"] = [
        {"name": FACTS[e.name.rpartition("/")[2]], "value": e.value, "stderr": e.stderr, "n": e.n, "kind": e.kind}
        | {"method": e.method}
        for e in _likelihoods(run)
    ]
    complete = content["model"]["decoder"] and content["model"]["likelihood"]["name"] != "none"
    if content["kind"] == "codes" and not complete:
        raise UnsupportedError(f"the page cannot compute {run.path}: {scene.notes[0]} `latentia report` shows this run")
    if content["model"]["decoder"]:
        labels = None if test.labels is None else test.labels[:COMPARED]
        content["rounding"] = _rounding(vae, test.x[:COMPARED], labels, encoding)
    else:
        codes = _encoded(vae, test.x[:ENCODED], test.labels)
        content["atlas"] = _atlas(_given(vae, 0), payload, codes, content["box"])
        if isinstance(vae, ConditionalVAE):
            scene.notes.append(f"The pictures made in Python are those of the label {run.splits.classes[0]}.")
    return scene


def encoded_gan_scene(run: Run, payload: Payload, encoding: Encoding) -> Scene:
    """The tab of a GAN with an encoder: G(z) at any z, and q(z|x). Without p(x|z) nothing has a likelihood.

    Raises:
        UnsupportedError: for examples that are not images.
    """
    gan = cast(EncodedGAN, run.model)
    scene = _images_scene(run, payload)
    model: dict[str, Any] = {"encoder": None, "decoder": None, "weights": encoding, "classes": 0}
    _export(model, {"encoder": gan.encoder.network, "decoder": gan.generator}, payload, encoding, scene)
    model |= {"posterior": _family(gan.encoder.family, scene), "prior": {"name": "normal"}}
    model["likelihood"] = {"name": "none", "mean": "sigmoid"}
    scene.content |= {"model": model, "facts": [], "decoded": "G(z)"}
    if model["decoder"]:
        scene.content["rounding"] = _generator_rounding(gan, run.test.x[:COMPARED], encoding)
    else:
        codes = _encoded(gan, run.test.x[:ENCODED])
        scene.content["atlas"] = _atlas(gan, payload, codes, scene.content["box"])
    return scene


def _given(model: ModelT, labels: Tensor | int | None) -> ModelT | VAE:
    """The VAE of examples with these labels; a model that takes no labels as it is."""
    return model.given(labels) if isinstance(model, ConditionalVAE) else model


def _images_scene(run: Run, payload: Payload) -> Scene:
    """What every tab with an encoder has: encoded test images, images to choose from, training images."""
    model = cast(VAE | EncodedGAN, run.model)
    shape = tuple(model.event_shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UnsupportedError(
            f"the page shows images of one or three channels, and examples of {run.path} have the shape {shape}; "
            "`latentia show` and `latentia report` show this run"
        )
    test, latent = run.test, model.latent
    enumerable = isinstance(model, VAE) and not isinstance(model, ConditionalVAE) and _is_of_codes(model, run)
    labels = None if test.labels is None else test.labels[:ENCODED]
    codes = _encoded(model, test.x[:ENCODED], labels)
    chart = _chart(model)
    if chart is not None and codes is not None:
        codes = _on_chart(codes[0]), torch.zeros(len(codes[0]), latent - 1)
    if enumerable:
        codes = None  # they have no place in a plane
    kind = "codes" if enumerable else "vae"
    scene = Scene({"kind": kind, "latent": latent, "shape": list(shape), "classes": list(run.splits.classes)})
    content = scene.content
    content |= {
        "title": next((title for kind, title in TITLES.items() if isinstance(model, kind)), "VAE"),
        "space": f"S{latent - 1}" if chart else f"R{latent}",
        "decoded": "E[x|z]",
        "binarize": run.recipe.data.binarize,
        "codes": None,
        "rounding": None,
        "chart": chart,
    }
    content["box"] = [-1.0, 1.0] if chart else _box(None if codes is None else codes[0])
    content["view"] = [-1.0, 1.0] if chart else _view(None if codes is None else codes[0])
    if chart is not None:
        content["latent"] = latent - 1  # coordinates of the map
    if codes is not None:
        mean, spread = codes
        content["codes"] = {
            "mean": payload.add(mean, "uint16" if content["latent"] <= PLANE else "float16"),
            "log_spread": payload.add(spread.clamp_min(1e-6).log(), "uint16"),
            "labels": None if labels is None else payload.add(labels, "uint8"),
        }
        content["axes"] = _principal_axes(mean)
    rows = _spread_over_classes(test.labels, len(test.x), CHOSEN)
    content["images"] = _images(payload, test.x[rows], test.labels, rows)
    train = run.splits.examples("train", NEIGHBORS)
    content["training"] = _images(payload, train.x, train.labels, torch.arange(len(train.x)))
    return scene


def _is_of_codes(vae: VAE, run: Run) -> bool:
    """Whether z is a code.

    Raises:
        UnsupportedError: for more codes than a page can show.
    """
    prior = vae.prior
    if not isinstance(prior, OneHotCodes):
        return False
    if prior.values**prior.variables > MOST_CODES:
        raise UnsupportedError(
            f"the page shows up to {MOST_CODES} codes, and z of {run.path} has {prior.values}^{prior.variables}; "
            "`latentia report` shows this run"
        )
    return True


@torch.no_grad()
def _codes(vae: VAE, payload: Payload, x: Tensor) -> dict[str, Any]:
    """Number of variables and of their values, and the share of every code among test images under q(z|x)."""
    prior = cast(OneHotCodes, vae.prior)
    shares = torch.cat([cast(OneHotCodes, vae.encode(part)).log_probs().exp() for part in x.split(1000)]).mean(0)
    return {"variables": prior.variables, "values": prior.values, "usage": payload.add(shares)}


def _chart(model: VAE | EncodedGAN) -> str | None:
    """The map that shows z: of the circle by its angle, of S² by longitude and z₃, which keeps areas; or none."""
    if isinstance(model, ConditionalVAE) or not is_on_sphere(model.prior):
        return None
    return {2: "circle", 3: "sphere"}.get(model.latent)


def _on_chart(z: Tensor) -> Tensor:
    """Coordinates in [−1, 1] of directions, (N, 2) or (N, 3)."""
    angle = torch.atan2(z[:, 1], z[:, 0]) / math.pi
    return torch.stack([angle, z[:, 2] / z.norm(dim=1)], 1) if z.shape[1] == 3 else angle[:, None]


def _likelihoods(run: Run) -> list[Estimate]:
    """Estimates of the test images' likelihood and bounds that the run holds."""
    found = [e for estimates in run.directory.evaluations().values() for e in estimates]
    return [e for e in found if e.name.rpartition("/")[2] in FACTS and math.isfinite(e.value)]


@torch.no_grad()
def _encoded(model: VAE | EncodedGAN, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
    """Means and standard deviations of q(z|x), or q(z|x, y); None for a q that has none."""
    found = []
    try:
        for rows in torch.arange(len(x)).split(1000):
            q = _given(model, None if labels is None else labels[rows]).encode(x[rows])
            found.append((q.mean, q.stddev))
    except (NotImplementedError, UnsupportedError):
        return None
    mean, spread = (torch.cat(parts) for parts in zip(*found, strict=True))
    return mean, spread


def _box(mean: Tensor | None) -> list[float]:
    """The range of each axis of z in which the posterior is computed: symmetric, around all codes and the prior."""
    reach = 4.5 if mean is None else max(4.5, mean.abs().max().item() + 1.0)
    return [-round(reach, 2), round(reach, 2)]


def _view(mean: Tensor | None) -> list[float]:
    """The range of each axis that is shown: around nearly all codes and the prior."""
    if mean is None:
        return [-3.5, 3.5]
    reach = max(3.2, 1.12 * torch.quantile(mean.abs().amax(1), 0.998).item())
    return [-round(reach, 2), round(reach, 2)]


def _model(vae: VAE, payload: Payload, encoding: Encoding, scene: Scene) -> dict[str, Any]:
    """Prior, posterior, likelihood and both networks, with None for what the page cannot compute."""
    model: dict[str, Any] = {"encoder": None, "decoder": None, "weights": encoding, "classes": 0}
    networks = {"encoder": vae.posterior.network, "decoder": vae.likelihood.network}
    _export(model, networks, payload, encoding, scene)
    model["posterior"] = _family(vae.posterior.family, scene)
    likelihood = _likelihood(vae)
    if likelihood is None:
        kind = type(vae.likelihood.family).__name__
        scene.notes.append(
            f"log p(x|z) of {kind} is not computed in the page: the exact posterior and all bounds are left out, and "
            "pictures are means E[x|z] made in Python."
        )
        likelihood, model["decoder"] = {"name": "none", "mean": "identity"}, None
    model["likelihood"] = likelihood
    if isinstance(vae, ConditionalVAE):
        model["classes"] = vae.classes
        if vae.conditional_prior:
            model["priors"] = [_prior(vae.given(label).prior, payload) for label in range(vae.classes)]
    prior = _given(vae, 0).prior
    model["prior"] = _prior(prior, payload)
    if model["prior"] is None:
        scene.notes.append(
            f"log p(z) of {type(prior).__name__} is not computed in the page: the exact posterior and all bounds "
            "are left out."
        )
    return model


def _export(
    model: dict[str, Any], networks: dict[str, nn.Module], payload: Payload, encoding: Encoding, scene: Scene
) -> None:
    """Write networks into `model`, and a note on each that the page cannot compute."""
    for name, network in networks.items():
        try:
            model[name] = exported(network, payload, encoding)
        except UnsupportedError as error:
            scene.notes.append(f"The {name}: {error}.")


def _family(family: Family, scene: Scene) -> dict[str, Any] | None:
    """The family of q(z|x) as the page reads it; None, with a note, for one that it does not know."""
    if isinstance(family, Fixed):
        return {"name": "fixed", "scale": family.scale}
    if isinstance(family, Diagonal | Full):
        return {"name": "diagonal" if isinstance(family, Diagonal) else "full"}
    if isinstance(family, CategoricalPosterior):
        return {"name": "codes"}
    if isinstance(family, VonMisesFisher) and scene.content["chart"]:
        scene.notes.append(
            "Of q(z|x), a von Mises-Fisher distribution, the page shows the direction; its bound is left out."
        )
        return {"name": "direction"}
    scene.notes.append(f"q(z|x) is a {type(family).__name__}, which is not Gaussian: its ellipse is left out.")
    return None


def _likelihood(vae: VAE) -> dict[str, Any] | None:
    family = vae.likelihood.family
    if isinstance(family, Bernoulli):
        return {"name": "bernoulli", "mean": "sigmoid"}
    if isinstance(family, ContinuousBernoulli):
        return {"name": "continuous-bernoulli", "mean": "continuous-bernoulli"}
    if isinstance(family, Gaussian):
        return {"name": "gaussian", "mean": "identity", "scale": family.scale}
    shared = vae.likelihood.shared
    if isinstance(family, GaussianLearnedScale) and isinstance(shared, Tensor):
        return {"name": "gaussian", "mean": "identity", "scale": shared.exp().item()}
    return None


@torch.no_grad()
def _prior(prior: Distribution, payload: Payload) -> dict[str, Any] | None:
    """N(0, I), or a mixture of Gaussians by weights, means and triangular factors; None for any other."""
    if isinstance(prior, StandardGaussian):
        return {"name": "normal"}
    if isinstance(prior, OneHotCodes):
        return {"name": "codes", "logits": payload.add(prior.logits)}
    if is_on_sphere(prior):
        return {"name": "uniform", "volume": 4.0 if prior.event_shape[0] == 3 else 2.0}  # of the map
    if isinstance(prior, Independent) and isinstance(prior.base_dist, Normal):
        mean, scale = prior.mean, prior.stddev
        parts = {"means": mean[None], "factors": torch.diag_embed(scale)[None], "logits": torch.zeros(1)}
        return {"name": "mixture"} | {key: payload.add(values) for key, values in parts.items()}
    if not isinstance(prior, MixtureSameFamily):
        return None
    parts = prior.component_distribution
    if isinstance(parts, MultivariateNormal):
        means, factors = parts.loc, parts.scale_tril
    elif isinstance(parts, Independent) and isinstance(parts.base_dist, Normal):
        means, factors = parts.mean, torch.diag_embed(parts.stddev)
    else:
        return None
    logits = prior.mixture_distribution.logits
    return {
        "name": "mixture",
        "logits": payload.add(logits),
        "means": payload.add(means),
        "factors": payload.add(factors),
    }


def _principal_axes(mean: Tensor) -> dict[str, Any]:
    """Center, directions (rows, by falling spread) and spreads of the encoded means."""
    center = mean.double().mean(0)
    _, spread, directions = torch.linalg.svd(mean.double() - center, full_matrices=False)
    scale = spread / max(1, len(mean) - 1) ** 0.5
    return {"center": center.tolist(), "directions": directions.tolist(), "scale": scale.tolist()}


def _spread_over_classes(labels: Tensor | None, total: int, count: int) -> Tensor:
    """Rows of the first images of every class in turn, so that a reader can choose among all classes."""
    if labels is None:
        return torch.arange(min(total, count))
    order = torch.argsort(labels, stable=True)
    place = torch.zeros(total, dtype=torch.int64)
    starts = torch.searchsorted(labels[order], labels[order])
    place[order] = torch.arange(total) - starts  # number of an image within its class
    return torch.argsort(place * (int(labels.max()) + 1) + labels, stable=True)[:count]


def _images(payload: Payload, x: Tensor, labels: Tensor | None, rows: Tensor) -> dict[str, Any]:
    binary = bool(((x == 0) | (x == 1)).all())
    pixels = payload.add(x, "bits") if binary else payload.add((x.clamp(0, 1) * 255).round(), "uint8")
    return {
        "pixels": pixels,
        "binary": binary,
        "labels": None if labels is None else payload.add(labels[rows], "uint8"),
        "rows": rows.tolist() if len(rows) <= CHOSEN else None,
    }


@torch.no_grad()
def _rounding(vae: VAE, x: Tensor, labels: Tensor | None, encoding: Encoding) -> dict[str, Any]:
    """How far the bound is off for the rounded weights, over test images, for the same draws of q."""
    read = copy.deepcopy(vae).cpu().eval()
    read.posterior.network = as_read(vae.posterior.network, encoding)
    read.likelihood.network = as_read(vae.likelihood.network, encoding)
    bounds = []
    for model in (vae, read):
        with seeded(seed_of("explorer")):
            bounds.append(_given(model, labels).elbo(x, samples=4))
    return _change(bounds[0] - bounds[1], "the sampled bound", "nats", len(x), encoding)


@torch.no_grad()
def _generator_rounding(gan: EncodedGAN, x: Tensor, encoding: Encoding) -> dict[str, Any]:
    """How far pixels of reconstructed test images are off for the rounded weights."""
    read = copy.deepcopy(gan).cpu().eval()
    read.encoder.network = as_read(gan.encoder.network, encoding)
    read.generator = as_read(gan.generator, encoding)
    return _change(gan.reconstruct(x) - read.reconstruct(x), "a pixel, of 1,", "", len(x), encoding)


def _change(difference: Tensor, what: str, unit: str, images: int, encoding: Encoding) -> dict[str, Any]:
    size = difference.abs()
    about = {"of": what, "unit": unit, "images": images, "encoding": encoding}
    return {"mean": size.mean().item(), "largest": size.max().item(), **about}


@torch.no_grad()
def _atlas(
    model: VAE | EncodedGAN, payload: Payload, codes: tuple[Tensor, Tensor] | None, box: list[float]
) -> dict[str, Any]:
    """Decoded pictures on a grid: of the plane, of the line, or along the two axes in which codes vary most."""
    d = model.latent
    line = torch.linspace(box[0], box[1], ATLAS)
    if d == 1:
        z = line[:, None]
    else:
        z = torch.cartesian_prod(line, line).flip(1)  # rows of the second coordinate
        if d > PLANE:
            center = torch.zeros(d) if codes is None else codes[0].mean(0)
            axes = torch.eye(d)[:2] if codes is None else torch.tensor(_principal_axes(codes[0])["directions"])[:2]
            z = center + z @ axes.float()
    pictures = torch.cat([_picture(model, part) for part in z.split(200)]).clamp(0, 1)
    return {"side": ATLAS, "pixels": payload.add((pictures * 255).round(), "uint8"), "low": box[0], "high": box[1]}


def _picture(model: VAE | EncodedGAN, z: Tensor) -> Tensor:
    """E[x|z] of a VAE, G(z) of a GAN."""
    return model.decode(z).mean if isinstance(model, VAE) else model.generate(z)
