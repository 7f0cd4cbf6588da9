"""The functions of `import latentia` that work on runs, images and distributions: all that the command line does.

Each returns its results and writes the same files as the command of its name.
"""

from __future__ import annotations

__all__ = [
    "compare",
    "distance",
    "encode",
    "evaluate",
    "explore",
    "export",
    "impute",
    "push",
    "reconstruct",
    "report",
    "sample",
    "score",
    "verify",
]

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.data import Schema, ToyDistribution, image_grid, write_image_grid
from latentia.data.opening import LIMIT
from latentia.distributions import parse_distribution
from latentia.distributions.codes import require_enumerable
from latentia.divergences import distances
from latentia.errors import (
    ConfigurationError,
    DataError,
    RunError,
    UnsupportedError,
    counted,
    nearest,
    require_count,
)
from latentia.estimate import Estimate, read_estimates, write_estimates
from latentia.files import atomic_write, require_writable
from latentia.inputs import Channels, Images, Points, convert_images, read_images, read_points, source_of
from latentia.likelihood import (
    Imputation,
    LatentModel,
    LikelihoodEvaluation,
    divergences_from_known,
    evaluate_conditional_likelihood,
    evaluate_likelihood,
    impute_values,
)
from latentia.metrics import (
    Features,
    Labels,
    Metric,
    Output,
    ProgressCallback,
    Scores,
    default_features,
    draw_samples,
    parse_metrics,
    reference_images,
    same_protocol,
    score_arrays,
)
from latentia.metrics import score as score_images
from latentia.models import GAN, VAE, ConditionalVAE, EncodedGAN
from latentia.recipes import Run
from latentia.reports.comparison import Comparison, columns_of, compare_runs, saved_scores
from latentia.reports.tables import Results, Verdicts, distance_table, estimates_table, scores_table
from latentia.samplers import FittedSampler, Sampler, parse_sampler
from latentia.theory import choose, statements
from latentia.theory import verify as check
from latentia.training import seeded
from latentia.training.progress import FIRST_LINE, NotebookLine, Pace, Part

if TYPE_CHECKING:
    from latentia.explorer.build import ExplorerPage

Split = Literal["train", "validation", "test"]
Method = Literal["exact", "importance", "annealed"]
RunLike = Run | Path | str

LARGEST_PAGE = 4_000_000  # bytes of an explorer, as in latentia.explorer.build, which is slow to import
LARGEST_SAMPLE = 5000  # images of both kinds that are scored, unless more are asked for
AT_ONCE = 1000
WEIGHT_BYTES = 64  # of an importance weight: itself, sorted, and in the fit of its tail, in float64


def evaluate(
    run: RunLike,
    *,
    likelihood: Method | None = None,
    samples: bool = False,
    sampler: str | Sampler | None = None,
    metrics: str | Iterable[str | Metric] | None = None,
    features: str | Features | None = None,
    n: int | None = None,
    of: Output | None = None,
    split: Split = "test",
    real_vs_real: bool = True,
    tolerance: float = 0.01,
    prove: float | None = None,
    draws: int | None = None,
    limit: int | None = None,
    gaps: int = 1000,
    seconds: float = 300.0,
    pictures: bool = True,
    seed: int = 0,
) -> Results:
    """Evaluate a trained model: log p(x) of its data, the quality of its samples, or both.

    Writes evaluation/likelihood-METHOD.json with an .npz of each image's values, and for samples
    evaluation/samples.json (samples-validation.json for the validation split). Where the run cannot be written, the
    results are returned with a warning.

    Args:
        run: a run or its directory.
        likelihood: `exact` (z of 1 to 3 dimensions), `importance` or `annealed`; exact by default, or none if samples
            or metrics are asked for.
        samples: score samples of the model: images by their features, tables and signals by their standardized values.
        sampler: a distribution of z that takes the place of the prior, fitted to the codes of the training images:
            `mixture`, `flow` or `two-stage`, with settings as in `mixture,components=50`, or a `Sampler`. The files
            then have its name at their end.
        metrics: for samples, by name; all that the data allow by default.
        features: for samples; those of a digit classifier for digits by default, random convolutional ones otherwise.
        n: number of real and of generated images.
        of: score the means of p(x|z) or draws from it; by default means of images, and draws of other data.
        split: of the data; select models by `validation`, report `test`.
        real_vs_real: also score real images against real ones.
        tolerance: error allowed for each image by `exact`, in nats.
        prove: also enclose log p(x) of each image between proven bounds so many nats apart (`exact`; docs/exact.md).
        draws: number of z for each image (`importance`).
        limit: evaluate the likelihood of the first images only.
        gaps: number of images whose inference gap is analyzed (`exact`).
        seconds: time allowed for likelihoods.
        pictures: make the pictures of an exact evaluation and of a sampler.
        seed: of the random methods.

    Raises:
        ConfigurationError: options that are unknown or do not fit together.
        RunError: a run that has not ended, or a model that gives images no likelihood.
        DataError: too few images, or data that have changed since training.
    """
    run = _run(run)
    scoring = _Scoring(_metrics(metrics), features, n, of, split, real_vs_real, seed)
    samples = samples or metrics is not None
    method = likelihood or (None if samples else "exact")
    work = _Likelihood(method, split, limit, tolerance, prove, draws, gaps, seconds, pictures, seed)
    work.require_model(run)
    fitted = _fitted(run, sampler, method)
    parts: list[Results] = [] if fitted is None else [_sampler_results(run, fitted, pictures)]
    if samples:
        found = scoring.score(run, fitted)
        if method is None:
            _require_scores(*found)
        parts.append(_keep_scores(run, found, split, fitted))
    parts += work.evaluate(run, fitted)
    return Results(
        [estimate for part in parts for estimate in part],
        [table for part in parts for table in part.tables],
        [warning for part in parts for warning in part.warnings],
        [file for part in parts for file in part.files],
    )


