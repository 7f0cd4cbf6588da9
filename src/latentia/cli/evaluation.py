"""Commands that evaluate models and samples: evaluate, score, compare, report, explore."""

from __future__ import annotations

__all__: list[str] = []

from pathlib import Path
from typing import Annotated

import typer

from latentia.cli.runs import (
    LIMIT,
    AsJSON,
    MaxBytes,
    RunPath,
    SamplerName,
    Seed,
    TableFormat,
    print_results,
    require_format,
)

Metrics = Annotated[
    str | None, typer.Option(help="Metrics with commas between, such as frechet,precision; by default all that apply.")
]
FeaturesName = Annotated[
    str | None,
    typer.Option(
        help="pixels, random-convolutional, classifier, …; by default classifier for digits, else the second."
    ),
]
Count = Annotated[int | None, typer.Option("-n", min=2, help="Number of real and of generated images.")]
RealVsReal = Annotated[
    bool, typer.Option(help="Also score real images against real ones, for reference; needs half of the real images.")
]
TestSplit = Annotated[str, typer.Option("--split", help="test, for reports; validation, to select a model.")]


def evaluate(
    path: RunPath,
    samples: Annotated[
        bool, typer.Option("--samples", help="Score samples of the model: images, tables, signals.")
    ] = False,
    metrics: Metrics = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="exact (z of 1 to 3 dimensions), importance or annealed; exact by default, none with --samples.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Error allowed for each image, in nats (exact).")] = 0.01,
    prove: Annotated[
        float | None,
        typer.Option(
            help="Also prove bounds of the mean log p(x) so many nats apart: slower, decoders of known parts (exact)."
        ),
    ] = None,
    draws: Annotated[int | None, typer.Option(min=2, help="Draws of z for each image (importance).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N images only (likelihood).")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test. Select by validation, report test.")] = "test",
    gaps: Annotated[int, typer.Option(min=0, help="Analyze the inference gaps of so many images (exact).")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="Time allowed for likelihoods.")] = 300,
    features: FeaturesName = None,
    n: Count = None,
    of: Annotated[
        str | None,
        typer.Option(help="Of p(x|z): means, or draws of x; by default means of images, draws of other data."),
    ] = None,
    sampler: SamplerName = None,
    real_vs_real: RealVsReal = True,
    pictures: Annotated[bool, typer.Option(help="Make pictures of posteriors, gaps and bounds (exact).")] = True,
    seed: Seed = 0,
    as_json: AsJSON = False,
    table_format: TableFormat = "text",
) -> None:
    """Evaluate a model: log p(x) of its data, or the quality of its samples with --samples or --metrics.

    Writes evaluation/likelihood-METHOD.json with the values of each image in an .npz, and for samples
    evaluation/samples.json: every score with its protocol, and those of real and of training images.
    Example: latentia evaluate RUN --metrics precision,recall --likelihood importance
    """
    from latentia import interface

    require_format(table_format)
    options = {"tolerance": tolerance, "prove": prove, "draws": draws, "limit": limit, "gaps": gaps, "seconds": seconds}
    scoring = {"metrics": metrics, "features": features, "n": n, "of": of, "real_vs_real": real_vs_real}
    results = interface.evaluate(
        path,
        likelihood=likelihood,  # pyright: ignore[reportArgumentType]  (checked there)
        samples=samples,
        sampler=sampler,
        split=split,  # pyright: ignore[reportArgumentType]
        pictures=pictures,
        seed=seed,
        **options,  # pyright: ignore[reportArgumentType]
        **scoring,  # pyright: ignore[reportArgumentType]
    )
    print_results(results, as_json, table_format)


def score(
    real: Annotated[str, typer.Argument(metavar="REAL", help="A folder of images, an .npz, or a data set's name.")],
    fake: Annotated[str, typer.Argument(metavar="FAKE", help="The images to score, likewise.")],
    metrics: Metrics = None,
    features: FeaturesName = None,
    train: Annotated[
        str | None, typer.Option(help="The images that the model was trained on, likewise; a data set has its own.")
    ] = None,
    n: Count = None,
    size: Annotated[int | None, typer.Option(min=1, help="Resize all images to so many pixels a side.")] = None,
    channels: Annotated[str | None, typer.Option(help="Convert all images to gray or color.")] = None,
    seed: Seed = 0,
    real_vs_real: RealVsReal = True,
    max_bytes: MaxBytes = LIMIT,
    as_json: AsJSON = False,
    table_format: TableFormat = "text",
) -> None:
    """Score images against real ones: fidelity, diversity, memorization, each with its interval and its protocol.

    An .npz holds `images`, uint8 or floats in 0 to 1. A data set gives its test images, and its training images too.
    """
    from latentia import interface

    require_format(table_format)
    results = interface.score(
        real,
        fake,
        metrics=metrics,
        features=features,
        train=train,
        n=n,
        size=size,
        channels=channels,  # pyright: ignore[reportArgumentType]  (checked there)
        seed=seed,
        real_vs_real=real_vs_real,
        max_bytes=max_bytes,
    )
    print_results(results, as_json, table_format)


def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories, of VAEs and GANs alike.", show_default=False),
    ],
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            help="Also compare each VAE with this sampler in the place of its prior; may be given several times.",
            show_default=False,
        ),
    ] = None,
    metrics: Metrics = None,
    features: FeaturesName = None,
    n: Count = None,
    of: Annotated[
        str | None,
        typer.Option(help="Of p(x|z): means, or draws of x; by default means of images, draws of other data."),
    ] = None,
    split: TestSplit = "test",
    seed: Seed = 0,
    real_vs_real: RealVsReal = True,
    saved: Annotated[
        bool,
        typer.Option("--saved", help="Use the scores that `evaluate --samples` wrote; their protocols must agree."),
    ] = False,
    as_json: AsJSON = False,
    table_format: TableFormat = "text",
) -> None:
    """Compare runs: likelihood where there is one, sample quality, time to train, number of parameters.

    All samples are scored by one protocol, against examples of the runs' data. Runs of one recipe with several seeds
    are one column: the mean over seeds with its standard error. The best value of a row is bold where every other is
    worse beyond the 95 % interval of the difference.
    """
    from latentia import interface

    require_format(table_format)
    options = {"metrics": metrics, "features": features, "n": n, "of": of, "split": split, "seed": seed}
    found = interface.compare(paths, samplers=sampler or (), saved=saved, real_vs_real=real_vs_real, **options)  # pyright: ignore
    print_results(found.results(), as_json, table_format)


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The page; by default report.html in the first run.")] = None,
) -> None:
    """Write one self-contained page about one or more runs: recipes, curves, pictures, estimates with their methods."""
    from latentia import interface

    typer.echo(f"wrote {interface.report(paths, out)}")


def explore(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The page; by default explorer.html in the first run.")] = None,
    weights: Annotated[str, typer.Option(help="float16, int8, or auto: int8 where float16 is too large.")] = "auto",
    max_bytes: Annotated[int, typer.Option(min=1, help="Refuse to write a page above so many bytes.")] = 4_000_000,
) -> None:
    """Write one offline page to touch trained models: decode any z, see the exact posterior of a digit you draw."""
    from latentia import interface

    page = interface.explore(paths, out, weights=weights, max_bytes=max_bytes)  # pyright: ignore[reportArgumentType]
    for note in page.notes:
        typer.secho(f"note: {note}", err=True)
    typer.echo(f"wrote {page.path} ({page.path.stat().st_size / 1e6:.1f} MB); open it in a browser")


COMMANDS = (evaluate, score, compare, report, explore)
