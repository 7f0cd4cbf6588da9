"""What the page gets of a VAE: its model, encoded test images, images to choose from, and how exact all of it is."""

from __future__ import annotations

__all__: list[str] = []

import copy
import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from latentia.distributions import (
    Bernoulli,
    ContinuousBernoulli,
    Diagonal,
    Fixed,
    Full,
    Gaussian,
    GaussianLearnedScale,
)
from latentia.distributions.gaussians import StandardGaussian
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.explorer.networks import as_read, exported
from latentia.explorer.payload import Encoding, Payload
from latentia.models import VAE
from latentia.recipes import Run
from latentia.training import seed_of, seeded

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
PLANE = 2  # dimensions of z, at most, for a heat map of the posterior
ATLAS = 28  # decoded pictures along a side, where the decoder cannot be exported
MARGIN = 0.6  # of the plane around the encoded images


@dataclass
class Scene:
    """A tab of the page: what its script reads, and what a reader should know of what is missing or inexact."""

    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def vae_scene(run: Run, payload: Payload, encoding: Encoding) -> Scene:
    """The tab of a VAE.

    Args:
        run: a finished run whose model is a `VAE`.
        payload: takes the arrays.
        encoding: of the weights.

    Raises:
        UnsupportedError: for examples that are not images.
    """
    vae = cast(VAE, run.model)
    shape = tuple(vae.event_shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UnsupportedError(
            f"the page shows images of one or three channels, and examples of {run.path} have the shape {shape}; "
            "`latentia show` and `latentia report` show this run"
        )
    test = run.splits.examples("test")
    codes = _encoded(vae, test.x[:ENCODED])
    scene = Scene({"kind": "vae", "latent": vae.latent, "shape": list(shape), "classes": list(run.splits.classes)})
    content = scene.content
    content["box"] = _box(codes[0] if codes is not None else None)
    content["view"] = _view(codes[0] if codes is not None else None)
    content["model"] = _model(vae, payload, encoding, scene)
    content["binarize"] = run.recipe.data.binarize
    content["codes"] = None
    if codes is not None:
        mean, spread = codes
        labels = None if test.labels is None else payload.add(test.labels[: len(mean)], "uint8")
        content["codes"] = {
            "mean": payload.add(mean, "uint16" if vae.latent <= PLANE else "float16"),
            "log_spread": payload.add(spread.clamp_min(1e-6).log(), "uint16"),
            "labels": labels,
        }
        content["axes"] = _principal_axes(mean)
    rows = _spread_over_classes(test.labels, len(test.x), CHOSEN)
    content["images"] = _images(payload, test.x[rows], test.labels, rows)
    train = run.splits.examples("train", NEIGHBORS)
    content["training"] = _images(payload, train.x, train.labels, torch.arange(len(train.x)))
    content["facts"] = [
        {"name": FACTS[e.name.rpartition("/")[2]], "value": e.value, "stderr": e.stderr, "n": e.n, "kind": e.kind}
        | {"certificate": e.settings.get("certificate", ""), "method": e.method}
        for e in _likelihoods(run)
    ]
    content["rounding"] = _rounding(vae, test.x[:COMPARED], encoding) if content["model"]["decoder"] else None
    if content["model"]["decoder"] is None:
        content["atlas"] = _atlas(vae, payload, codes, content["box"])
    return scene


def _likelihoods(run: Run) -> list[Estimate]:
    """Estimates of the test images' likelihood and bounds that the run holds."""
    found = [e for estimates in run.directory.evaluations().values() for e in estimates]
    return [e for e in found if e.name.rpartition("/")[2] in FACTS and math.isfinite(e.value)]


@torch.no_grad()
def _encoded(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Means and standard deviations of q(z|x); None for a q that has none."""
    try:
        parts = [vae.encode(part) for part in x.split(1000)]
        return torch.cat([q.mean for q in parts]), torch.cat([q.stddev for q in parts])
    except (NotImplementedError, UnsupportedError):
        return None


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
    model: dict[str, Any] = {"encoder": None, "decoder": None, "weights": encoding}
    for name, conditional in (("encoder", vae.posterior), ("decoder", vae.likelihood)):
        try:
            model[name] = exported(conditional.network, payload, encoding)
        except UnsupportedError as error:
            scene.notes.append(f"The {name}: {error}.")
    family = vae.posterior.family
    model["posterior"] = None
    if isinstance(family, Fixed):
        model["posterior"] = {"name": "fixed", "scale": family.scale}
    elif isinstance(family, Diagonal | Full):
        model["posterior"] = {"name": "diagonal" if isinstance(family, Diagonal) else "full"}
    else:
        scene.notes.append(f"q(z|x) is a {type(family).__name__}, which is not Gaussian: its ellipse is left out.")
    likelihood = _likelihood(vae)
    if likelihood is None:
        kind = type(vae.likelihood.family).__name__
        scene.notes.append(
            f"log p(x|z) of {kind} is not computed in the page: the exact posterior and all bounds are left out, and "
            "pictures are means E[x|z] made in Python."
        )
        likelihood, model["decoder"] = {"name": "none", "mean": "identity"}, None
    model["likelihood"] = likelihood
    model["prior"] = _prior(vae.prior, payload)
    if model["prior"] is None:
        scene.notes.append(
            f"log p(z) of {type(vae.prior).__name__} is not computed in the page: the exact posterior and all bounds "
            "are left out."
        )
    return model


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
def _rounding(vae: VAE, x: Tensor, encoding: Encoding) -> dict[str, Any]:
    """How far log p(x|z) and the bound are off for the rounded weights, over test images, at the encoder's mean."""
    read = copy.deepcopy(vae).cpu().eval()
    read.posterior.network = as_read(vae.posterior.network, encoding)
    read.likelihood.network = as_read(vae.likelihood.network, encoding)
    differences = []
    for model in (vae, read):
        with seeded(seed_of("explorer")):
            differences.append(model.elbo(x, samples=4))
    change = (differences[0] - differences[1]).abs()
    return {"mean": change.mean().item(), "largest": change.max().item(), "images": len(x), "encoding": encoding}


@torch.no_grad()
def _atlas(vae: VAE, payload: Payload, codes: tuple[Tensor, Tensor] | None, box: list[float]) -> dict[str, Any]:
    """Decoded pictures on a grid: of the plane, of the line, or along the two axes in which codes vary most."""
    d = vae.latent
    line = torch.linspace(box[0], box[1], ATLAS)
    if d == 1:
        z = line[:, None]
    else:
        z = torch.cartesian_prod(line, line).flip(1)  # rows of the second coordinate
        if d > PLANE:
            center = torch.zeros(d) if codes is None else codes[0].mean(0)
            axes = torch.eye(d)[:2] if codes is None else torch.tensor(_principal_axes(codes[0])["directions"])[:2]
            z = center + z @ axes.float()
    pictures = torch.cat([vae.decode(part).mean for part in z.split(200)]).clamp(0, 1)
    return {"side": ATLAS, "pixels": payload.add((pictures * 255).round(), "uint8"), "low": box[0], "high": box[1]}
