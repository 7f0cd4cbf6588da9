"""One table for all models: likelihood where there is one, the quality of samples, time and size.

Runs of one recipe that differ in their seed alone are one column, the mean over seeds with its standard error. The best
figure of a row is marked only where every other one is worse beyond the 95 % interval of the difference, taken seed by
seed where the columns share seeds, and only where all were made in one way: by one protocol, or one method on the same
data.
"""

from __future__ import annotations

__all__ = ["Comparison", "Row", "columns_of", "compare_runs", "saved_scores"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentia.errors import DataError, RunError
from latentia.estimate import Estimate, exact, read_estimates
from latentia.metrics import ModelScores, best_of, higher_is_better, protocol_text, require_comparable
from latentia.recipes import Run
from latentia.reports.facts import REALITY

SCORES = "samples"  # the file of evaluation/ that holds them
LIKELIHOODS = ("elbo", "log_likelihood")
COSTS = ("parameters", "time_to_train", "cpu_to_train")


@dataclass(frozen=True)
class Row:
    """One figure of all models.

    Attributes:
        figure: its name.
        cells: one for each column; None where a model has none.
        best: the column that is best, where that can be said.
        beside: the same figure of real and of training images, by the keys of `REALITY`.
        note: why the cells cannot be compared, where they cannot.
    """

    figure: str
    cells: tuple[Estimate | None, ...]
    best: int | None = None
    beside: Mapping[str, Estimate] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A table: names of columns, seeds of each, rows, and how the samples were scored."""

    names: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    protocol: str

    @property
    def reality(self) -> list[str]:
        """Which of `REALITY` any row has."""
        return [key for key in REALITY if any(key in row.beside for row in self.rows)]

    def estimates(self) -> list[Estimate]:
        """All figures as one list, each named `model: figure`, and then those of real images."""
        found = [
            cell.named(f"{name}: {row.figure}")
            for row in self.rows
            for name, cell in zip(self.names, row.cells, strict=True)
            if cell is not None
        ]
        return [*found, *(estimate for row in self.rows for estimate in row.beside.values())]


def saved_scores(run: Run) -> list[Estimate]:
    """What `latentia evaluate RUN --samples` wrote; nothing where it has not been run.

    Raises:
        RunError: for a damaged file.
    """
    path = run.directory.evaluation / f"{SCORES}.json"
    return read_estimates(path) if path.exists() else []


def columns_of(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs by column and seed: a column's name is the folder of its first run, or the one that holds all its seeds.

    Raises:
        RunError: for a run that is given twice, or two of one recipe and seed.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError("a run is given twice; name each once")
    by_recipe: dict[str, dict[int, Run]] = {}
    for run in runs:
        recipe = {key: value for key, value in run.recipe.to_mapping().items() if key != "seed"}
        of_seed = by_recipe.setdefault(repr(sorted(recipe.items())), {})
        if run.recipe.seed in of_seed:
            raise RunError(f"two runs of one recipe have the seed {run.recipe.seed}; {run.path} is one of them")
        of_seed[run.recipe.seed] = run
    groups = list(by_recipe.values())
    firsts = [_folder([run.path.resolve() for run in group.values()]) for group in groups]
    short = [path.name for path in firsts]
    names = [path.name if short.count(path.name) == 1 else f"{path.parent.name}/{path.name}" for path in firsts]
    return {
        name if names.count(name) == 1 else f"{name} {number}": group
        for number, (name, group) in enumerate(zip(names, groups, strict=True), 1)
    }


def _folder(paths: Sequence[Path]) -> Path:
    """What a column is named after: a run, or of seeds that were trained at once, …/seed-0 and so on, their folder."""
    together = len(paths) > 1 and len({path.parent for path in paths}) == 1
    return paths[0].parent if together and all(path.name.startswith("seed-") for path in paths) else paths[0]


def compare_runs(runs: Sequence[Run], scores: Sequence[Sequence[Estimate]], *, strict: bool = True) -> Comparison:
    """The table of some runs.

    Args:
        runs: any models.
        scores: of each run's samples, as `latentia.metrics.score` gives them.
        strict: refuse scores whose protocols differ; else such a row has a note and no best.

    Raises:
        RunError: see `columns_of`. DataError: naming what differs between two protocols.
    """
    columns = columns_of(runs)
    own = {id(run): list(found) for run, found in zip(runs, scores, strict=True)}
    table: dict[str, dict[str, dict[int, Estimate]]] = {}
    beside: dict[str, dict[str, Estimate]] = {}
    protocols: list[Mapping[str, Any]] = []
    for kind in (_likelihoods, lambda run: own[id(run)], _costs):
        for name, of_seed in columns.items():
            for seed, run in of_seed.items():
                for estimate in kind(run):
                    base, _, reality = estimate.name.rpartition("/")
                    protocols += [estimate.settings["protocol"]] if "protocol" in estimate.settings else []
                    if reality in REALITY:
                        beside.setdefault(base, {}).setdefault(reality, estimate)
                    else:
                        table.setdefault(estimate.name, {}).setdefault(name, {})[seed] = estimate
    rows = []
    for figure, by_name in table.items():
        entries = {name: ModelScores(name, by_seed) for name, by_seed in by_name.items()}
        best, note = _best(figure, list(entries.values()), [next(iter(columns[n].values())) for n in entries], strict)
        cells = tuple(entries[name].mean_over_seeds() if name in entries else None for name in columns)
        place = None if best is None else list(columns).index(best)
        rows.append(Row(figure, cells, place, beside.get(figure, {}), note))
    seeds = tuple(tuple(sorted(of_seed)) for of_seed in columns.values())
    words = ", ".join(dict.fromkeys(str(protocol.get("samples", "")) for protocol in protocols))
    protocol = protocol_text({**protocols[0], "samples": words}) if protocols else ""
    return Comparison(tuple(columns), seeds, tuple(rows), protocol)


def _best(figure: str, entries: Sequence[ModelScores], runs: Sequence[Run], strict: bool) -> tuple[str | None, str]:
    """The name of the best entry, or why there is none to name."""
    likelihood = figure.rpartition("/")[2] in LIKELIHOODS
    kinds = sorted({_scored(run) for run in runs}) if likelihood else []
    if len(kinds) > 1:
        return None, f"likelihoods of different data or distributions ({'; '.join(kinds)})"
    with_cards = [e for entry in entries for e in entry.by_seed.values() if "protocol" in e.settings]
    try:
        if with_cards:
            require_comparable(with_cards)  # seeds of one column as well, which become one mean
        place = best_of(entries, 1 if likelihood else higher_is_better(figure))
    except DataError as error:
        if strict:
            raise
        return None, str(error)
    if place is None:
        return None, ""
    if likelihood and not all(_surely_above(entries[place], other) for other in entries if other is not entries[place]):
        ways = sorted({f"{e.kind}, {e.method}, n = {e.n}" for entry in entries for e in entry.by_seed.values()})
        return None, f"found in different ways ({'; '.join(ways)})"
    return entries[place].name, ""


def _surely_above(first: ModelScores, second: ModelScores) -> bool:
    """Whether a larger figure is a better one: both found in one way, or one from below and the other not."""
    one, other = next(iter(first.by_seed.values())), next(iter(second.by_seed.values()))
    if one.n != other.n:
        return False
    if (one.kind, one.method) == (other.kind, other.method):
        return True
    return one.kind in ("exact", "lower bound") and other.kind in ("exact", "upper bound")


def _scored(run: Run) -> str:
    """What a likelihood of this run is a likelihood of, in words."""
    data: Any = run.recipe.data
    likelihood = getattr(getattr(run.recipe, "likelihood", None), "type_name", "")
    how = f"drawn with the seed {data.binarize_seed}" if data.binarize in ("dynamic", "static") else data.binarize
    return f"{data.type_name}, binarized: {how}, {likelihood}"


def _likelihoods(run: Run) -> list[Estimate]:
    """Bounds and likelihoods in evaluation/*.json; of several figures of one name an exact one, if there is one."""
    found: dict[str, Estimate] = {}
    for path in sorted(run.directory.evaluation.glob("*.json")):
        for estimate in read_estimates(path):
            before = found.get(estimate.name)
            if estimate.name.rpartition("/")[2] in LIKELIHOODS and not (before and before.kind == "exact"):
                found[estimate.name] = estimate
    return list(found.values())


def _costs(run: Run) -> list[Estimate]:
    """The number of parameters and the time to train."""
    found = [exact(float(run.environment["parameters"]), "parameters", unit="1", method="count")]
    seconds, method = run.environment.get("training_seconds"), "wall clock, summed over resumes"
    times = [float(record["seconds"]) for record in run.records if "seconds" in record]
    if seconds is None and len(times) > 1:  # a run of an older version: pauses before a resume count as well
        seconds, method = max(times) - min(times), "first to last record"
    if seconds is not None:
        found.append(Estimate(seconds, "time_to_train", unit="s", method=method))
    budget = run.directory.evaluation / "budget.json"
    return [*found, *(read_estimates(budget) if budget.exists() else [])]