def score(
    real: Images,
    fake: Images,
    *,
    metrics: str | Iterable[str | Metric] | None = None,
    features: str | Features | None = None,
    train: Images | None = None,
    n: int | None = None,
    size: int | None = None,
    channels: Channels | None = None,
    real_vs_real: bool = True,
    max_bytes: int = LIMIT,
    seed: int = 0,
) -> Results:
    """Score images against real ones: fidelity, diversity and memorization, each with its interval and its protocol.

    Args:
        real: images (N, C, H, W), uint8 or floats in [0, 1]; or a folder of images, an .npz with `images`, or the name
            of a data set, which gives its test images, with its training images as `train`.
        fake: likewise.
        metrics: by name; all that the data allow by default.
        features: as in `evaluate`.
        train: the images that the model was trained on.
        n: number of real and of fake images.
        size: resize all images to so many pixels a side.
        channels: convert all images to `gray` or `color`.
        real_vs_real: also score real images against real ones.
        max_bytes: the largest size of the decoded contents of a file.
        seed: of the choice of images.

    Raises:
        ConfigurationError: an unknown metric, features or data set.
        DataError: files that cannot be read, images of different sizes, or too few of them.
    """
    chosen = _metrics(metrics)
    if channels is not None:
        _require_known("channels", channels, Channels)
    reference, samples = read_images(real, max_bytes), read_images(fake, max_bytes)
    known = read_images(train, max_bytes).images if train is not None else reference.train

    def converted(images: Tensor) -> Tensor:
        return convert_images(images, size, channels)

    shapes = [tuple(converted(part.images[:1]).shape[1:]) for part in (reference, samples)]
    if shapes[0] != shapes[1]:
        texts = ["×".join(map(str, shape)) for shape in shapes]
        raise DataError(
            f"the real images are {texts[0]} (channels × height × width) and the others {texts[1]}: convert all with "
            "--size and --channels (in Python size=32, channels='gray')"
        )
    how = [
        text for text in (f"resized to {size}" if size else "", f"converted to {channels}" if channels else "") if text
    ]
    with progress("scores") as update:
        found = score_images(
            converted(reference.images),
            converted(samples.images),
            metrics=chosen,
            features=_features(features, reference.name),
            train=None if known is None else converted(known),
            n=n,
            real_vs_real=real_vs_real,
            split=", ".join([reference.split, *how]),
            samples=", ".join(["as given", *how]),
            seed=seed,
            progress=update,
        )
    _require_scores(found, found.skipped)
    return Results(found, [scores_table(found, f"{samples.title} against {reference.title}")], _skipped(found.skipped))


