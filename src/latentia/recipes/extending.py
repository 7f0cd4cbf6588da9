"""How a run goes on: one that was stopped to its end, and a finished one beyond it.

    latentia resume runs/mnist                        # to its end
    latentia resume runs/mnist --extend epochs=40     # 20 epochs more for a run of 20

A run that is extended is trained as if it had been that long from the beginning, to the same bits, where nothing in its
recipe depends on its length. Schedules of the learning rate and weights of penalties that fall over the run do: they go
on as those of the longer run from where it stands, while the epochs before had those of the shorter one. What holds is
recorded in environment.json under `extended`, and warned of where the bits differ.
"""

from __future__ import annotations

__all__ = ["resume"]

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentia.configuration import Component
from latentia.errors import ConfigurationError, RunError
from latentia.objectives import Penalty
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run
from latentia.recipes.train import train
from latentia.training import RunDirectory
from latentia.training.checkpoint import newest_sound
from latentia.training.distributed import launched_by_torchrun
from latentia.training.optimizers import Schedule

POINTS = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)  # of a run, at which a factor is looked at


def resume(run: Run[Any] | Path | str, *, epochs: int | None = None, quiet: bool = False, **replaced: Any) -> Run[Any]:
    """Go on with a run by the recipe in its directory, to its end or, with `epochs`, beyond it.

    Results of the end of a finished run (its weights and evaluation/) are kept under names that end in -epoch-N.

    Args:
        run: a run or its directory.
        epochs: the new length, in all; more than the run has.
        quiet: show warnings alone.
        **replaced: see `Run`.

    Raises:
        ConfigurationError: for a length that is not longer.
        RunError: for a run that cannot go on: ended by patience, one of several seeds trained at once, or without a
            sound checkpoint, or whose data are not there. Also as `train`.
    """
    run = run if isinstance(run, Run) and not replaced else Run(run.path if isinstance(run, Run) else run, **replaced)
    if epochs is None:
        return train(run.recipe, run.path, resume=True, quiet=quiet)
    _require_extendable(run, epochs)
    longer = type(run.recipe)(**{**dict(run.recipe), "epochs": epochs})
    differences = list(_depend_on_length(run.recipe, run.recipe.epochs / epochs))
    with RunDirectory.open(
        run.path, run.recipe.to_mapping(), resume=True, with_defaults=run.recipe.with_defaults
    ) as directory:
        facts = {"from": run.recipe.epochs, "to": epochs, "same_bits_as_one_run": not differences}
        directory.extend(longer.to_mapping(), run.recipe.epochs, {**facts, "because": differences})
    for difference in differences:
        warnings.warn(difference, RuntimeWarning, stacklevel=2)
    return train(longer, run.path, resume=True, quiet=quiet)


def _require_extendable(run: Run[Any], epochs: int) -> None:
    if epochs <= run.recipe.epochs:
        text = f"the run has {run.recipe.epochs} epochs already; give more, such as epochs={2 * run.recipe.epochs}"
        raise ConfigurationError([("epochs", text)])
    other = f"start a new run with init_from={run.path}"
    if launched_by_torchrun():
        raise ConfigurationError([("epochs", "extend a run with one process, without torchrun; it starts its own")])
    if "trained_with_seeds" in run.environment:
        raise RunError(f"{run.path} was trained at once with other seeds, which share their noise; {other}")
    saved, _ = newest_sound(run.directory.checkpoints)
    if saved is None:
        raise RunError(f"{run.path} has no sound checkpoint to go on from; {other}")
    if saved.progress["ended"]:
        text = f"patience ended {run.path} after step {saved.step}, and would end a longer run there too"
        raise RunError(f"{text}; {other} and another patience")
    _ = run.splits  # fails here, before the run is made longer, where the data are missing or others


def _depend_on_length(recipe: Recipe, done: float) -> Iterator[str]:
    """What in a recipe makes an extended run differ from one that was that long from the beginning.

    Args:
        recipe: of the shorter run.
        done: its share of the longer run.
    """
    for key, part in _parts(recipe, ""):
        if isinstance(part, Schedule) and len({part.factor(point) for point in POINTS}) > 1:
            yield (
                f"{key}={part.type_name} depends on the length of the run: the learning rate goes on at "
                f"{part.factor(done):.3g} of its full value, as in the longer run; the epochs before had the schedule "
                "of the shorter one"
            )
        if isinstance(part, Penalty) and len({part.weight(point) for point in POINTS}) > 1:
            yield f"{key}={part.type_name} falls over the run: it goes on as in the longer run"
    if recipe.keep == "best" and recipe.epochs % recipe.validate_every:
        yield f"validate_every={recipe.validate_every}: the last epoch of the shorter run was validated as well"


def _parts(component: Component, prefix: str) -> Iterator[tuple[str, Component]]:
    for name, value in component:
        if isinstance(value, Component):
            yield f"{prefix}{name}", value
            yield from _parts(value, f"{prefix}{name}.")
