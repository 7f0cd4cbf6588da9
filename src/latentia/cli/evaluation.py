"""Commands that measure runs and write what they came to: evaluate, report."""

from __future__ import annotations

__all__ = ["add_to"]

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentia.cli.scoring import AsJSON, Count, FeaturesName, Floor

if TYPE_CHECKING:
    from latentia.estimate import Estimate
    from latentia.recipes import Run


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command()(evaluate)
    app.command()(report)


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METRIC]...", help="With --samples: frechet, precision, …; all that serve by default."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Score samples of the model: VAE, GAN or hybrid.")] = False,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="exact (z of 1 to 3 dimensions), importance or annealed. By default exact; with --samples none.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Certified error of each image, in nats (exact).")] = 0.01,
    draws: Annotated[int | None, typer.Option(min=2, help="Draws of z for each image (importance).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N images alone (likelihood).")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test. Choose by validation, report test.")] = "test",
    gaps: Annotated[int, typer.Option(min=0, help="Split the bound's slack on so many images (exact).")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="Time allowed for likelihoods; what it reached is told.")] = 300,
    features: FeaturesName = None,
    n: Count = None,
    of: Annotated[str, typer.Option(help="What to score of p(x|z): means or draws (--samples).")] = "means",
    real_vs_real: Floor = True,
    pictures: Annotated[bool, typer.Option(help="Draw posteriors, gaps, bounds and the plane (exact).")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the random methods.")] = 0,
    as_json: AsJSON = False,
) -> None:
    """How good is this model: log p(x), exactly where that can be, and the quality of its samples.

    Writes evaluation/likelihood-METHOD.json, with the numbers of each image in an .npz beside it, and with --samples
    evaluation/samples.json (samples-validation.json with --split validation), every figure with its protocol, the floor of
    real images in the place of samples, and the value of training images.

        latentia evaluate RUN --samples precision recall --likelihood importance
    """
    from latentia.cli.scoring import metrics_of
    from latentia.errors import ConfigurationError, RunError, nearest
    from latentia.estimate import estimates_to_json
    from latentia.models import VAE
    from latentia.recipes import Run

    parts = ("train", "validation", "test")
    if split not in parts:
        raise ConfigurationError(f"there is no split {split!r}. {nearest(split, parts)}")
    if metrics and not samples:
        raise ConfigurationError(f"{' '.join(metrics)}: metrics are of samples; add --samples")
    chosen = metrics_of(" ".join(metrics)) if metrics else None
    if of not in ("means", "draws"):
        raise ConfigurationError(f"--of {of}: give means or draws")
    run = Run(path)
    if likelihood is None and not samples:
        likelihood = "exact"
    if likelihood is not None and not isinstance(run.model, VAE):
        raise RunError(
            f"{path} holds a {type(run.model).__name__}, which gives images no probability: score its samples with "
            "--samples, or wrap its generator with latentia.likelihood.LatentModel.from_generator to put an observation model on it"
        )
    found: list[Estimate] = []
    if samples:
        found += _score_samples(
            run,
            {
                "metrics": chosen,
                "features": features,
                "n": n,
                "output": of,
                "split": split,
                "seed": seed,
                "real_vs_real": real_vs_real,
            },
            as_json,
        )
    if likelihood is not None:
        options: dict[str, Any] = {"tolerance": tolerance, "gaps": gaps, "seconds": seconds, "seed": seed}
        if draws is not None:
            options["draws"] = draws
        found += _measure_likelihood(run, likelihood, split, limit, options, as_json, pictures)
    if as_json:
        typer.echo(estimates_to_json(found))


def _score_samples(run: Run, options: dict[str, Any], as_json: bool) -> list[Estimate]:
    """Score, write and, unless JSON is asked for, print. Figures that were there stay, if made in the same way."""
    from latentia.cli.scoring import print_scores, score_run
    from latentia.estimate import read_estimates, write_estimates
    from latentia.metrics import same_protocol

    estimates = score_run(run, **options)
    name = "samples" if options["split"] == "test" else f"samples-{options['split']}"
    target = run.directory.evaluation / f"{name}.json"
    names = {estimate.name for estimate in estimates}
    before = read_estimates(target) if target.exists() else []
    kept = [old for old in before if old.name not in names and same_protocol(old, estimates[0])]
    write_estimates(target, [*kept, *estimates])
    if not as_json:
        print_scores(estimates, str(run.path))
        typer.echo(f"  {target}")
    return estimates


def _measure_likelihood(
    run: Run, likelihood: str, split: str, limit: int | None, options: dict[str, Any], as_json: bool, pictures: bool
) -> list[Estimate]:
    """Measure, write, warn of what is not certified and, unless JSON is asked for, print."""
    import numpy as np
    from rich.console import Console

    from latentia.estimate import write_estimates
    from latentia.likelihood import evaluate_likelihood
    from latentia.reports.likelihood_figures import save_likelihood_figures
    from latentia.reports.tables import estimates_table

    part = getattr(run.splits, split)
    images = run.recipe.data.prepare_fixed(part, split)[:limit]  # pyright: ignore[reportArgumentType]
    if likelihood == "exact":
        options = {**options, "require": False}  # what was paid for is written, with the certificates that it has
    found = evaluate_likelihood(
        run.model,  # pyright: ignore[reportArgumentType]  (a VAE)
        images,
        likelihood,  # pyright: ignore[reportArgumentType]  (checked there, with the known ones named)
        **options,
    )
    estimates = [estimate.named(f"{split}/{estimate.name}") for estimate in found.estimates]
    target = run.directory.evaluation / f"likelihood-{likelihood}.json"
    write_estimates(target, estimates)
    np.savez_compressed(target.with_suffix(".npz"), allow_pickle=False, **found.arrays)
    drawn: list[Path] = []
    if pictures:
        about = {"labels": getattr(run.splits, split).labels, "classes": run.splits.classes, "seed": options["seed"]}
        drawn = save_likelihood_figures(found, images, run.directory.figures, **about)
    tolerance = options["tolerance"]
    errors = found.arrays.get("error", np.zeros(0))
    reached = errors[found.arrays.get("reached", np.full(len(errors), True))]
    warnings = []
    if len(reached) < len(errors):
        warnings.append(
            f"{len(errors) - len(reached)} of {len(images)} images were not reached in {options['seconds']:g} s and "
            "are in no figure, so that means are of those that took least; allow more --seconds, or a smaller --limit"
        )
    missed = int((reached > tolerance).sum())
    if missed:
        warnings.append(
            f"{missed} of {len(images)} images are not certified to {tolerance} nats but to "
            f"{reached.max():.3g}; allow more --seconds, or read worst_error with the figures"
        )
    for warning in warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    if not as_json:
        console = Console()
        console.print(estimates_table(estimates, f"{run.path}: {len(images)} {split} images, {likelihood}"))
        for written in (target, target.with_suffix(".npz"), *drawn):
            console.print(f"  {written}", highlight=False)
    return estimates


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The page; by default report.html in the first run.")] = None,
) -> None:
    """Write one self-contained page on one or more runs: recipes, curves, pictures, figures with their methods."""
    from latentia.recipes import Run
    from latentia.reports import write_report

    typer.echo(f"wrote {write_report([Run(path) for path in paths], out or paths[0] / 'report.html')}")