def compare(
    runs: Sequence[RunLike],
    *,
    samplers: str | Sampler | Sequence[str | Sampler] = (),
    metrics: str | Iterable[str | Metric] | None = None,
    features: str | Features | None = None,
    n: int | None = None,
    of: Output | None = None,
    split: Split = "test",
    real_vs_real: bool = True,
    saved: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare runs: likelihood where there is one, sample quality, time to train, number of parameters.

    All samples are scored by one protocol. Runs of one recipe with several seeds are one column: the mean over seeds
    with its standard error.

    Args:
        runs: two or more, or their directories; one with `samplers`.
        samplers: each VAE is compared with itself with these samplers in the place of its prior; see `evaluate`.
        metrics: as in `evaluate`, and likewise the options up to `real_vs_real`.
        features: see there.
        n: see there.
        of: see there.
        split: see there.
        real_vs_real: see there.
        saved: use the scores that `evaluate` wrote, in place of new ones.
        seed: of the samples.

    Raises:
        RunError: runs of points, of images and arrays, of different data, given twice, or without saved scores.
        DataError: saved scores with different protocols.
    """
    opened = [_run(run) for run in ([runs] if isinstance(runs, Run | Path | str) else runs)]
    scoring = _Scoring(_metrics(metrics), features, n, of, split, real_vs_real, seed)
    columns_of(opened)  # runs that cannot be compared are refused before any work
    _require_same_data(opened)
    given = [parse_sampler(name) for name in ([samplers] if isinstance(samplers, str | Sampler) else samplers)]
    columns: list[tuple[Run, Sampler | None]] = [(run, None) for run in opened]
    columns += [(run, sampler) for run in opened if isinstance(run.model, VAE) for sampler in given]
    if given and len(columns) == len(opened):
        opened[0].sampler(given[0])  # which says why there is none
    names = ["" if sampler is None else sampler.type_name for _, sampler in columns]
    opened = [run for run, _ in columns]
    if saved:
        scores = [saved_scores(run, name) for run, name in zip(opened, names, strict=True)]
        for run, found, name in zip(opened, scores, names, strict=True):
            if not found:
                option = f" --sampler {name}" if name else ""
                raise RunError(f"{run.path} has no saved scores; run `latentia evaluate {run.path} --samples{option}`")
    else:
        kinds = {run.recipe.data.binarize if of == "draws" else "" for run in opened}
        if len(kinds) > 1:
            raise ConfigurationError(
                "draws are scored against images binarized as in each run, and these runs differ in that "
                f"({', '.join(sorted(kinds))}); compare means (--of means), or runs of one kind"
            )
        scores = [scoring.score(run, _fitted(run, sampler))[0] for run, sampler in columns]
    return compare_runs(opened, scores, names)


def report(runs: RunLike | Sequence[RunLike], out: Path | str | None = None) -> Path:
    """Write one self-contained page about one or more runs and return its path.

    Args:
        runs: runs or their directories.
        out: the page; report.html in the first run by default.

    Raises:
        RunError: no runs, a damaged recipe, or a page that cannot be written. Of a run that has not ended, the page
            shows the records so far and says what is missing.
    """
    from latentia.reports.report import write_report

    opened = [_run(run) for run in ([runs] if isinstance(runs, Run | Path | str) else runs)]
    if not opened:
        raise RunError("a report needs at least one run")
    path = _page_file(out, opened[0].path / "report.html")
    return write_report(opened, path)


def explore(
    runs: RunLike | Sequence[RunLike],
    out: Path | str | None = None,
    *,
    weights: Literal["auto", "float16", "int8"] = "auto",
    max_bytes: int = LARGEST_PAGE,
) -> ExplorerPage:
    """Write one offline page to explore trained models; a notebook shows it in place.

    Args:
        runs: runs of VAEs and GANs, or their directories; each is a tab.
        out: the page; explorer.html in the first run by default.
        weights: how the page holds the weights: `float16`, `int8`, or `auto`, which takes the second where the first
            makes the page too large. The page says how far off that is.
        max_bytes: the largest size of the page.

    Raises:
        ConfigurationError: an unknown encoding, or a page above the size.
        RunError: a run that has not ended, that the explorer cannot show, or a page that cannot be written.
    """
    opened = [_run(run) for run in ([runs] if isinstance(runs, Run | Path | str) else runs)]
    if not opened:
        raise RunError("the explorer needs at least one run")
    path = _page_file(out, opened[0].path / "explorer.html")
    from latentia.explorer.build import write_explorer  # imports matplotlib

    return write_explorer(opened, path, weights=weights, max_bytes=max_bytes)


def sample(
    run: RunLike,
    n: int = 64,
    *,
    of: Output = "means",
    sampler: str | Sampler | None = None,
    label: str | int | None = None,
    given: Mapping[str, float] | str | None = None,
    out: Path | str | None = None,
    seed: int = 0,
) -> Tensor:
    """Samples of a trained model: images (n, C, H, W) in [0, 1], vectors (n, d), or other examples.

    Args:
        run: a run or its directory.
        n: how many.
        of: for a model with p(x|z), the means E[x|z] or draws of x.
        sampler: of z, in the place of a VAE's prior; see `evaluate`.
        label: of a class-conditional model, the class of all samples, by its name or its number from 0; by default the
            classes have the frequencies of the training examples (a VAE) or equal ones (a GAN).
        given: of a model of covariates, the value of each, {"age": 40, "dose": 1.5} or "age=40,dose=1.5"; by default
            covariates of training examples.
        out: F.png (a grid of images, densities by column, signals as lines), F.npz (array `images`, `points` or `x`),
            or for vectors F.csv to write.
        seed: of the samples.

    Raises:
        ConfigurationError: an unknown file format, or more samples than fit in memory.
        RunError: a run that has not ended, or a file that cannot be written.
    """
    run, path = _run(run), _image_file(out)
    _require_known("of", of, Output)
    shape = tuple(run.environment["shape"])
    if path is not None and path.suffix == ".png" and isinstance(run.recipe.data, ToyDistribution):
        raise ConfigurationError(f"--out {path}: points cannot be written as PNG; use --out F.npz")
    _require_memory(n, shape, path)
    fitted = _fitted(run, sampler, None)
    model = run.model if fitted is None else fitted.vae  # built outside of the block, which it must not change
    if label is not None and given is not None:
        text = "a model takes a label or covariates, not both; leave one of them out"
        raise ConfigurationError([("given", text)])
    labels = None if label is None else torch.full((n,), _class_of(run, label))
    if given is not None:
        labels = _covariates_of(run, given).expand(n, -1)
    with progress(f"{run.path}") as update, seeded(seed):
        images, _ = draw_samples(model, n, output=of, progress=update, labels=labels)
    if path is not None and (len(shape) == 3 or path.suffix == ".npz"):
        _write_images(path, images)
    elif path is not None:
        _write_arrays_of(run, path, images, f"{n} {'means E[x|z]' if of == 'means' else 'draws of x'} of the model")
    return images


def reconstruct(
    run: RunLike, n: int = 16, *, split: Split = "test", out: Path | str | None = None
) -> tuple[Tensor, Tensor]:
    """The first examples of a split and their reconstructions by the model, both (n, *shape).

    Args:
        run: a run, or its directory, of a model with an encoder.
        n: at most how many.
        split: of the data.
        out: F.png (originals over reconstructions; by column for vectors, lines for signals) or F.npz (array `images`,
            `points` or `x`, originals first) to write.

    Raises:
        RunError: a model without an encoder, or a file that cannot be written.
    """
    run, path = _run(run), _image_file(out)
    _require_known("split", split, Split)
    require_count("n", n)
    model = _encoder_of(run)
    images, labels = run.splits.examples(split, n)
    rows = torch.arange(len(images)).split(AT_ONCE)
    again = torch.cat([_given(model, labels, part).reconstruct(images[part]) for part in rows])
    if path is not None and (images.dim() == 4 or path.suffix == ".npz"):
        _write_images(path, torch.cat([images, again]), columns=len(images))
    elif path is not None:
        _write_arrays_of(run, path, images, f"{len(images)} examples of the {split} data, and E[x|z]", again)
    return images, again


def encode(
    run: RunLike, *, data: str | Path | None = None, split: Split = "test", out: Path | str | None = None
) -> dict[str, Tensor]:
    """Encode images: `mean` and `stddev` of q(z|x), both (N, d), and `labels` where the data have them.

    Args:
        run: a run, or its directory, of a model with an encoder.
        data: a data set's name, a folder of images or an .npz; the run's own data by default.
        split: of the data.
        out: F.npz to write.

    Raises:
        ConfigurationError: an unknown data set or file format.
        DataError: images of another shape than the model takes.
        RunError: a model without an encoder, or a file that cannot be written.
    """
    path = None if out is None else Path(out)
    if path is not None and path.suffix != ".npz":
        raise ConfigurationError(f"--out {path}: codes are arrays; use a name that ends in .npz")
    run, path = _run(run), _writable(path)
    _require_known("split", split, Split)
    model = _encoder_of(run)
    source = run.recipe.data if data is None else source_of(str(data), run.recipe.data.binarize)
    splits = run.splits if data is None else source.load()
    part = getattr(splits, split)
    if part.event_shape != model.event_shape:
        raise DataError(f"these images are {part.event_shape}, and the model takes {model.event_shape}")
    images, labels = splits.examples(split)
    with torch.no_grad():
        rows = torch.arange(len(images)).split(AT_ONCE)
        codes = [_given(model, labels, part).encode(images[part]) for part in rows]
        arrays = {"mean": torch.cat([q.mean for q in codes]), "stddev": torch.cat([q.stddev for q in codes])}
    if part.labels is not None:
        arrays["covariates" if part.labels.is_floating_point() else "labels"] = part.labels
    if path is not None:
        _write_arrays(path, {name: values.numpy() for name, values in arrays.items()})
    return arrays


def export(
    run: RunLike,
    out: Path | str | None = None,
    *,
    format: Literal["onnx", "torch-export", "safetensors"] = "onnx",
    parts: str | Iterable[str] | None = None,
) -> list[Path]:
    """Write a run's networks for other programs; see `Run.export`.

    Args:
        run: a run or its directory.
        out: the folder; `export` in the run directory by default.
        format: of the files.
        parts: such as `encoder,decoder`; all by default.
    """
    return _run(run).export(out, format=format, parts=parts)


def push(run: RunLike, name: str, *, private: bool = False, token: str | None = None) -> str:
    """Share a run on the Hugging Face Hub; see `Run.push_to_hub`.

    Args:
        run: a run or its directory.
        name: of the repository, `user/name`.
        private: whether a new repository is visible to its owner alone.
        token: of the Hub; the stored one by default.

    Returns:
        The address of the repository.
    """
    return _run(run).push_to_hub(name, private=private, token=token)


def impute(
    run: RunLike,
    *,
    x: Tensor | np.ndarray[Any, Any] | None = None,
    draws: int = 500,
    hide: float = 0.1,
    out: Path | str | None = None,
    seed: int = 0,
) -> tuple[Imputation, Results]:
    """Fill in missing values: their means given the observed values, with standard deviations.

    As a check, a part of the observed values of the test examples is hidden and imputed: `imputation_rmse` is the root
    of the mean squared error in standard deviations of each column, next to that of the columns' means.

    Args:
        run: a run, or its directory, of a VAE that was trained with `data.missing=keep`.
        x: examples (N, *shape) with NaN; by default all of the run's data, in their order.
        draws: of z for each example.
        hide: the share of observed values that the check hides; 0 for no check.
        out: F.csv for vectors, or F.npz (arrays `x` and `stddev`), to write.
        seed: of the draws and of what is hidden.

    Raises:
        ConfigurationError: an unknown file format.
        RunError: a model without a likelihood, or a file that cannot be written.
        DataError: a model that does not take missing values.
    """
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in (".csv", ".npz"):
        raise ConfigurationError(f"--out {path} must end in .csv or .npz")
    run = _run(run)
    vae = run.model
    if not isinstance(vae, VAE):
        raise RunError(f"{run.path} holds a {type(vae).__name__}, which has no likelihood to impute with; give a VAE's")
    columns = Schema.from_mapping(run.environment).columns
    categories = [place for place, column in enumerate(columns) if column.kind in ("category", "ordinal")]
    given = torch.as_tensor(run.recipe.data.whole().x if x is None else x)  # values that are there stay as they are
    require_count("draws", draws)
    _require_room("--draws", draws, 8 * (4 * vae.latent + 8 * math.prod(vae.event_shape)), "draws of an example")
    options: dict[str, Any] = {"draws": draws, "seed": seed, "categories": categories}
    with progress(f"imputing {int(given.isnan().sum())} values") as update:
        options["progress"] = lambda done, total: update(done, total, "")
        found = impute_values(vae, given, **options)
        estimates = _imputation_check(run, vae, hide, options) if hide > 0 else []
    if path is not None and path.suffix == ".csv":
        _write_arrays_of(run, path, found.x, "")
    elif path is not None:
        _write_arrays(path, {"x": found.x.numpy(), "stddev": found.stddev.numpy()})
    title = f"{run.path}: {int(given.isnan().sum())} of {given.numel()} values imputed"
    tables = [estimates_table(estimates, title)] if estimates else []
    return found, Results(estimates, tables, [], [] if path is None else [path])


def _imputation_check(run: Run, vae: VAE, hide: float, options: Mapping[str, Any]) -> list[Estimate]:
    """Errors of imputed values that are known, of numbers in the test examples."""
    test, train = run.splits.examples("test").x, run.splits.examples("train").x
    numbers = torch.ones(test.shape[1:], dtype=torch.bool)
    numbers[list(options["categories"])] = False
    generator = torch.Generator().manual_seed(options["seed"])
    hidden = (torch.rand(test.shape, generator=generator) < hide) & ~test.isnan() & numbers
    if int(hidden.sum()) < 2:
        return []
    found = impute_values(vae, torch.where(hidden, torch.nan, test), **options)
    mean = train.nanmean(0)
    spread = (train - mean).square().nanmean(0).sqrt().clamp(min=1e-12)
    estimates = []
    for name, value in (("imputation_rmse", found.x), ("column_mean_rmse", mean.expand_as(test))):
        squares = ((value - test) / spread)[hidden].double().square()
        root = squares.mean().sqrt()
        stderr = (squares.std() / math.sqrt(len(squares)) / (2 * root)).item()
        about = {"hidden": hide, "draws": options["draws"]}
        estimates.append(
            Estimate(root.item(), f"test/{name}", stderr, len(squares), "1", method="hidden values", settings=about)
        )
    return estimates


def verify(items: str | int | Sequence[str] = (), *, seed: int = 0, report: Path | str | None = None) -> Verdicts:
    """Check the statements of the theory by running them.

    Args:
        items: such as `1c`, `3e.sliding`, a chapter `3`, or `beyond`; every statement by default.
        seed: of the random instances.
        report: folder in which to write theory.html, a page with formulas and pictures.

    Raises:
        ConfigurationError: an unknown item, or a report without latex2mathml.
    """
    return Verdicts(run_checks([str(items)] if isinstance(items, str | int) else items, seed=seed, report=report))


def run_checks(items: Sequence[str], *, seed: int, report: Path | str | None) -> Iterator[Any]:
    """The verdicts one by one, as they come; the page is written after the last."""
    chosen = choose(statements(), list(items))
    if report is None:
        yield from check(chosen, seed)
        return
    from latentia.reports.theory_report import require_formulas, write_theory_report

    require_formulas()
    require_writable(Path(report) / "theory.html")
    verdicts = []
    for verdict in check(chosen, seed):
        verdicts.append(verdict)
        yield verdict
    write_theory_report(Path(report), verdicts, seed)


def distance(
    p: Points,
    q: Points,
    *,
    draws: int = 100_000,
    out: Path | str | None = None,
    max_bytes: int = LIMIT,
    seed: int = 0,
) -> Results:
    """Every divergence between two distributions, or two samples, by every method that applies.

    Args:
        p: a distribution, an expression such as "Normal(0,1)", a sample (n,) or (n, d), or a file of one: .npy, .npz or
            .csv, one point a row. The first row of a CSV file is a header if each of its cells is text that is neither
            a number nor a mark of a missing value, such as NA.
        q: another of the same kind.
        draws: for the Monte Carlo estimates.
        out: F.png, a picture of both with the optimal map between them.
        max_bytes: the largest size of the decoded contents of a file.
        seed: of the draws.

    Raises:
        ConfigurationError: an expression that cannot be parsed, or a distribution and a sample.
        DataError: a file without numbers, or samples of different dimensions.
    """
    path = None if out is None else Path(out)
    if path is not None and path.suffix != ".png":
        raise ConfigurationError(f"--out {path} must end in .png")
    path = _writable(path)
    names = cast("tuple[str, str]", tuple(str(s) if isinstance(s, str | Path) else n for s, n in ((p, "P"), (q, "Q"))))
    with progress("divergences") as update:
        update(0, 0, "")
        first, second = read_points(p, max_bytes), read_points(q, max_bytes)
        _require_memory_for_draws(draws, first)
        found = distances(first, second, n=draws, seed=seed)
    table = distance_table(found.estimates, found.refused, f"P = {names[0]}, Q = {names[1]}")
    if path is not None:
        from latentia.reports.point_figures import plot_distributions, plot_two_samples
        from latentia.reports.style import save_figure

        plot: Callable[..., Any] = plot_distributions if isinstance(found.first, Distribution) else plot_two_samples
        save_figure(plot(found.first, found.second, names), path)
    return Results(found.estimates, [table], files=[] if path is None else [path])


@contextmanager
def progress(title: str) -> Iterator[ProgressCallback]:
    """What is being done, its share that is done and the time left, on standard error.

    In a terminal it is a bar, elsewhere some lines, the first after two seconds. Where what is done falls, another part
    of the work has begun.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        pace, part, notebook = Pace(), Part(), NotebookLine() if console.is_jupyter else None

        def line(done: int, total: int, what: str) -> None:
            part.report(done, total, what)
            if notebook or pace.due():
                say()

        def say() -> None:
            what = f": {part.what}" if part.what else ""
            text = f"{title}{what}{part}"
            if notebook:
                notebook.show(text)
            else:
                console.print(text, highlight=False, markup=False, soft_wrap=True)

        # for work that does not report how much is done
        timer = threading.Timer(FIRST_LINE, lambda: pace.due() and say())
        timer.daemon = True
        timer.start()
        try:
            yield line
        finally:
            timer.cancel()
            if notebook:
                notebook.clear()
        return
    description = TextColumn("{task.description}", markup=False)
    with Progress(
        description,
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        transient=True,
    ) as bar:
        task, part = bar.add_task(title, total=None), Part()

        def update(done: int, total: int, what: str) -> None:
            words = f"{title}: {what}" if what else title
            if part.report(done, total, what):
                bar.reset(task, total=total or None)
            bar.update(task, completed=done, total=total or None, description=words)

        yield update


def _run(run: RunLike) -> Run:
    return run if isinstance(run, Run) else Run(run)


def _require_known(option: str, value: str, known: Any) -> None:
    """Check the value of an option that takes one of a few words.

    Raises:
        ConfigurationError: naming them.
    """
    if value not in get_args(known):
        raise ConfigurationError([(option, f"{value!r} is not known. {nearest(value, get_args(known))}")])


def _metrics(given: str | Iterable[str | Metric] | None) -> list[Metric] | None:
    """Metrics by name, with commas or spaces between; None for all that the data allow."""
    if given is None:
        return None
    parts = given.replace(",", " ").split() if isinstance(given, str) else list(given)
    try:
        return [metric for part in parts for metric in ([part] if isinstance(part, Metric) else parse_metrics([part]))]
    except ConfigurationError as error:
        raise ConfigurationError([("metrics", str(error))]) from None


def _features(given: str | Features | None, data: str) -> Features:
    """Features by name, or those that suit the data."""
    if given is None:
        return default_features(data)
    try:
        return Features.parse(given)
    except ConfigurationError as error:
        raise ConfigurationError([("features", str(error))]) from None


def _require_images(runs: Sequence[Run]) -> None:
    """Check that these runs make images, and were trained on one data set.

    Raises:
        RunError: if not.
    """
    for run in runs:
        if len(run.environment["shape"]) != 3:
            toy = isinstance(run.recipe.data, ToyDistribution)
            what, cure = ("points", "shows its mode coverage") if toy else ("arrays", "shows its estimates")
            raise RunError(
                f"{run.path} makes {what}, not images, which these scores need: `latentia show {run.path}` {cure}"
                + (f", `latentia evaluate {run.path}` log p(x)" if isinstance(run.model, VAE) else "")
            )
    _require_same_hash(runs)


def _require_same_data(runs: Sequence[Run]) -> None:
    """Check that the samples of these runs are scored alike: images, or examples of one table or set of signals.

    Raises:
        RunError: if not.
    """
    if any(len(run.environment["shape"]) == 3 or isinstance(run.recipe.data, ToyDistribution) for run in runs):
        _require_images(runs)
    _require_same_hash(runs)


def _require_same_hash(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs:
        if run.environment["data_hash"] != first.environment["data_hash"]:
            raise RunError(
                f"{run.path} and {first.path} were trained on different data ({run.recipe.data.type_name} and "
                f"{first.recipe.data.type_name}); compare runs on one data set"
            )


@dataclass(frozen=True)
class _Scoring:
    """How samples of runs are scored: the options that `evaluate` and `compare` share.

    Raises:
        ConfigurationError: a split or a kind of sample that is not known.
    """

    metrics: Sequence[Metric] | None
    features: str | Features | None
    n: int | None
    of: Output | None
    split: Split
    real_vs_real: bool
    seed: int

    def __post_init__(self) -> None:
        _require_known("split", self.split, Split)
        if self.n is not None:
            require_count("n", self.n)
        if self.of is not None:
            _require_known("of", self.of, Output)

    def score(self, run: Run, fitted: FittedSampler | None = None) -> tuple[list[Estimate], dict[str, str]]:
        """Scores of a run's samples against its data; also why metrics are missing.

        Raises:
            ConfigurationError: options that the data do not take.
            RunError: a model of points, or data that have changed since training.
            DataError: more images asked for than there are.
        """
        images = len(run.environment["shape"]) == 3 or isinstance(run.recipe.data, ToyDistribution)
        with progress(f"{run.path}") as update:
            found = (self._images if images else self._arrays)(run, fitted, update)
        return _with_sampler(found, fitted), found.skipped

    def _images(self, run: Run, fitted: FittedSampler | None, update: ProgressCallback) -> Scores:
        """Samples of images against images."""
        _require_images([run])
        reference = reference_images(run.recipe.data, self.split, self.of or "means")
        if reference.data_hash != run.environment["data_hash"]:
            raise RunError(
                f"the data that {run.recipe.data.type_name} loads now are not those of the run {run.path}; restore the "
                "files that it was trained on"
            )
        size, most = self._size(len(reference.images))
        if size > most:
            whole = f" (half of them, or {len(reference.images)} with --no-real-vs-real)" if self.real_vs_real else ""
            raise DataError(
                f"n = {size}: the {self.split} split has {counted(len(reference.images), 'image')}, so give at most "
                f"{most}{whole}"
            )
        images, labels, what = self._samples(run, fitted, size, self.of or "means", update)
        if images.min() < 0 or images.max() > 1:  # a Gaussian likelihood is not bounded
            images, what = images.clamp(0, 1), f"{what}, clipped to [0, 1]"
        return score_images(
            reference.images,
            images,
            metrics=self.metrics,
            features=_features(self.features, run.recipe.data.type_name),
            train=reference.train,
            n=size,
            real_vs_real=self.real_vs_real,
            split=reference.split,
            samples=what,
            labels=Labels(reference.labels, labels, reference.train_labels),
            seed=self.seed,
            progress=update,
        )

    def _arrays(self, run: Run, fitted: FittedSampler | None, update: ProgressCallback) -> Scores:
        """Samples of a table or of signals against examples."""
        if self.features is not None:
            text = "features are of images; tables and signals are scored by their standardized values"
            raise ConfigurationError([("features", f"{text}. Leave features out")])
        if self.split == "train":
            text = "samples are scored against examples that the model was not trained on"
            raise ConfigurationError([("split", f"{text}: use validation (to select) or test (to report)")])
        real, train = run.splits.examples(self.split).x, run.splits.examples("train").x
        size, _ = self._size(len(real))
        samples, _, what = self._samples(run, fitted, size, self.of or "draws", update)
        return score_arrays(
            real,
            samples,
            train,
            columns=Schema.from_mapping(run.environment).columns,
            metrics=self.metrics,
            n=size,
            real_vs_real=self.real_vs_real,
            split=self.split,
            samples=what,
            seed=self.seed,
            progress=update,
        )

    def _size(self, available: int) -> tuple[int, int]:
        """How many real and how many generated examples are scored, and how many there can be."""
        most = available // (2 if self.real_vs_real else 1)
        return self.n or min(most, LARGEST_SAMPLE), most

    def _samples(
        self, run: Run, fitted: FittedSampler | None, size: int, of: Output, update: ProgressCallback
    ) -> tuple[Tensor, Tensor | None, str]:
        """Samples of the model, their labels where it takes some, and what they are."""
        model = run.model if fitted is None else fitted.vae  # built outside of the block, which it must not change
        with seeded(self.seed):
            labels = cast(Any, model).draw_labels(size).cpu() if _takes_labels(model) else None
            samples, what = draw_samples(model, size, output=of, progress=update, labels=labels)
        return samples, labels, what


def name_of(fitted: FittedSampler | None) -> str:
    """The name of a sampler; empty for the model's own prior."""
    return "" if fitted is None else fitted.sampler.type_name


def _with_sampler(estimates: Sequence[Estimate], fitted: FittedSampler | None) -> list[Estimate]:
    """The estimates with the sampler in their settings, where there is one."""
    if fitted is None:
        return list(estimates)
    setting = fitted.sampler.to_mapping()
    return [replace(estimate, settings={**estimate.settings, "sampler": setting}) for estimate in estimates]


def _fitted(run: Run, sampler: str | Sampler | None, likelihood: str | None = None) -> FittedSampler | None:
    """The run's model with a sampler in the place of its prior; None for the prior itself.

    Raises:
        ConfigurationError: an unknown sampler, or one without a density for a likelihood.
        RunError: a model that is not a VAE.
    """
    if sampler is None:
        return None
    chosen = parse_sampler(sampler)
    if likelihood is not None and not chosen.has_density:
        cure = "use --sampler mixture or flow, or --samples alone (in Python sampler='mixture')"
        text = f"{chosen.type_name} has no density in closed form, which log p(x) needs; {cure}"
        raise ConfigurationError([("sampler", text)])
    with progress(f"{run.path}: fitting the {chosen.type_name} sampler") as update:
        return run.sampler(chosen, lambda done, total: update(done, total, ""))


def _sampler_results(run: Run, fitted: FittedSampler, pictures: bool) -> Results:
    """What the sampler gains on held-out codes, with a warning where it loses, and its pictures."""
    gain, *_ = estimates = list(fitted.estimates)
    name, warnings = fitted.sampler.type_name, []
    if gain.value < -2 * (gain.stderr or 0):
        warnings.append(f"held-out codes are less likely under the {name} sampler than under the prior ({gain})")
    table = estimates_table(estimates, f"{run.path}: {name} sampler, held-out codes")
    files: list[Path] = []
    if pictures and len(run.environment["shape"]) == 3:
        from latentia.reports.gallery import save_sampler_figures

        try:
            files = save_sampler_figures(run, fitted)
        except RunError as error:
            warnings.append(f"the pictures are not kept: {error}")
    return Results(estimates, [table], warnings, files)


def _keep_scores(
    run: Run, scored: tuple[list[Estimate], dict[str, str]], split: str, fitted: FittedSampler | None = None
) -> Results:
    """Write scores into the run; earlier scores stay if they were made by the same protocol."""
    found, skipped = scored
    parts = ["samples", *([] if split == "test" else [split]), *([name_of(fitted)] if fitted else [])]
    target = run.directory.evaluation / f"{'-'.join(parts)}.json"
    names = {estimate.name for estimate in found}
    files, warnings = [target], _skipped(skipped)
    try:
        before = read_estimates(target) if target.exists() else []
        kept = [old for old in before if old.name not in names and same_protocol(old, found[0])] if found else []
        write_estimates(target, [*kept, *found])
    except RunError as error:
        files, warnings = [], [*warnings, f"the scores are not kept: {error}"]
    title = f"{run.path}: samples" + (f" by the {name_of(fitted)} sampler" if fitted else "")
    return Results(found, [scores_table(found, title)] if found else [], warnings, files)


def _require_scores(found: Sequence[Estimate], skipped: Mapping[str, str]) -> None:
    """Refuse images that no metric can score.

    Raises:
        DataError: with the first reason.
    """
    if not found and skipped:
        raise DataError("no metric can score these samples. " + next(iter(_skipped(skipped))))


def _skipped(reasons: Mapping[str, str]) -> list[str]:
    return [f"{name} is left out: {reason}" for name, reason in reasons.items()]


@dataclass(frozen=True)
class _Likelihood:
    """How log p(x) of a run's data is evaluated: the options of `evaluate` for likelihoods; no method for none.

    Raises:
        ConfigurationError: an unknown method, or options of another one.
    """

    method: Method | None
    split: Split
    limit: int | None
    tolerance: float
    prove: float | None
    draws: int | None
    gaps: int
    seconds: float
    pictures: bool
    seed: int

    def __post_init__(self) -> None:
        if self.draws is not None and self.method != "importance":
            cure = "add --likelihood importance, or leave them out (in Python likelihood='importance')"
            raise ConfigurationError([("draws", f"they are for importance sampling alone; {cure}")])
        if self.prove is not None and self.method != "exact":
            cure = "add --likelihood exact, or leave it out (in Python likelihood='exact')"
            raise ConfigurationError([("prove", f"only exact likelihoods come with proven bounds; {cure}")])
        if self.method is not None:
            _require_known("likelihood", self.method, Method)
        if self.limit is not None:
            require_count("limit", self.limit)
        require_count("gaps", self.gaps, 0)
        if self.draws is not None:
            require_count("draws", self.draws, 2)
            _require_room("--draws", self.draws, WEIGHT_BYTES, "draws of an image")

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the method."""
        options: dict[str, Any] = {name: getattr(self, name) for name in ("tolerance", "gaps", "seconds", "seed")}
        options |= {name: value for name in ("draws", "prove") if (value := getattr(self, name)) is not None}
        # exact results are written with the certificates that they have
        return options | ({"require": False} if self.method == "exact" else {})

    def require_model(self, run: Run) -> None:
        """Check that the method can serve the run's model, before any work.

        Raises:
            ConfigurationError: a latent space that it cannot serve.
            RunError: a model without a likelihood.
        """
        if self.method is None:
            return
        model = run.model
        if not isinstance(model, VAE):
            _require_images([run])
            suitable = "Bernoulli()" if run.recipe.data.binarize != "none" else "Gaussian(scale=0.1)"
            raise RunError(
                f"{run.path} holds a {type(model).__name__}, which gives images no likelihood: score its samples with "
                "--samples (in Python samples=True), or add an observation model to its generator with "
                f"latentia.likelihood.LatentModel.from_generator(…, {suitable}, …)"
            )
        one = model.draw_labels(1)[0] if isinstance(model, ConditionalVAE) else None
        subject = LatentModel.from_model(model.given(one))  # of one label, where the model takes labels
        if self.method == "exact":
            require_enumerable(subject.prior)
        if self.method == "exact" and not subject.prior.has_enumerate_support and not subject.has_grid:
            raise ConfigurationError(
                f"exact likelihoods need z of at most 3 dimensions, and here z has {model.latent}; give "
                "--likelihood importance or --likelihood annealed (in Python likelihood='importance')"
            )

    def evaluate(self, run: Run, fitted: FittedSampler | None) -> list[Results]:
        """What the method gives, if there is one, and for toy data the divergences from their known density."""
        if self.method is None:
            return []
        found = [self._of_data(run, self.method, fitted)]
        if self.method == "exact" and isinstance(run.recipe.data, ToyDistribution):
            found.append(_evaluate_divergences(run, run.recipe.data, self.seconds, self.seed, fitted))
        return found

    def _of_data(self, run: Run, method: Method, fitted: FittedSampler | None) -> Results:
        """Evaluate log p(x), write estimates, arrays and pictures, and collect what a reader must be warned of."""
        images, labels = run.splits.examples(self.split, self.limit)
        with progress(f"log p(x) of {counted(len(images), f'{self.split} image')}, {method}") as update:
            update(0, 0, "")
            model, options = run.model if fitted is None else fitted.vae, {**self.options, "progress": update}
            if isinstance(model, ConditionalVAE):
                found = evaluate_conditional_likelihood(model, images, cast(Tensor, labels), method, **options)
            else:
                found = evaluate_likelihood(model, images, method, **options)
        estimates = [e.named(f"{self.split}/{e.name}") for e in _with_sampler(found.estimates, fitted)]
        ending, by = (f"-{name_of(fitted)}", f", {name_of(fitted)} sampler") if fitted else ("", "")
        target = run.directory.evaluation / f"likelihood-{method}{ending}.json"
        files, warnings = [target, target.with_suffix(".npz")], self._warnings(found, len(images))
        try:
            write_estimates(target, estimates)
            _write_arrays(target.with_suffix(".npz"), found.arrays)
            if self.pictures and (found.posterior is not None or found.enumerated is not None):
                from latentia.reports.likelihood_figures import save_likelihood_figures

                about = {"labels": labels, "classes": run.splits.classes, "seed": self.seed}
                with progress("pictures"):
                    files += save_likelihood_figures(found, images, run.directory.figures / name_of(fitted), **about)
        except RunError as error:
            files, warnings = [], [*warnings, f"the results are not kept: {error}"]
        title = f"{run.path}: {counted(len(images), f'{self.split} image')}, {method}{by}"
        return Results(estimates, [estimates_table(estimates, title)], warnings, files)

    def _warnings(self, found: LikelihoodEvaluation, count: int) -> list[str]:
        """Images that were not reached in time, and those whose error is larger than asked for."""
        errors = found.arrays.get("error", np.zeros(0))
        reached = errors[found.arrays.get("reached", np.full(len(errors), True))]
        warnings = []
        late = len(errors) - len(reached)
        if late:
            warnings.append(
                f"{late} of {count} images were not reached in {self.seconds:g} s and are in no result, so the means "
                "are over the images that took least; allow more --seconds, or give a smaller --limit"
            )
        unexplained = int(found.arrays.get("unexplained", np.zeros(0)).sum())
        if unexplained:
            warnings.append(
                f"{unexplained} of {count} images lie more than 20 standard deviations below what the decoder gives at "
                "any z that was tried: they are unlike its images, or a feature too narrow for the grid explains them, "
                "which only a proof excludes (certificate='proven' in Python)"
            )
        missed = int((reached > self.tolerance).sum())
        if missed:
            warnings.append(
                f"{missed} of {count} images have an error of up to {reached.max():.3g} nats, more than the "
                f"{self.tolerance} asked for; allow more --seconds"
            )
        return warnings


def _evaluate_divergences(
    run: Run, toy: ToyDistribution, seconds: float, seed: int, fitted: FittedSampler | None
) -> Results:
    """KL divergences between the known density of toy data and the model, in both directions."""
    model = run.model if fitted is None else fitted.vae
    try:
        with progress("KL divergences to the known density"), seeded(seed):
            found = divergences_from_known(toy.distribution(), model, seconds=seconds)
    except UnsupportedError as error:
        return Results([], [], [f"the KL divergences are left out: {error}"], [])
    estimates = [estimate.named(f"test/{estimate.name}") for estimate in _with_sampler(found, fitted)]
    ending = f"-{name_of(fitted)}" if fitted else ""
    target = run.directory.evaluation / f"divergences{ending}.json"
    files, warnings = [target], []
    try:
        write_estimates(target, estimates)
    except RunError as error:
        files, warnings = [], [f"the results are not kept: {error}"]
    return Results(estimates, [estimates_table(estimates, f"{run.path}: the known density")], warnings, files)


def _encoder_of(run: Run) -> Any:
    """The run's model, which must have an encoder."""
    if not isinstance(run.model, VAE | EncodedGAN):
        raise RunError(
            f"{run.path} holds a {type(run.model).__name__}, which has no encoder; give the run of a VAE, an "
            "adversarial autoencoder, a BiGAN or a VAE/GAN"
        )
    return run.model


def _given(model: VAE | EncodedGAN, labels: Tensor | None, rows: Tensor) -> VAE | EncodedGAN:
    """The model of the examples in these rows: of a class-conditional VAE, the one of their labels."""
    return model.given(None if labels is None else labels[rows]) if isinstance(model, VAE) else model


def _takes_labels(model: Any) -> TypeGuard[ConditionalVAE | GAN]:
    return isinstance(model, ConditionalVAE) or (isinstance(model, GAN) and model.classes > 0)


def _covariates_of(run: Run, given: Mapping[str, float] | str) -> Tensor:
    """The covariates in the order of the model, float32 (k,).

    Raises:
        RunError: for a model that takes none.
        ConfigurationError: for unknown or missing names, and values that are not finite numbers.
    """
    names = list(Schema.from_mapping(run.environment).covariates)
    if not names or not isinstance(run.model, ConditionalVAE):
        cure = "sample it by --label" if _takes_labels(run.model) else "train a conditional-vae on data with covariates"
        raise RunError(f"{run.path} holds a model that takes no covariates; {cure}")
    parts = [part.partition("=")[::2] for part in given.split(",")] if isinstance(given, str) else list(given.items())
    values: dict[str, float] = {}
    for name, text in ((str(name).strip(), text) for name, text in parts):
        if name not in names:
            raise ConfigurationError([("given", f"there is no covariate {name!r:.40}. {nearest(name, names)}")])
        try:
            values[name] = float(text)
        except (TypeError, ValueError):
            values[name] = math.nan
        if not math.isfinite(values[name]):
            problem = f"{name} must be a finite number, as in {name}=1.5 (given: {text!r:.40})"
            raise ConfigurationError([("given", problem)])
    missing = [name for name in names if name not in values]
    if missing:
        example = ",".join(f"{name}={value:.3g}" for name, value in zip(names, run.model.covariate_center, strict=True))
        raise ConfigurationError([("given", f"{', '.join(missing)} is missing; give all, as in {example}")])
    return torch.tensor([values[name] for name in names])


def _class_of(run: Run, label: str | int) -> int:
    """The number of a class from its name or number.

    Raises:
        RunError: for a model that is not class-conditional.
        ConfigurationError: for a class that the data do not have.
    """
    if Schema.from_mapping(run.environment).covariates:
        raise RunError(f"{run.path} holds a model of covariates; sample it by --given (in Python given={{…}})")
    if not _takes_labels(run.model):
        raise RunError(
            f"{run.path} holds a model that takes no labels; train a conditional-vae, or a gan with conditional=true, "
            "to sample by label"
        )
    names = list(run.environment["classes"])
    if str(label) in names:
        return names.index(str(label))
    if str(label).isdigit() and int(label) < len(names):
        return int(label)
    raise ConfigurationError([("label", f"there is no class {str(label)!r}. {nearest(str(label), names)}")])


def _image_file(out: Path | str | None) -> Path | None:
    """The path of a file of images, checked before any work."""
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in (".png", ".npz", ".csv"):
        raise ConfigurationError(f"--out {path} must end in .png or .npz, or for vectors in .csv")
    return _writable(path)


def _page_file(out: Path | str | None, otherwise: Path) -> Path:
    """The path of a page, checked before any work."""
    path = otherwise if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(f"--out {path}: a page's name must end in .html")
    require_writable(path)
    return path


def _writable(path: Path | None) -> Path | None:
    if path is not None:
        require_writable(path)
    return path


def _write_images(path: Path, images: Tensor, columns: int | None = None) -> None:
    """Write images as a grid (PNG) or an array (npz); values outside [0, 1] are clipped in a grid."""
    if path.suffix == ".npz":
        name = {4: "images", 2: "points"}.get(images.dim(), "x")
        _write_arrays(path, {name: images.numpy()})
    else:
        write_image_grid(path, images.clamp(0, 1), columns=columns)


def _write_arrays_of(run: Run, path: Path, x: Tensor, title: str, again: Tensor | None = None) -> None:
    """Write vectors or signals as a picture, or vectors as a table."""
    from latentia.reports.array_figures import plot_arrays, table_text
    from latentia.reports.style import save_figure

    columns = Schema.from_mapping(run.environment).columns
    if path.suffix != ".csv":
        save_figure(plot_arrays(x, title, columns, again=again), path)
        return
    if x.dim() != 2:
        raise ConfigurationError(f"--out {path}: a table holds vectors, and these have {x.dim() - 1} axes; use F.npz")
    with atomic_write(path) as temporary:
        temporary.write_text(table_text(x if again is None else again, columns), encoding="utf-8")


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _require_memory(n: int, shape: tuple[int, ...], path: Path | None) -> None:
    """Refuse a number of samples below 1, or one that does not fit in the free memory.

    Raises:
        ConfigurationError: with a number that fits.
    """
    require_count("n", n)
    each = 2 * 4 * int(np.prod(shape))  # float32, twice while the parts are joined
    if path is not None and path.suffix == ".png" and len(shape) == 3:
        each += 3 * image_grid(torch.zeros(1, *shape)).numel()
    _require_room("-n", n, each, "samples")


def _require_memory_for_draws(draws: int, first: Any) -> None:
    """Refuse draws for divergences that do not fit in the free memory.

    Raises:
        ConfigurationError: with a number that fits.
    """
    if isinstance(first, str):
        with suppress(ConfigurationError):  # which `distances` words
            first = parse_distribution(first)
    if isinstance(first, Distribution):
        # points, two log-densities and the terms, in float64
        _require_room("--draws", draws, 64 * first.event_shape.numel(), "draws")


def _require_room(option: str, count: int, each: int, noun: str) -> None:
    """Refuse more things than fit in the free memory, `each` bytes one.

    Raises:
        ConfigurationError: with a number that fits.
    """
    free = _free_memory()
    if count * each > free:
        needed = f"{count} {noun} need {count * each / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        raise ConfigurationError([(option, f"{needed}; give at most {free // each}")])


def _free_memory() -> int:
    """Bytes of free memory; 4 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**32
