"""Pictures and tables of vectors and signals."""

import csv

import numpy as np
import pytest
import torch

import latentia
from latentia import VAERecipe
from latentia.data import Column, InMemory, Signals
from latentia.errors import ConfigurationError
from latentia.recipes.recipe import Recipe
from latentia.reports import save_figures
from latentia.reports.array_figures import plot_columns, plot_signals, table_text

COLUMNS = (Column("size"), Column("n", "count"), Column("city", "category", ("Oslo", "Rome")))
X = torch.tensor([[1.5, 2.0, 1.0], [float("nan"), 0.0, 0.0], [-0.5, 3.0, float("nan")]])


def lines_of(figure):
    return [axes.lines for axes in figure.axes if axes.get_visible()]


def test_a_signal_is_a_line_for_each_channel_and_its_reconstruction_another():
    signals = torch.arange(24.0).reshape(3, 2, 4)
    plain = lines_of(plot_signals(signals, "s"))
    assert [[line.get_ydata().tolist() for line in panel] for panel in plain] == signals.tolist()
    both = lines_of(plot_signals(signals, "s", signals + 1))
    assert [len(panel) for panel in both] == [4, 4, 4]
    assert both[2][3].get_ydata().tolist() == (signals[2, 1] + 1).tolist()


def test_densities_are_those_of_the_values_that_are_there():
    torch.manual_seed(0)
    real, made = torch.randn(4000, 3), torch.randn(4000, 3).round().clamp(0, 1)
    real[:, 1:] = made[:, 1:]
    real[::2, 0] = torch.nan
    axes = [axes for axes in plot_columns(real, made, COLUMNS, "t").axes if axes.get_visible()]
    assert [panel.get_title() for panel in axes] == ["size", "n", "city"]
    for panel in axes:
        for patch in panel.patches:
            values, edges, _ = patch.get_data()
            assert (values * np.diff(edges)).sum() == pytest.approx(1, abs=0.02)  # 1 % may lie beyond the axis
    assert [text.get_text() for text in axes[2].get_xticklabels()] == ["Oslo", "Rome"]


def test_a_table_is_written_with_names_and_without_what_is_missing():
    rows = list(csv.reader(table_text(X, COLUMNS).splitlines()))
    assert rows == [["size", "n", "city"], ["1.5", "2", "Rome"], ["", "0", "Oslo"], ["-0.5", "3", ""]]


def test_runs_of_tables_and_signals_have_the_pictures_that_suit_them(tmp_path):
    rng = np.random.default_rng(0)
    table = InMemory(data=rng.normal(size=(60, 12)))
    small = {"epochs": 1, "batch_size": 16, "network": {"type": "mlp", "hidden": [8]}}
    wanted = {"table": "samples reconstructions", "signals": "samples means reconstructions"}
    for name, data in (("table", table), ("signals", Signals(count=60))):
        run = latentia.train(VAERecipe(data=data, **small), tmp_path / name, quiet=True)
        names = {path.stem for path in save_figures(run)}
        assert names == {"curves", "encoded_test_set", *wanted[name].split()}
        page = latentia.report(run).read_text()
        assert all(name.replace("_", " ") in page for name in names)
        latentia.sample(run, 5, out=tmp_path / name / "s.png")
        x, again = latentia.reconstruct(run, 5, out=tmp_path / name / "r.png")
        assert x.shape == again.shape == (5, *run.environment["shape"])
    labeled = (rng.normal(size=(60, 3)), np.arange(60) % 2)
    recipe = Recipe.parse({"type": "conditional-vae", "data": labeled, **small})
    pictures = save_figures(latentia.train(recipe, tmp_path / "labels", quiet=True))
    assert {path.stem for path in pictures} == {"curves", "samples", "reconstructions"}
    drawn = latentia.sample(tmp_path / "table", 5, of="draws", out=tmp_path / "s.csv")
    read = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    assert np.allclose(read, drawn.numpy(), rtol=1e-6)
    with pytest.raises(ConfigurationError, match=r"F\.npz"):
        latentia.sample(tmp_path / "signals", 5, out=tmp_path / "s.csv")
