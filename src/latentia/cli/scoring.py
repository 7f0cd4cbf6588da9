"""Commands about the quality of samples: score two sets of images, compare runs."""

from __future__ import annotations

__all__ = ["add_to", "features_of", "metrics_of", "print_comparison", "print_scores", "score_run"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from latentia.estimate import Estimate
    from latentia.metrics import Features, Metric, Output, ProgressCallback
    from latentia.recipes import Run
    from latentia.reports.comparison import Comparison

MOST = 5000  # images of either kind, unless more are asked for

Metrics = Annotated[
    str | None, typer.Option(help="Metrics with commas between, such as frechet,neighbors; by default all that serve.")
]
FeaturesName = Annotated[
    str | None,
    typer.Option(
        help="pixels, random-convolutional, classifier, …; by default classifier for digits, else the second."
    ),
]
Count = Annotated[int | None, typer.Option("-n", min=2, help="How many real and how many fake images.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Draws = Annotated[bool, typer.Option("--draws/--means", help="Of p(x|z), score draws, or its means (the default).")]
SplitName = Annotated[str, typer.Option("--split", help="test to report; validation to choose by.")]
Floor = Annotated[bool, typer.Option(help="Also score real images against real ones; takes half of the real ones.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print a JSON list of estimates and nothing else.")]


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command()(score)
    app.command()(compare)


def score(
    real: Annotated[str, typer.Argument(metavar="REAL", help="A folder of images, an .npz, or a data set's name.")],
    fake: Annotated[str, typer.Argument(metavar="FAKE", help="Likewise.")],
    metrics: Metrics = None,
    features: FeaturesName = None,
    train: Annotated[
        str | None, typer.Option(help="The images that the model was trained on, likewise; of a data set, its own.")
    ] = None,
    n: Count = None,
    seed: Seed = 0,
    real_vs_real: Floor = True,
    as_json: AsJSON = False,
) -> None:
    """Score images against real ones: fidelity, variety, memorization, each with its interval and its protocol.

    An .npz holds `images`, uint8 or floats in [0, 1]. A data set gives its test images, and its training images beside.
    """
    from latentia.estimate import estimates_to_json
    from latentia.metrics import score as score_images

    reference, samples = _pictures(real), _pictures(fake)
    known = _pictures(train).images if train is not None else reference.train
    with progress("scores") as tell:
        found = score_images(
            reference.images,
            samples.images,
            metrics=metrics_of(metrics),
            features=features_of(features, reference.name),
            train=known,
            n=n,
            real_vs_real=real_vs_real,
            split=reference.split,
            seed=seed,
            progress=tell,
        )
    if as_json:
        typer.echo(estimates_to_json(found))
        return
    print_scores(found, f"{fake} against {real}")


def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories, of VAEs and GANs alike.", show_default=False),
    ],
    metrics: Metrics = None,
    features: FeaturesName = None,
    n: Count = None,
    draws: Draws = False,
    split: SplitName = "test",
    seed: Seed = 0,
    real_vs_real: Floor = True,
    saved: Annotated[
        bool,
        typer.Option("--saved", help="Take the scores that `evaluate --samples` wrote; refused if protocols differ."),
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Put runs side by side: likelihood where there is one, sample quality, time to train, parameters.

    All samples are scored by one protocol, against images of the runs' data: of a VAE the means of p(x|z), or with --draws
    draws of it. Runs of one recipe with several seeds are one column: the mean over seeds with its standard error. The
    best figure of a row is bold where every other is worse beyond the 95 % interval of the difference.
    """
    from latentia.errors import ConfigurationError, RunError
    from latentia.estimate import estimates_to_json
    from latentia.recipes import Run
    from latentia.reports.comparison import columns_of, compare_runs, saved_scores

    runs = [Run(path) for path in paths]
    columns_of(runs)  # what cannot be a table is refused before it is worked out
    _require_images(runs)
    if saved:
        scores = [saved_scores(run) for run in runs]
        for run, found in zip(runs, scores, strict=True):
            if not found:
                raise RunError(f"{run.path} has no saved scores; run `latentia evaluate {run.path} --samples`")
    else:
        chosen, output = metrics_of(metrics), "draws" if draws else "means"
        kinds = {run.recipe.data.binarize if draws else "" for run in runs}
        if len(kinds) > 1:
            raise ConfigurationError(
                "with --draws, samples are scored against images binarized as each run's own were, and these runs "
                f"differ in that ({', '.join(sorted(kinds))}); leave --draws out, or compare runs of one kind"
            )
        scores = [
            score_run(
                run,
                metrics=chosen,
                features=features,
                n=n,
                output=output,
                split=split,
                seed=seed,
                real_vs_real=real_vs_real,
            )
            for run in runs
        ]
    table = compare_runs(runs, scores)
    if as_json:
        typer.echo(estimates_to_json(table.estimates()))
        return
    print_comparison(table)


def score_run(
    run: Run,
    *,
    metrics: Sequence[Metric] | None = None,
    features: str | None = None,
    n: int | None = None,
    output: Output = "means",
    split: str = "test",
    seed: int = 0,
    real_vs_real: bool = True,
) -> list[Estimate]:
    """Score a run's samples against images of its data, with a progress bar.

    Raises:
        RunError: for a model of points, or data that are no longer those of the run; and as `score`.
    """
    from latentia.errors import RunError
    from latentia.metrics import draw_samples, reference_images
    from latentia.metrics import score as score_images
    from latentia.training import seeded

    _require_images([run])
    reference = reference_images(run.recipe.data, split, output)
    if reference.data_hash != run.environment["data_hash"]:
        raise RunError(
            f"the data that {run.recipe.data.type_name} loads now are not those of the run {run.path}; bring the files "
            "back that it was trained on"
        )
    model = run.model  # built here, so that what building draws is not between the seed and the samples
    size = n or min(len(reference.images) // (2 if real_vs_real else 1), MOST)
    with progress(f"{run.path}") as tell:
        with seeded(seed):
            images, what = draw_samples(model, size, output=output, progress=tell)
        return score_images(
            reference.images,
            images,
            metrics=metrics,
            features=features_of(features, run.recipe.data.type_name),
            train=reference.train,
            n=size,
            real_vs_real=real_vs_real,
            split=reference.split,
            samples=what,
            seed=seed,
            progress=tell,
        )


@contextmanager
def progress(title: str) -> Iterator[ProgressCallback]:
    """A bar on standard error, where that is a terminal: what is being worked on, and how much of it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    words = TextColumn("{task.description}")
    bar = Progress(
        words,
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title)

        def tell(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {what}")

        yield tell


@dataclass(frozen=True)
class _Pictures:
    """Images to score, uint8 or floats; the training images beside them, where a data set has them."""

    images: Tensor
    name: str
    split: str
    train: Tensor | None = None


def _pictures(text: str) -> _Pictures:
    from latentia.data import Source, read_image_folder
    from latentia.errors import ConfigurationError, DataError, nearest

    path = Path(text).expanduser()
    if path.is_dir():
        try:
            return _Pictures(read_image_folder(path)[0].images, "folder", "folder")
        except DataError as error:
            raise DataError(str(error).replace("; set data.folder to one that does", "; give one that does")) from None
    if path.suffix == ".npz":
        return _Pictures(_archive(path), "npz", "archive")
    member = Source.members().get(text)
    if member is None or member.type_name in ("folder", "npz"):
        raise ConfigurationError(
            f"{text} is no folder, no .npz file and no data set known by name. {nearest(text, Source.members())}"
        )
    splits = Source.parse(text).load()
    return _Pictures(splits.test.images, text, "test", splits.train.in_memory().images)


def _archive(path: Path) -> Tensor:
    """`images` of an .npz, of whatever number type, as (N, C, H, W)."""
    import zipfile

    import numpy as np
    import torch

    from latentia.errors import DataError

    try:
        with np.load(path, allow_pickle=False) as archive:
            held = list(archive.files)
            array = archive["images"] if "images" in held else None
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is no sound .npz of numbers ({error}); save it anew with np.savez") from None
    if array is None:
        raise DataError(f"{path} holds {', '.join(held) or 'nothing'}; it needs an array named images")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = np.moveaxis(array, 3, 1)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise DataError(
            f"{path}: images have the shape {array.shape}; it must be (N, H, W), (N, C, H, W) or (N, H, W, C), with 1 "
            "or 3 channels and at least one image"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def metrics_of(text: str | None) -> list[Metric] | None:
    """Metrics named with commas or spaces between; None for all that serve."""
    from latentia.errors import ConfigurationError
    from latentia.metrics import parse_metrics

    if text is None:
        return None
    try:
        return parse_metrics(text.replace(",", " ").split())
    except ConfigurationError as error:
        raise ConfigurationError([("metrics", str(error))]) from None


def features_of(text: str | None, data: str) -> Features:
    """Features by name, or those that suit the data."""
    from latentia.errors import ConfigurationError
    from latentia.metrics import Features, default_features

    if text is None:
        return default_features(data)
    try:
        return Features.parse(text)
    except ConfigurationError as error:
        raise ConfigurationError([("--features", str(error))]) from None


def _require_images(runs: Sequence[Run]) -> None:
    """See that these runs make images, and of one data set.

    Raises:
        RunError: if they were trained on different data, or on points.
    """
    from latentia.errors import RunError

    first = runs[0]
    for run in runs:
        if len(run.environment["shape"]) != 3:
            raise RunError(f"{run.path} makes points, not images; see its evaluation of modes instead")
        if run.environment["data_hash"] != first.environment["data_hash"]:
            raise RunError(
                f"{run.path} and {first.path} were trained on different data ({run.recipe.data.type_name} and "
                f"{first.recipe.data.type_name}); compare runs on one data set"
            )


def print_scores(found: Sequence[Estimate], title: str) -> None:
    """Print a table of scores."""
    from rich.console import Console

    from latentia.reports.tables import scores_table

    Console().print(scores_table(found, title))


def print_comparison(found: Comparison) -> None:
    """Print the table of some runs."""
    from rich.console import Console

    Console().print(found.table())
