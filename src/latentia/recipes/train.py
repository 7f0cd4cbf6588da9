"""From a recipe to a run: `train`, and `train_seeds` for several seeds at once.

Both go the same way: start this process's worker, hold the run directory, load the data, build the game, fit it, and
write the final estimates. `train_seeds` leaves one ordinary run directory for each seed; what is the same as in runs
made one by one, and what is not, is described in `training/ensemble.py`.
"""

from __future__ import annotations

__all__ = ["mean_over_seeds", "train", "train_seeds"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from latentia.data import Splits
from latentia.data.examples import layout_note
from latentia.errors import ConfigurationError, LatentiaError, RunError, first_line, how_to_go_on
from latentia.estimate import Estimate, write_estimates
from latentia.networks.network import require_memory
from latentia.networks.products import exact_float32_setting
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run, name_file
from latentia.recipes.starting import InitialWeights, describe_start, freeze_parts
from latentia.threads import thread_count
from latentia.training import Game, RunDirectory, Worker, fit, seed_of, seeded, start_worker
from latentia.training.checkpoint import describe_last, newest_sound
from latentia.training.compiling import keep_programs, worth_compiling
from latentia.training.distributed import (
    LostWorker,
    check_devices,
    launch,
    launched_by_torchrun,
    on_rank_zero,
    refuse_while_importing,
)
from latentia.training.ensemble import SeedsDirectory, stacked_game
from latentia.training.progress import ProgressBar
from latentia.training.run_directory import new_folder

if TYPE_CHECKING:
    from latentia.models import GAN, VAE
    from latentia.recipes.gan import GANRecipe
    from latentia.recipes.vae import VAERecipe

    @overload
    def train(
        recipe: VAERecipe, out: Path | str | None = None, *, resume: bool = False, quiet: bool = False
    ) -> Run[VAE]: ...
    @overload
    def train(
        recipe: GANRecipe, out: Path | str | None = None, *, resume: bool = False, quiet: bool = False
    ) -> Run[GAN]: ...
    @overload
    def train(
        recipe: Recipe, out: Path | str | None = None, *, resume: bool = False, quiet: bool = False
    ) -> Run[Any]: ...


LARGE = 10_000  # widths and latent dimensions from which the memory is estimated


def train(recipe: Recipe, out: Path | str | None = None, *, resume: bool = False, quiet: bool = False) -> Run[Any]:
    """Train by a recipe and return the run.

    With `devices=2` and more, or under torchrun, several processes share each batch. The caller's random state and
    settings of torch are left as they were.

    Args:
        recipe: what to train, on what data, for how long.
        out: the run directory; without it, a new one under `runs/`.
        resume: go on with the run in `out`.
        quiet: show warnings alone.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the run saved (a `RunError`).
        RunError: if the directory is in use, there is no run to resume, a number is not finite, the disk is full, or a
            device is not there.
        ConfigurationError: for settings that do not go together.
        DataError: for data that are missing, damaged, or that the model cannot score.
    """
    refuse_while_importing()
    if not isinstance(recipe, Recipe):
        raise ConfigurationError(f"a recipe is needed, such as latentia.VAERecipe(epochs=20) (given: {recipe!r:.60})")
    check_devices(recipe)
    options = {"recipe": recipe, "seeds": None, "out": _folder(out, resume), "resume": resume, "quiet": quiet}
    if recipe.devices > 1 and not launched_by_torchrun():
        folder = options["out"]
        cure = how_to_go_on(folder) if folder else "go on with `latentia resume` and the newest folder in runs"
        path = launch(_train_here, recipe.devices, cure, **options)
    else:
        path = _train_here(**options)
    return Run(path, **recipe.own_parts())


def train_seeds(
    recipe: Recipe, seeds: Sequence[int], out: Path | str | None = None, *, resume: bool = False, quiet: bool = False
) -> list[Run[Any]]:
    """Train several seeds of a recipe at once and return their runs, `out/seed-0` and so on.

    Args:
        recipe: what to train; its own `seed` is not used.
        seeds: at least one, each once.
        out: the folder of all runs; without it, a new one under `runs/`.
        resume: go on with the runs in `out`.
        quiet: show warnings alone.

    Raises:
        Interrupted, RunError, DataError: as `train`.
        ConfigurationError: for recipes that cannot be trained so: see `training/ensemble.py`.
    """
    if isinstance(seeds, int):
        raise ConfigurationError([("seeds", f"give a list, such as range({seeds})")])
    seeds = list(seeds)
    _check_seeds(recipe, seeds)
    path = _train_here(recipe, seeds, _folder(out, resume), resume, quiet)
    return [Run(path / f"seed-{seed}") for seed in seeds]


def mean_over_seeds(runs: Sequence[Run[Any]]) -> list[Estimate]:
    """The mean over runs of every final estimate that all of them have, with its standard error.

    Args:
        runs: of one recipe and different seeds, at least two.
    """
    by_name = [{estimate.name: estimate for estimate in run.estimates} for run in runs]
    found = []
    for name, like in by_name[0].items():
        same = [own[name] for own in by_name if name in own]
        if len(same) == len(runs):
            values = torch.tensor([estimate.value for estimate in same], dtype=torch.float64)
            method = f"mean over {len(runs)} seeds; {like.method}"
            found.append(Estimate.mean(values, name=name, unit=like.unit, kind=like.kind, method=method))
    return found


def seeds_in(path: Path) -> list[int] | None:
    """The seeds whose runs a folder holds, where `train_seeds` made it; else None."""
    directory = SeedsDirectory(path)
    if not directory.recipe_file.exists():
        return None
    seeds = directory.recipe().get("seeds")
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        cure = "remove it and go on with --resume, --seeds and the settings that the runs began with"
        raise RunError(f"{directory.recipe_file} is damaged: it has no list of seeds; {cure}")
    return seeds


def recipe_of_seeds(path: Path) -> Recipe:
    """The recipe that a folder of several seeds was begun with.

    Raises:
        RunError: a seeds.yaml that is damaged.
    """
    directory = SeedsDirectory(path)
    written = {key: value for key, value in directory.recipe().items() if key != "seeds"}
    try:
        return Recipe.parse(written)
    except ConfigurationError as error:
        raise name_file(error, directory.recipe_file, set()) from None


def build_games(
    recipe: Recipe,
    seeds: Sequence[int] | None,
    splits: Splits,
    worker: Worker,
    initial: InitialWeights | None = None,
) -> tuple[Game, dict[int, Game]]:
    """The game to fit, and the game of each seed: itself for one, parts of the stacked one for several.

    Args:
        recipe: what to train.
        seeds: the seeds to train at once; None for the recipe's own.
        splits: the data.
        worker: this process.
        initial: weights to start from.

    Raises:
        ConfigurationError: for weights that are not float32; see also `stacked_game`, `InitialWeights.load_into` and
            `freeze_parts`.
    """

    def built(recipe: Recipe) -> Game:
        with seeded(seed_of("weights", recipe.seed), worker.device):
            model = recipe.build(splits.schema)
            if initial is not None:
                initial.load_into(model)
            freeze_parts(model, recipe.freeze)
            _require_float32(model)
            model.to(worker.device)
            return recipe.build_game(model, splits, worker)

    _require_memory(recipe, 1 if seeds is None else len(seeds) + 1, splits, worker)
    if seeds is None:
        game = built(recipe)
        return game, {recipe.seed: game}
    games = {seed: built(_with_seed(recipe, seed)) for seed in seeds}
    return stacked_game(built(_with_seed(recipe, seeds[0])), games, worker.device), games


def _require_float32(model: torch.nn.Module) -> None:
    for name, value in model.named_parameters():
        if value.requires_grad and value.dtype != torch.float32:
            text = (
                f"{name} is {value.dtype}, and models are trained in torch.float32. Pass module.float(); "
                "precision=bf16-mixed computes the products in bfloat16"
            )
            raise ConfigurationError([("network", text)])


def _require_memory(recipe: Recipe, models: int, splits: Splits, worker: Worker) -> None:
    """Refuse models that do not fit into memory. The estimate takes seconds, so it is made for large settings only."""
    largest, key = _largest_number(recipe.to_mapping())
    if largest >= LARGE:
        schema = splits.schema  # looks at the data, which are not on the meta device
        copies = 5 * models  # parameters, gradients, two states of the optimizer, averaged weights
        require_memory(lambda: recipe.build(schema), worker.device, copies, key)


def _largest_number(setting: Any, key: str = "") -> tuple[int, str]:
    """The largest integer in the settings of the networks and of the latent dimension, and its key."""
    if isinstance(setting, Mapping):
        counts = ("seed", "epochs", "batch_size", "objective", "data")
        counts += ("fresh_steps", "steps_per_epoch", "discriminator_steps")
        parts = [(name, value) for name, value in setting.items() if name not in counts]
        return max((_largest_number(value, f"{key}.{name}".lstrip(".")) for name, value in parts), default=(0, key))
    if isinstance(setting, list | tuple):
        return max((_largest_number(value, key) for value in setting), default=(0, key))
    return (setting, key) if isinstance(setting, int) else (0, key)


@contextmanager
def _final_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """What shows the progress of final estimates, from the steps done and their total."""
    with ProgressBar(0, quiet=quiet, label="final estimates: step") as bar:

        def show(step: int, total: int) -> None:
            if bar.total != total:
                bar.begin(0, total)
            bar.advance(step, {})

        yield show


@contextmanager
def _saying_how_to_go_on(directory: RunDirectory) -> Iterator[None]:
    """Name the run where another of its processes has ended."""
    try:
        yield
    except LostWorker as error:
        raise LostWorker(f"{error}; {directory.how_to_go_on}") from error


def _train_here(recipe: Recipe, seeds: Sequence[int] | None, out: Path | None, resume: bool, quiet: bool) -> Path:
    """What every process runs; returns the run directory."""
    if recipe.compile is not False:
        keep_programs()
    worker = start_worker(recipe)
    with ExitStack() as stack:
        directory = _open(stack, recipe, seeds, out, resume, worker)
        stack.enter_context(_saying_how_to_go_on(directory))
        began = _beginning(directory) if resume else {}
        threads = stack.enter_context(thread_count(began.get("threads")))
        splits = recipe.data.load()
        initial = _initial_weights(recipe, directory, resume)
        matmul = began.get("matmul", exact_float32_setting()) if recipe.matmul == "auto" else recipe.matmul
        game, games = build_games(recipe, seeds, splits, worker, initial)
        compiled = _compiled(recipe, game, worker, began if resume else None)
        facts = {
            "device": str(worker.device),
            "devices": worker.world_size,
            "precision": recipe.precision,
            "matmul": matmul,
            "compile": compiled,
            **splits.schema.to_mapping(),
            "data_hash": splits.content_hash,
        }
        note = layout_note(splits.schema.shape)
        started = [note] if note else []
        if initial is not None:
            facts["init_from"] = initial.load_into(next(iter(games.values())).model)
            started += describe_start(facts["init_from"])
        training = recipe.model_copy(update={"matmul": matmul, "compile": compiled})
        if seeds is None:
            facts |= {"seed": recipe.seed}
            runs = {recipe.seed: directory}
        else:
            assert isinstance(directory, SeedsDirectory)
            facts |= {"seeds": list(seeds)}
            runs = directory.runs
            directory.models = {seed: own.model for seed, own in games.items()}
            training = _with_seed(training, seed_of("seeds", *seeds))  # of the noise of all steps

        def begin() -> list[str]:
            counts = {seed: sum(p.numel() for p in own.model.parameters()) for seed, own in games.items()}
            complaints = [] if seeds is None else directory.begin(**facts, parameters=sum(counts.values()))
            for seed, run in runs.items():
                own = facts if seeds is None else {**facts, "seed": seed, "trained_with_seeds": list(seeds)}
                complaints += run.begin(**own, parameters=counts[seed])
            return complaints

        def conclude() -> None:
            if isinstance(directory, SeedsDirectory):
                directory.divide_checkpoint()
            for seed, run in runs.items():
                own = recipe if seeds is None else _with_seed(recipe, seed)
                try:
                    with _final_progress(quiet) as progress:
                        estimates = own.final_estimates(games[seed].model, splits, progress)
                except (ValueError, RuntimeError) as error:  # a number that is not finite
                    if isinstance(error, LatentiaError):
                        raise
                    what = f"after step {outcome.step}, the estimates on test data failed: {first_line(error)}"
                    last = describe_last(directory.checkpoints)
                    raise RunError(f"{what}; {last}; train again with a lower lr, or clip=1") from error
                write_estimates(run.evaluation / "training.json", estimates)
                run.add_to_environment(training_seconds=round(outcome.total_seconds / len(runs), 3))

        warnings = [*started, *([threads] if threads else ()), *on_rank_zero(worker, begin)]
        outcome = fit(game, training, directory, worker, resume=resume, quiet=quiet, warnings=warnings)
        on_rank_zero(worker, conclude)
    return directory.path


def _open(
    stack: ExitStack, recipe: Recipe, seeds: Sequence[int] | None, out: Path | None, resume: bool, worker: Worker
) -> RunDirectory:
    """The run directory, held by the first process alone until the stack closes."""
    mapping = recipe.to_mapping()
    opened, name = partial(RunDirectory.open, with_defaults=recipe.with_defaults), recipe.default_name
    if seeds is not None:
        mapping = {"seeds": list(seeds), **{key: value for key, value in mapping.items() if key != "seed"}}
        opened, name = partial(SeedsDirectory.open, with_defaults=recipe.with_defaults), f"{name}-seeds"
    held: list[RunDirectory] = []

    def here() -> Path:
        while not held:
            path = out if out is not None else new_folder(name)
            try:
                held.append(stack.enter_context(opened(path, mapping, resume=resume)))
            except RunError:
                if out is not None or not path.exists():  # else another process has taken the new name
                    raise
        return held[0].path

    path = on_rank_zero(worker, here)
    return held[0] if held else RunDirectory(path)


def _initial_weights(recipe: Recipe, directory: RunDirectory, resume: bool) -> InitialWeights | None:
    """The weights to start from; None where there are none, or a checkpoint to resume from holds them already."""
    if recipe.init_from is None or (resume and newest_sound(directory.checkpoints)[0] is not None):
        return None
    return InitialWeights.read(recipe.init_from)


def _folder(out: Path | str | None, resume: bool) -> Path | None:
    if resume and out is None:
        raise RunError("resume goes on with a run: name its directory with out (--out on the command line)")
    return None if out is None else Path(out)


def _beginning(directory: RunDirectory) -> dict[str, Any]:
    """The choices that a run began with, which it keeps when it is resumed, on whatever machine."""
    with suppress(RunError):  # a damaged environment.json is reported when it is written again
        began = directory.environment()
        choices = {"matmul": ("highest", "high", "medium"), "compile": (True, False)}
        kept = {name: began[name] for name, values in choices.items() if began.get(name) in values}
        if isinstance(began.get("threads"), int) and began["threads"] > 0:
            kept["threads"] = began["threads"]
        return kept
    return {}


def _compiled(recipe: Recipe, game: Game, worker: Worker, began: Mapping[str, Any] | None) -> bool | str:
    """Whether steps are compiled: as the recipe says, or as the run began; `auto` decides for a new run."""
    if recipe.compile == "cuda-graphs" and worker.device.type != "cuda":
        text = f"CUDA graphs are for a GPU, and the device is {worker.device.type}"
        raise ConfigurationError([("compile", f"{text}. Set compile=true, or accelerator=cuda")])
    if recipe.compile != "auto":
        return recipe.compile
    if began is not None:
        return began.get("compile", False)
    return on_rank_zero(worker, lambda: worth_compiling(game, recipe, worker))


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"seed": seed})


def _check_seeds(recipe: Recipe, seeds: Sequence[int]) -> None:
    """Refuse seeds and settings that cannot be trained at once."""
    problems = []
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**63 for seed in seeds):
        text = f"give at least one seed, each once, from 0 to 2**63 − 1 (given: {list(seeds)})"
        problems.append(("seeds", text))
    if recipe.devices > 1 or launched_by_torchrun():
        problems.append(("devices", "several seeds at once are trained in one process; set devices=1"))
    alone = f"train the seeds one by one: latentia sweep {recipe.type_name} --seeds {len(seeds)}"
    if recipe.clip is not None:
        text = "the norm of a gradient would be that of all seeds together"
        problems.append(
            (
                "clip",
                f"{text}; set clip=null, or {alone}",
            )
        )
    if recipe.freeze:
        text = "seeds that are trained at once step all of their networks"
        problems.append(
            (
                "freeze",
                f"{text}; set freeze=[], or {alone}",
            )
        )
    if recipe.keep == "best":
        text = "seeds that are trained at once end together, and each has another best step"
        problems.append(
            (
                "keep",
                f"{text}; set keep=last and patience=null, or {alone}",
            )
        )
    if problems:
        raise ConfigurationError(problems)
