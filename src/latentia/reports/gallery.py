"""Which pictures are made of which model.

`GALLERIES` maps a class of models to its pictures: a new kind of model is one more entry.
"""

from __future__ import annotations

__all__ = ["Plots", "save_figures"]

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from latentia.data import Split, Splits, ToyData, image_grid, read_arrays
from latentia.distributions import OneHotCodes
from latentia.distributions.sphere import is_on_sphere
from latentia.errors import ConfigurationError, DataError, UnsupportedError, nearest
from latentia.likelihood import evaluate_likelihood
from latentia.likelihood.latent_model import full_precision
from latentia.models import GAN, VAE, ConditionalVAE, EncodedGAN
from latentia.recipes import Run
from latentia.reports.array_figures import plot_arrays, plot_given
from latentia.reports.code_figures import plot_code_usage, plot_decoded_codes
from latentia.reports.curve_figures import plot_curves
from latentia.reports.image_figures import (
    plot_classes,
    plot_decoded_plane,
    plot_film_strip,
    plot_interpolations,
    plot_latent_slices,
    plot_reconstructions,
    plot_samples,
)
from latentia.reports.likelihood_figures import likelihood_pictures
from latentia.reports.point_figures import plot_encoded, plot_points
from latentia.reports.sphere_figures import plot_decoded_sphere, plot_encoded_sphere
from latentia.reports.style import Picture, save_figure, to_tensor
from latentia.samplers import FittedSampler
from latentia.training import seed_of, seeded

Gallery = Callable[[Run], Iterator[Picture]]

ENCODED_AT_ONCE = 1000
SHOWN = 20
ROWS, STEPS = 6, 9
SAMPLES = 100
POINTS = 2000
MOST_CLASSES, MOST_PLANES, MOST_COVARIATES = 20, 10, 6
DRAWS_GIVEN = 400  # of x, for each value of a covariate
GENERATED = f"{SAMPLES} samples $x = G(z)$, $z$ drawn from $p(z)$"
CURVES = "Terms of the objective against the epoch."
ENCODED = "Means of q(z|x) of the test set, with the regions of the prior."

# What a GAN's curves show, of all that is recorded: name in the records → `<line>/<panel>`.
GAN_CURVES: Mapping[str, str] = {
    "discriminator/cost": "discriminator/cost",
    "generator/cost": "generator/cost",
    "game/accuracy_real": "real/Accuracy of D",
    "game/accuracy_held_out": "held-out real/Accuracy of D",
    "game/accuracy_fake": "generated/Accuracy of D",
    "game/jsd_bound": "certified bound/JSD from below",
    "game/jsd": "exact/JSD from below",
}


def save_figures(run: Run) -> list[Path]:
    """Make every picture that suits the run's model, in its `figures` folder, and return their paths.

    What a picture draws at random follows from the run's seed and the picture's name: the same run gives the same
    pictures. Of a model without a gallery, only the curves are made.

    Raises:
        RunError: for a run that has not ended, or a folder that cannot be written.
    """
    return [picture.save(run.directory.figures, run.recipe.seed) for picture in gallery_of(run.model)(run)]


def save_sampler_figures(run: Run, fitted: FittedSampler) -> list[Path]:
    """Write samples by a sampler, and the encoded test set over its density, into the run's `figures` folder."""
    vae, name, test = fitted.vae, fitted.sampler.type_name, run.splits.test
    title = r"E[$x\,|\,z$] for " + f"{SAMPLES} draws of $z$ from the {name} sampler"
    caption = f"Means E[x|z] for draws of z from the {name} sampler."
    pictures = [Picture(f"samples_{name}", caption, lambda: plot_samples(vae.sample(SAMPLES, mean=True), title))]
    if fitted.sampler.has_density:
        means = _encoded(vae, run.splits.examples("test").x)
        encoded = partial(plot_encoded, means, vae.prior, test.classes_of, run.splits.classes)
        caption = f"Means of q(z|x) of the test set, with the regions of the {name} sampler."
        pictures.append(Picture(f"encoded_{name}", caption, encoded))
    return [picture.save(run.directory.figures, run.recipe.seed) for picture in pictures]


