from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from latentia.data import Digits
from latentia.networks import MLP
from latentia.objectives import IWAE
from latentia.recipes import Run, VAERecipe, train
from latentia.reports import save_figures

SMALL = MLP(hidden=(32,))


@pytest.fixture(scope="session")
def plane_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Digits with z ∈ R²."""
    path = tmp_path_factory.mktemp("runs") / "plane"
    return train(VAERecipe(data=Digits(binarize="dynamic"), network=SMALL, epochs=3), path, quiet=True)


@pytest.fixture(scope="session")
def deep_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Digits with z ∈ R⁴, trained on IWAE."""
    path = tmp_path_factory.mktemp("runs") / "deep"
    recipe = VAERecipe(
        data=Digits(binarize="dynamic"), network=SMALL, epochs=2, latent=4, objective=IWAE(k=3), prior="mixture"
    )
    return train(recipe, path, quiet=True)


@pytest.fixture(scope="session")
def plane_pictures(plane_run: Run) -> list[Path]:
    """The pictures of `plane_run`, drawn."""
    return save_figures(plane_run)


@pytest.fixture(scope="session")
def deep_pictures(deep_run: Run) -> list[Path]:
    """The pictures of `deep_run`, drawn."""
    return save_figures(deep_run)


@pytest.fixture
def copy_of(tmp_path: Path):
    """A copy of a run that a test may spoil."""

    def copy(run: Run) -> Run:
        shutil.copytree(run.path, tmp_path / run.path.name)
        return Run(tmp_path / run.path.name)

    return copy
