"""Commands about the quality of samples: score two sets of images, compare runs."""

from __future__ import annotations

__all__ = ["add_to"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from latentia.estimate import Estimate
    from latentia.evaluation.samples import Entry, Features, Metric
    from latentia.recipes import Run

DIGITS = ("mnist", "digits")  # data that the shipped classifier knows

Metrics = Annotated[
    str | None, typer.Option(help="Metrics with commas between, such as frechet,neighbours; by default all that serve.")
]
FeaturesName = Annotated[
    str | None,
    typer.Option(
        help="pixels, random-convolutional, classifier, …; by default classifier for digits, else the second."
    ),
]
Count = Annotated[int | None, typer.Option("-n", min=2, help="How many real and how many fake images.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
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
    floor: Floor = True,
    as_json: AsJSON = False,
) -> None:
    """Score images against real ones: fidelity, variety, memorisation, each with its interval and its card.

    An .npz holds `images`, uint8 or floats in [0, 1]. A data set gives its test images, and its training images beside.
    """
    from latentia.estimate import estimates_to_json
    from latentia.evaluation.samples import score as score_images

    reference, samples = _pictures(real), _pictures(fake)
    known = _pictures(train).images if train is not None else reference.train
    found = score_images(
        reference.images,
        samples.images,
        metrics=_metrics(metrics),
        features=_features(features, reference.name),
        train=known,
        n=n,
        floor=floor,
        split=reference.split,
        seed=seed,
    )
    if as_json:
        typer.echo(estimates_to_json(found))
        return
    _print_scores(found, f"{fake} against {real}")


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, of VAEs and GANs alike.")],
    metrics: Metrics = None,
    features: FeaturesName = None,
    n: Count = None,
    seed: Seed = 0,
    floor: Floor = True,
    as_json: AsJSON = False,
) -> None:
    """Put runs side by side: likelihood where there is one, sample quality, time to train, parameters.

    All samples are scored by one card, against the grey test images of the runs' data; of a VAE the means of p(x|z) are
    scored. Runs of one recipe with several seeds are one column: the mean over seeds with its standard error. The best
    figure of a row is bold where every other is worse beyond the 95 % interval of the difference.
    """
    from latentia.errors import RunError
    from latentia.estimate import estimates_to_json
    from latentia.evaluation.samples import Entry
    from latentia.recipes import Run

    runs = [Run(path) for path in paths]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError("a run is given twice; name each once")
    reference = _shared_data(runs)
    size = n or min(len(reference.images) // (2 if floor else 1), 5000)
    chosen, seen = _metrics(metrics), _features(features, reference.name)
    columns: dict[str, dict[int, Run]] = {}
    for run, name in zip(runs, _column_names(runs), strict=True):
        if run.recipe.seed in columns.setdefault(name, {}):
            raise RunError(f"two runs of one recipe have the seed {run.recipe.seed}; {run.path} is one of them")
        columns[name][run.recipe.seed] = run
    table: dict[str, dict[str, dict[int, Estimate]]] = {}
    floors: dict[str, Estimate] = {}
    for name, of_seed in columns.items():
        for own_seed, run in of_seed.items():
            for estimate in [*_of_training(run), *_of_samples(run, reference, size, chosen, seen, seed, floor)]:
                base, _, reality = estimate.name.rpartition("/")
                if reality in ("floor", "train_vs_test"):
                    floors.setdefault(f"{base}|{reality}", estimate)
                else:
                    table.setdefault(estimate.name, {}).setdefault(name, {})[own_seed] = estimate
    rows = {
        figure: [Entry(name, by_seed[name]) for name in columns if name in by_seed] for figure, by_seed in table.items()
    }
    if as_json:
        typer.echo(estimates_to_json([*_as_estimates(rows), *floors.values()]))
        return
    _print_comparison(rows, list(columns), floors)


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


def _metrics(text: str | None) -> list[Metric] | None:
    from latentia.errors import ConfigurationError
    from latentia.evaluation.samples import Metric

    if text is None:
        return None
    try:
        return [Metric.parse(name.strip()) for name in text.split(",") if name.strip()]
    except ConfigurationError as error:
        raise ConfigurationError([("--metrics", str(error))]) from None


def _features(text: str | None, data: str) -> Features:
    from latentia.errors import ConfigurationError
    from latentia.evaluation.samples import Features

    try:
        return Features.parse(text or ("classifier" if data in DIGITS else "random-convolutional"))
    except ConfigurationError as error:
        raise ConfigurationError([("--features", str(error))]) from None


def _shared_data(runs: Sequence[Run]) -> _Pictures:
    """The grey test and training images of all runs.

    Raises:
        RunError: if they were trained on different data, or on points.
    """
    from latentia.errors import RunError

    first = runs[0]
    for run in runs:
        if run.environment["data_hash"] != first.environment["data_hash"]:
            raise RunError(
                f"{run.path} and {first.path} were trained on different data ({run.recipe.data.type_name} and "
                f"{first.recipe.data.type_name}); compare runs on one data set"
            )
        if len(run.environment["shape"]) != 3:
            raise RunError(f"{run.path} makes points, not images; see its evaluation of modes instead")
    grey = first.recipe.data.model_copy(update={"binarise": "none"})
    splits = grey.load()
    return _Pictures(splits.test.images, grey.type_name, "test", splits.train.in_memory().images)


def _column_names(runs: Sequence[Run]) -> list[str]:
    """The run's folder; of runs that differ by their seed alone, the folder of the first."""
    names: dict[str, str] = {}
    columns = []
    for run in runs:
        key = repr(sorted((k, v) for k, v in run.recipe.to_mapping().items() if k != "seed"))
        columns.append(names.setdefault(key, run.path.resolve().name))
    twice = len(set(names.values())) < len(names)
    if twice:
        full = {short: [key for key, value in names.items() if value == short] for short in names.values()}
        names = {
            key: short if len(full[short]) == 1 else f"{short} {full[short].index(key) + 1}"
            for key, short in names.items()
        }
        columns = [
            names[repr(sorted((k, v) for k, v in run.recipe.to_mapping().items() if k != "seed"))] for run in runs
        ]
    return columns


def _of_training(run: Run) -> list[Estimate]:
    """Bounds and likelihoods in evaluation/*.json, the time to train, and the number of parameters."""
    from latentia.estimate import Estimate, exact, read_estimates

    found: dict[str, Estimate] = {}
    for path in sorted(run.directory.evaluation.glob("*.json")):
        for estimate in read_estimates(path):
            last = estimate.name.rpartition("/")[2]
            if last in ("elbo", "log_likelihood"):
                found[estimate.name] = estimate
    extra = [exact(float(run.environment["parameters"]), "parameters", unit="1", method="count")]
    times = [float(record["seconds"]) for record in run.records if "seconds" in record]
    if len(times) > 1:
        extra.append(Estimate(max(times) - min(times), "time_to_train", unit="s", method="first to last record"))
    return [*found.values(), *extra]


def _of_samples(
    run: Run,
    reference: _Pictures,
    n: int,
    metrics: Sequence[Metric] | None,
    features: Features,
    seed: int,
    floor: bool,
) -> list[Estimate]:
    import torch

    from latentia.evaluation.samples import score as score_images
    from latentia.training import seeded

    options: Mapping[str, Any] = {"mean": True} if hasattr(run.model, "encode") else {}
    with seeded(seed), torch.no_grad():
        parts = [run.model.sample(min(500, n - start), **options) for start in range(0, n, 500)]  # pyright: ignore[reportCallIssue]
    return score_images(
        reference.images,
        torch.cat(parts).cpu(),
        metrics=metrics,
        features=features,
        train=reference.train,
        n=n,
        floor=floor,
        split=reference.split,
        seed=seed,
    )


def _print_scores(found: Sequence[Estimate], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=_caption(found))
    reality = [suffix for suffix in ("floor", "train_vs_test") if any(e.name.endswith(f"/{suffix}") for e in found)]
    for heading in ("figure", "samples", *reality):
        table.add_column(heading.replace("_", " "), justify="left" if heading == "figure" else "right")
    by_name = {estimate.name: estimate for estimate in found}
    for name, estimate in by_name.items():
        if name.rpartition("/")[2] not in ("floor", "train_vs_test"):
            others = [by_name.get(f"{name}/{suffix}") for suffix in reality]
            table.add_row(name, str(estimate), *("" if other is None else str(other) for other in others))
    Console().print(table)


def _caption(found: Sequence[Estimate]) -> str:
    card = next((e.settings["card"] for e in found if "card" in e.settings), None)
    if card is None:
        return ""
    return (
        f"{card['n_real']} real ({card['split']}) and {card['n_fake']} fake images, {card['size']}, "
        f"{card['quantisation']}; features {card['features']['type']} {card['features_hash'][:8]}, resize "
        f"{card['resize']}; seed {card['seed']}; ± is one standard error"
    )


def _print_comparison(
    rows: Mapping[str, Sequence[Entry]], names: Sequence[str], floors: Mapping[str, Estimate]
) -> None:
    from rich.console import Console
    from rich.table import Table

    from latentia.evaluation.samples import best_of, figure_of

    found = [figure_of(entry) for entries in rows.values() for entry in entries]
    table = Table(title=f"{len(names)} models", caption=_caption(found))
    table.add_column("figure")
    for name in names:
        table.add_column(name, justify="right")
    reality = [s for s in ("floor", "train_vs_test") if any(key.endswith(f"|{s}") for key in floors)]
    for suffix in reality:
        table.add_column(
            {"floor": "real images", "train_vs_test": "training images"}[suffix], justify="right", style="dim"
        )
    for figure, entries in rows.items():
        best = best_of(entries, _way(figure))
        cells = {entry.name: str(figure_of(entry)) for entry in entries}
        if best is not None:
            cells[entries[best].name] = f"[bold]{cells[entries[best].name]}[/bold]"
        others = [floors.get(f"{figure}|{suffix}") for suffix in reality]
        table.add_row(figure, *(cells.get(name, "—") for name in names), *("" if e is None else str(e) for e in others))
    Console().print(table)


def _way(figure: str) -> int:
    """Which way is better, for all that a comparison shows."""
    from latentia.evaluation.samples import better

    return 1 if figure.rpartition("/")[2] in ("elbo", "log_likelihood") else better(figure)


def _as_estimates(rows: Mapping[str, Sequence[Entry]]) -> list[Estimate]:
    """All figures as one list, each named `model: figure`."""
    from latentia.evaluation.samples import figure_of

    return [figure_of(entry).named(f"{entry.name}: {figure}") for figure, entries in rows.items() for entry in entries]