def save_side_by_side(runs: Sequence[Run], path: Path, count: int = 64) -> Path:
    """Write samples of several runs of images side by side: means of p(x|z) of a VAE, G(z) of a GAN."""
    pictures, titles = [], []
    for run in runs:
        model = run.model
        with seeded(seed_of("figure", "side by side", run.recipe.seed)):
            images = model.sample(count, mean=True) if isinstance(model, VAE) else cast(GAN, model).sample(count)
        pictures.append(image_grid(images))
        titles.append(r"VAE: E[$x\,|\,z$]" if isinstance(model, VAE) else "GAN: $G(z)$")
    figure = plot_film_strip(pictures, titles, f"{count} samples of each model", below=False)
    return save_figure(figure, path, "Samples of each model.")


class _UnknownPicture(ConfigurationError, AttributeError):
    """So that `hasattr` works as well."""


class Plots:
    """The pictures of a run as matplotlib figures: `run.plot.samples()` is what `samples.png` holds.

    `dir(run.plot)` lists the names of the pictures that suit the run's model; a notebook shows them.
    A picture is made when it is called, with the same random numbers each time. Those of the exact likelihood, such as
    `run.plot.posterior_contours()`, first evaluate the test images that `images` allows, once for all of them.

    Args:
        run: that has ended.

    Raises:
        RunError: for a run that has not ended.
        ConfigurationError: for a name that the run does not have, with those that it has.
    """

    def __init__(self, run: Run):
        self._run = run
        self._pictures = {picture.name: picture for picture in gallery_of(run.model)(run)}
        self._evaluated: dict[int, dict[str, Picture]] = {}

    def __dir__(self) -> list[str]:
        return [*self._pictures, *self._of_likelihood]  # which Python sorts

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._pictures:
            return partial(self._pictures[name].figure, self._run.recipe.seed)
        if name in self._of_likelihood:
            return partial(self._likelihood_figure, name)
        known, guess = ", ".join(dir(self)), nearest(name, dir(self))
        guess = f"{guess} " if guess.startswith("Did") else ""
        problem = f"{self._run.path} has no picture {name!r}. {guess}All pictures: {known}."
        raise _UnknownPicture([("run.plot", problem)])

    @property
    def _of_likelihood(self) -> tuple[str, ...]:
        """Pictures of an exact evaluation that this model has."""
        vae = self._run.model
        if not isinstance(vae, VAE) or isinstance(vae, ConditionalVAE):
            return ()
        images = len(vae.event_shape) == 3
        if isinstance(vae.prior, OneHotCodes):
            return ("code_posteriors",) if images else ()
        if vae.latent != 2 or is_on_sphere(vae.prior):
            return ("bound_against_draws",) if vae.latent <= 2 and not is_on_sphere(vae.prior) else ()
        return ("plane_mass", *(("posterior_contours", "extreme_gaps") if images else ()), "bound_against_draws")

    def _likelihood_figure(self, name: str, images: int = 200) -> Figure:
        """A picture of the exact log p(x) of the first test images.

        Raises:
            UnsupportedError: if their evaluation did not end within its limits.
        """
        if images not in self._evaluated:
            x, labels = self._run.splits.examples("test", images)
            found = evaluate_likelihood(self._run.model, x, require=False)
            made = likelihood_pictures(found, x, labels, self._run.splits.classes)
            self._evaluated[images] = {picture.name: picture for picture in made}
        if name not in self._evaluated[images]:
            text = f"no exact log p(x) of the first {images} test images was found, which {name} shows"
            raise UnsupportedError(f"{text}; `latentia evaluate {self._run.path}` says why")
        with full_precision():
            return self._evaluated[images][name].figure(self._run.recipe.seed)

    def __repr__(self) -> str:
        return f"{self._run.path}: " + ", ".join(f"run.plot.{name}()" for name in dir(self))


def gallery_of(model: nn.Module) -> Gallery:
    """The gallery of the first class in `GALLERIES` that the model belongs to; the curves alone for any other model."""
    return next((gallery for kind, gallery in GALLERIES.items() if isinstance(model, kind)), _curves)


def _curves(run: Run) -> Iterator[Picture]:
    if run.records:
        yield Picture("curves", CURVES, lambda: plot_curves(run.records))


