"""Commands that measure runs and write what they came to: evaluate, report."""

from __future__ import annotations

__all__ = ["add_to"]

from pathlib import Path
from typing import Annotated, Any

import typer


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command()(evaluate)
    app.command()(report)


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a VAE.", show_default=False)],
    likelihood: Annotated[str, typer.Option(help="exact (z of 1 to 3 dimensions), importance or annealed.")] = "exact",
    tolerance: Annotated[float, typer.Option(help="Certified error of each image, in nats (exact).")] = 0.01,
    draws: Annotated[int | None, typer.Option(min=2, help="Draws of z for each image (importance).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N images alone.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    gaps: Annotated[int, typer.Option(min=0, help="Split the bound's slack on so many images (exact).")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="Time allowed; what it reached by then is told.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the random methods.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of estimates and nothing else.")] = False,
) -> None:
    """How good is this model, exactly: log p(x), and what the posterior tells.

    Writes evaluation/likelihood-METHOD.json, and the numbers of each image to an .npz beside it.
    """
    import numpy as np
    from rich.console import Console

    from latentia.errors import ConfigurationError, RunError, nearest
    from latentia.estimate import estimates_to_json, write_estimates
    from latentia.evaluation import evaluate_likelihood
    from latentia.models import VAE
    from latentia.recipes import Run
    from latentia.reports import estimates_table

    run = Run(path)
    if not isinstance(run.model, VAE):
        raise RunError(
            f"{path} holds a {type(run.model).__name__}, which gives images no probability: wrap its generator with "
            "latentia.evaluation.observe to put an observation model on it"
        )
    parts = ("train", "validation", "test")
    if split not in parts:
        raise ConfigurationError(f"there is no split {split!r}. {nearest(split, parts)}")
    images = run.recipe.data.prepare_fixed(getattr(run.splits, split), split)[:limit]
    options: dict[str, Any] = {"seconds": seconds}
    if likelihood == "exact":
        options["require"] = False  # what was paid for is written, with the certificates that it has
    if draws is not None:
        options["draws"] = draws
    found = evaluate_likelihood(
        run.model,
        images,
        likelihood,  # pyright: ignore[reportArgumentType]  (checked there, with the known ones named)
        tolerance=tolerance,
        gaps=gaps,
        seed=seed,
        **options,
    )
    estimates = [estimate.named(f"{split}/{estimate.name}") for estimate in found.estimates]
    target = run.directory.evaluation / f"likelihood-{likelihood}.json"
    write_estimates(target, estimates)
    np.savez_compressed(target.with_suffix(".npz"), allow_pickle=False, **found.arrays)
    missed = int((found.arrays["error"] > tolerance).sum()) if "error" in found.arrays else 0
    if missed:
        typer.secho(
            f"warning: {missed} of {len(images)} images are not certified to {tolerance} nats but to "
            f"{found.arrays['error'].max():.3g}; allow more --seconds, or read worst_error with the figures",
            fg="yellow",
            err=True,
        )
    if as_json:
        typer.echo(estimates_to_json(estimates))
        return
    console = Console()
    console.print(estimates_table(estimates, f"{path}: {len(images)} {split} images, {likelihood}"))
    console.print(f"  {target}\n  {target.with_suffix('.npz')}", highlight=False)


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The page; by default report.html in the first run.")] = None,
) -> None:
    """Write one self-contained page on one or more runs: recipes, curves, pictures, figures with their methods."""
    from latentia.recipes import Run
    from latentia.reports import write_report

    typer.echo(f"wrote {write_report([Run(path) for path in paths], out or paths[0] / 'report.html')}")
