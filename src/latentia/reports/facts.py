"""What is known of a run, in the order and words in which the terminal and the page both show it."""

from __future__ import annotations

__all__ = ["REALITY", "Scores", "estimates_by_file", "figures_of", "last_records", "scores_of", "settings_text"]

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentia.errors import RunError
from latentia.estimate import Estimate, read_estimates
from latentia.metrics import protocol_text
from latentia.recipes import Run

REALITY = {"real_vs_real": "real images", "train_vs_test": "training images"}  # in the place of samples
FIRST_FIGURES = (
    "curves",
    "samples",
    "reconstructions",
    "decoded_plane",
    "latent_slices",
    "encoded_test_set",
    "interpolations",
)


@dataclass(frozen=True)
class Scores:
    """Scores of samples.

    Attributes:
        rows: each figure, with what real images and training images get in the place of samples.
        protocols: on one line; several where they were made in several ways.
    """

    rows: list[tuple[Estimate, Estimate | None, Estimate | None]]
    protocols: list[str]


def scores_of(estimates: Sequence[Estimate]) -> Scores | None:
    """The scores among estimates, with those of real images beside them; None if any has no protocol."""
    if not estimates or not all("protocol" in estimate.settings for estimate in estimates):
        return None
    by_name = {estimate.name: estimate for estimate in estimates}
    rows = [
        (estimate, by_name.get(f"{name}/real_vs_real"), by_name.get(f"{name}/train_vs_test"))
        for name, estimate in by_name.items()
        if name.rpartition("/")[2] not in REALITY
    ]
    return Scores(rows, list(dict.fromkeys(protocol_text(estimate.settings["protocol"]) for estimate in estimates)))


def estimates_by_file(run: Run) -> dict[str, list[Estimate]]:
    """All estimates of a run, by the name of their file in `evaluation`, those of the end of training first.

    Raises:
        RunError: naming a file that does not hold a list of estimates.
    """
    paths = sorted(run.directory.evaluation.glob("*.json"), key=lambda path: (path.stem != "training", path.stem))
    found = {}
    for path in paths:
        try:
            found[path.stem] = read_estimates(path)
        except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} holds no list of estimates ({error}); remove it, or evaluate the run anew"
            ) from None
    return found


def figures_of(run: Run) -> list[Path]:
    """The run's pictures, those that tell most first, the others by name with their numbers in order."""

    def place(path: Path) -> tuple[Any, ...]:
        first = FIRST_FIGURES.index(path.stem) if path.stem in FIRST_FIGURES else len(FIRST_FIGURES)
        parts = re.split(r"(\d+)", path.stem)
        return (first, [(int(part), "") if part.isdigit() else (-1, part) for part in parts])

    return sorted(run.directory.figures.glob("*.png"), key=place)


def last_records(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The last record of every name whose value is a number, in order of first appearance."""
    return {str(record["name"]): record for record in records if not math.isnan(record["value"])}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings of an estimate on one line: `samples 10, stderr_over images`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(part) for part in value) + "]"
    return str(value)