def _vae(run: Run) -> Iterator[Picture]:
    vae = cast(VAE, run.model)
    test = run.splits.test
    x = run.splits.examples("test").x
    means = torch.cat([vae.center(part) for part in x.split(ENCODED_AT_ONCE)]).detach()
    chosen = _one_of_each(test, SHOWN)
    yield Picture("curves", CURVES, lambda: plot_curves(run.records, units={"cost": "nats"}))
    if len(vae.event_shape) != 3:
        yield from _of_arrays(run, vae, x, chosen)
        yield _encoded_picture(vae, means, test, run.splits.classes)
        return
    caption = "Test images x over their reconstructions E[x|z], z the center of q(z|x)."
    yield Picture("reconstructions", caption, lambda: plot_reconstructions(x[chosen], vae.reconstruct(x[chosen])))
    title = r"E[$x\,|\,z$] for " + str(SAMPLES) + " draws of $z$ from the prior $p(z)$"
    caption = "Means E[x|z] for draws of z from the prior."
    yield Picture("samples", caption, lambda: plot_samples(vae.sample(SAMPLES, mean=True), title))
    yield _encoded_picture(vae, means, test, run.splits.classes)
    if isinstance(vae.prior, OneHotCodes):
        caption = "The decoded codes: E[x|z] of every value of z."
        yield Picture("decoded_codes", caption, lambda: plot_decoded_codes(vae))
        return
    if is_on_sphere(vae.prior):
        if vae.latent <= 3:
            caption = "The decoded sphere: each image stands for an equal share of the prior's mass."
            yield Picture("decoded_sphere", caption, lambda: plot_decoded_sphere(vae))
    elif vae.latent <= 2:
        caption = "The decoded plane: each image stands for an equal share of the prior's mass."
        yield Picture("decoded_plane", caption, lambda: plot_decoded_plane(vae))
    else:
        caption = "Slices through the latent space, along the dimensions in which the encoded images vary most."
        yield Picture("latent_slices", caption, lambda: plot_latent_slices(vae, means))
    if len(chosen) > 1:
        ends = x[chosen[: 2 * ROWS]]
        half = len(ends) // 2
        caption = "Means E[x|z] on the way between the encoded centers of two test images, which stand at the ends."
        pairs = partial(plot_interpolations, vae, ends[:half], ends[half : 2 * half])
        yield Picture("interpolations", caption, pairs)


def _encoded_picture(vae: VAE, means: Tensor, test: Split, classes: Sequence[str]) -> Picture:
    if isinstance(vae.prior, OneHotCodes):
        caption = "The most probable codes of the test set, by class."
        return Picture("encoded_test_set", caption, partial(plot_code_usage, means, test.classes_of, classes))
    if is_on_sphere(vae.prior) and vae.latent <= 3:
        return Picture(
            "encoded_test_set",
            "Directions of q(z|x) of the test set, in a map that keeps areas.",
            partial(plot_encoded_sphere, means, test.classes_of, classes),
        )
    return Picture("encoded_test_set", ENCODED, partial(plot_encoded, means, vae.prior, test.classes_of, classes))


def _conditional_vae(run: Run) -> Iterator[Picture]:
    vae = cast(ConditionalVAE, run.model)
    names = run.splits.classes
    yield Picture("curves", CURVES, lambda: plot_curves(run.records, units={"cost": "nats"}))
    test = run.splits.test
    x, labels = run.splits.examples("test")
    chosen = _one_of_each(test, SHOWN)
    if len(vae.event_shape) != 3:
        yield from _samples_of_arrays(run, vae, x)
        rows = torch.arange(min(POINTS, len(x))) if len(vae.event_shape) == 1 else chosen
        again = vae.given(cast(Tensor, labels)[rows]).reconstruct(x[rows])
        yield from _reconstructed_arrays(run, x[rows], again, "E[x|z, y], z the mean of q(z|x, y)")
    if vae.covariates:
        yield from _along_covariates(run, vae)
        return
    if len(vae.event_shape) != 3:
        return
    given = vae.given(cast(Tensor, labels)[chosen])
    caption = "Test images x over their reconstructions E[x|z, y], z the mean of q(z|x, y)."
    again = partial(plot_reconstructions, x[chosen], given.reconstruct(x[chosen]), decoded=r"E[$x\,|\,z,y$]")
    yield Picture("reconstructions", caption, again)

    caption = "Means E[x|z, y]: a row for each class y; the noise of z is the same down each column."
    title = r"E[$x\,|\,z,y$]: a row for each class, a column for each draw of $z$"

    def means_of(labels: Tensor) -> Tensor:
        return vae.sample(len(labels), labels=labels, mean=True)

    images = _of_each_class(run, vae.classes, means_of)
    yield Picture("classes", caption, lambda: plot_classes(images, STEPS, names, title))
    if vae.latent <= 2:
        for label in range(min(vae.classes, MOST_PLANES)):
            name = re.sub(r"\W+", "_", names[label]).strip("_") or str(label)
            caption = f"The decoded plane of the class {names[label]}."
            yield Picture(f"decoded_plane_{label}_{name}"[:60], caption, partial(plot_decoded_plane, vae.given(label)))
    with torch.no_grad():
        rows = torch.arange(len(x)).split(ENCODED_AT_ONCE)
        means = torch.cat([vae.given(cast(Tensor, labels)[part]).encode(x[part]).mean for part in rows])
    if not vae.conditional_prior:
        encoded = partial(plot_encoded, means, vae.prior, test.classes_of, names)
        yield Picture("encoded_test_set", "Means of q(z|x, y) of the test set.", encoded)


