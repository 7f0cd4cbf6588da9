"""One table for all models: likelihood where a model has one, the quality of samples, time and size.

Runs of one recipe that differ only in their seed are one column, the mean over seeds with its standard error. The best
value of a row is marked only where every other one is worse beyond the 95 % interval of the difference, taken seed by
seed where the columns share seeds, and only where all were made in the same way: by one protocol, or one method on the
same data.
"""

from __future__ import annotations

__all__ = ["Comparison"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentia.data import ToyDistribution
from latentia.errors import DataError, RunError
from latentia.estimate import Estimate, exact
from latentia.metrics import ModelScores, best_of, higher_is_better, protocol_text, require_comparable
from latentia.recipes import Run
from latentia.reports.tables import REFERENCES, Column, Format, Results, Table, score_notes
from latentia.reports.words import ASPECTS, count_text, group_of, score_label, shared_unit, value_text

SCORES = "samples"  # the file of evaluation/ that holds them
LIKELIHOODS = ("elbo", "log_likelihood", "conditional_elbo", "conditional_log_likelihood")


@dataclass(frozen=True)
class Row:
    """One quantity of all models.

    Attributes:
        name: of the quantity, as in its estimates.
        cells: one for each column; None where a model has none.
        best: the column that is best, where that is known.
        references: the same quantity of real and of training images, by the keys of `REFERENCES`.
        note: why the cells cannot be compared, where they cannot.
    """

    name: str
    cells: tuple[Estimate | None, ...]
    best: int | None = None
    references: Mapping[str, Estimate] = field(default_factory=dict)
    note: str = ""

    @property
    def unit(self) -> str:
        """The unit of all cells, or "1" if each carries its own."""
        return shared_unit([cell for cell in self.cells if cell is not None])


@dataclass(frozen=True)
class Comparison:
    """Names of columns, seeds of each, rows, and how the samples were scored."""

    names: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    protocol: str

    @property
    def references(self) -> list[str]:
        """Which of `REFERENCES` any row has."""
        return [key for key in REFERENCES if any(key in row.references for row in self.rows)]

    def table(self) -> Table:
        """The comparison as a table: a column for each model, the best of a row in bold."""
        columns = [
            Column("quantity"),
            *(
                Column(name if len(seeds) == 1 else f"{name} ({len(seeds)} seeds)", right=True)
                for name, seeds in zip(self.names, self.seeds, strict=True)
            ),
            *(Column(REFERENCES[key], right=True, faint=True) for key in self.references),
        ]
        rows = []
        for row in self.rows:
            unit = row.unit
            cells = ["—" if cell is None else value_text(cell, unit=unit == "1") for cell in row.cells]
            known = [row.references.get(key) for key in self.references]
            others = ["" if cell is None else value_text(cell, unit=unit == "1") for cell in known]
            rows.append([score_label(row.name, unit), *cells, *others])
        best = frozenset((i, row.best + 1) for i, row in enumerate(self.rows) if row.best is not None)
        notes = score_notes([self.protocol] if self.protocol else [], self.references)
        notes.append("bold: every other model is worse beyond the 95 % interval of the difference")
        notes += [
            f"{label}: not ranked, {row.note}" for (label, *_), row in zip(rows, self.rows, strict=True) if row.note
        ]
        for (label, *_), row in zip(rows, self.rows, strict=True):
            single = [cell for cell, seeds in zip(row.cells, self.seeds, strict=True) if cell and len(seeds) == 1]
            counts = sorted({cell.n for cell in single if cell.n is not None})
            of_images = row.name.rpartition("/")[2] in LIKELIHOODS  # two rows of one run may be of different images
            if len(counts) > (0 if of_images else 1) and not row.note:
                notes.append(f"{label}: n is {', '.join(map(count_text, counts))}")
        title = f"{len(self.names)} model{'s' * (len(self.names) > 1)}"
        return Table(columns, rows, title, notes, best, self.estimates(), [group_of(row.name) for row in self.rows])

    def results(self) -> Results:
        """The comparison as results with one table."""
        return Results(self.estimates(), [self.table()])

    def to_format(self, name: Format) -> str:
        """The table as text, csv, markdown or latex."""
        return self.table().to_format(name)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def estimates(self) -> list[Estimate]:
        """All numbers as one list, each named `model: quantity`, and then those of real and training images."""
        found = [
            cell.named(f"{name}: {row.name}")
            for row in self.rows
            for name, cell in zip(self.names, row.cells, strict=True)
            if cell is not None
        ]
        return [*found, *(estimate for row in self.rows for estimate in row.references.values())]


def saved_scores(run: Run, sampler: str = "") -> list[Estimate]:
    """What `latentia evaluate RUN --samples` wrote; nothing if it has not been run, or if the file is damaged."""
    return run.directory.evaluations().get(f"{SCORES}-{sampler}" if sampler else SCORES, [])


def columns_of(runs: Sequence[Run], samplers: Sequence[str] | None = None) -> dict[str, dict[int, Run]]:
    """Runs by column and seed: a column's name is the folder of its first run, or the one that contains all its seeds.

    Args:
        runs: in any order.
        samplers: the name of each run's sampler; empty for its prior.

    Raises:
        RunError: for a run that is given twice, or two of one recipe and seed.
    """
    samplers = samplers or [""] * len(runs)
    if len({(run.path.resolve(), sampler) for run, sampler in zip(runs, samplers, strict=True)}) < len(runs):
        raise RunError("a run is given twice; give each once")
    by_recipe: dict[tuple[str, str], dict[int, Run]] = {}
    for run, sampler in zip(runs, samplers, strict=True):
        recipe = {key: value for key, value in run.recipe.to_mapping().items() if key != "seed"}
        of_seed = by_recipe.setdefault((repr(sorted(recipe.items())), sampler), {})
        if run.recipe.seed in of_seed:
            raise RunError(f"two runs of one recipe have the seed {run.recipe.seed}; {run.path} is one of them")
        of_seed[run.recipe.seed] = run
    groups = list(by_recipe.values())
    firsts = [_folder([run.path.resolve() for run in group.values()]) for group in groups]
    short = [path.name for path in dict.fromkeys(firsts)]
    names = [path.name if short.count(path.name) == 1 else f"{path.parent.name}/{path.name}" for path in firsts]
    names = [f"{name} + {s}" if s else name for name, (_, s) in zip(names, by_recipe, strict=True)]
    return {
        name if names.count(name) == 1 else f"{name} {number}": group
        for number, (name, group) in enumerate(zip(names, groups, strict=True), 1)
    }


def _folder(paths: Sequence[Path]) -> Path:
    """What gives a column its name: a run, or the folder of seeds trained at once (…/seed-0 and so on)."""
    together = len(paths) > 1 and len({path.parent for path in paths}) == 1
    return paths[0].parent if together and all(path.name.startswith("seed-") for path in paths) else paths[0]


def compare_runs(
    runs: Sequence[Run],
    scores: Sequence[Sequence[Estimate]],
    samplers: Sequence[str] | None = None,
    *,
    strict: bool = True,
) -> Comparison:
    """Compare some runs.

    Args:
        runs: any models.
        scores: of each run's samples, as `latentia.metrics.score` gives them.
        samplers: the name of each run's sampler; empty for its prior.
        strict: refuse scores whose protocols differ; else such a row has a note and no best.

    Raises:
        RunError: see `columns_of`.
        DataError: naming what differs between two protocols.
    """
    samplers = samplers or [""] * len(runs)
    columns = columns_of(runs, samplers)
    own = {(id(run), sampler): list(found) for run, sampler, found in zip(runs, samplers, scores, strict=True)}
    table: dict[str, dict[str, dict[int, Estimate]]] = {}
    references: dict[str, dict[str, Estimate]] = {}
    protocols: list[Mapping[str, Any]] = []
    for kind in (_likelihoods, lambda run, sampler: own[id(run), sampler], _costs):
        for name, of_seed in columns.items():
            sampler = name.partition(" + ")[2]
            for seed, run in of_seed.items():
                for estimate in kind(run, sampler):
                    base, _, reference = estimate.name.rpartition("/")
                    protocols += [estimate.settings["protocol"]] if "protocol" in estimate.settings else []
                    if reference in REFERENCES:
                        references.setdefault(base, {}).setdefault(reference, estimate)
                    else:
                        table.setdefault(estimate.name, {}).setdefault(name, {})[seed] = estimate
    rows = []
    for quantity, by_name in table.items():
        entries = {name: ModelScores(name, by_seed) for name, by_seed in by_name.items()}
        best, note = _best(quantity, list(entries.values()), [next(iter(columns[n].values())) for n in entries], strict)
        cells = tuple(entries[name].mean_over_seeds() if name in entries else None for name in columns)
        place = None if best is None else list(columns).index(best)
        rows.append(Row(quantity, cells, place, references.get(quantity, {}), note))
    rows.sort(key=lambda row: ASPECTS.index(group_of(row.name)))
    seeds = tuple(tuple(sorted(of_seed)) for of_seed in columns.values())
    words = ", ".join(dict.fromkeys(str(protocol.get("samples", "")) for protocol in protocols))
    protocol = protocol_text({**protocols[0], "samples": words}) if protocols else ""
    return Comparison(tuple(columns), seeds, tuple(rows), protocol)


def _best(quantity: str, entries: Sequence[ModelScores], runs: Sequence[Run], strict: bool) -> tuple[str | None, str]:
    """The name of the best entry, or why there is none."""
    likelihood = quantity.rpartition("/")[2] in LIKELIHOODS
    kinds = sorted({_scored(run) for run in runs}) if likelihood else []
    if len(kinds) > 1:
        return None, f"likelihoods of different data or distributions ({'; '.join(kinds)})"
    with_protocol = [e for entry in entries for e in entry.by_seed.values() if "protocol" in e.settings]
    try:
        if with_protocol:
            require_comparable(with_protocol)  # seeds of one column as well, which become one mean
        place = best_of(entries, 1 if likelihood else higher_is_better(quantity))
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
    """Whether a larger value means a larger truth: both found in one way, or the first from below and the other not."""
    one, other = next(iter(first.by_seed.values())), next(iter(second.by_seed.values()))
    if one.n != other.n:
        return False
    if (one.kind, one.method) == (other.kind, other.method):
        return True
    return (one.is_two_sided or one.kind == "lower bound") and (other.is_two_sided or other.kind == "upper bound")


def _scored(run: Run) -> str:
    """What the likelihoods of this run refer to, in words."""
    data: Any = run.recipe.data
    likelihood = getattr(getattr(run.recipe, "likelihood", None), "type_name", "")
    if isinstance(data, ToyDistribution):
        return f"{data.type_name}, {likelihood}"
    how = f"drawn with the seed {data.binarize_seed}" if data.binarize in ("dynamic", "static") else data.binarize
    return f"{data.type_name}, binarized: {how}, {likelihood}"


def _likelihoods(run: Run, sampler: str = "") -> list[Estimate]:
    """Bounds and likelihoods in evaluation/*.json; of one name a value before a bound, else that of most images."""
    found: dict[str, Estimate] = {}

    def rank(estimate: Estimate) -> tuple[bool, int]:
        return estimate.is_two_sided, estimate.n or 0

    for estimates in run.directory.evaluations().values():
        for estimate in estimates:
            before = found.get(estimate.name)
            if estimate.settings.get("sampler", {}).get("type", "") != sampler:
                continue
            if estimate.name.rpartition("/")[2] in LIKELIHOODS and (before is None or rank(estimate) >= rank(before)):
                found[estimate.name] = estimate
    return list(found.values())


def _costs(run: Run, sampler: str = "") -> list[Estimate]:  # noqa: ARG001
    """The number of parameters and the time to train."""
    found = [exact(float(run.environment["parameters"]), "parameters", unit="1", method="count")]
    seconds, method = run.environment.get("training_seconds"), "wall clock, summed over resumes"
    times = [float(record["seconds"]) for record in run.records if "seconds" in record]
    if seconds is None and len(times) > 1:  # without a recorded time; pauses before a resume count too
        seconds, method = max(times) - min(times), "first to last record"
    if seconds is not None:
        found.append(Estimate(seconds, "time_to_train", unit="s", method=method))
    return [*found, *run.directory.evaluations().get("budget", [])]
