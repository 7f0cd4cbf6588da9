"""Sweeps: one recipe trained at every combination of some settings, with several seeds, in processes side by side.

    sweeps/beta/
      sweep.yaml                     the recipe, the grid and the seeds
      latent=2,objective.beta=0.5/   one folder for each point of the grid
        seed-0/ …                    ordinary run directories, with seed-0.log
      table.csv, table.md, sweep.png

A point is chosen by a value on validation data; values on test data are reported and choose nothing.
"""

from __future__ import annotations

__all__ = ["Sweep", "sweep"]

import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from latentia.configuration import Component, apply_overrides
from latentia.errors import ConfigurationError, Interrupted, RunError
from latentia.estimate import Estimate
from latentia.files import atomic_write
from latentia.recipes import Recipe, Run, mean_over_seeds
from latentia.reports.tables import Column, Table
from latentia.training import RunDirectory
from latentia.training.progress import ProgressBar
from latentia.training.run_directory import new_folder

Point = dict[str, Any]

BOUND, COST = "validation/bound", "validation/cost"
MOST_RUNS = 10_000
SHOWN = 4  # estimates of the end of training in the table
STOP_SECONDS = 60.0  # that interrupted runs have to save where they are


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
    """

    path: Path
    points: list[Point]
    runs: list[list[Run[Any]]]
    by: str
    highest: bool
    failed: dict[Path, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @cached_property
    def chosen(self) -> list[Estimate | None]:
        """The value that chooses, of each point: the last recorded one, or its mean over seeds."""
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
        title = f"{self.path}: {len(self.points)} points"
        return Table(columns, rows, title, notes, best, estimates=estimates)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __str__(self) -> str:
        return str(self.table())


def sweep(
    recipe: Recipe,
    grid: Mapping[str, Sequence[Any]],
    out: Path | str | None = None,
    *,
    seeds: int | Sequence[int] = 1,
    workers: int | None = None,
    by: str | None = None,
    highest: bool | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Sweep:
    """Train a recipe at every point of a grid of settings.

    Every recipe is validated before anything runs. Each run is trained in a process by itself, so that a failure costs
    one run; it is named in the table.

    Args:
        recipe: with the settings that stay.
        grid: values by dotted key, `{"latent": [2, 8], "objective.beta": [0.5, 1, 4]}`.
        out: the folder; by default a new one under runs/.
        seeds: of each point: their number, or a list.
        workers: runs at a time; as many as there are cores, and at most as many as there are runs, by default.
        by: the recorded value that chooses; the bound on validation data, else the cost on them, by default.
        highest: whether its highest value is the best; by default for bounds only.
        resume: go on with the sweep in `out`: what has ended stays, what has begun is resumed.
        quiet: show warnings alone.

    Raises:
        ConfigurationError: an empty grid, a key or value that the recipe does not have, a recipe with objects that only
            Python can give.
        RunError: a folder that is in use or holds something else.
        Interrupted: after Ctrl-C, with all runs saved.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    points = _points(grid)
    recipes = _recipes(recipe, points, seeds)
    workers = min(len(recipes), os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise ConfigurationError([("workers", f"give at least 1 (given: {workers})")])
    folder = new_folder(f"{recipe.default_name}-sweep") if out is None else Path(out)
    described = {"recipe": recipe.to_mapping(), "grid": {key: list(map(_plain, grid[key])) for key in grid}}
    described["seeds"] = seeds
    with _SweepDirectory.open(folder, described, resume=resume) as directory:
        directory.describe()
        jobs = [_Job(folder / _name(points, i) / f"seed-{seed}", own) for (i, seed), own in recipes.items()]
        failed = _run_all(jobs, workers, quiet)
        places = [[folder / _name(points, i) / f"seed-{seed}" for seed in seeds] for i in range(len(points))]
        runs = [[Run(path) for path in paths if path not in failed] for paths in places]
        name, up = _choice([run for same in runs for run in same], by, highest)
        result = Sweep(folder, points, runs, name, up, failed)
        result.files = _write(result)
    return result


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

    def describe(self) -> None:
        """Write sweep.yaml."""
        self._write(self.recipe_file, yaml.safe_dump(self._recipe, sort_keys=False, allow_unicode=True))


def _points(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    """All combinations of the grid's values.

    Raises:
        ConfigurationError: if there are none, or too many.
    """
    problems = [(key, "give at least one value, such as 2,8,32") for key, values in grid.items() if not len(values)]
    if "seed" in grid:
        problems.append(("seed", "seeds are given by --seeds (in Python seeds=3)"))
    if not grid:
        problems.append(("grid", "give at least one key with several values, such as latent=2,8,32"))
    if problems:
        raise ConfigurationError(problems)
    count = math.prod(len(values) for values in grid.values())
    if count > MOST_RUNS:
        raise ConfigurationError([("grid", f"it has {count} points; give at most {MOST_RUNS}")])
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


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


def _name(points: Sequence[Point], place: int) -> str:
    """The folder of a point: its settings, in letters that every file system takes, and distinct from all others."""

    def spelled(point: Point) -> str:
        text = ",".join(f"{key}={_text(value)}" for key, value in point.items())
        return re.sub(r"[^\w.,=+-]+", "-", text)[:100]

    name = spelled(points[place])
    return name if [spelled(point) for point in points].count(name) == 1 else f"{name}-{place + 1}"


def _plain(value: Any) -> Any:
    return value.to_mapping() if isinstance(value, Component) else value


def _text(value: Any) -> str:
    value = getattr(value, "type_name", value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# Running


@dataclass
class _Job:
    """One run to train."""

    path: Path
    recipe: Recipe
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    def start(self, threads: int) -> None:
        """Start the process that trains, or goes on; all that it prints goes to the log."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.with_name(f"{self.path.name}.yaml")
        with atomic_write(file) as temporary:
            temporary.write_text(self.recipe.to_yaml(), encoding="utf-8")
        begun = (self.path / "recipe.yaml").exists()
        code = "import sys; from latentia.sweeps import train_one; sys.exit(train_one(*sys.argv[1:]))"
        call = [sys.executable, "-c", code, str(file), str(self.path), "resume" if begun else "begin"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NO_COLOR": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                call, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )
        self.began = time.perf_counter()

    def reason(self) -> str:
        """The last line of the log that says what went wrong."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-20:]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")


def train_one(file: str, out: str, how: str) -> int:
    """Train a recipe from a file: what each process of a sweep does; returns its exit code."""
    from latentia.errors import LatentiaError
    from latentia.files import read_yaml
    from latentia.recipes import train

    try:
        recipe = Recipe.parse(read_yaml(Path(file), "run the sweep again"))
        train(recipe, out, resume=how == "resume")
    except Interrupted:
        return 130
    except (LatentiaError, OSError, MemoryError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 2
    return 0


def _run_all(jobs: Sequence[_Job], workers: int, quiet: bool) -> dict[Path, str]:
    """Train all that has not ended, so many at a time; returns why runs failed."""
    waiting = [job for job in jobs if not (job.path / "weights.safetensors").exists()]
    threads = max(1, (os.cpu_count() or 1) // workers)
    failed: dict[Path, str] = {}
    running: list[_Job] = []
    done = len(jobs) - len(waiting)
    with ProgressBar(len(jobs), quiet=quiet, label="run") as bar, _interruptible():
        bar.begin(done)
        if done:
            bar.say(f"{done} of {len(jobs)} runs have ended before")
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    job.start(threads)
                    running.append(job)
                time.sleep(0.05)
                for job in [job for job in running if job.process is not None and job.process.poll() is not None]:
                    running.remove(job)
                    done += 1
                    said = f"run {done}/{len(jobs)}  {job.path.parent.name}  {job.path.name}"
                    if job.process is not None and job.process.returncode == 0:
                        bar.say(f"{said}  {time.perf_counter() - job.began:.0f} s")
                    else:
                        failed[job.path] = job.reason()
                        bar.warn(f"{said} failed: {failed[job.path]}")
                    if bar.console.is_terminal:  # elsewhere the lines above say it
                        bar.advance(done, {})
        except KeyboardInterrupt:
            _stop(running, bar)
            place = jobs[0].path.parent.parent
            raise Interrupted(f"the sweep {place} was interrupted; go on with --resume --out {place}") from None
        except BaseException:
            _stop(running, bar)
            raise
    return failed


def _stop(running: Sequence[_Job], bar: ProgressBar) -> None:
    """Ask the processes to save and end, and kill those that do not."""
    alive = [job.process for job in running if job.process is not None and job.process.poll() is None]
    if alive:
        bar.say(f"waiting for {len(alive)} run{'s' if alive[1:] else ''} to save")
    for process in alive:
        process.terminate()
    end = time.monotonic() + STOP_SECONDS
    for process in alive:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM a KeyboardInterrupt inside the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    if any(found is not None for found in result.chosen):
        from latentia.reports.sweep_figures import save_sweep

        files.append(save_sweep(result.points, result.chosen, result.by, result.path / "sweep.png"))
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
