"""Commands that make runs and use their models: train, resume, sample, reconstruct, encode, show, demo."""

from __future__ import annotations

__all__: list[str] = []

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from latentia.estimate import Estimate
    from latentia.recipes import Recipe, Run

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything random.")]
Of = Annotated[str, typer.Option(help="Of p(x|z): means, or draws of x.")]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        help="Of z, in the place of a VAE's prior: mixture, flow or two-stage, fitted to the codes of the training "
        "images; settings follow commas, as in mixture,components=50.",
        show_default=False,
    ),
]
SplitName = Annotated[str, typer.Option(help="train, validation or test.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print a JSON list of estimates and nothing else.")]
TableFormat = Annotated[str, typer.Option("--format", help="text, markdown, latex or csv.")]
MaxBytes = Annotated[int, typer.Option(min=1, help="Refuse files whose contents are larger than so many bytes.")]
LIMIT = 4_000_000_000  # as in latentia.data, which is slow to import
MOST_SEEDS = 1000


def train(
    recipe: Annotated[str, typer.Argument(help="What to train: vae, gan, …", show_default=False)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings, such as data=mnist latent=2.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe.yaml to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; by default a new one under runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="Train several seeds at once: their number (5 is 0 to 4), or a list, 0,3,7.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Print every setting with its description, and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Train a model by a recipe and make its pictures.

    Settings are dotted: latentia train vae data=mnist data.binarize=dynamic objective=iwae objective.k=50.
    With --seeds 3 --out runs/ring the runs are runs/ring/seed-0 and so on, and their means are printed.
    """
    from latentia.recipes import train as train_recipe
    from latentia.recipes.train import seeds_in

    if not keys:
        _require_something_to_resume(out, resume)
    several = _seeds(seeds, settings or []) if seeds is not None else seeds_in(out) if resume and out else None
    resumed = out / f"seed-{several[0]}" if resume and out and several else out if resume else None
    chosen = _recipe(recipe, settings or [], config, resumed)
    if keys:
        typer.echo(chosen.explain(), nl=False)
    elif several is not None:
        _train_several(chosen, several, out, resume, quiet)
    else:
        run = train_recipe(chosen, out, resume=resume, quiet=quiet)
        if os.environ.get("RANK", "0") == "0":  # under torchrun, one process prints and plots
            _finish(run)


def resume(
    path: RunPath,
    extend: Annotated[
        str | None,
        typer.Option(metavar="epochs=N", help="Train a run to this new length, in all.", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Go on with a run that was stopped, or train a finished one longer with --extend epochs=40.

    It uses the recipe in the run; several seeds that were trained at once go on together. The weights and evaluations
    of the end of a finished run are kept under other names.
    """
    from latentia.configuration import parse_overrides
    from latentia.errors import ConfigurationError
    from latentia.recipes import resume as resume_run
    from latentia.recipes.train import recipe_of_seeds, seeds_in

    together = next((folder for folder in (path, path.parent) if seeds_in(folder) is not None), None)
    if together is not None and extend is None:
        _train_several(recipe_of_seeds(together), seeds_in(together) or [], together, True, quiet)
        return
    settings = parse_overrides([extend] if extend is not None else [])
    epochs = settings.pop("epochs", None)
    if settings or (extend is not None and not (isinstance(epochs, int) and epochs > 0)):
        cure = f"write --extend epochs=40; for other settings start a new run with init_from={path}"
        raise ConfigurationError([("--extend", f"a run is extended by its length alone; {cure} (given: {extend})")])
    _finish(resume_run(path, epochs=epochs, quiet=quiet))


def sweep(
    recipe: Annotated[str, typer.Argument(help="What to train: vae, gan, …", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Settings; several values make the grid, latent=2,8,32."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each point: their number, or a list, 0,3,7.")] = "1",
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Search: try so many points; ranges are lr=1e-4..1e-2:log.", show_default=False),
    ] = None,
    round_size: Annotated[int, typer.Option(min=1, help="Points that a search proposes at a time.")] = 4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; one for each core, or all of a cluster's, by default.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="Submit the runs to a scheduler by submitit: slurm.")] = "",
    cluster_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of submitit: slurm_partition=gpu.", show_default=False),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="The recorded value that chooses; the bound or cost on validation data.")
    ] = None,
    highest: Annotated[
        bool | None, typer.Option("--highest/--lowest", help="Which value of --by is the best.", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe.yaml to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; by default a new one under runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show warnings alone.")] = False,
) -> None:
    """Train at every combination of settings: latentia sweep vae latent=2,8 objective.beta=0.5,1,4 --seeds 3.

    With --trials 20, search: latentia sweep vae optimizer.lr=1e-4..1e-2:log latent=2..32 --trials 20.
    """
    from rich.console import Console

    from latentia.configuration import parse_overrides
    from latentia.sweeps import sweep as run_sweep
    from latentia.sweeps.search import is_range
    from latentia.sweeps.sweep import require_ended, values_of

    fixed: list[str] = []
    grid: dict[str, Any] = {}
    for setting in settings or []:
        key, _, text = setting.partition("=")
        values = values_of(text)
        if is_range(text):
            grid[key] = text
        elif len(values) > 1:
            grid[key] = [parse_overrides([f"{key}={value}"])[key] for value in values]
        else:
            fixed.append(setting)
    chosen = _recipe(recipe, fixed, config, None)
    result = run_sweep(
        chosen,
        grid,
        out,
        seeds=_seeds(seeds, fixed),
        trials=trials,
        round_size=round_size,
        workers=workers,
        cluster=cluster,
        cluster_options=parse_overrides(cluster_option or []),
        by=by,
        highest=highest,
        resume=resume,
        quiet=quiet,
    )
    Console().print(result.table())
    for file in result.files:
        _wrote(file)
    require_ended(result)


def sample(
    path: RunPath,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            help="F.png (a picture), F.npz (an array) or, of a table, F.csv; by default RUN/sample-seed-0.png."
        ),
    ] = None,
    of: Of = "means",
    sampler: SamplerName = None,
    label: Annotated[
        str | None,
        typer.Option(help="Of a class-conditional model: the class, by name or number.", show_default=False),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(help="Of a model of covariates: all of them, as in age=40,dose=1.5.", show_default=False),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Sample images, rows of a table, signals or points from a trained model."""
    from latentia import interface
    from latentia.errors import counted
    from latentia.recipes import Run

    run = Run(path)
    images = len(run.environment["shape"]) == 3
    suffix = ".png" if images else ".csv" if run.environment.get("columns") else ".npz"
    by = (f"-{sampler.split(',')[0]}" if sampler else "") + (f"-class-{Path(label).name}" if label else "")
    by += "-" + re.sub(r"[^\w.=-]+", "-", given)[:60] if given else ""
    target = out or path / f"sample{by}-seed-{seed}{suffix}"
    interface.sample(run, n, of=of, sampler=sampler, label=label, given=given, out=target, seed=seed)  # pyright: ignore[reportArgumentType]
    kind = "image" if images else "example" if len(run.environment["shape"]) > 1 else "point"
    _wrote(target, counted(n, kind))


def reconstruct(
    path: RunPath,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="F.png (originals over reconstructions) or F.npz; RUN/reconstruct.png.")
    ] = None,
    split: SplitName = "test",
) -> None:
    """Encode and decode examples of the data: images above their reconstructions, columns against theirs, or lines."""
    from latentia import interface
    from latentia.errors import counted

    target = out or path / "reconstruct.png"
    originals, _ = interface.reconstruct(path, n, split=split, out=target)  # pyright: ignore[reportArgumentType]
    kind = "image" if originals.dim() == 4 else "example"
    _wrote(target, f"{counted(len(originals), kind)} with reconstructions")


def encode(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="F.npz: mean and stddev of q(z|x), and labels where the data have them.")],
    data: Annotated[
        str | None, typer.Option(help="A data set's name, a folder of images or an .npz; the run's data by default.")
    ] = None,
    split: SplitName = "test",
) -> None:
    """Encode images: means and standard deviations of q(z|x), as arrays."""
    from latentia import interface
    from latentia.errors import counted

    codes = interface.encode(path, data=data, split=split, out=out)  # pyright: ignore[reportArgumentType]
    count, dimensions = codes["mean"].shape
    _wrote(out, f"{counted(count, 'image')}, z of {counted(dimensions, 'dimension')}")


def export(
    path: RunPath,
    file_format: Annotated[str, typer.Option("--format", help="onnx, torch-export or safetensors.")] = "onnx",
    parts: Annotated[
        str | None, typer.Option(help="encoder,decoder or generator,discriminator; all by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; RUN/export by default.")] = None,
) -> None:
    """Write a model's networks for other programs, checked against the model, with export.json."""
    from latentia.recipes import Run

    for file in Run(path).export(out, format=file_format, parts=parts):  # pyright: ignore[reportArgumentType]
        _wrote(file)


def push(
    path: RunPath,
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Share a run on the Hugging Face Hub, with a model card."""
    from latentia.sharing import push as push_run

    typer.echo(f"shared {path} as {push_run(path, name, private=private)}")


def pull(
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The run directory to make; by default runs/NAME.")] = None,
    revision: Annotated[str | None, typer.Option(help="A commit, branch or tag.")] = None,
) -> None:
    """Fetch a run that was shared on the Hugging Face Hub."""
    from latentia.sharing import pull as pull_run

    target = out or Path("runs") / name.rsplit("/", 1)[-1]
    _wrote(pull_run(name, target, revision=revision))


def impute(
    path: RunPath,
    out: Annotated[
        Path | None,
        typer.Option(help="F.csv (of vectors) or F.npz (x and stddev); by default RUN/imputed.csv or .npz."),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of z for each example.")] = 500,
    hide: Annotated[float, typer.Option(min=0, max=0.9, help="Share of known values to hide as a check.")] = 0.1,
    seed: Seed = 0,
) -> None:
    """Fill in the missing values of a run's data; trained with data.missing=keep."""
    from latentia import interface
    from latentia.recipes import Run

    run = Run(path)
    target = out or path / f"imputed{'.csv' if len(run.environment['shape']) == 1 else '.npz'}"
    _, results = interface.impute(run, draws=draws, hide=hide, out=target, seed=seed)
    print_results(results, as_json=False, table_format="text")


def show(path: RunPath, as_json: AsJSON = False, table_format: TableFormat = "text") -> None:
    """Show a run: its recipe, its last records, its estimates and its pictures; with --format its estimates alone."""
    from rich.console import Console

    from latentia.recipes import Run
    from latentia.reports.tables import print_run, saved_results

    require_format(table_format)
    if as_json or table_format != "text":
        print_results(saved_results(Run(path)), as_json, table_format)
    else:
        print_run(Run(path), Console())


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/demo"),
) -> None:
    """Train a VAE and a GAN on 5 000 handwritten digits of MNIST, in some three minutes on two cores.

    Ends with a table of both models, report.html, and explorer.html: open the second in a browser and draw a digit.
    """
    from rich.console import Console

    from latentia import interface
    from latentia.recipes import demonstrate
    from latentia.reports.gallery import save_side_by_side

    runs = []
    for run in demonstrate(out):
        _finish(run)
        interface.evaluate(run, samples=True)
        runs.append(run)
    Console().print(interface.compare(runs, saved=True).table())
    _wrote(save_side_by_side(runs, out / "side_by_side.png"))
    _wrote(interface.report(runs, out / "report.html"))
    _wrote(
        interface.explore(runs, out / "explorer.html", max_bytes=10_000_000).path,
        "open it in a browser, and draw a digit",
    )


def print_results(results: Any, as_json: bool, table_format: str) -> None:
    """Print results of `latentia.interface` as JSON, in a format for papers, or as tables with warnings and files."""
    from rich.console import Console
    from rich.text import Text

    from latentia.estimate import estimates_to_json

    for warning in results.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    if as_json:
        typer.echo(estimates_to_json(results))
    elif table_format != "text":
        typer.echo(results.to_format(table_format))
    else:
        console = Console()
        for table in results.tables:
            console.print(table)
        for file in results.files:
            console.print(Text(f"  {file}"), soft_wrap=True)


def require_format(table_format: str) -> None:
    """Check --format before any work.

    Raises:
        ConfigurationError: naming the known formats.
    """
    from latentia.errors import ConfigurationError, nearest

    known = ("text", "markdown", "latex", "csv")
    if table_format not in known:
        raise ConfigurationError([("--format", f"{table_format!r} is not known. {nearest(table_format, known)}")])


def _wrote(path: Path, what: str = "") -> None:
    typer.echo(f"wrote {path}{f': {what}' if what else ''}")


def _finish(run: Run) -> None:
    """Make the pictures of a run that has just ended, and print its estimates and where everything is."""
    from latentia.interface import progress
    from latentia.reports import save_figures

    _print_estimates(run.estimates, f"{run.path}: at the end of training")
    with progress("pictures"):
        figures = save_figures(run)
    for figure in figures:
        typer.echo(f"  {figure}")


def _print_estimates(estimates: Sequence[Estimate], title: str) -> None:
    from rich.console import Console

    from latentia.reports.tables import estimates_table

    if estimates:
        Console().print(estimates_table(estimates, title))


def _train_several(recipe: Recipe, seeds: list[int], out: Path | None, resume: bool, quiet: bool) -> None:
    from latentia.recipes import mean_over_seeds, train_seeds

    runs = train_seeds(recipe, seeds, out, resume=resume, quiet=quiet)
    for run in runs:
        _finish(run)
    if len(runs) > 1:
        _print_estimates(
            mean_over_seeds(runs), f"{runs[0].path.parent}: mean of {len(runs)} seeds ± its standard error"
        )


def _require_something_to_resume(out: Path | None, resume: bool) -> None:
    from latentia.errors import RunError

    if resume and out is None:
        raise RunError("--resume continues a run: name its directory with --out")
    traces = ("recipe.yaml", "seeds.yaml", "checkpoints")  # a run that has lost its recipe is continued, too
    if resume and out is not None and not any((out / name).exists() for name in traces):
        raise RunError(f"{out} holds no run to continue; leave --resume out to begin one there")


def _seeds(text: str, settings: list[str]) -> list[int]:
    """Seeds from how many there are to be, or from a list such as 0,3,7."""
    from latentia.errors import ConfigurationError

    if any(setting.startswith("seed=") for setting in settings):
        raise ConfigurationError([("seed", "--seeds gives every seed; leave seed=… out")])
    try:
        numbers = [int(part) for part in text.split(",")]
        seeds = numbers if "," in text else range(numbers[0])
    except ValueError:
        seeds = []
    if len(seeds) > MOST_SEEDS:
        raise ConfigurationError([("--seeds", f"give at most {MOST_SEEDS} seeds at once (given: {text})")])
    if not seeds:
        message = f"give at least one seed: their number, such as 5, or a list, such as 0,3,7 (given: {text})"
        raise ConfigurationError([("--seeds", message)])
    return list(seeds)


def _recipe(name: str, settings: list[str], config: Path | None, resumed: Path | None) -> Recipe:
    """The recipe's defaults, under a file's keys, under the settings of the command line."""
    from latentia.configuration import apply_overrides, parse_overrides
    from latentia.errors import ConfigurationError, RunError
    from latentia.files import read_yaml
    from latentia.recipes import Recipe
    from latentia.recipes.run import name_file
    from latentia.training import RunDirectory

    overrides = parse_overrides(settings)
    member = Recipe.members().get(name)
    base: dict[str, Any] = (member() if member is not None else Recipe.parse(name)).to_mapping()
    begun = resumed is not None and (resumed / "recipe.yaml").exists()
    if config is None and not begun:
        for key in member.set_by_data if member is not None else ():  # what follows from the data
            if not any(given.split(".")[0] == key for given in overrides):
                base.pop(key, None)
        return Recipe.parse({**apply_overrides(base, overrides), "type": name})
    if config is None and resumed is not None:
        file = resumed / "recipe.yaml"
        written = RunDirectory(resumed).recipe()
    else:
        assert config is not None
        file = config
        try:
            written = read_yaml(file, "give the recipe.yaml of a run, or settings alone")
        except RunError as error:
            raise ConfigurationError(f"cannot read the recipe: {error}") from None
    if written.get("type", name) != name:
        raise ConfigurationError(f"{file} is a recipe of a {written['type']}, not of a {name}")
    try:
        return Recipe.parse({**apply_overrides({**base, **written}, overrides), "type": name})
    except ConfigurationError as error:
        raise name_file(error, file, {key.split(".")[0] for key in overrides}) from None


COMMANDS = (train, resume, sweep, sample, reconstruct, encode, impute, export, push, pull, show, demo)
