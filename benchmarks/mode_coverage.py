"""Which games cover the modes? {GAN, RpGAN} × {no penalty, R1, R1 and R2} on the grid or the ring, over several seeds.

    python benchmarks/mode_coverage.py --out runs/mode-coverage [--distribution grid] [--epochs 8] [--seeds 0 1 2 3 4]

The ablation of Huang et al. 2024 in small: networks, optimizers and the schedule of γ are those of
`mode_covering_gan`; only the loss (non-saturating, or its relativistic pairing) and the penalty change. A run that is
there already is read and not trained again, so an interrupted table goes on. Each figure is the mean over the seeds
with its standard error, by PacGAN's protocol with 2 500 samples a seed; a game *converged* on a seed if it found all
modes with a reverse KL below 0.1 nats. All seeds of a game are trained at once. `--json` prints the estimates instead.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from latentia import Estimate
from latentia.data import Grid, Ring, ToyDistribution
from latentia.diagnostics import mode_coverage
from latentia.diagnostics.mode_coverage import SAMPLES, perfect_coverage
from latentia.estimate import estimates_to_json
from latentia.objectives import R1, R1R2, NonSaturating, NoPenalty, Relativistic
from latentia.recipes import Run, mode_covering_gan, train_seeds

DISTRIBUTIONS = {"grid": Grid(), "ring": Ring()}
LOSSES = {"GAN": NonSaturating(), "RpGAN": Relativistic()}
PENALTIES = ("none", "R1", "R1 + R2")
FIGURES = ("found", "high_quality", "reverse_kl", "spread")
CONVERGED_BELOW = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--distribution", choices=DISTRIBUTIONS, default="grid")
    parser.add_argument("--epochs", type=int, default=8, help="of 1 000 steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    distribution = DISTRIBUTIONS[chosen.distribution]
    rows = {(loss, penalty): scores_of(chosen, loss, penalty) for loss in LOSSES for penalty in PENALTIES}
    perfect = {e.name.rpartition("/")[2]: e for e in perfect_coverage(distribution, SAMPLES)}
    modes = len(distribution.distribution().mixture_distribution.probs)
    estimates = []
    for (loss, penalty), scores in rows.items():
        converged = sum(s["found"] == modes and s["reverse_kl"] < CONVERGED_BELOW for s in scores)
        figures = [mean(f"{loss} {penalty} {name}", [s[name] for s in scores]) for name in FIGURES]
        estimates += [Estimate(converged, f"{loss} {penalty} converged", n=len(scores), unit="1"), *figures]
    if chosen.json:
        print(estimates_to_json(estimates))
        return
    print(f"{chosen.distribution}, {chosen.epochs} epochs of 1 000 steps, {len(chosen.seeds)} seeds\n")
    print("| game | penalty | converged | modes | high quality | reverse KL | width of modes |")
    print("|---|---|---|---|---|---|---|")
    width = 1 + len(FIGURES)
    for row, (loss, penalty) in enumerate(rows):
        converged, *figures = estimates[row * width : (row + 1) * width]
        cells = [loss, penalty, f"{converged.value:.0f} of {converged.n}", *(cell(e) for e in figures)]
        print(f"| {' | '.join(cells)} |")
    ideal = [f"{perfect[name].value:.4g}" if name in perfect else "1" for name in FIGURES]
    print(f"| a perfect model | | | {' | '.join(ideal)} |")


def scores_of(chosen: argparse.Namespace, loss: str, penalty: str) -> list[dict[str, float]]:
    """Train the seeds of one game, or read them, and score the samples of each."""
    distribution, out = (
        DISTRIBUTIONS[chosen.distribution],
        chosen.out / f"{chosen.distribution}-{loss}-{penalty.replace(' + ', '')}".lower(),
    )
    recipe = mode_covering_gan(distribution, epochs=chosen.epochs)
    strong = recipe.penalty
    assert isinstance(strong, R1R2)
    penalties = {"none": NoPenalty(), "R1": R1(gamma=strong.gamma, final=strong.final), "R1 + R2": strong}
    recipe = recipe.model_copy(update={"loss": LOSSES[loss], "penalty": penalties[penalty], "fresh_steps": 0})
    paths = [out / f"seed-{seed}" for seed in chosen.seeds]
    if not all((path / "weights.safetensors").exists() for path in paths):
        train_seeds(recipe, chosen.seeds, out, resume=out.exists(), quiet=True)
    return [score(Run(path), distribution, seed) for path, seed in zip(paths, chosen.seeds, strict=True)]


def score(run: Run, distribution: ToyDistribution, seed: int) -> dict[str, float]:
    """PacGAN's figures of one run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimates = {e.name: e for e in mode_coverage(run.model.sample(SAMPLES), distribution, perfect_repeats=0)}
    found = {name: estimates[f"modes/{name}"].value if f"modes/{name}" in estimates else math.nan for name in FIGURES}
    print(run.path, " ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)
    return found


def mean(name: str, values: list[float]) -> Estimate:
    """The mean over seeds, infinite where one of them is."""
    if len(values) > 1 and all(math.isfinite(value) for value in values):
        return Estimate.mean(torch.tensor(values, dtype=torch.float64), name=name, unit="1")
    finite = [value for value in values if math.isfinite(value)]
    settings = {"finite": len(finite), "mean_of_finite": sum(finite) / len(finite) if finite else "none"}
    value = values[0] if len(values) == 1 else math.inf
    return Estimate(value, name, n=len(values), unit="1", settings=settings)


def cell(estimate: Estimate) -> str:
    if estimate.stderr is not None:
        return f"{estimate.value:.4g} ± {estimate.stderr:.2g}"
    return f"{estimate.value:.4g}" if math.isfinite(estimate.value) else "∞"


if __name__ == "__main__":
    main()
