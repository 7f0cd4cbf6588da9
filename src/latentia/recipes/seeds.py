"""Several seeds of one recipe at once: error bars at less than the price of as many runs.

`train_seeds(recipe, [0, 1, 2])` leaves one ordinary run directory for each seed, to load, evaluate and compare like any
other. What is the same as in runs made one by one, and what is not, stands in `training/ensemble.py`.
"""

from __future__ import annotations

__all__ = ["game_of_seeds", "mean_over_seeds", "seeds_in", "train_seeds"]

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import torch

from latentia.data import Splits
from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate, write_estimates
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run
from latentia.training import Game, Worker, fit, seed_of, seeded, start_worker
from latentia.training.distributed import check_devices, launched_by_torchrun
from latentia.training.ensemble import SeedsDirectory, stacked_game
from latentia.training.lock import locked


def train_seeds(
    recipe: Recipe,
    seeds: Sequence[int],
    out: Path | str | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> list[Run]:
    """Train several seeds of a recipe at once and return their runs, `out/seed-0` and so on.

    Args:
        recipe: what to do; its own `seed` is not used.
        seeds: at least one, each once.
        out: the folder of all runs; without it, a new one under `runs/`.
        resume: go on with the runs that are there.
        quiet: show warnings alone.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the runs saved (a `RunError`).
        RunError: as `train`.
        ConfigurationError: for recipes that cannot be trained so: see `training/ensemble.py`.
        DataError: as `train`.
    """
    recipes = _of_each_seed(recipe, seeds)
    worker = start_worker(recipe)
    mapping = {"seeds": list(recipes), **{key: value for key, value in recipe.to_mapping().items() if key != "seed"}}
    if out is not None:  # before data are loaded for nothing
        SeedsDirectory(out, list(recipes), recipe.with_defaults).check(mapping, resume)
    splits = recipe.data.load()
    game, games = game_of_seeds(recipes, splits, worker)
    folder = out if out is not None else _new_folder(recipe)
    directory = SeedsDirectory(folder, list(recipes), recipe.with_defaults)
    directory.models = {seed: own.model for seed, own in games.items()}
    together = recipe.model_copy(update={"seed": seed_of("seeds", *recipes)})  # of the noise of all steps
    with ExitStack() as held:
        directory.make(mapping, resume)
        held.enter_context(locked(directory.path))
        directory.create(mapping, resume)
        for seed, own in recipes.items():
            directory.runs[seed].create(own.to_mapping(), resume=True)
            held.enter_context(locked(directory.runs[seed].path))
        _describe(directory, recipes, splits, worker.device)
        outcome = fit(game, together, directory, worker, resume=resume, quiet=quiet)
        directory.divide_checkpoint()
        share = round(outcome.total_seconds / len(recipes), 3)
        for seed, own in recipes.items():
            run = directory.runs[seed]
            write_estimates(run.evaluation / "training.json", own.final_estimates(games[seed].model, splits))
            run.add_to_environment(training_seconds=share)
    return [Run(run.path) for run in directory.runs.values()]


def game_of_seeds(recipes: Mapping[int, Recipe], splits: Splits, worker: Worker) -> tuple[Game, dict[int, Game]]:
    """The game that trains all seeds, and the game of each, whose model is a view of the stacked one.

    Args:
        recipes: of each seed.
        splits: their data.
        worker: where to train.

    Raises:
        ConfigurationError: see `stacked_game`.
    """

    def built(recipe: Recipe, seed: int) -> Game:
        with seeded(seed_of("weights", seed), worker.device):  # the weights that the seed would start from alone
            model = recipe.build_model(splits.shape, len(splits.classes)).to(worker.device)
            return recipe.build_game(model, splits, worker)

    games = {seed: built(recipe, seed) for seed, recipe in recipes.items()}
    first = next(iter(recipes))
    return stacked_game(built(recipes[first], first), games, worker.device), games


def mean_over_seeds(runs: Sequence[Run]) -> list[Estimate]:
    """The mean of every figure that all runs have, over the runs, with its standard error.

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


def seeds_in(out: Path) -> list[int] | None:
    """The seeds whose runs a folder holds, where `train_seeds` made it; else None."""
    directory = SeedsDirectory(out, [])
    return list(directory.recipe().get("seeds", [])) if directory.recipe_file.exists() else None


def _of_each_seed(recipe: Recipe, seeds: Sequence[int]) -> dict[int, Recipe]:
    """The recipe of each seed, where all can be trained at once."""
    problems = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        problems.append(("seeds", f"give at least one seed, each once and none negative (given: {list(seeds)})"))
    if recipe.devices > 1 or launched_by_torchrun():
        problems.append(("devices", "several seeds at once are trained in one process; set devices=1"))
    if recipe.clip is not None:
        text = "the norm of a gradient would be that of all seeds together"
        problems.append(("clip", f"{text}; set clip=null, or train the seeds one by one"))
    if recipe.keep == "best":
        text = "seeds that are trained at once end together, and each has a best step of its own"
        problems.append(("keep", f"{text}; set keep=last and patience=null, or train the seeds one by one"))
    if problems:
        raise ConfigurationError(problems)
    check_devices(recipe)
    return {seed: type(recipe).parse({**dict(recipe), "seed": seed}) for seed in seeds}


def _describe(directory: SeedsDirectory, recipes: dict[int, Recipe], splits: Splits, device: torch.device) -> None:
    """Write what each run is made with, and see that all go on with the data that they began with."""
    if directory.has_environment and directory.environment().get("data_hash") != splits.content_hash:
        raise RunError(
            f"the data that are loaded now are not those that {directory.path} began with; bring the files back, or "
            "give another --out"
        )
    for seed, recipe in recipes.items():
        facts = {
            "device": str(device),
            "devices": 1,
            "precision": recipe.precision,
            "matmul": recipe.matmul,
            "seed": seed,
            "trained_with_seeds": list(recipes),
            "shape": list(splits.shape),
            "classes": list(splits.classes),
            "data_hash": splits.content_hash,
            "parameters": sum(parameter.numel() for parameter in directory.models[seed].parameters()),
        }
        directory.runs[seed].write_environment(**facts)
    directory.write_environment(data_hash=splits.content_hash, seeds=list(recipes))


def _new_folder(recipe: Recipe) -> Path:
    """A name under runs/ that is not taken: runs/gan-ring-seeds, runs/gan-ring-seeds-2, …"""
    base = Path("runs") / f"{recipe.type_name}-{recipe.data.type_name}-seeds"
    names = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in count(1))
    return next(path for path in names if not path.exists())
