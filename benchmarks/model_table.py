"""One table for VAEs, GANs and their hybrids on one data set, at an equal budget of CPU time, several seeds each.

    python benchmarks/model_table.py OUT                                    MNIST, 120 s a run, three seeds
    python benchmarks/model_table.py OUT --data digits --seconds 3          in two minutes, to see it work

*The budget.* Each model is first trained for a moment to measure the CPU time that an epoch takes; the epochs of its
runs are as many as fit in `--seconds`. So every schedule ends where the run ends, and all seeds of a model are one
recipe. Both the epochs chosen and the CPU time that they came to (`cpu_to_train`: of the training loop, with its
validation and checkpoints, without loading and without the figures of the end) stand in the table.

*Order.* One process at a time, on `--threads` threads. Whatever is finished is not done again: stop it and start it
anew at will. Samples are scored by one protocol, of VAEs the means of p(x|z); likelihoods are of the first `--limit`
test images, by quadrature where z is in the plane and by importance sampling elsewhere.

Written are OUT/table.md, OUT/table.json (a list of estimates) and OUT/commands.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ONE_CYCLE = ("optimizer.lr=2e-3", "optimizer.schedule=one-cycle")
ADAM = ("rate=5e-4", "beta1=0.5", "beta2=0.99", "schedule=cosine", "schedule.final=0.05")
ADVERSARIES = tuple(f"{player}_optimizer.{setting}" for player in ("generator", "discriminator") for setting in ADAM)
GAME = (
    "network=dcgan",
    "network.width=16",
    "precision=bf16-mixed",
    "ema=0.995",
    "batch_size=64",
    "penalty=r1",
    "penalty.gamma=0.1",
    "penalty.every=16",
)
DCGAN = (
    *GAME,
    "latent=32",
    "network.norm=batch",
    "fresh_steps=0",
    "diagnostics_every=1000000",
    *ADVERSARIES,
)
MODELS: dict[str, tuple[str, ...]] = {
    "vae-2": ("vae", "latent=2", *ONE_CYCLE),
    "vae-20": ("vae", "latent=20", *ONE_CYCLE),
    "iwae-20": ("vae", "latent=20", "objective=iwae", "objective.k=10", *ONE_CYCLE),
    "gan-nonsaturating": ("gan", "loss=nonsaturating", *DCGAN),
    "gan-relativistic": ("gan", "loss=relativistic", *DCGAN),
    "vae-gan": (
        "vae-gan",
        *GAME,
        "latent=20",
        "discriminator=dcgan",
        "discriminator.width=16",
        "discriminator.norm=none",
        *(f"{player}.{setting}" for player in ("optimizer", "discriminator_optimizer") for setting in ADAM),
    ),
}
SMALL = ("network=mlp", "network.hidden=[128, 128]", "batch_size=64")  # in the place of DCGAN on 8×8 digits
DCGAN_ONLY = ("network.width", "network.norm", "precision", "network=", "discriminator.", "discriminator=")
PILOT_SECONDS = 4.0


def settings_of(name: str, data: str) -> list[str]:
    """The words after `latentia train`."""
    recipe, *settings = MODELS[name]
    if data == "digits" and "network=dcgan" in settings:
        settings = [s for s in settings if not s.startswith(DCGAN_ONLY)] + [*SMALL]
        settings = list({s.partition("=")[0]: s for s in settings}.values())
    binarized = ["data.binarize=dynamic"] if recipe == "vae" else []
    every = ["checkpoint_every=1000000", "record_every=200"]
    return [recipe, f"data={data}", *binarized, *settings, *every]


def recipe_of(words: Sequence[str], **changes: Any) -> Any:
    from latentia.configuration import apply_overrides, parse_overrides
    from latentia.recipes import Recipe

    name, *settings = words
    base = Recipe.members()[name]().to_mapping()
    return Recipe.parse({**apply_overrides(base, parse_overrides(settings)), "type": name, **changes})


def timed_fit() -> list[float]:
    """Have the training loop's CPU time put into the list that this returns."""
    import latentia.recipes.train as module

    fit, spent = module.fit, []

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        outcome = fit(*arguments, **options)
        spent.append(time.process_time() - began)
        return outcome

    module.fit = timed
    return spent


def pilot(words: Sequence[str], folder: Path, seconds: float) -> dict[str, float]:
    """CPU seconds of an epoch, from runs of one epoch and of about as many as fit in a part of the budget."""
    from latentia.recipes import train

    spent, epochs = timed_fit(), 1
    for attempt in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        # steps alone are measured: a run that validates rarely pays for it once in all
        train(recipe_of(words, epochs=epochs, seed=12345), folder, quiet=True)
        enough = min(PILOT_SECONDS, seconds / 2)
        if attempt or spent[-1] >= enough:
            break
        epochs = max(2, math.ceil(enough / spent[-1]))
    shutil.rmtree(folder)
    rate = spent[-1] / epochs
    return {"seconds_per_epoch": rate, "pilot_epochs": epochs, "epochs": max(1, round(seconds / rate))}


def train_one(words: Sequence[str], epochs: int, seed: int, folder: Path) -> None:
    """Train a run and leave the CPU time of its loop beside its figures."""
    from latentia.estimate import Estimate, write_estimates
    from latentia.recipes import train

    spent = timed_fit()
    run = train(recipe_of(words, epochs=epochs, seed=seed), folder, quiet=True)
    cost = Estimate(spent[0], "cpu_to_train", unit="s", method="process time of the training loop")
    count = Estimate(float(epochs), "epochs", unit="1", kind="exact", method="from a timed pilot")
    write_estimates(run.directory.evaluation / "budget.json", [cost, count])


