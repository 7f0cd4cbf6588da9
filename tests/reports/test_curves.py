from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from latentia.errors import RunError
from latentia.reports import plot_curves
from latentia.reports.curve_figures import MOST_POINTS, _thinned


def record(name, epoch, value, stderr=0.1):
    return {"name": name, "epoch": epoch, "value": value, "stderr": stderr}


def lines_of(figure):
    return {
        axes.get_title(): {line.get_label(): line.get_xydata() for line in axes.lines}
        for axes in figure.axes
        if axes.lines
    }


def test_each_term_has_a_panel_and_each_reporter_a_line():
    records = [
        record(f"{who}/{term}", e, e + len(term))
        for e in (1, 2)
        for who in ("vae", "validation")
        for term in ("rate", "odd_term")
    ]
    found = lines_of(plot_curves(records, lines={"vae": "training"}))
    assert len(found) == 2
    assert list(found["odd term"]) == ["training", "validation"]
    assert found["odd term"]["training"].tolist() == [[1, 9], [2, 10]]


def test_costs_of_two_players_share_a_panel():
    records = [
        record(f"{who}/cost", e, value * e)
        for e in (1, 2, 3)
        for who, value in (("generator", 1), ("discriminator", 2))
    ]
    figure = plot_curves(records, units={"cost": "nats"})
    found = lines_of(figure)
    assert found["Cost"]["discriminator"].tolist() == [[1, 2], [2, 4], [3, 6]]
    assert figure.axes[0].get_ylabel() == "nats"


def test_nats_stand_on_the_axes_of_a_bound():
    figure = plot_curves([record("vae/bound", e, -e) for e in (1, 2)])
    assert figure.axes[0].get_ylabel() == "nats"
    assert figure.axes[0].get_xlabel() == "epoch"


def test_a_cost_that_mirrors_the_bound_is_left_out_and_another_is_not():
    bound = [record("vae/bound", e, -e) for e in (1, 2)]
    assert set(lines_of(plot_curves([*bound, *(record("vae/cost", e, e) for e in (1, 2))]))) == {
        r"Bound of $\log\,p(x)$"
    }
    assert "Cost" in lines_of(plot_curves([*bound, *(record("vae/cost", e, 2 * e) for e in (1, 2))]))


def test_names_without_a_reporter_are_shown():
    assert list(lines_of(plot_curves([record("speed", e, e) for e in (1, 2)]))) == ["speed"]


def test_no_title_leaves_the_figure_or_runs_into_the_next():
    terms = (
        "validation/reconstruction_error",
        "discriminator/certified_lower_bound_of_the_divergence",
        "discriminator/loss",
    )
    figure = plot_curves([record(name, e, e) for name in terms for e in (1, 2)])
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.x1
    assert all(box.y1 <= figure.bbox.y1 for box in boxes)


def test_bands_are_one_standard_error():
    figure = plot_curves([record("vae/rate", e, 5.0, 0.5) for e in (1, 2, 3)])
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (4.5, 5.5)


def test_values_that_are_not_finite_break_the_line_and_nothing_else():
    figure = plot_curves([record("vae/rate", e, value) for e, value in enumerate([1.0, math.inf, 3.0, 4.0])])
    values = lines_of(figure)[figure.axes[0].get_title()]["training"][:, 1]
    assert np.isnan(values[1])
    assert np.isfinite(np.delete(values, 1)).all()
    figure.canvas.draw()


def test_axes_ignore_the_start_of_a_run_and_the_figure_says_so():
    steep = [record("vae/rate", e, 1000.0 if e == 1 else 5 + 0.01 * e, 0.0) for e in range(1, 51)]
    figure = plot_curves(steep)
    assert figure.axes[0].get_ylim()[1] < 10
    assert "first tenth" in figure.get_supxlabel()
    gentle = plot_curves([record("vae/rate", e, float(e), 0.0) for e in range(1, 51)])
    assert gentle.axes[0].get_ylim()[0] <= 1
    assert gentle.get_supxlabel() == ""


def test_thinning_keeps_means_and_the_error_of_a_mean():
    rng = np.random.default_rng(0)
    values = np.stack([np.arange(4000.0), rng.normal(size=4000), np.full(4000, 0.3)], axis=1)
    thin = _thinned(values)
    assert len(thin) == MOST_POINTS
    assert thin[:, 1] == pytest.approx(values[:, 1].reshape(-1, 10).mean(1))
    assert thin[:, 2] == pytest.approx(0.3 / math.sqrt(10))
    assert _thinned(values[:MOST_POINTS]) is not None
    assert len(_thinned(values[:MOST_POINTS])) == MOST_POINTS


def test_nothing_recorded_is_an_error():
    with pytest.raises(RunError, match="nothing was recorded"):
        plot_curves([])
