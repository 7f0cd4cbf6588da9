"""From a recipe to a run, and from a run directory back to the model."""

from __future__ import annotations

__all__ = ["Run", "load", "train"]

import json
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from latentia.data import Splits
from latentia.errors import RunError
from latentia.estimate import Estimate, read_estimates, write_estimates
from latentia.recipes.recipe import Recipe
from latentia.training import Outcome, RunDirectory, make_fabric, play, seed_of, seeded


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
        try:
            return json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"cannot read {self.path / 'environment.json'}: {error}") from error

    @property
    def model(self) -> nn.Module:
        """The trained model, in evaluation mode."""
        if self._model is None:
            about = self.environment
            model = self.recipe.model(tuple(about["shape"]), len(about["classes"]))
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
                    f"the data that {self.recipe.data.type_name} loads now are not those of the run {self.path}"
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

    Args:
        recipe: what to do.
        out: the run directory; without it, a new one under `runs/`.
        resume: go on with the run that is there.
        quiet: show no progress.

    Raises:
        RunError: if the directory is in use, a cost is not finite, or the run was interrupted (after saving it).
        DataError: for data that are missing, damaged, or that the model cannot score.
    """
    path = Path(out) if out is not None else _new_name(recipe)
    fabric = make_fabric(recipe)
    fabric.launch(partial(_train_here, recipe=recipe, path=path, resume=resume, quiet=quiet))
    replaced = {name: getattr(recipe, name) for name, value in recipe if getattr(value, "type_name", "") == "custom"}
    return Run(path, **replaced)


def _train_here(fabric: Fabric, recipe: Recipe, path: Path, resume: bool, quiet: bool) -> Outcome:
    """The part that every process runs."""
    directory = RunDirectory(path)
    splits = recipe.data.load()
    shape = splits.shape
    with seeded(seed_of("weights", recipe.seed), fabric.device):
        model = recipe.model(shape, len(splits.classes)).to(fabric.device)
        game = recipe.game(model, splits, fabric)
    if fabric.is_global_zero:
        directory.create(recipe.to_mapping(), resume)
        directory.write_environment(
            device=str(fabric.device),
            devices=fabric.world_size,
            precision=recipe.precision,
            seed=recipe.seed,
            shape=list(shape),
            classes=list(splits.classes),
            data_hash=splits.content_hash,
            parameters=sum(p.numel() for p in model.parameters()),
        )
    fabric.barrier()
    outcome = play(game, recipe, directory, fabric, resume=resume, quiet=quiet)
    if fabric.is_global_zero:
        write_estimates(directory.evaluation / "training.json", recipe.conclude(model, splits))
    return outcome


def _new_name(recipe: Recipe) -> Path:
    """runs/vae-digits, or runs/vae-digits-2 and so on where that is taken."""
    base = Path("runs") / f"{recipe.type_name}-{recipe.data.type_name}"
    number = 1
    path = base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path
