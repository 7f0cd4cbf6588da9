"""What the page gets of a GAN: on a toy distribution its snapshots with D and D*, on images its networks and film."""

from __future__ import annotations

__all__: list[str] = []

import base64
import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from latentia.data import ToyDistribution
from latentia.diagnostics import jensen_shannon_on_grid, mode_coverage
from latentia.errors import DataError, UnsupportedError
from latentia.explorer.networks import as_read, exported
from latentia.explorer.payload import Encoding, Payload
from latentia.explorer.vae_scene import NEIGHBORS, Scene
from latentia.models import GAN
from latentia.recipes import GANRecipe, Run
from latentia.recipes.gan_diagnostics import log_density_on_grid
from latentia.training import seed_of, seeded

POINTS = 1_000  # real and generated points of a frame
SIDE = 100  # cells of a frame's surfaces along a side
LEAST = -60.0  # log densities below it are written as it
NOISES = 12  # latents that interpolations run between
STEPS = 9  # pictures of an interpolation in the atlas
COMPARED = 128  # samples that measure the rounding of the weights


def toy_scene(run: Run, payload: Payload) -> Scene:
    """The tab of a GAN on a toy distribution of the plane: a frame for each snapshot and one for the trained model.

    Args:
        run: a finished run.
        payload: takes the arrays.

    Raises:
        UnsupportedError: for points that are not in the plane.
    """
    gan, toy = cast(GAN, run.model), cast(ToyDistribution, run.recipe.data)
    if gan.shape != (2,):
        raise UnsupportedError(
            f"the page shows points of the plane, and {run.path} makes points of {gan.shape[0]} dimensions; "
            "`latentia report` shows this run"
        )
    scene = Scene({"kind": "toy", "latent": gan.latent, "name": toy.type_name})
    distribution = toy.distribution()
    with seeded(seed_of("explorer", run.recipe.seed)):
        real = distribution.sample(torch.Size([4_000]))
    snapshots = _snapshots(run)
    grid = _grid_of(snapshots, real)
    frames = [_frame(payload, epoch, found, toy, grid) for epoch, found in snapshots]
    frames.append(_final_frame(run, payload, grid, scene))
    modes = toy.modes
    scene.content |= {
        "box": [grid.edges(axis) for axis in (0, 1)],
        "side": [len(grid.first), len(grid.second)],
        "real": payload.add(real[:POINTS]),
        "log_p": payload.add(grid.cell_log_density(distribution.log_prob).clamp_min(LEAST), "float16"),
        "modes": None if modes is None else modes.tolist(),
        "frames": frames,
        "history": _history(run),
        "loss": cast(GANRecipe, run.recipe).loss.type_name,
    }
    if len(snapshots) < 2:
        scene.notes.append(
            "This run kept fewer than two snapshots: train with snapshots=[1,2,4,8] (epochs) to play its training."
        )
    return scene


@dataclass(frozen=True)
class _Grid:
    """Centers of the cells that D, D* and both densities are shown on.

    Attributes:
        first: along the first coordinate.
        second: along the second.
    """

    first: Tensor
    second: Tensor

    def edges(self, axis: int) -> list[float]:
        """Where the cells begin and end along an axis."""
        line, half = (self.first, self.second)[axis], self.cell[axis] / 2
        return [float(line[0]) - half, float(line[-1]) + half]

    @property
    def cell(self) -> tuple[float, float]:
        """Sides of a cell."""
        return float(self.first[1] - self.first[0]), float(self.second[1] - self.second[0])

    @property
    def centers(self) -> Tensor:
        """All centers, (len(second) · len(first), 2), rows of the second coordinate from low to high."""
        return torch.cartesian_prod(self.second, self.first).flip(1)

    @torch.no_grad()
    def cell_log_density(self, log_prob: Callable[[Tensor], Tensor], inner: int = 4) -> Tensor:
        """The logarithm of a density's mean over each cell, from points inside: narrow modes lie between centers."""
        share = (torch.arange(inner) + 0.5) / inner - 0.5
        offsets = torch.cartesian_prod(share, share) * torch.tensor(self.cell)
        values = [log_prob(self.centers + offset).nan_to_num(-torch.inf, -torch.inf, -torch.inf) for offset in offsets]
        return torch.logsumexp(torch.stack(values), 0) - math.log(inner * inner)


