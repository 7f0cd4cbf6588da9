"""Commands that make runs and draw from them: train, sample, reconstruct, encode, show, demo."""

from __future__ import annotations

__all__ = ["add_to"]

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from latentia.recipes import Run

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command()(train)
    app.command()(sample)
    app.command()(reconstruct)
    app.command()(encode)
    app.command()(show)
    app.command()(demo)


def train(
    recipe: Annotated[str, typer.Argument(help="What to train: vae, gan, …", show_default=False)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as data=mnist latent=2.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe.yaml to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; by default a new one under runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="Train several seeds at once: 0,1,2, or how many (5 is 0,1,2,3,4).")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Print every setting as YAML and leave.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Train a model by a recipe and draw its pictures.

    Settings are dotted: `latentia train vae data=mnist data.binarize=dynamic objective=iwae objective.k=50`.

    With `--seeds 0,1,2 --out runs/ring` the runs are runs/ring/seed-0 and so on, and the means over seeds are told.
    """
    from latentia.errors import RunError
    from latentia.recipes import train as train_recipe
    from latentia.recipes.seeds import seeds_in

    several = _seeds(seeds, settings or []) if seeds is not None else seeds_in(out) if resume and out else None
    resumed = out if resume else None
    if resumed is not None and several:
        resumed = resumed / f"seed-{several[0]}"
    chosen = _recipe(recipe, settings or [], config, resumed)
    if keys:
        typer.echo(chosen.to_yaml(), nl=False)
        return
    if resume and out is None:
        raise RunError("--resume goes on with a run: name it with --out")
    if several is not None:
        _train_several(chosen, several, out, resume, quiet)
        return
    run = train_recipe(chosen, out, resume=resume, quiet=quiet)
    if os.environ.get("RANK", "0") == "0":  # under torchrun, one process tells and draws
        _finish(run)


def sample(
    path: RunPath,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 64,
    out: Annotated[Path | None, typer.Option(help="F.png (a grid) or F.npz (key `images`).")] = None,
    mean: Annotated[bool, typer.Option(help="For a VAE: the mean of p(x|z) for each z, not a draw of x.")] = True,
    seed: Seed = 0,
) -> None:
    """Draw images from a trained model."""
    from latentia.recipes import Run
    from latentia.training import seeded

    run = Run(path)
    options = {"mean": mean} if hasattr(run.model, "encode") else {}
    with seeded(seed):
        images = run.model.sample(n, **options)  # pyright: ignore[reportCallIssue]
    _write_images(images, out or path / "figures" / "samples.png")


def reconstruct(
    path: RunPath,
    n: Annotated[int, typer.Option("-n", min=1, help="How many test images.")] = 16,
    out: Annotated[Path | None, typer.Option(help="F.png (originals over reconstructions) or F.npz.")] = None,
) -> None:
    """Encode and decode test images: originals above, the mean of p(x|z) below."""
    import torch

    from latentia.recipes import Run

    run = Run(path)
    vae = _vae(run)
    images = run.recipe.data.prepare_fixed(run.splits.test, "test")[:n]
    pairs = torch.cat([images, vae.reconstruct(images)])
    _write_images(pairs, out or path / "figures" / "reconstruct.png", columns=len(images))


def encode(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="F.npz: mean and stddev of q(z|x), and labels where there are any.")],
    data: Annotated[
        str | None, typer.Option(help="A data set's name, a folder of images or an .npz; by default the run's own.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
) -> None:
    """Encode images: the posterior's means and standard deviations, as arrays."""
    import numpy as np
    import torch

    from latentia.errors import ConfigurationError, DataError
    from latentia.recipes import Run

    run = Run(path)
    vae = _vae(run)
    source = run.recipe.data if data is None else _source(data, run.recipe.data.binarize)
    splits = run.splits if data is None else source.load()
    if split not in ("train", "validation", "test"):
        raise ConfigurationError(f"there is no split {split!r}; give train, validation or test")
    part = getattr(splits, split)
    if part.image_shape != vae.image_shape:
        raise DataError(f"these images are {part.image_shape}, and the model takes {vae.image_shape}")
    images = source.prepare_fixed(part, split)
    with torch.no_grad():
        distributions = [vae.encode(x) for x in images.split(1000)]
        arrays = {
            "mean": torch.cat([distribution.mean for distribution in distributions]).numpy(),
            "stddev": torch.cat([distribution.stddev for distribution in distributions]).numpy(),
        }
    if part.labels is not None:
        arrays["labels"] = part.labels.numpy()
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, allow_pickle=False, **arrays)
    typer.echo(f"wrote {out}: {len(images)} images, z of {vae.latent} dimensions")


