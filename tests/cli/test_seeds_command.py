"""`latentia train … --seeds`, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentia.cli.runs import _seeds
from latentia.recipes import Run

from .test_commands import latentia

TOY = ["data=ring", "latent=2", "network.hidden=[8]", "epochs=1", "steps_per_epoch=4", "batch_size=8", "fresh_steps=0"]


def test_several_seeds_by_one_command(tmp_path: Path):
    result = latentia("train", "gan", *TOY, "--seeds", "1,4", "--out", "ring", "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "mean of 2 seeds" in result.stdout
    for seed in (1, 4):
        run = Run(tmp_path / "ring" / f"seed-{seed}")
        assert run.recipe.seed == seed
        assert list(run.directory.figures.glob("*.png"))
        assert latentia("sample", f"ring/seed-{seed}", "-n", "5", "--out", "s.npz", cwd=tmp_path).returncode == 0
    again = latentia("train", "gan", "--out", "ring", "--resume", "--quiet", cwd=tmp_path)  # all seeds are found there
    assert again.returncode == 0, again.stderr
    assert "mean of 2 seeds" in again.stdout
    in_use = latentia("train", "gan", *TOY, "--seeds", "2", "--out", "ring", cwd=tmp_path)
    assert in_use.returncode != 0
    assert "latentia resume" in in_use.stderr


def test_seeds_in_words() -> None:
    assert [_seeds(text, []) for text in ("3", "0,7", "1")] == [[0, 1, 2], [0, 7], [0]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--seeds", "a,b"), "0,3,7"),
        (("--seeds", "5,"), "0,3,7"),
        (("--seeds", "0,1", "seed=3"), "leave seed"),
        (("--seeds", "0"), "at least one"),
    ],
)
def test_seeds_that_make_no_sense(more: tuple[str, ...], words: str, tmp_path: Path):
    result = latentia("train", "gan", *TOY, *more, "--out", "ring", cwd=tmp_path)
    assert result.returncode != 0
    assert words in result.stderr
    assert not (tmp_path / "ring").exists()


def test_runs_of_images_are_compared_as_one_column(tmp_path: Path):
    small = ["data=digits", "data.binarize=dynamic", "network.hidden=[16]", "epochs=1"]
    result = latentia("train", "vae", *small, "--seeds", "2", "--out", "vae", "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = latentia(
        "compare", "vae/seed-0", "vae/seed-1", "-n", "150", "--no-real-vs-real", "--metrics", "frechet", cwd=tmp_path
    )
    assert table.returncode == 0, table.stderr
    assert "2 seeds" in table.stdout
