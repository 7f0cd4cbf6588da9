"""From a recipe to a run, and from a run directory back to the model."""

from __future__ import annotations

__all__ = ["Run", "load", "train"]

from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from torch import nn

from latentia.data import Splits
from latentia.errors import RunError
from latentia.estimate import Estimate, read_estimates, write_estimates
from latentia.recipes.recipe import Recipe
from latentia.training import RunDirectory, fit, seed_of, seeded, start_worker
from latentia.training.distributed import (
    check_devices,
    launch,
    launched_by_torchrun,
    on_rank_zero,
    refuse_while_importing,
)
from latentia.training.lock import locked


class Run:
    """A finished run, read from its directory.

    Args:
        path: the run directory.
        **replaced: recipe fields to put in place of those on disk; `network=Custom(…)` where the networks are your own.
    """

    def __init__(self, path: Path | str, **replaced: Any):
        self.directory = RunDirectory(path)
        self.recipe = Recipe.parse({**self.directory.recipe(), **replaced})
        self._splits: Splits | None = None
        self._model: nn.Module | None = None

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def environment(self) -> dict[str, Any]:
        """What environment.json says."""
        return self.directory.environment()

    @property
    def model(self) -> nn.Module:
        """The trained model, in evaluation mode."""
        if self._model is None:
            about = self.environment
            model = self.recipe.build_model(tuple(about["shape"]), len(about["classes"]))
            try:
                model.load_state_dict(self.directory.weights())
            except RuntimeError as error:
                raise RunError(f"the weights in {self.path} do not fit the recipe's model: {error}") from None
            self._model = model.eval()
        return self._model

    @property
    def splits(self) -> Splits:
        """The run's data, loaded anew; refused if they are not the bits that the run was trained on."""
        if self._splits is None:
            splits = self.recipe.data.load()
            if splits.content_hash != self.environment["data_hash"]:
                raise RunError(
                    f"the data that {self.recipe.data.type_name} loads now are not those of the run {self.path}; bring "
                    "the files back that it was trained on, or give other data by name"
                )
            self._splits = splits
        return self._splits

    @property
    def records(self) -> list[dict[str, Any]]:
        """All that was recorded in training."""
        return self.directory.records()

    @property
    def estimates(self) -> list[Estimate]:
        """The figures of the end of training, on the test split."""
        path = self.directory.evaluation / "training.json"
        return read_estimates(path) if path.exists() else []


def load(path: Path | str, **replaced: Any) -> Any:
    """The trained model of a run directory: a `VAE` or a `GAN`, in evaluation mode.

    Args:
        path: the run directory.
        **replaced: see `Run`.

    Raises:
        RunError: for a directory that holds no finished run.
    """
    return Run(path, **replaced).model


def train(recipe: Recipe, out: Path | str | None = None, *, resume: bool = False, quiet: bool = False) -> Run:
    """Train by a recipe and return the run.

    With `devices=2` and more, or under torchrun, several processes share each batch. The caller's random state and
    settings of torch are left as they were.

    Args:
        recipe: what to do.
        out: the run directory; without it, a new one under `runs/`.
        resume: go on with the run that is there.
        quiet: show warnings alone.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the run saved (a `RunError`).
        RunError: if the directory is in use, another process trains there, a cost is not finite, the disk is full, or a
            device is not there.
        ConfigurationError: for settings that do not go together.
        DataError: for data that are missing, damaged, or that the model cannot score.
    """
    refuse_while_importing()
    check_devices(recipe)
    place = None if out is None else Path(out)
    if recipe.devices > 1 and not launched_by_torchrun():
        if place is not None:  # before processes are started for nothing
            RunDirectory(place, recipe.with_defaults).check(recipe.to_mapping(), resume)
        path = launch(_train_here, recipe.devices, recipe=recipe, out=place, resume=resume, quiet=quiet)
    else:
        path = _train_here(recipe, place, resume, quiet)
    replaced = {name: value for name, value in recipe if getattr(value, "type_name", "") == "custom"}
    return Run(path, **replaced)


def _train_here(recipe: Recipe, out: Path | None, resume: bool, quiet: bool) -> Path:
    """The part that every process runs; returns the run directory."""
    worker = start_worker(recipe)
    if out is not None:  # before data are loaded for nothing
        on_rank_zero(worker, partial(RunDirectory(out, recipe.with_defaults).check, recipe.to_mapping(), resume))
    splits = recipe.data.load()
    shape = splits.shape
    with seeded(seed_of("weights", recipe.seed), worker.device):
        model = recipe.build_model(shape, len(splits.classes)).to(worker.device)
        game = recipe.build_game(model, splits, worker)
    facts = {
        "device": str(worker.device),
        "devices": worker.world_size,
        "precision": recipe.precision,
        "matmul": recipe.matmul,
        "seed": recipe.seed,
        "shape": list(shape),
        "classes": list(splits.classes),
        "data_hash": splits.content_hash,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    with ExitStack() as held:
        directory = on_rank_zero(worker, partial(_open, recipe, out, resume, facts, held))
        outcome = fit(game, recipe, directory, worker, resume=resume, quiet=quiet)
        results = directory.evaluation / "training.json"
        on_rank_zero(worker, lambda: write_estimates(results, recipe.final_estimates(model, splits)))
        on_rank_zero(worker, partial(directory.add_to_environment, training_seconds=round(outcome.total_seconds, 3)))
    return directory.path


def _open(recipe: Recipe, out: Path | None, resume: bool, facts: dict[str, Any], held: ExitStack) -> RunDirectory:
    """Make or reopen the run directory and lock it, and see that a run goes on with the data and processes of before.

    The lock is held until `held` closes, and by this process alone.
    """
    directory = RunDirectory(out if out is not None else _new_folder(recipe), recipe.with_defaults)
    directory.make(recipe.to_mapping(), resume)
    held.enter_context(locked(directory.path))
    directory.create(recipe.to_mapping(), resume)
    if directory.has_environment:
        before = directory.environment()
        if before.get("data_hash") != facts["data_hash"]:
            raise RunError(
                f"the data that {recipe.data.type_name} loads now are not those that {directory.path} began with; "
                "bring the files back, or give another --out"
            )
        if before.get("devices") != facts["devices"]:
            raise RunError(
                f"{directory.path} began on {before.get('devices')} processes and would go on with {facts['devices']}, "
                "to other results; start as many as before, or give another --out"
            )
    directory.write_environment(**facts)
    return RunDirectory(directory.path)  # which other processes get too: without the recipe


def _new_folder(recipe: Recipe) -> Path:
    """Make runs/vae-digits, or runs/vae-digits-2 and so on where that is taken."""
    base = Path("runs") / f"{recipe.type_name}-{recipe.data.type_name}"
    for number in count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {error}; give another --out") from error
        return path
    raise AssertionError("unreachable")
