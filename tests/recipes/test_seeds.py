"""`train_seeds` from the outside: run directories like any others, resumed to the same bits, with errors that help."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from latentia import models
from latentia.data import Digits, Ring
from latentia.distributions import MixturePrior
from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate
from latentia.networks import DCGAN, MLP
from latentia.objectives import ELBO, R1R2, Relativistic
from latentia.recipes import (
    AdversarialAutoencoderRecipe,
    GANRecipe,
    Recipe,
    Run,
    VAERecipe,
    load,
    mean_over_seeds,
    train,
    train_seeds,
)
from latentia.recipes.train import seeds_in
from latentia.training import SGD, Adam, Cosine

SEEDS = [4, 1]
GAME = GANRecipe(
    data=Ring(),
    latent=2,
    network=MLP(hidden=(16, 16), activation="leaky-relu"),
    loss=Relativistic(),
    penalty=R1R2(every=3),
    generator_optimizer=Adam(lr=1e-3, schedule=Cosine()),
    batch_size=16,
    epochs=3,
    steps_per_epoch=4,
    record_every=3,
    checkpoint_every=0.5,
    checkpoints=99,
    snapshots=(2,),
    fresh_steps=10,
    accelerator="cpu",
)
PICTURES = GANRecipe(
    data=Digits(), network=DCGAN(width=4), batch_size=400, epochs=2, fresh_steps=0, checkpoints=99, accelerator="cpu"
)
VAE = VAERecipe(
    data=Digits(binarize="dynamic"),
    network=MLP(hidden=(32,)),
    batch_size=64,
    epochs=2,
    ema=0.9,
    checkpoint_every=0.3,
    checkpoints=99,
)
RECIPES = {"game": GAME, "pictures": PICTURES, "vae": VAE}


@pytest.fixture(scope="module", params=RECIPES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    out = tmp_path_factory.mktemp("seeds") / request.param
    train_seeds(RECIPES[request.param], SEEDS, out, quiet=True)
    return RECIPES[request.param], out


def kept(run: Run) -> list[list[Any]]:
    return [[record[key] for key in ("step", "epoch", "name", "value", "stderr", "kind")] for record in run.records]


def test_each_seed_leaves_an_ordinary_run(trained: tuple[Recipe, Path], tmp_path: Path):
    recipe, out = trained
    alone = train(recipe.model_copy(update={"seed": 4}), tmp_path / "alone", quiet=True)
    for seed in SEEDS:
        run = Run(out / f"seed-{seed}")
        assert run.recipe == recipe.model_copy(update={"seed": seed})
        assert run.splits.content_hash == alone.splits.content_hash
        assert {p.name for p in run.path.iterdir()} == {p.name for p in alone.path.iterdir()}
        assert {p.name for p in run.directory.figures.glob("*")} == {p.name for p in alone.directory.figures.glob("*")}
        assert [r["name"] for r in run.records] == [r["name"] for r in alone.records]
        assert [r["step"] for r in run.records] == [r["step"] for r in alone.records]
        assert [e.name for e in run.estimates] == [e.name for e in alone.estimates]
        own = ("seed", "training_seconds", "recipe_hash")  # the recipes differ by the seed
        same = {key: alone.environment[key] for key in alone.environment if key not in own}
        assert run.environment["training_seconds"] > 0
        assert {key: run.environment[key] for key in same} == same
        assert (run.environment["seed"], run.environment["trained_with_seeds"]) == (seed, SEEDS)
        assert load(run.path).sample(3).shape == alone.model.sample(3).shape
    weights = [Run(out / f"seed-{seed}").directory.weights() for seed in SEEDS]
    assert not any(
        torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True) if a.dim() > 1
    )
    assert seeds_in(out) == SEEDS
    assert seeds_in(alone.path) is None


def test_killed_seeds_resume_to_the_same_bits(trained: tuple[Recipe, Path], tmp_path: Path):
    recipe, out = trained
    killed = tmp_path / "killed"
    shutil.copytree(out, killed)
    checkpoints = sorted((killed / "checkpoints").iterdir())
    assert len(checkpoints) > 2
    for late in checkpoints[len(checkpoints) // 2 :]:
        shutil.rmtree(late)
    for seed in SEEDS:
        (killed / f"seed-{seed}" / "weights.safetensors").unlink()
    runs = train_seeds(recipe, SEEDS, killed, resume=True, quiet=True)
    for seed, run in zip(SEEDS, runs, strict=True):
        whole = Run(out / f"seed-{seed}")
        for name, value in whole.directory.weights().items():
            assert torch.equal(value, run.directory.weights()[name]), name
        assert kept(run) == kept(whole)
        assert [e.to_json() for e in run.estimates] == [e.to_json() for e in whole.estimates]


def test_a_finished_seed_goes_on_by_itself_from_where_it_ended(trained: tuple[Recipe, Path], tmp_path: Path):
    recipe, out = trained
    seed = SEEDS[1]
    shutil.copytree(out / f"seed-{seed}", tmp_path / "one")
    before = Run(tmp_path / "one")
    weights, records = before.directory.weights(), kept(before)
    run = train(recipe.model_copy(update={"seed": seed}), tmp_path / "one", resume=True, quiet=True)
    assert kept(run) == records
    for name, value in run.directory.weights().items():
        assert torch.equal(value, weights[name]), name


def test_a_seed_alone_is_its_single_run_where_nothing_is_drawn(tmp_path: Path):
    still = VAERecipe(
        data=Digits(binarize="threshold"),
        posterior={"type": "fixed", "scale": 1e-6},  # type: ignore[arg-type]
        network=MLP(hidden=(32,)),
        batch_size=64,
        epochs=2,
        optimizer=SGD(lr=0.01, momentum=0.5),
        accelerator="cpu",
    )
    together = train_seeds(still, [2, 5], tmp_path / "seeds", quiet=True)
    for run in together:
        alone = train(run.recipe, tmp_path / f"alone-{run.recipe.seed}", quiet=True)
        for name, value in alone.directory.weights().items():
            torch.testing.assert_close(run.directory.weights()[name], value, rtol=1e-3, atol=1e-5)
        for mine, theirs in zip(run.records, alone.records, strict=True):
            assert (mine["step"], mine["name"]) == (theirs["step"], theirs["name"])
            assert mine["value"] == pytest.approx(theirs["value"], rel=1e-4, abs=1e-4)


def test_distributions_of_runs_are_those_of_single_ones(tmp_path: Path):
    recipe = VAE.model_copy(update={"checkpoints": 2, "checkpoint_every": 99.0})
    together = mean_over_seeds(train_seeds(recipe, range(4), tmp_path / "seeds", quiet=True))
    singles = [
        train(recipe.model_copy(update={"seed": seed}), tmp_path / str(seed), quiet=True) for seed in range(10, 14)
    ]
    for a, b in zip(together, mean_over_seeds(singles), strict=True):
        assert a.name == b.name
        assert a.kind == b.kind
        assert a.n == 4
        assert a.agrees_with(b), f"{a.name}: {a} and {b}"


def test_the_mean_over_seeds():
    class Made:
        def __init__(self, *values: float):
            self.estimates = [Estimate(value, f"figure {n}", unit="1") for n, value in enumerate(values)]

    (found,) = mean_over_seeds([Made(1.0, 5.0), Made(3.0)])  # type: ignore[list-item]
    assert (found.name, found.value, found.n, found.unit) == ("figure 0", 2.0, 2, "1")
    assert found.stderr == pytest.approx(1.0)


REFUSED = [
    ({}, [], "at least one seed"),
    ({}, [1, 1], "each once"),
    ({}, [-1], "from 0"),
    ({"devices": 2}, [0, 1], "devices=1"),
    ({"clip": 1.0}, [0, 1], "clip=null"),
    ({"keep": "best"}, [0, 1], "keep=last"),
    ({"objective": {"type": "elbo", "free_bits": 0.1}}, [0, 1], "mixes the examples"),
]


@pytest.mark.parametrize(("changes", "seeds", "words"), REFUSED)
def test_what_cannot_be_trained_at_once(changes: dict[str, Any], seeds: list[int], words: str, tmp_path: Path):
    recipe = VAERecipe(
        **{
            "data": Digits(binarize="dynamic"),
            "network": MLP(hidden=(8,)),
            "epochs": 1,
            "accelerator": "cpu",
            **changes,
        }
    )
    with pytest.raises(ConfigurationError, match=words):
        train_seeds(recipe, seeds, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use(trained: tuple[Recipe, Path], tmp_path: Path):
    recipe, out = trained
    with pytest.raises(RunError, match="latentia resume"):
        train_seeds(recipe, SEEDS, out, quiet=True)
    with pytest.raises(RunError, match="seeds: "):
        train_seeds(recipe, [0, 1], out, resume=True, quiet=True)
    with pytest.raises(RunError, match="epochs: "):
        train_seeds(recipe.model_copy(update={"epochs": 9}), SEEDS, out, resume=True, quiet=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        train_seeds(recipe, SEEDS, tmp_path / "other", quiet=True)
    with pytest.raises(RunError, match=r"recipe\.yaml"):
        Run(out)


def test_seeds_from_before_a_key_was_there_go_on(trained: tuple[Recipe, Path], tmp_path: Path):
    recipe, out = trained
    old = shutil.copytree(out, tmp_path / "old")
    for file in (old / "seeds.yaml", *(old / f"seed-{seed}" / "recipe.yaml" for seed in SEEDS)):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.startswith(("matmul:", "clip:"))))
    assert [run.path.name for run in train_seeds(recipe, SEEDS, old, resume=True, quiet=True)] == ["seed-4", "seed-1"]
    with pytest.raises(RunError, match=r"recipe \(matmul: 'auto' there, 'high' here\)"):
        train_seeds(recipe.model_copy(update={"matmul": "high"}), SEEDS, old, resume=True, quiet=True)


def test_a_cost_that_is_not_finite_names_its_seed(tmp_path: Path):
    wild = VAE.model_copy(update={"optimizer": SGD(lr=1e6)})
    with pytest.raises(RunError, match=r"cost@\d|@\d+"):
        train_seeds(wild, [0, 1], tmp_path / "wild", quiet=True)


def test_the_caller_gets_its_random_state_back_and_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    quick = VAE.model_copy(update={"epochs": 1})
    first, second = (train_seeds(quick, [0], quiet=True)[0] for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert [run.path for run in (first, second)] == [
        Path("runs/vae-digits-seeds/seed-0"),
        Path("runs/vae-digits-seeds-2/seed-0"),
    ]
    assert isinstance(first.model, models.VAE)


def test_the_codes_of_an_adversarial_autoencoder_are_judged_for_each_seed(tmp_path: Path):
    recipe = AdversarialAutoencoderRecipe(
        data=Digits(binarize="dynamic"),
        network=MLP(hidden=(8,)),
        discriminator=MLP(hidden=(8,)),
        epochs=1,
        batch_size=512,
    )
    runs = train_seeds(recipe, [0, 1], tmp_path / "runs", quiet=True)
    assert [estimate.name for estimate in mean_over_seeds(runs)] == ["test/elbo", "test/rate", "test/distortion"]
    learned = {"prior": MixturePrior(), "objective": ELBO(kl="monte-carlo")}
    with pytest.raises(ConfigurationError, match=r"prior_module\..*one by one"):
        train_seeds(recipe.model_copy(update=learned), [0, 1], tmp_path / "learned", quiet=True)


def test_half_precision_serves_too(tmp_path: Path):
    runs = train_seeds(VAE.model_copy(update={"precision": "bf16-mixed"}), [0, 1], tmp_path / "half", quiet=True)
    assert all(run.estimates for run in runs)


def test_the_code_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    page = (Path(__file__).parents[2] / "docs" / "several-seeds.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "several-seeds.md", "exec"), {})
    assert "test/elbo" in capsys.readouterr().out
    assert (tmp_path / "runs/three/seed-2/weights.safetensors").exists()


def test_seeds_killed_before_they_began_are_begun_again(tmp_path: Path):
    for seed in SEEDS:
        (tmp_path / "runs" / f"seed-{seed}").mkdir(parents=True)
        (tmp_path / "runs" / f"seed-{seed}" / ".lock").write_text("")
    assert [run.status for run in train_seeds(VAE, SEEDS, tmp_path / "runs", quiet=True)] == ["ended", "ended"]
    (tmp_path / "other" / "inner").mkdir(parents=True)
    (tmp_path / "other" / "inner" / "notes.txt").write_text("")
    with pytest.raises(RunError, match="not empty"):
        train_seeds(VAE, SEEDS, tmp_path / "other", quiet=True)
