"""How time and memory grow: with rows of data, image size, latent size, batch, seeds, images evaluated, processes.

    .venv/bin/python benchmarks/growth.py --json growth.json --picture growth.png     (two to three minutes of CPU time)
    .venv/bin/python benchmarks/growth.py --only rows seeds --large                    (ten times the data, and longer)

Each curve is a process on one thread. Time is CPU time, the median of laps, so that other work on the machine changes
little; memory is the peak of the resident memory beyond what was resident before the point. An exponent is the slope of
the logarithms over the upper half of a curve, with its standard error. With processes, time is the wall time of a step
of the whole run: on a machine with other work it says little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from memory import forget_peak, status

WHY = {
    "rows": "a step reads its batch and no more; memory holds eight bytes for each row (its place in the order)",
    "image": "a fully connected layer has a weight for each pixel, and so have Adam's two moments",
    "latent": "the layers next to z grow with it, the wide ones next to the image do not",
    "batch": "products, gradients and losses are sums over the batch; Adam's part is the same for each step",
    "seeds": "arithmetic grows with the seeds, the number of operations does not",
    "evaluated": "each image has nodes of its own; the decoder at shared nodes is computed once for all",
    "processes": "each process computes its share of the batch, and all sum the gradients and step alike",
}
POINTS = {
    "rows": [1_000, 10_000, 100_000, 1_000_000],
    "image": [16, 28, 64, 128],
    "latent": [2, 8, 32, 128, 512],
    "batch": [16, 64, 256, 1024],
    "seeds": [1, 2, 4, 8, 16, 32],
    "evaluated": [32, 128, 512],
    "processes": [1, 2],
}
LAPS, WARM_UP = 9, 3


def step_of(recipe: Any, seeds: list[int] | None = None) -> Callable[[], object]:
    """One step of the engine by a recipe, without records and checkpoints."""
    from latentia.recipes.train import build_games
    from latentia.training import RunDirectory, loop, start_worker
    from latentia.training.loop import TrainState

    worker = start_worker(recipe)
    game, _ = build_games(recipe, seeds, recipe.data.load(), worker)
    game.model.train()
    state = TrainState(game, recipe, RunDirectory(Path(tempfile.mkdtemp())), worker)

    return lambda: loop._step(state, stop=False)


def timed(action: Callable[[], object]) -> float:
    """CPU seconds of a call: the median of laps."""
    laps = []
    for number in range(WARM_UP + LAPS):
        began = time.process_time()
        action()
        if number >= WARM_UP:
            laps.append(time.process_time() - began)
    return statistics.median(laps)


def vae(**settings: Any) -> Any:
    """The VAE of the training curves: small, on the digits if no data are given."""
    from latentia.data import Digits
    from latentia.networks import MLP
    from latentia.recipes import VAERecipe

    return VAERecipe(
        **{"data": Digits(binarize="dynamic"), "network": MLP(hidden=(256,)), "accelerator": "cpu", **settings}
    )


def rows(count: int) -> float:
    """A step of a VAE on images that are made on the fly and streamed by this process."""
    from synthetic import Synthetic

    data = Synthetic(gigabytes=count * 3 * 64 * 64 / 1e9, workers=0, validation=0, binarize="dynamic")
    return timed(step_of(vae(data=data, batch_size=64, latent=8)))


def image(side: int) -> float:
    """A step of a fully connected VAE on random images, side × side."""
    import torch

    x = torch.randint(0, 2, (256, 1, side, side), generator=torch.Generator().manual_seed(0)).float()
    return timed(step_of(vae(data=x, batch_size=64)))


def latent(size: int) -> float:
    """A step of the VAE of the digits with so many latent dimensions."""
    return timed(step_of(vae(latent=size)))


def batch(size: int) -> float:
    """A step of the VAE of the digits with a batch of this size."""
    return timed(step_of(vae(batch_size=size)))


def seeds(count: int) -> float:
    """A step of the GAN of the ring for so many seeds at once."""
    from latentia.data import Ring
    from latentia.networks import MLP
    from latentia.recipes import GANRecipe

    recipe = GANRecipe(data=Ring(), latent=2, network=MLP(hidden=(64, 64)), accelerator="cpu")
    return timed(step_of(recipe, list(range(count)) if count > 1 else None))


def evaluated(count: int) -> float:
    """Exact log p(x) of so many digits, of a VAE with z in R² after an epoch."""
    import latentia
    from latentia.likelihood import evaluate_likelihood

    with tempfile.TemporaryDirectory() as folder:
        run = latentia.train(vae(latent=2, epochs=1), Path(folder) / "run", quiet=True)
        images = run.splits.examples("train", count).x
        began = time.process_time()
        evaluate_likelihood(run.model, images, "exact", gaps=0)
        return time.process_time() - began


def processes(count: int) -> float:
    """Wall time of a step of the VAE of the digits by so many processes, from runs of two lengths."""
    import latentia

    def seconds(epochs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            recipe = vae(devices=count, epochs=epochs, network=_wide())
            return latentia.train(recipe, Path(folder) / "run", quiet=True).environment["training_seconds"]

    short, long = seconds(2), seconds(10)
    return max(long - short, 1e-6) / (8 * 11)  # 11 steps of 128 an epoch


def _wide() -> Any:
    from latentia.networks import MLP

    return MLP(hidden=(1024,))


CURVES = {f.__name__: f for f in (rows, image, latent, batch, seeds, evaluated, processes)}


def points(name: str, values: list[int]) -> Iterator[dict[str, float]]:
    """Time and memory at each point of a curve, in this process."""
    CURVES[name](values[0])  # what is imported and allocated once
    for value in values:
        before = forget_peak()
        seconds = CURVES[name](value)
        yield {"value": value, "seconds": seconds, "mib": max(0.0, status("VmHWM") - before)}


def exponent(xs: list[float], ys: list[float]) -> tuple[float, float | None] | None:
    """Slope of log y over log x on the upper half of the points (three at least), and its standard error."""
    chosen = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True) if x > 0 and y > 0]
    chosen = chosen[-max(3, (len(chosen) + 1) // 2) :]
    if len(chosen) < 2:
        return None
    mean_x, mean_y = (statistics.fmean(values) for values in zip(*chosen, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in chosen)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in chosen) / spread
    if len(chosen) == 2:
        return slope, None
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in chosen)
    return slope, math.sqrt(rest / (len(chosen) - 2) / spread)


def shown(slope: tuple[float, float | None] | None) -> str:
    if slope is None:
        return "none"
    return f"{slope[0]:.2f}" + ("" if slope[1] is None else f" ± {slope[1]:.2f}")


def draw(found: dict[str, Any], path: Path) -> None:
    """Both curves of each kind, on logarithmic axes of at least one decade."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(2.4 * len(found), 5), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False)
    for column, (name, curve) in enumerate(found.items()):
        xs = [point["value"] for point in curve["points"]]
        for row, (what, unit, factor, least) in enumerate((("seconds", "ms", 1e3, 1e-3), ("mib", "MiB", 1.0, 1.0))):
            axis, ys = axes[row][column], [max(least, factor * point[what]) for point in curve["points"]]
            axis.loglog(xs, ys, "o-", color="C0")
            middle = math.sqrt(min(ys) * max(ys))
            axis.set_ylim(min(min(ys) / 1.5, middle / 4), max(1.5 * max(ys), 4 * middle))
            axis.set_xticks(xs, [f"{x:,}".replace(",", "\u202f") for x in xs], fontsize=7, rotation=45)
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_title(f"{name}: exponent {shown(curve['exponents'][what])}", fontsize=9)
            axis.set_ylabel(unit)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CURVES, default=list(CURVES))
    parser.add_argument("--large", action="store_true", help="10 000 000 rows, images of 256 × 256, 2 048 evaluated")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--curve", choices=CURVES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    more = {"rows": [10_000_000], "image": [256], "evaluated": [2048]} if options.large else {}
    if options.curve:
        values = POINTS[options.curve] + more.get(options.curve, [])
        print(json.dumps(list(points(options.curve, values))))
        return
    found: dict[str, Any] = {}
    print("| with | time | exponent | memory beyond the first, MiB | exponent | why |\n|---|---|---|---|---|---|")
    for name in options.only:
        command = [sys.executable, __file__, "--curve", name, *(["--large"] if options.large else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        curve = json.loads(done.stdout.splitlines()[-1])
        xs = [point["value"] for point in curve]
        slopes = {what: exponent(xs, [point[what] for point in curve]) for what in ("seconds", "mib")}
        found[name] = {"points": curve, "exponents": slopes, "why": WHY[name]}
        times = ", ".join(f"{1e3 * point['seconds']:.3g}" for point in curve)
        memory = ", ".join(f"{point['mib']:.0f}" for point in curve)
        span = " ".join(f"{x:,}".replace(",", " ") + ("," if x != xs[-1] else "") for x in xs)
        print(
            f"| {name} ({span}) | {times} ms | {shown(slopes['seconds'])} | {memory} | {shown(slopes['mib'])} "
            f"| {WHY[name]} |",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(found, indent=2))
    if options.picture:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
