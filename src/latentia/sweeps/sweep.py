"""Sweeps: one recipe trained at every combination of some settings, or at those that a search proposes.

    sweeps/beta/
      sweep.yaml                     the recipe, the grid and the seeds
      latent=2,objective.beta=0.5/   one folder for each point of the grid
        seed-0/ …                    ordinary run directories, with seed-0.log
      table.csv, table.md, sweep.png

The folders of a search are trial-1, trial-2, …

A point is chosen by a value on validation data; values on test data are reported and choose nothing.
"""

from __future__ import annotations

__all__ = ["Sweep", "sweep"]

import itertools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from latentia.configuration import Component, apply_overrides
from latentia.errors import ConfigurationError, RunError, counted
from latentia.estimate import Estimate
from latentia.files import atomic_write
from latentia.recipes import Recipe, Run, mean_over_seeds
from latentia.reports.tables import Column, Table
from latentia.sweeps.jobs import Job, check_cluster, run_jobs
from latentia.sweeps.search import Search, parse_range
from latentia.training import RunDirectory
from latentia.training.progress import ProgressBar
from latentia.training.run_directory import new_folder

Point = dict[str, Any]

BOUND, COST = "validation/bound", "validation/cost"
MOST_RUNS = 10_000
WORKERS_PER_CORE = 4  # at most
SHOWN = 4  # estimates of the end of training in the table
ROUND = 4  # trials of a search that are proposed at a time