def _of_each_class(run: Run, classes: int, sample: Callable[[Tensor], Tensor]) -> Tensor:
    """Samples of each class in turn, STEPS of each, all classes with the same random numbers."""
    rows = []
    for label in range(min(classes, MOST_CLASSES)):
        with seeded(seed_of("figure", "classes", run.recipe.seed)):
            rows.append(sample(torch.full((STEPS,), label)))
    return torch.cat(rows)


def _samples_of_arrays(run: Run, vae: VAE, x: Tensor) -> Iterator[Picture]:
    """Draws of x: densities by column for vectors, lines for signals."""
    columns, count = run.splits.columns, max(POINTS, len(x))
    if len(vae.event_shape) == 1:
        title = "Test data (filled) and draws of x from the model (lines)"
        yield Picture("samples", f"{title}, by column.", lambda: plot_arrays(vae.sample(count), title, columns, real=x))
    elif len(vae.event_shape) == 2:
        title = "Draws of x from the model"
        yield Picture("samples", f"{title}.", lambda: plot_arrays(vae.sample(SHOWN), title))


def _of_arrays(run: Run, vae: VAE, x: Tensor, chosen: Tensor) -> Iterator[Picture]:
    """Samples and reconstructions of vectors and signals."""
    yield from _samples_of_arrays(run, vae, x)
    if len(vae.event_shape) == 1:
        again = vae.reconstruct(x[:POINTS])
        yield from _reconstructed_arrays(run, x[:POINTS], again, "E[x|z], z the mean of q(z|x)")
    elif len(vae.event_shape) == 2:
        title = "E[x|z] for draws of z from the prior"
        yield Picture("means", f"{title}.", lambda: plot_arrays(vae.sample(SHOWN, mean=True), title))
        again = vae.reconstruct(x[chosen])
        yield from _reconstructed_arrays(run, x[chosen], again, "E[x|z], z the mean of q(z|x)")


def _reconstructed_arrays(run: Run, x: Tensor, again: Tensor, what: str) -> Iterator[Picture]:
    """Reconstructions of vectors, by column, or of signals, over the originals."""
    if x.dim() > 3:
        return
    title = f"{what}, against x of the test data" if x.dim() == 2 else f"Test signals (gray) and {what}"
    plot = partial(plot_arrays, x, title, run.splits.columns, again=again)
    yield Picture("reconstructions", f"{title}{', by column' if x.dim() == 2 else ''}.", plot)


def _along_covariates(run: Run, vae: ConditionalVAE) -> Iterator[Picture]:
    """What the model makes where one covariate goes from its 5 % to its 95 % quantile, the others at their medians."""
    known, columns = vae.known_covariates, run.splits.columns
    middle = known.median(0).values

    def draws(values: Tensor, place: int) -> Tensor:
        given = middle.repeat(len(values), 1)
        given[:, place] = values
        drawn = vae.sample(len(values) * DRAWS_GIVEN, labels=given.repeat_interleave(DRAWS_GIVEN, 0))
        return drawn.unflatten(0, (len(values), DRAWS_GIVEN))

    def picture(values: Tensor, place: int, title: str) -> Figure:
        if len(vae.event_shape) == 1:
            return plot_given(values, draws(values, place), vae.covariates[place], columns, title)
        means = draws(values, place).mean(1)
        return plot_arrays(means, title) if means.dim() == 3 else plot_samples(means.clamp(0, 1), title, STEPS)

    for place, name in enumerate(vae.covariates[:MOST_COVARIATES]):
        low, high = known[:, place].quantile(torch.tensor([0.05, 0.95])).tolist()
        values = torch.linspace(low, high, STEPS)
        what = "Mean and 5 to 95 % of x" if len(vae.event_shape) == 1 else "Mean of x"
        title = f"{what} given {name}, other covariates at their medians"
        file = "given_" + (re.sub(r"\W+", "_", name).strip("_") or str(place))
        if len(vae.event_shape) <= 3:
            yield Picture(file[:60], f"{title}.", partial(picture, values, place, title))