def in_a_process(options: argparse.Namespace, *arguments: str) -> str:
    """Run this program, or the command, by itself, so that no run's memory or threads weigh on another's."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
    done = subprocess.run(arguments, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(arguments)}\n{done.stderr}")
    return done.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "latentia.cli", *arguments]


def likelihood_of(name: str, limit: int) -> list[str] | None:
    if not name.startswith(("vae-2", "iwae")):
        return None
    if name == "vae-2":
        return ["--likelihood", "exact", "--limit", str(limit), "--gaps", "0"]
    return ["--likelihood", "importance", "--draws", "1000", "--limit", str(limit)]


def make_runs(options: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Train and evaluate all that is not there yet; the runs and the commands that make them."""
    paths, commands = [], []
    for name in options.models:
        words = settings_of(name, options.data)
        plan_file = options.out / "pilots" / f"{name}.json"
        if not plan_file.exists():
            say(f"{name}: a pilot")
            plan = in_a_process(options, *this("pilot", name, options))
            plan_file.parent.mkdir(parents=True, exist_ok=True)
            plan_file.write_text(plan.strip().splitlines()[-1] + "\n")
        plan = json.loads(plan_file.read_text())
        for seed in options.seeds:
            path = options.out / "runs" / f"{name}-seed{seed}"
            paths.append(path)
            train = [*words, f"epochs={plan['epochs']}", f"seed={seed}", "--out", str(path)]
            steps = [train_step(path, name, seed, plan, options), evaluate_step(path, name, options)]
            commands.append(shlex.join(["latentia", "train", *train]))
            for done, run, shown in steps:
                commands += [shown] if shown else []
                if not done():
                    say(f"{path.name}: {shown or 'train'} ({plan['epochs']} epochs)")
                    run()
    return paths, commands


Step = tuple[Callable[[], bool], Callable[[], Any], str]


def train_step(path: Path, name: str, seed: int, plan: dict[str, Any], options: argparse.Namespace) -> Step:
    def run() -> None:
        if (path / "recipe.yaml").exists():  # half a run, whose CPU time nobody knows
            shutil.rmtree(path)
        more = ["--epochs", str(plan["epochs"]), "--seed", str(seed), "--folder", str(path)]
        in_a_process(options, *this("train", name, options), *more)

    return (path / "evaluation" / "budget.json").exists, run, ""


def evaluate_step(path: Path, name: str, options: argparse.Namespace) -> Step:
    words = ["--samples", *(["--metrics", ",".join(options.metrics)] if options.metrics else []), "--no-pictures"]
    likelihood = likelihood_of(name, options.limit)
    files = ["samples.json", *([f"likelihood-{likelihood[1]}.json"] if likelihood else [])]
    words += likelihood or []
    return (
        lambda: all((path / "evaluation" / file).exists() for file in files),
        lambda: in_a_process(options, *command("evaluate", str(path), *words, "--json")),
        shlex.join(["latentia", "evaluate", str(path), *words]),
    )


def this(step: str, name: str, options: argparse.Namespace) -> list[str]:
    words = [str(options.out), "--data", options.data, "--seconds", str(options.seconds), "--models", name]
    return [sys.executable, __file__, *words, "--step", step]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def table_of(paths: Sequence[Path]) -> tuple[str, str]:
    """The table as markdown, and all its estimates as JSON."""
    from dataclasses import replace

    from latentia.estimate import estimates_to_json
    from latentia.recipes import Run
    from latentia.reports.comparison import compare_runs, saved_scores

    runs = [Run(path) for path in paths]
    found = compare_runs(runs, [saved_scores(run) for run in runs])
    found = replace(found, names=tuple(name.rpartition("-seed")[0] or name for name in found.names))
    seeds = sorted({len(seeds) for seeds in found.seeds})
    words = f"Mean over {' or '.join(map(str, seeds))} seeds ± its standard error."
    return f"{found.table().to_format('markdown')}\n{words}\n", estimates_to_json(found.estimates()) + "\n"


def main() -> None:
    from latentia.recipes import Recipe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="mnist", choices=("mnist", "digits"))
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of each run's training loop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[n for n in MODELS if n in known(Recipe)])
    parser.add_argument("--metrics", nargs="*", default=[], help="as in `latentia evaluate --metrics`")
    parser.add_argument("--limit", type=int, default=2000, help="test images for likelihoods")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", choices=("pilot", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        words = settings_of(options.models[0], options.data)
        if options.step == "train":
            train_one(words, options.epochs, options.seed, options.folder)
        else:
            print(json.dumps(pilot(words, options.out / "pilots" / options.models[0], options.seconds)))
        return
    paths, commands = make_runs(options)
    markdown, estimates = table_of(paths)
    (options.out / "table.md").write_text(markdown, encoding="utf-8")
    (options.out / "table.json").write_text(estimates, encoding="utf-8")
    (options.out / "commands.txt").write_text("\n".join(commands) + "\n", encoding="utf-8")
    print(markdown)
    print(f"{options.out / 'table.json'}, {options.out / 'commands.txt'}")


def known(recipes: Any) -> list[str]:
    """The models whose recipe there is."""
    return [name for name, words in MODELS.items() if words[0] in recipes.members()]


if __name__ == "__main__":
    main()