@dataclass
class Sweep:
    """The runs of a sweep.

    Attributes:
        path: the folder.
        points: the settings of each point of the grid.
        runs: of each point, one for each seed; those that ended.
        by: the name of the recorded value that chooses; empty where no run records one.
        highest: whether the highest value is the best one.
        failed: why runs failed, by folder.
        files: the table and the picture.
        search: whether the points were proposed by a search.
    """

    path: Path
    points: list[Point]
    runs: list[list[Run[Any]]]
    by: str
    highest: bool
    failed: dict[Path, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    search: bool = False

    @cached_property
    def chosen(self) -> list[Estimate | None]:
        """The value that chooses, of each point: the last recorded one, or its mean over seeds."""
        return self.values()

    def values(self) -> list[Estimate | None]:
        """`chosen` as it stands while the sweep runs."""
        return [_last_value(runs, self.by) if self.by else None for runs in self.runs]

    @property
    def best(self) -> int | None:
        """The place of the best point in `points`; None where no point has a value."""
        sign = -1 if self.highest else 1
        known = [(sign * found.value, place) for place, found in enumerate(self.chosen) if found is not None]
        return min(known)[1] if known else None

    def table(self) -> Table:
        """One row for each point: its settings, the value that chooses, and estimates of the end of training."""
        keys = list(self.points[0])
        ends = [_ends(runs) for runs in self.runs]
        names = list(dict.fromkeys(name for found in ends for name in found))[:SHOWN]
        arrow = "↑" if self.highest else "↓"
        columns = [Column("point"), *(Column(key) for key in keys)]
        columns += [Column(f"{self.by} {arrow}")] if self.by else []
        columns += [Column(name) for name in names] + [Column("runs")]
        rows, estimates = [], []
        for place, (point, runs, chosen, found) in enumerate(
            zip(self.points, self.runs, self.chosen, ends, strict=True)
        ):
            shown = [*([chosen] if self.by else []), *(found.get(name) for name in names)]
            texts = ["–" if estimate is None else str(estimate) for estimate in shown]
            rows.append([str(place + 1), *(_text(point[key]) for key in keys), *texts, str(len(runs))])
            settings = {key: _text(value) for key, value in point.items()}
            estimates += [
                Estimate(e.value, e.name, e.stderr, e.n, e.unit, e.kind, e.method, {**e.settings, "point": settings})
                for e in shown
                if e is not None
            ]
        notes = [f"{path}: {reason}" for path, reason in self.failed.items()]
        if self.by:
            notes.insert(0, f"bold: the best {self.by}, which chooses; values on test data choose nothing")
        best = frozenset() if self.best is None else frozenset({(self.best, 1 + len(keys))})
        title = f"{self.path}: {counted(len(self.points), 'point')}"
        return Table(columns, rows, title, notes, best, estimates=estimates)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __str__(self) -> str:
        return str(self.table())


def sweep(
    recipe: Recipe,
    grid: Mapping[str, Sequence[Any] | str] | None = None,
    out: Path | str | None = None,
    *,
    seeds: int | Sequence[int] = 1,
    trials: int | None = None,
    round_size: int = ROUND,
    workers: int | None = None,
    cluster: str = "",
    cluster_options: Mapping[str, Any] | None = None,
    by: str | None = None,
    highest: bool | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Sweep:
    """Train a recipe at every point of a grid of settings, or with `trials` at the points that a search proposes.

    Every recipe is validated before anything runs. Each run is trained in a process by itself, so that a failure costs
    one run; it is named in the table.

    A search (optuna's tree-structured Parzen estimator, Bergstra et al. 2011) proposes `round_size` points at a time
    from the values of `by` at the points before. It draws its numbers from a fixed seed, so that a search that is
    interrupted and resumed proposes the same points.

    Args:
        recipe: with the settings that stay.
        grid: values by dotted key, `{"latent": [2, 8], "objective.beta": [0.5, 1, 4]}`; in a search also a range as a
            text, `{"optimizer.lr": "1e-4..1e-2:log", "latent": "2..32"}`, its ends included. None for the recipe alone,
            with several seeds.
        out: the folder; by default a new one under runs/.
        seeds: of each point: their number, or a list.
        trials: points of a search; None for the whole grid.
        round_size: points that a search proposes at a time.
        workers: runs at a time; as many as there are cores by default, and on a cluster all.
        cluster: "" for processes of this machine, else a cluster of submitit, such as "slurm".
        cluster_options: parameters of submitit, `{"timeout_min": 240, "slurm_partition": "gpu"}`.
        by: the recorded value that chooses; the bound on validation data, else the cost on them, by default.
        highest: whether its highest value is the best; by default for bounds only.
        resume: go on with the sweep in `out`: what has ended stays, what has begun is resumed.
        quiet: show warnings alone.

    Raises:
        ConfigurationError: an empty grid with one seed, a key or value that the recipe does not have, a recipe with
            objects that only Python can give, a search or cluster whose package is not installed.
        RunError: a folder that is in use or holds something else.
        Interrupted: after Ctrl-C, with all runs saved.
    """
    grid = {} if grid is None else grid
    seeds = list(range(min(seeds, MOST_RUNS + 1)) if isinstance(seeds, int) else seeds)
    if not grid and (trials is not None or len(seeds) < 2):
        cure = "give at least one key with several values, such as latent=2,8,32"
        raise ConfigurationError([("grid", cure if trials is not None else f"{cure}, or several seeds: --seeds 3")])
    most = MOST_RUNS if cluster else WORKERS_PER_CORE * (os.cpu_count() or 1)
    if workers is not None and not 1 <= workers <= most:
        raise ConfigurationError([("workers", f"give 1 to {most} here (given: {workers})")])
    folder = new_folder(f"{recipe.default_name}-sweep") if out is None else Path(out)
    described: dict[str, Any] = {
        "recipe": recipe.to_mapping(),
        "grid": {key: _plain_values(values) for key, values in grid.items()},
    }
    described["seeds"] = seeds
    search = None
    if trials is None:
        points = _points(grid)
        recipes = _recipes(recipe, points, seeds)
    else:
        search = Search(_space(grid), trials, round_size)
        points = []
        _recipes(recipe, search.corners(), seeds)
        described["search"] = {"trials": trials, "round_size": round_size}
        recipes = {}
    options = dict(cluster_options or {})
    if cluster:
        check_cluster(cluster, options)
    elif options:
        raise ConfigurationError([("cluster_options", "they need a cluster, such as slurm")])
    count = len(recipes) if trials is None else trials * len(seeds)
    at_once = workers or (count if cluster else min(count, os.cpu_count() or 1))

    with _SweepDirectory.open(folder, described, resume=resume) as directory:
        directory.describe()
        result = Sweep(folder, points, [], "", False, search=search is not None)

        def train_points(first: int, bar: ProgressBar) -> None:
            """Train the points from the place `first` on, and bring their runs into the result."""
            own = _recipes(recipe, points[first:], seeds)
            jobs = [
                Job(folder / _name(points, first + i, search) / f"seed-{seed}", recipe, cluster, options)
                for (i, seed), recipe in own.items()
            ]
            cure = f"the sweep {folder} was interrupted; go on with --resume --out {folder}"
            result.failed |= run_jobs(jobs, at_once, bar, first * len(seeds), lambda: cure)
            for i in range(first, len(points)):
                paths = [folder / _name(points, i, search) / f"seed-{seed}" for seed in seeds]
                result.runs.append([Run(path) for path in paths if path not in result.failed])
            result.by, result.highest = _choice([run for same in result.runs for run in same], by, highest)

        with ProgressBar(count, quiet=quiet, label="run") as bar:
            ended = len(list(folder.glob("*/seed-*/weights.safetensors")))
            bar.begin(ended)
            if ended:
                bar.say(f"{ended} of {count} runs have ended before")
            if search is None:
                train_points(0, bar)
            else:
                _run_search(search, result, train_points, bar)
        result.files = _write(result)
    return result


def _run_search(
    search: Search, result: Sweep, train_points: Callable[[int, ProgressBar], None], bar: ProgressBar
) -> None:
    """Train the points of a search, round by round; a point that was proposed before is not trained again."""
    while proposed := search.propose():
        first = len(result.points)
        result.points += [point for i, point in enumerate(proposed) if point not in [*result.points, *proposed[:i]]]
        if result.points[first:]:
            train_points(first, bar)
        values = result.values()
        sign = -1 if result.highest else 1
        found = [values[result.points.index(point)] for point in proposed]
        search.report([None if estimate is None else sign * estimate.value for estimate in found])


def values_of(text: str) -> list[str]:
    """The values of a setting on the command line: divided at commas that no bracket or quotation encloses.

    Examples:
        >>> values_of("2,8,32")
        ['2', '8', '32']
        >>> values_of("[10,30],[20]")
        ['[10,30]', '[20]']
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "[{(") - (letter in "]})") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


class _SweepDirectory(RunDirectory):
    """The folder of a sweep, held while it runs."""

    @property
    def recipe_file(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def how_to_go_on(self) -> str:
        return "go on with the same command and --resume"

    def describe(self) -> None:
        """Write sweep.yaml."""
        self._write(self.recipe_file, yaml.safe_dump(self._recipe, sort_keys=False, allow_unicode=True))


def _check_keys(grid: Mapping[str, Sequence[Any] | str]) -> None:
    problems = [(key, "give at least one value, such as 2,8,32") for key, values in grid.items() if not len(values)]
    if "seed" in grid:
        problems.append(("seed", "seeds are given by --seeds (in Python seeds=3)"))
    if problems:
        raise ConfigurationError(problems)


def _points(grid: Mapping[str, Sequence[Any] | str]) -> list[Point]:
    """All combinations of the grid's values.

    Raises:
        ConfigurationError: if there are none, or too many, or a range without a search.
    """
    _check_keys(grid)
    ranges = [key for key, values in grid.items() if isinstance(values, str)]
    if ranges:
        cure = "a range is for a search: add --trials 20 (in Python trials=20), or list the values"
        raise ConfigurationError([(key, f"{cure} (given: {grid[key]})") for key in ranges])
    count = math.prod(len(values) for values in grid.values())
    if count > MOST_RUNS:
        raise ConfigurationError([("grid", f"it has {count} points; give at most {MOST_RUNS}")])
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _space(grid: Mapping[str, Sequence[Any] | str]) -> dict[str, Any]:
    """The choices of a search: lists of values, and ranges.

    Raises:
        ConfigurationError: if there are none, or a text that is not a range.
    """
    _check_keys(grid)
    return {key: parse_range(key, given) if isinstance(given, str) else list(given) for key, given in grid.items()}


def _recipes(recipe: Recipe, points: Sequence[Point], seeds: Sequence[int]) -> dict[tuple[int, int], Recipe]:
    """The recipe of each point and seed, validated.

    Raises:
        ConfigurationError: with the point that it is about.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigurationError([("seeds", "give at least one seed, each once")])
    own = recipe.own_parts()
    if own:
        text = "a sweep trains in other processes, which have only what a recipe.yaml holds"
        cure = "give a network or data set by name, or write the loop over latentia.train yourself"
        raise ConfigurationError([(name, f"{text}; {cure}") for name in own])
    found = {}
    for i, point in enumerate(points):
        for seed in seeds:
            try:
                mapping = apply_overrides(recipe.to_mapping(), {**point, "seed": seed})
                found[i, seed] = Recipe.parse({**mapping, "type": recipe.type_name})
            except ConfigurationError as error:
                where = ", ".join(f"{key}={_text(value)}" for key, value in point.items())
                raise ConfigurationError([(key, f"{text} (at {where})") for key, text in error.problems]) from None
    return found


def _name(points: Sequence[Point], place: int, search: Search | None) -> str:
    """The folder of a point: its settings, in letters that every file system takes, and distinct from all others."""
    if search is not None:
        return f"trial-{place + 1}"
    if not points[place]:
        return "recipe"  # no grid

    def spelled(point: Point) -> str:
        text = ",".join(f"{key}={_text(value)}" for key, value in point.items())
        return re.sub(r"[^\w.,=+-]+", "-", text)[:100]

    name = spelled(points[place])
    return name if [spelled(point) for point in points].count(name) == 1 else f"{name}-{place + 1}"


def _plain_values(values: Sequence[Any] | str) -> Any:
    return values if isinstance(values, str) else [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    return value.to_mapping() if isinstance(value, Component) else value


def _text(value: Any) -> str:
    value = getattr(value, "type_name", value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# Results


def _choice(runs: Sequence[Run[Any]], by: str | None, highest: bool | None) -> tuple[str, bool]:
    """The recorded value that chooses, and whether its highest value is the best.

    Raises:
        ConfigurationError: for a name that no run records.
    """
    names = [set(run.history) for run in runs]
    common = set.intersection(*names) if names else set()
    if by is not None and runs and by not in common:
        known = ", ".join(sorted(name for name in common if name.startswith("validation/"))) or ", ".join(
            sorted(common)
        )
        raise ConfigurationError([("by", f"the runs do not all record {by!r}; recorded: {known}. Go on with --resume")])
    name = by or next((known for known in (BOUND, COST) if known in common), "")
    return name, name.endswith("/bound") if highest is None else highest


def _last_value(runs: Sequence[Run[Any]], name: str) -> Estimate | None:
    """The last recorded value, or its mean over seeds with the standard error of that."""
    found = [[record for record in run.records if record["name"] == name] for run in runs]
    last = [records[-1] for records in found if records]
    if not last:
        return None
    values = [record["value"] for record in last]
    if len(values) == 1:
        return Estimate(values[0], name, last[0]["stderr"], kind=last[0].get("kind", "estimate"), method="validation")
    import torch

    return Estimate.mean(torch.tensor(values, dtype=torch.float64), name=name, method=f"mean over {len(values)} seeds")


def _ends(runs: Sequence[Run[Any]]) -> dict[str, Estimate]:
    """The estimates of the end of training by name; means over seeds where there are several."""
    if not runs:
        return {}
    found = runs[0].estimates if len(runs) == 1 else mean_over_seeds(runs)
    return {estimate.name: estimate for estimate in found}


def _write(result: Sweep) -> list[Path]:
    """Write the table and the picture."""
    files = []
    table = result.table()
    for name, text in (("table.csv", table.to_format("csv")), ("table.md", table.to_format("markdown"))):
        with atomic_write(result.path / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        files.append(result.path / name)
    if result.points[0] and any(found is not None for found in result.chosen):
        from latentia.reports.sweep_figures import save_search, save_sweep

        save = save_search if result.search else save_sweep
        files.append(save(result.points, result.chosen, result.by, result.path / "sweep.png"))
    return files


def require_ended(result: Sweep) -> None:
    """Raise where runs failed.

    Raises:
        RunError: with the number of runs and the cure.
    """
    if result.failed:
        first = next(iter(result.failed.values()))
        count = sum(map(len, result.runs)) + len(result.failed)
        raise RunError(
            f"{len(result.failed)} of {count} runs failed, the first: {first}; remove the cause and go on with "
            f"--resume --out {result.path}"
        )