def _encoded_gan(run: Run) -> Iterator[Picture]:
    gan = cast(EncodedGAN, run.model)
    test = run.splits.test
    x = run.splits.examples("test").x
    means = _encoded(gan, x)
    chosen = _one_of_each(test, SHOWN)
    yield Picture("curves", CURVES, lambda: plot_curves(run.records))
    caption = "Test images x over their reconstructions G(z), z the mean of q(z|x)."
    again = partial(plot_reconstructions, x[chosen], gan.reconstruct(x[chosen]), decoded="$G(z)$")
    yield Picture("reconstructions", caption, again)
    yield Picture("samples", "Samples G(z), z drawn from p(z).", lambda: plot_samples(gan.sample(SAMPLES), GENERATED))
    encoded = partial(plot_encoded, means, gan.prior, test.classes_of, run.splits.classes)
    yield Picture("encoded_test_set", ENCODED, encoded)
    if len(chosen) > 1:
        half = min(ROWS, len(chosen) // 2)
        start, end = (means[rows][:, None] for rows in (chosen[:half], chosen[half : 2 * half]))
        between = start + torch.linspace(0, 1, STEPS)[:, None] * (end - start)
        title = "$G(z)$, $z$ on straight lines between the encoded means of two test images"
        with torch.no_grad():
            images = gan.generate(between.flatten(0, 1))
        caption = "G(z), z on straight lines between the encoded means of two test images."
        yield Picture("interpolations", caption, lambda: plot_samples(images, title, STEPS))


def _gan(run: Run) -> Iterator[Picture]:
    gan = cast(GAN, run.model)
    units = {"Accuracy of D": "share", "JSD from below": "nats"}
    caption = "Costs of both networks, accuracies of the discriminator and the bound of the Jensen-Shannon divergence."
    yield Picture("curves", caption, lambda: plot_curves(renamed(run.records), units=units))
    suffix, read = (".png", to_tensor) if gan.makes_images else (".npz", _read_points)
    snapshots = _snapshots(run.directory.figures, suffix, read)
    if gan.makes_images:
        caption = "Samples G(z), z drawn from p(z)."
        yield Picture("samples", caption, lambda: plot_samples(gan.sample(SAMPLES), GENERATED))
        if gan.classes:
            rows = _of_each_class(run, gan.classes, lambda labels: gan.sample(len(labels), labels))
            caption = "Samples G(z, y): a row for each class y; z is the same down each column."
            title = "$G(z,y)$: a row for each class, a column for each draw of $z$"
            yield Picture("classes", caption, lambda: plot_classes(rows, STEPS, run.splits.classes, title))
        caption = "G(z) from one z to another along the sphere."
        yield Picture("interpolations", caption, lambda: plot_samples(*_interpolated(gan)))
        if snapshots:
            words = [f"epoch {epoch}" for epoch, _ in snapshots]
            images = [image for _, image in snapshots]
            caption = "Samples from one fixed noise in the course of training."
            yield Picture("film_strip", caption, lambda: plot_film_strip(images, words, caption.rstrip(".")))
    elif isinstance(run.splits, Splits):
        title = "Test data (filled) and samples $G(z)$ (lines)" if len(gan.shape) == 1 else "Samples $G(z)$"
        real = run.splits.examples("test").x
        count = max(POINTS, len(real)) if len(gan.shape) == 1 else SHOWN
        picture = partial(plot_arrays, real=real if len(gan.shape) == 1 else None)
        if len(gan.shape) <= 2:
            columns = run.splits.columns
            yield Picture("samples", f"{title}.", lambda: picture(gan.sample(count), title, columns))
    elif gan.shape == (2,):
        data = cast(ToyData, run.splits)
        level = None if gan.packing > 1 else lambda x: gan.discriminate(x).sigmoid()
        caption = "Data and generated points" + ("." if level is None else ", over the discriminator's D(x).")
        yield Picture("samples", caption, lambda: plot_points(data.sample(POINTS), gan.sample(POINTS), level))
        for epoch, (real, fake, level) in snapshots:
            caption = f"Data and generated points after epoch {epoch}"
            over = caption + ("." if level is None else ", over the discriminator's D(x).")
            yield Picture(f"points_epoch_{epoch:04d}", over, partial(plot_points, real, fake, level, title=caption))


GALLERIES: Mapping[type[nn.Module], Gallery] = {
    ConditionalVAE: _conditional_vae,
    VAE: _vae,
    GAN: _gan,
    EncodedGAN: _encoded_gan,
}


def renamed(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records that a GAN's curves show, renamed so that terms that belong together share a panel."""
    return [{**record, "name": GAN_CURVES[record["name"]]} for record in records if record["name"] in GAN_CURVES]


@torch.no_grad()
def _encoded(model: VAE | EncodedGAN, x: Tensor) -> Tensor:
    return torch.cat([model.encode(part).mean for part in x.split(ENCODED_AT_ONCE)])


def _one_of_each(split: Split, count: int) -> Tensor:
    """The first rows of each class in turn, so that few images show all classes; the first rows without labels."""
    count = min(count, len(split))
    labels = split.classes_of
    if labels is None:
        return torch.arange(count)
    rows = [(labels == label).nonzero().squeeze(1).tolist() for label in labels.unique()]
    longest = max(len(part) for part in rows)
    turns = [part[turn] for turn in range(min(longest, count)) for part in rows if turn < len(part)]
    return torch.tensor(turns[:count])


def _snapshots(folder: Path, suffix: str, read: Callable[[Path], Any]) -> list[tuple[int, Any]]:
    """The epochs of a folder's snapshots, with what is read from each; a damaged one is left out with a warning."""
    found = []
    for path in folder.glob(f"*{suffix}"):
        match = re.fullmatch(r"snapshot-epoch-(\d+)", path.stem)
        if match:
            try:
                found.append((int(match.group(1)), read(path)))
            except DataError as error:
                warnings.warn(f"{error}; the pictures are made without it", RuntimeWarning, stacklevel=2)
    return sorted(found, key=lambda pair: pair[0])


def _interpolated(gan: GAN) -> tuple[Tensor, str, int]:
    """Rows from one z to another along the sphere: a straight line passes through z that p(z) hardly ever gives."""
    start, end = gan.draw_latent(ROWS), gan.draw_latent(ROWS)
    cosine = torch.nn.functional.cosine_similarity(start, end).clamp(-0.999, 0.999)
    angle = torch.arccos(cosine)[:, None, None]
    t = torch.linspace(0, 1, STEPS)[None, :, None]
    z = (torch.sin((1 - t) * angle) * start[:, None] + torch.sin(t * angle) * end[:, None]) / torch.sin(angle)
    labels = None
    if gan.classes:
        labels = (torch.arange(ROWS) % gan.classes).repeat_interleave(STEPS)
    title = "$G(z)$ from one $z$ to another along the sphere"
    return gan.sample(ROWS * STEPS, labels, z=z.flatten(0, 1)), title, STEPS


def _read_points(path: Path) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor] | None]:
    """Real and generated points of a snapshot, and D(x) on the plane where it was kept.

    Raises:
        DataError: if the file is damaged.
    """
    from scipy.interpolate import RegularGridInterpolator

    arrays = read_arrays(path)
    try:
        real, fake = (torch.from_numpy(arrays[name]) for name in ("real", "fake"))
        if "logits" not in arrays:
            return real, fake, None
        axes, logits = (arrays["first"], arrays["second"]), arrays["logits"]
        between = RegularGridInterpolator(axes, logits, bounds_error=False, fill_value=None)  # pyright: ignore[reportArgumentType]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a snapshot of points: {error}") from None

    def level(x: Tensor) -> Tensor:
        return torch.from_numpy(between(x.numpy())).sigmoid()

    return real, fake, level
