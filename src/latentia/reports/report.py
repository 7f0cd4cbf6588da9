"""One self-contained HTML page about some runs: pictures inside the file, no script, nothing from a network."""

from __future__ import annotations

__all__ = ["write_report"]

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from latentia.data import ToyDistribution
from latentia.data.decoding import DAMAGE
from latentia.errors import LatentiaError, RunError
from latentia.estimate import Estimate
from latentia.files import atomic_write
from latentia.models import GAN, VAE
from latentia.recipes import Run
from latentia.reports.comparison import Comparison, compare_runs, saved_scores
from latentia.reports.gallery import save_figures
from latentia.reports.tables import (
    REFERENCES,
    Scores,
    changed_settings,
    figures_of,
    last_records,
    representatives,
    scores_of,
    settings_text,
)
from latentia.reports.theory_report import relation_rows
from latentia.reports.words import group_of, label_of, score_label, value_text
from latentia.theory.model_checks import ModelCheck, checks_of
from latentia.training import seed_of, seeded

CHECKED = 1000  # examples that a GAN is checked on, at most
WIDE = 1.5  # width over height from which a picture takes the whole width of the page


@dataclass(frozen=True)
class _Figure:
    name: str
    caption: str
    data: str
    wide: bool


@dataclass(frozen=True)
class _Section:
    """What the template shows of one run."""

    anchor: str
    name: str
    path: str
    kind: str
    changed: dict[str, Any]
    recipe: str
    environment: dict[str, Any]
    latest: list[tuple[str, str, str]]
    estimates: dict[str, list[Estimate]]
    scores: dict[str, Scores]
    figures: list[_Figure]
    unmade: str
    checks: list[ModelCheck]
    unchecked: str


def write_report(runs: Sequence[Run], path: Path) -> Path:
    """Write a page about some runs, atomically, and return its path.

    For each run: recipe, environment, pictures, the last records of training and every estimate in `evaluation`, with
    its standard error, kind, method, number of draws and settings; scores of samples with those of real images and
    their protocol. For several runs there is first a table of all models by their saved results, and one of what else
    was measured on more than one. Pictures that are missing from the run's `figures`, or cannot be read, are made
    again; those that cannot be made are named on the page.

    Args:
        runs: of a run that has not ended, or one with networks of the user's own that were not given, the records,
            estimates and existing pictures are shown.
        path: of the page.

    Raises:
        RunError: for no runs, a damaged recipe or environment, or a page that cannot be written.
    """
    if not runs:
        raise RunError("a report needs at least one run")
    sections = [_section(number, run) for number, run in enumerate(runs, 1)]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latentia.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["settings"] = settings_text
    models, why_not = _models(runs)
    page = environment.get_template("report.html").render(
        sections=sections,
        models=models,
        why_not=why_not,
        references=REFERENCES,
        label=label_of,
        score_label=score_label,
        group=group_of,
        value=value_text,
        relations=relation_rows,
        representatives=representatives,
        comparison=_comparison(sections, {row.name for row in models.rows} if models else set()),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a name may be no text
    return Path(path)


def _models(runs: Sequence[Run]) -> tuple[Comparison | None, str]:
    """The comparison of the models by their saved results, or why there is none."""
    if len(runs) < 2:
        return None, ""
    try:
        return compare_runs(runs, [saved_scores(run) for run in runs], strict=False), ""
    except RunError as error:
        return None, str(error)


def _section(number: int, run: Run) -> _Section:
    unmade, figures = _make_missing_figures(run), []
    for picture in figures_of(run):
        try:
            figures.append(_figure(picture))
        except RunError as error:
            unmade = f"{unmade}; {error}" if unmade else str(error)
    latest = [
        (label_of(name), str(Estimate(record["value"], stderr=record.get("stderr"), unit="1")), f"{record['epoch']:g}")
        for name, record in last_records(run.records).items()
    ]
    environment = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in run.environment.items()
    }
    files = run.directory.evaluations()
    scores = {name: found for name, found in ((name, scores_of(each)) for name, each in files.items()) if found}
    checks, unchecked = _checks(run)
    return _Section(
        anchor=f"run-{number}",
        name=run.path.resolve().name,
        path=str(run.path),
        kind=run.recipe.type_name,
        changed=changed_settings(run.recipe),
        recipe=run.recipe.to_yaml(),
        environment=environment,
        latest=latest,
        estimates={name: found for name, found in files.items() if name not in scores},
        scores=scores,
        figures=figures,
        unmade=unmade,
        checks=checks,
        unchecked=unchecked,
    )


def _checks(run: Run) -> tuple[list[ModelCheck], str]:
    """The theory checks that apply to this run's model, or why there are none."""
    data = run.recipe.data
    try:
        model, splits = run.model, run.splits
        with seeded(seed_of("checks", run.recipe.seed)):  # the same page each time
            if isinstance(model, VAE):
                return list(checks_of(model, splits.examples("test").x)), ""
            if isinstance(model, GAN):
                toy = data if isinstance(data, ToyDistribution) else None
                real = splits.examples("test", CHECKED, next(model.parameters()).device)
                return list(checks_of(model, real.x, toy=toy)), ""
    except LatentiaError as error:
        return [], str(error)
    return [], ""


def _make_missing_figures(run: Run) -> str:
    """Make the run's pictures again if there are none, or one is damaged; return why that failed, if it did."""
    found = figures_of(run)
    if found and all(map(_is_whole, found)):
        return ""
    try:
        save_figures(run)
    except LatentiaError as error:
        return str(error)
    return ""


def _is_whole(path: Path) -> bool:
    try:
        _figure(path)
    except RunError:
        return False
    return True


def _figure(path: Path) -> _Figure:
    """A picture with its caption: the description in the file, or words made of its name.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            picture.load()
            wide = picture.width > WIDE * picture.height
            caption = str(picture.info.get("Description", ""))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"cannot read the picture {path}: {reason}") from error
    data = base64.b64encode(content).decode("ascii")
    words = path.stem.replace("_", " ").replace("-", " ")
    snapshot = re.fullmatch(r"snapshot-epoch-(\d+)", path.stem)
    if snapshot:
        caption = f"Samples from the fixed noise after epoch {int(snapshot.group(1))}."
    return _Figure(words, caption or words[:1].upper() + words[1:] + ".", data, wide)


def _comparison(sections: Sequence[_Section], known: set[str]) -> list[tuple[str, str, list[Estimate | None]]]:
    """(name, method, one cell for each run) of each quantity that several runs have and that is not `known`."""
    cells: dict[tuple[str, str], dict[str, Estimate]] = {}
    for section in sections:
        for estimates in section.estimates.values():
            for estimate in estimates:
                cells.setdefault((estimate.name, estimate.method), {}).setdefault(section.anchor, estimate)
    return [
        (label_of(name), method, [found.get(section.anchor) for section in sections])
        for (name, method), found in cells.items()
        if len(found) > 1 and name not in known
    ]