def _grid_of(snapshots: Sequence[tuple[float, dict[str, np.ndarray]]], real: Tensor) -> _Grid:
    """The grid of the first snapshot that has one, or one around real points."""
    for _, found in snapshots:
        if "logits" in found:
            return _Grid(torch.from_numpy(found["first"]), torch.from_numpy(found["second"]))
    low, high = real.min(0).values, real.max(0).values
    margin = 0.15 * (high - low).clamp_min(1e-3)
    return _Grid(*(torch.linspace(float(a), float(b), SIDE) for a, b in zip(low - margin, high + margin, strict=True)))


def _snapshots(run: Run) -> list[tuple[float, dict[str, np.ndarray]]]:
    """(epoch, arrays) of every snapshot of points that the run holds."""
    found = []
    for path in sorted(run.directory.figures.glob("snapshot-epoch-*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found.append((float(path.stem.rpartition("-")[2]), {key: arrays[key] for key in arrays.files}))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"cannot read the snapshot {path} ({error}); remove it and explore again") from error
    return found


def _frame(
    payload: Payload, epoch: float, found: dict[str, np.ndarray], toy: ToyDistribution, grid: _Grid
) -> dict[str, Any]:
    """A frame of a snapshot: its points, D and the generator's density on the grid, if the snapshot has that grid."""
    fake = torch.from_numpy(found["fake"])
    frame = _counts(fake, toy)
    frame |= {"epoch": epoch, "fake": payload.add(fake[:POINTS]), "logits": None, "log_q": None, "density": None}
    if "logits" in found and np.array_equal(found["first"], grid.first.numpy()):
        frame["logits"] = payload.add(found["logits"].T, "float16")
        if "log_density" in found:
            frame["log_q"] = payload.add(np.maximum(found["log_density"].T, LEAST), "float16")
            frame["density"] = str(found["density_kind"])
    return frame


@torch.no_grad()
def _final_frame(run: Run, payload: Payload, grid: _Grid, scene: Scene) -> dict[str, Any]:
    """The frame of the trained model; its density is exact for a flow, else a histogram of many samples."""
    gan, toy = cast(GAN, run.model), cast(ToyDistribution, run.recipe.data)
    with seeded(seed_of("explorer frame", run.recipe.seed)):
        fake = gan.sample(2_500)
        log_q, kind = log_density_on_grid(gan, grid.first, grid.second)
    frame = _counts(fake, toy)
    frame |= {"epoch": float(run.recipe.epochs), "fake": payload.add(fake[:POINTS]), "density": kind, "jsd": None}
    frame["logits"] = payload.add(gan.discriminate(grid.centers), "float16") if gan.packing == 1 else None
    frame["log_q"] = payload.add(log_q.T.clamp_min(LEAST), "float16")
    if gan.has_density:
        scale, edges = toy.scale, [(grid.edges(axis)[0], grid.edges(axis)[1]) for axis in (0, 1)]
        spacing = max(0.0 if scale is None else float(scale.min()), (edges[0][1] - edges[0][0]) / 400)
        try:
            found = jensen_shannon_on_grid(toy.distribution().log_prob, gan.log_prob, edges, spacing)
            frame["jsd"] = {"value": found.value, "error": found.error, "kind": "numerical"}
        except UnsupportedError as error:
            scene.notes.append("The JSD is that on the box of the pictures: " + str(error).partition(";")[0] + ".")
    return frame


def _counts(fake: Tensor, toy: ToyDistribution) -> dict[str, Any]:
    """Modes found by the protocol of the diagnostics, of these points."""
    try:
        found = {e.name.rpartition("/")[2]: e for e in mode_coverage(fake, toy, perfect_repeats=0)}
    except UnsupportedError:
        return {"modes_found": None, "high_quality": None}
    high = found["high_quality"]
    return {
        "modes_found": [found["found"].value, len(cast(Tensor, toy.modes)), len(fake)],
        "high_quality": [high.value, high.stderr],
    }


def _history(run: Run) -> dict[str, list[list[float]]]:
    """What was recorded through training, as (epoch, value, standard error): the JSD, its bound, modes found."""
    names = {"game/jsd_bound": "bound", "game/jsd": "jsd", "modes/found": "modes"}
    history: dict[str, list[list[float]]] = {short: [] for short in names.values()}
    for record in run.records:
        short = names.get(record["name"])
        if short is not None and math.isfinite(record["value"]):
            history[short].append([record["epoch"], record["value"], record.get("stderr") or 0.0])
    return history


def image_gan_scene(run: Run, payload: Payload, encoding: Encoding) -> Scene:
    """The tab of a GAN on images: networks or an atlas of interpolations, training images, and the film of one noise.

    Raises:
        UnsupportedError: for images that are neither gray nor colored.
    """
    gan = cast(GAN, run.model)
    if gan.shape[0] not in (1, 3):
        raise UnsupportedError(
            f"the page shows images of one or three channels, and {run.path} makes {gan.shape[0]}; "
            "`latentia report` shows this run"
        )
    scene = Scene({"kind": "gan", "latent": gan.latent, "shape": list(gan.shape), "classes": list(run.splits.classes)})
    content = scene.content
    model: dict[str, Any] = {"generator": None, "discriminator": None, "weights": encoding, "conditional": gan.classes}
    for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator)):
        if name == "discriminator" and gan.packing > 1:
            scene.notes.append("D reads packs of images, so no score of a single image is shown.")
            continue
        try:
            model[name] = exported(network, payload, encoding)
        except UnsupportedError as error:
            scene.notes.append(f"The {name}: {error}.")
    with seeded(seed_of("explorer", run.recipe.seed)):
        noises = gan.draw_latent(NOISES)
    content |= {
        "model": model,
        "noises": payload.add(noises),
        "distribution": cast(GANRecipe, run.recipe).latent_distribution,
        "rounding": _rounding(gan, encoding) if model["generator"] else None,
        "atlas": None if model["generator"] else _interpolations(gan, noises, payload),
        "film": _film(run),
    }
    train = run.splits.examples("train", NEIGHBORS)
    content["training"] = {
        "pixels": payload.add((train.x * 255).round(), "uint8"),
        "binary": False,
        "labels": None if train.labels is None else payload.add(train.labels, "uint8"),
        "rows": None,
    }
    content["scores"] = _scores(gan, train.x[:500], train.labels)
    if not content["film"]:
        scene.notes.append("This run kept no snapshots: train with snapshots=[1,5,10] (epochs) to see its film.")
    return scene


