"""The pictures of a sweep and of a search: the value that chooses, over the settings."""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentia.estimate import Estimate
from latentia.reports.style import class_color, class_marker, label_axes, new_figure, save_figure

MOST_LINES = 10


def save_sweep(points: Sequence[Mapping[str, Any]], values: Sequence[Estimate | None], name: str, path: Path) -> Path:
    """Plot a value with its standard error over the first key, with a line for each combination of the other keys.

    Args:
        points: the settings of each point.
        values: of each point; None where no run has ended.
        name: of the value.
        path: of the PNG.
    """
    first, *others = points[0]
    places = list(dict.fromkeys(_label(point[first]) for point in points))
    numbers = _numbers([point[first] for point in points])
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for point, value in zip(points, values, strict=True):
        if value is not None:
            x = numbers[_label(point[first])] if numbers else float(places.index(_label(point[first])))
            label = ", ".join(f"{key} = {_label(point[key])}" for key in others)
            lines.setdefault(label, []).append((x, value.value, value.stderr or 0.0))
    figure = new_figure(height=3.6)
    axes = figure.add_subplot()
    shown = list(lines.items())[:MOST_LINES]
    for i, (label, found) in enumerate(shown):
        x, y, error = zip(*sorted(found), strict=True)
        style: Any = {"color": class_color(i), "marker": class_marker(i), "linestyle": "-" if numbers else "none"}
        axes.errorbar(x, y, yerr=error, label=label, capsize=2, linewidth=1, markersize=4, **style)
    if numbers:
        if min(numbers.values()) > 0 and max(numbers.values()) >= 10 * min(numbers.values()):
            axes.set_xscale("log")
        axes.set_xticks(sorted(numbers.values()), [_label(x) for x in sorted(set(numbers.values()))])
        axes.minorticks_off()
    else:
        axes.set_xticks(range(len(places)), places)
    label_axes(axes, x=first, y=name)
    if others:
        axes.legend(frameon=False, fontsize="small")
    left_out = f"; {len(lines) - MOST_LINES} of {len(lines)} lines are left out" if len(lines) > MOST_LINES else ""
    return save_figure(figure, path, f"{name} ± its standard error (over seeds where there are several){left_out}")


def save_search(points: Sequence[Mapping[str, Any]], values: Sequence[Estimate | None], name: str, path: Path) -> Path:
    """Plot the value at the points of a search over each key, with later points darker.

    Args:
        points: the settings of each point, in the order in which they were proposed.
        values: of each point; None where no run has ended.
        name: of the value.
        path: of the PNG.
    """
    found = [
        (i, point, value) for i, (point, value) in enumerate(zip(points, values, strict=True)) if value is not None
    ]
    keys = list(points[0])
    columns = min(3, len(keys))
    figure = new_figure(height=3.2 * -(-len(keys) // columns))
    panels = figure.subplots(-(-len(keys) // columns), columns, squeeze=False, sharey=True).ravel()
    for axes, key in zip(panels, keys, strict=False):
        numbers = _numbers([point[key] for _, point, _ in found])
        places = list(dict.fromkeys(_label(point[key]) for _, point, _ in found))
        for i, point, value in found:
            label = _label(point[key])
            x = numbers[label] if numbers else places.index(label)
            color = class_color(0)
            alpha = 0.3 + 0.7 * (i + 1) / len(points)
            axes.errorbar(x, value.value, yerr=value.stderr or 0.0, color=color, alpha=alpha, marker="o", markersize=4)
        if not numbers:
            axes.set_xticks(range(len(places)), places)
        elif min(numbers.values()) > 0 and max(numbers.values()) >= 10 * min(numbers.values()):
            axes.set_xscale("log")
        label_axes(axes, x=key, y=name if axes is panels[0] else "")
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    return save_figure(figure, path, f"{name} ± its standard error at {len(found)} points; the later, the darker")


def _label(value: Any) -> str:
    value = getattr(value, "type_name", value)
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _numbers(values: Sequence[Any]) -> dict[str, float]:
    """The values as numbers by their labels; empty if one is not a number."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {}
    return {_label(value): float(value) for value in values}