def show(path: RunPath) -> None:
    """Show a run: its recipe, the last figures of training, its estimates and its pictures."""
    from rich.console import Console

    from latentia.recipes import Run
    from latentia.reports.tables import print_run

    print_run(Run(path), Console())


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/demo"),
) -> None:
    """Train on real handwritten digits, with all pictures, in under three minutes on two cores.

    Ends with the table of the two models side by side, which report.html holds as well.
    """
    from latentia.cli.scoring import print_comparison, score_run
    from latentia.estimate import write_estimates
    from latentia.recipes import demonstrate
    from latentia.reports import write_report
    from latentia.reports.comparison import compare_runs, saved_scores
    from latentia.reports.gallery import save_side_by_side

    runs = []
    for run in demonstrate(out):
        _finish(run)
        write_estimates(run.directory.evaluation / "samples.json", score_run(run))
        runs.append(run)
    print_comparison(compare_runs(runs, [saved_scores(run) for run in runs]))
    typer.echo(f"  {save_side_by_side(runs, out / 'side_by_side.png')}\n  {write_report(runs, out / 'report.html')}")


def _finish(run: Run) -> None:
    """Draw the pictures of a run that has just ended and say where everything is."""
    from rich.console import Console

    from latentia.reports import save_figures
    from latentia.reports.tables import estimates_table

    console = Console()
    if run.estimates:
        console.print(estimates_table(run.estimates, f"{run.path}: at the end of training"))
    for figure in save_figures(run):
        console.print(f"  {figure}", highlight=False)


def _seeds(text: str, settings: list[str]) -> list[int]:
    """Seeds from `0,1,2`, or from how many there are to be."""
    from latentia.errors import ConfigurationError

    if any(setting.startswith("seed=") for setting in settings):
        raise ConfigurationError([("seed", "--seeds gives every seed; leave seed=… out")])
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ConfigurationError([("--seeds", f"give seeds as 0,1,2, or how many (given: {text})")]) from None
    return numbers if "," in text or not numbers else list(range(numbers[0]))


def _train_several(recipe: Any, seeds: list[int], out: Path | None, resume: bool, quiet: bool) -> None:
    from rich.console import Console

    from latentia.recipes import mean_over_seeds, train_seeds
    from latentia.reports.tables import estimates_table

    runs = train_seeds(recipe, seeds, out, resume=resume, quiet=quiet)
    for run in runs:
        _finish(run)
    if len(runs) > 1 and (means := mean_over_seeds(runs)):
        title = f"{runs[0].path.parent}: mean of {len(runs)} seeds ± its standard error"
        Console().print(estimates_table(means, title))


def _recipe(name: str, settings: list[str], config: Path | None, resumed: Path | None) -> Any:
    """The recipe's defaults, under a file's keys, under the settings of the command line."""
    import yaml

    from latentia.configuration import apply_overrides, parse_overrides
    from latentia.errors import ConfigurationError
    from latentia.recipes import Recipe

    overrides = parse_overrides(settings)
    member = Recipe.members().get(name)
    if member is None:
        Recipe.parse(name)  # raises, naming what is known
    if config is None and resumed is not None and (resumed / "recipe.yaml").exists():
        config = resumed / "recipe.yaml"
    base: dict[str, Any] = member().to_mapping() if member is not None else {}
    if config is not None:
        try:
            written = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the recipe {config}: {error}") from None
        if not isinstance(written, dict):
            raise ConfigurationError(f"{config} holds no recipe: it must be a YAML mapping of keys")
        if written.get("type", name) != name:
            raise ConfigurationError(f"{config} is a recipe of a {written['type']}, not of a {name}")
        base.update(written)
    return Recipe.parse({**apply_overrides(base, overrides), "type": name})


def _source(text: str, binarize: str) -> Any:
    from latentia.data import Source

    if text.endswith(".npz"):
        return Source.parse({"type": "npz", "file": text, "binarize": binarize})
    if Path(text).is_dir():
        return Source.parse({"type": "folder", "folder": text, "binarize": binarize})
    return Source.parse({"type": text, "binarize": binarize})


def _vae(run: Run) -> Any:
    from latentia.errors import RunError
    from latentia.models import VAE, EncodedGAN

    if not isinstance(run.model, VAE | EncodedGAN):
        raise RunError(
            f"{run.path} holds a {type(run.model).__name__}, which has no encoder; give the run of one that has: "
            "of a VAE, an adversarial autoencoder, a BiGAN or a VAE/GAN"
        )
    return run.model


def _write_images(images: Any, out: Path, columns: int | None = None) -> None:
    import numpy as np

    from latentia.data import write_image_grid
    from latentia.errors import ConfigurationError

    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez_compressed(out, **{"images" if images.dim() == 4 else "points": images.numpy()})
    elif images.dim() != 4:
        raise ConfigurationError(f"--out {out}: points are no picture; write them to an .npz")
    elif out.suffix == ".png":
        write_image_grid(out, images, columns=columns)
    else:
        raise ConfigurationError(f"--out {out} must end in .png or .npz")
    typer.echo(f"wrote {out}: {len(images)} images")
