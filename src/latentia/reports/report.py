"""One page of HTML about some runs, whole in itself: pictures inside the file, no script, nothing from a network."""

from __future__ import annotations

__all__ = ["write_report"]

import base64
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from latentia.data import ToyDistribution
from latentia.errors import LatentiaError, RunError
from latentia.estimate import Estimate
from latentia.models import GAN, VAE
from latentia.recipes import Run
from latentia.recipes.reality import reality_of
from latentia.reports.changes import changed_settings
from latentia.reports.comparison import Comparison, compare_runs, saved_scores
from latentia.reports.facts import (
    REALITY,
    Scores,
    estimates_by_file,
    figures_of,
    last_records,
    scores_of,
    settings_text,
)
from latentia.reports.gallery import draw_all
from latentia.reports.theory_report import relation_rows
from latentia.theory.model_checks import ModelCheck, checks_of

CHECKED = 1000  # examples that a GAN is checked on, at most
WIDE = 1.5  # width over height from which a picture takes the whole width of the page
CAPTIONS = {
    "curves": "Terms of the objective against the epoch.",
    "samples": "Samples from the model.",
    "reconstructions": "Test images over their reconstructions.",
    "decoded_plane": "The decoded plane: each image stands for an equal share of the prior's mass.",
    "latent_slices": "Slices through the latent space, along the dimensions in which the encoded images differ most.",
    "encoded_test_set": "Means of q(z|x) of the test set, with the regions of the prior.",
    "interpolations": "Straight lines between the encoded means of two test images.",
}


@dataclass(frozen=True)
class _Figure:
    name: str
    caption: str
    data: str
    wide: bool


@dataclass(frozen=True)
class _Section:
    """What the template says of one run."""

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
    checks: list[ModelCheck]
    unchecked: str


def write_report(runs: Sequence[Run], path: Path) -> Path:
    """Write a page about some runs, atomically, and return its path.

    For each run: recipe, environment, pictures, the last records of training and every estimate in `evaluation`, with
    its standard error, kind, method, number of draws and settings; scores of samples beside those of real images, under
    their protocol. Before them, where there are several runs, the table of all models by what was saved of them, and one of
    what else was measured on more than one. The pictures are those in the run's `figures`; a run without any gets them
    drawn.

    Raises:
        RunError: for no runs at all, a run that has not ended, damaged files, or a page that cannot be written.
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
        reality=REALITY,
        relations=relation_rows,
        comparison=_comparison(sections, {row.figure for row in models.rows} if models else set()),
    )
    path = Path(path)
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(page, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise RunError(f"could not write the report {path}: {error}") from error
    return path


def _models(runs: Sequence[Run]) -> tuple[Comparison | None, str]:
    """The table of models by what was saved of them, or why there is none."""
    if len(runs) < 2:
        return None, ""
    try:
        return compare_runs(runs, [saved_scores(run) for run in runs], strict=False), ""
    except RunError as error:
        return None, str(error)


def _section(number: int, run: Run) -> _Section:
    if not figures_of(run):
        draw_all(run)
    latest = [
        (name, str(Estimate(record["value"], stderr=record.get("stderr"), unit="1")), f"{record['epoch']:g}")
        for name, record in last_records(run.records).items()
    ]
    environment = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in run.environment.items()
    }
    files = estimates_by_file(run)
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
        figures=[_figure(picture) for picture in figures_of(run)],
        checks=checks,
        unchecked=unchecked,
    )


def _checks(run: Run) -> tuple[list[ModelCheck], str]:
    """The theory checks that concern this run's model, or why there are none."""
    data = run.recipe.data
    try:
        model = run.model
        if isinstance(model, VAE):
            images = data.prepare_fixed(run.splits.test, "test")  # pyright: ignore[reportArgumentType]
            return list(checks_of(model, images)), ""
        if isinstance(model, GAN):
            toy = data if isinstance(data, ToyDistribution) else None
            real = reality_of(run.splits, data, next(model.parameters()).device).some("test", CHECKED)
            return list(checks_of(model, real.x, toy=toy)), ""
    except LatentiaError as error:
        return [], str(error)
    return [], ""


def _figure(path: Path) -> _Figure:
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        with Image.open(path) as picture:
            wide = picture.width > WIDE * picture.height
    except OSError as error:  # Pillow's complaint about a damaged file is one as well
        raise RunError(f"cannot read the picture {path}: {error}") from error
    words = path.stem.replace("_", " ").replace("-", " ")
    return _Figure(words, CAPTIONS.get(path.stem, words[:1].upper() + words[1:] + "."), data, wide)


def _comparison(sections: Sequence[_Section], known: set[str]) -> list[tuple[str, str, list[Estimate | None]]]:
    """(name, method, one cell for each run) of each figure that several runs have, but for those known already."""
    cells: dict[tuple[str, str], dict[str, Estimate]] = {}
    for section in sections:
        for estimates in section.estimates.values():
            for estimate in estimates:
                cells.setdefault((estimate.name, estimate.method), {}).setdefault(section.anchor, estimate)
    return [
        (name, method, [found.get(section.anchor) for section in sections])
        for (name, method), found in cells.items()
        if len(found) > 1 and name not in known
    ]