def _labels(gan: GAN, n: int) -> Tensor | None:
    return torch.arange(n) % gan.classes if gan.classes else None


@torch.no_grad()
def _scores(gan: GAN, real: Tensor, labels: Tensor | None) -> dict[str, list[float]] | None:
    """Quantiles (5, 25, 50, 75, 95 %) of D's logits on training and on generated images."""
    if gan.packing > 1:
        return None
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    given = labels[: len(real)] if gan.classes and labels is not None else None
    with seeded(seed_of("explorer scores")):
        fake = gan.sample(len(real), given)
    on_real, on_fake = gan.discriminate(real, given), gan.discriminate(fake, given)
    return {"real": torch.quantile(on_real, shares).tolist(), "fake": torch.quantile(on_fake, shares).tolist()}


@torch.no_grad()
def _rounding(gan: GAN, encoding: Encoding) -> dict[str, Any]:
    """How far pixels of samples are off for the rounded weights."""
    read = copy.deepcopy(gan).cpu().eval()
    read.generator = as_read(gan.generator, encoding)
    with seeded(seed_of("explorer rounding")):
        z = gan.draw_latent(COMPARED)
    labels = _labels(gan, COMPARED)
    change = (gan.sample(COMPARED, labels, z) - read.sample(COMPARED, labels, z)).abs()
    return {"mean": change.mean().item(), "largest": change.max().item(), "images": COMPARED, "encoding": encoding}


@torch.no_grad()
def _interpolations(gan: GAN, noises: Tensor, payload: Payload) -> dict[str, Any]:
    """Pictures between neighboring noises, on the great circle between them."""
    pictures = []
    for a, b in zip(noises, noises.roll(-1, 0), strict=True):
        for t in torch.linspace(0, 1, STEPS):
            pictures.append(_between(a, b, float(t)))
    images = gan.sample(
        len(pictures), None if not gan.classes else torch.zeros(len(pictures)).long(), torch.stack(pictures)
    )
    return {"steps": STEPS, "pixels": payload.add((images * 255).round(), "uint8")}


def _between(a: Tensor, b: Tensor, t: float) -> Tensor:
    cosine = float((a @ b) / (a.norm() * b.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if angle < 1e-6:
        return torch.lerp(a, b, t)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def _film(run: Run) -> list[dict[str, Any]]:
    """Snapshots as PNG data URIs with their epochs, and the trained model's samples of the same noise."""
    film = []
    for path in sorted(run.directory.figures.glob("snapshot-epoch-*.png")):
        film.append({"epoch": int(path.stem.rpartition("-")[2]), "picture": _data_uri(path)})
    return film


def _data_uri(path: Path) -> str:
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise DataError(f"cannot read the snapshot {path} ({error}); remove it and explore again") from error
