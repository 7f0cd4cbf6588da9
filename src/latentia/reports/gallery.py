"""Which pictures are drawn of which model.

`GALLERIES` is the one place that knows: a new kind of model is one more entry.
"""

from __future__ import annotations

__all__ = ["GALLERIES", "draw_all", "draw_side_by_side", "gallery_of"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from latentia.data import Split, image_grid
from latentia.errors import UnsupportedError
from latentia.models import GAN, VAE, EncodedGAN
from latentia.recipes import Run
from latentia.reports.curve_figures import curves
from latentia.reports.encoded_figures import encoded_test_set
from latentia.reports.gan_gallery import gan_gallery
from latentia.reports.image_figures import reconstructions, samples, side_by_side
from latentia.reports.latent_figures import decoded_plane, interpolations, latent_slices
from latentia.reports.style import save_figure
from latentia.training import seed_of, seeded

Drawing = Callable[[], Figure]
Gallery = Callable[[Run], Iterator[tuple[str, Drawing]]]

ENCODED_AT_ONCE = 1000
SHOWN = 20
ROWS, STEPS = 6, 9
SAMPLES = 100


def draw_all(run: Run) -> list[Path]:
    """Draw every picture that suits the run's model into its `figures` folder, and return their paths.

    Each picture draws from a seed of its own, made of the run's and its name: the same run gives the same pictures.

    Raises:
        UnsupportedError: for a kind of model that has no pictures yet.
        RunError: for a run that has not ended, or a folder that cannot be written.
    """
    paths = []
    for name, draw in gallery_of(run.model)(run):
        with seeded(seed_of("figure", name, run.recipe.seed)):
            paths.append(save_figure(draw(), run.directory.figures / f"{name}.png"))
    return paths


def draw_side_by_side(runs: Sequence[Run], path: Path, count: int = 64) -> Path:
    """Draw samples of several runs of images beside each other: means of p(x|z) of a VAE, G(z) of a GAN."""
    pictures, titles = [], []
    for run in runs:
        model = run.model
        with seeded(seed_of("figure", "side by side", run.recipe.seed)):
            images = model.sample(count, mean=True) if isinstance(model, VAE) else cast(GAN, model).sample(count)
        pictures.append(image_grid(images))
        titles.append(r"VAE: E[$x\,|\,z$]" if isinstance(model, VAE) else "GAN: $G(z)$")
    return save_figure(side_by_side(pictures, titles, f"{count} samples of each model"), path)


def gallery_of(model: nn.Module) -> Gallery:
    """The gallery of the first class in `GALLERIES` that the model belongs to.

    Raises:
        UnsupportedError: if there is none.
    """
    for kind, gallery in GALLERIES.items():
        if isinstance(model, kind):
            return gallery
    known = ", ".join(kind.__name__ for kind in GALLERIES)
    raise UnsupportedError(
        f"there are no pictures of a {type(model).__name__} yet, only of: {known}; "
        "draw its curves with latentia.reports.curves(run.records)"
    )


def _vae(run: Run) -> Iterator[tuple[str, Drawing]]:
    vae = cast(VAE, run.model)
    test = run.splits.test
    x = run.recipe.data.prepare_fixed(test, "test")
    means = _encoded(vae, x)
    chosen = _spread(test, SHOWN)
    yield "curves", lambda: curves(run.records, lines={"vae": "training"}, units={"cost": "nats"})
    yield "reconstructions", lambda: reconstructions(x[chosen], vae.reconstruct(x[chosen]))
    title = r"E[$x\,|\,z$] for " + str(SAMPLES) + " draws of $z$ from the prior $p(z)$"
    yield "samples", lambda: samples(vae.sample(SAMPLES, mean=True), title)
    yield "encoded_test_set", lambda: encoded_test_set(means, vae.prior, test.labels, run.splits.classes)
    if vae.latent <= 2:
        yield "decoded_plane", lambda: decoded_plane(vae)
    else:
        yield "latent_slices", lambda: latent_slices(vae, means)
    if len(chosen) > 1:
        ends = x[chosen[: 2 * ROWS]]
        half = len(ends) // 2
        yield "interpolations", lambda: interpolations(vae, ends[:half], ends[half : 2 * half])


def _encoded_gan(run: Run) -> Iterator[tuple[str, Drawing]]:
    gan = cast(EncodedGAN, run.model)
    test = run.splits.test
    x = run.recipe.data.prepare_fixed(test, "test")
    means = _encoded(gan, x)
    chosen = _spread(test, SHOWN)
    yield "curves", lambda: curves(run.records)
    yield "reconstructions", lambda: reconstructions(x[chosen], gan.reconstruct(x[chosen]))
    yield "samples", lambda: samples(gan.sample(SAMPLES), f"{SAMPLES} samples $x = G(z)$, $z$ drawn from $p(z)$")
    yield "encoded_test_set", lambda: encoded_test_set(means, gan.prior, test.labels, run.splits.classes)
    if len(chosen) > 1:
        half = min(ROWS, len(chosen) // 2)
        start, end = (means[rows][:, None] for rows in (chosen[:half], chosen[half : 2 * half]))
        between = start + torch.linspace(0, 1, STEPS)[:, None] * (end - start)
        title = "$G$ along straight lines between\nthe encoded means of two test images"
        with torch.no_grad():
            images = gan.generate(between.flatten(0, 1))
        yield "interpolations", lambda: samples(images, title, STEPS)


GALLERIES: Mapping[type[nn.Module], Gallery] = {VAE: _vae, GAN: gan_gallery, EncodedGAN: _encoded_gan}


@torch.no_grad()
def _encoded(model: VAE | EncodedGAN, x: Tensor) -> Tensor:
    return torch.cat([model.encode(part).mean for part in x.split(ENCODED_AT_ONCE)])


def _spread(split: Split, count: int) -> Tensor:
    """The first rows of each class in turn, so that few images show all classes; the first rows without labels."""
    count = min(count, len(split))
    if split.labels is None:
        return torch.arange(count)
    rows = [(split.labels == label).nonzero().squeeze(1).tolist() for label in split.labels.unique()]
    longest = max(len(part) for part in rows)
    turns = [part[turn] for turn in range(min(longest, count)) for part in rows if turn < len(part)]
    return torch.tensor(turns[:count])
