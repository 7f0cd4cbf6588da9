"""How often the 95 % interval of each metric holds what it is about, over many repetitions.

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py            half a CPU minute

Features are Gaussian: real x ~ N(0, I), fake y ~ N(μ, s² I), once with the same distribution and once with another.
What an interval should hold is known in closed form where "exact" is printed; elsewhere it is the mean over the
repetitions, which is the large-sample value for a metric without bias and the expectation at this n for the others.
The metrics with a bias that is known and documented are held against the large-sample value and against their
expectation.

The memorization test is given one training set throughout, as its interval is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from latentia.estimate import Estimate
from latentia.metrics import (
    class_coverage,
    diversity,
    frechet_distance,
    inception_score,
    kernel_distance,
    memorization,
    neighbor_scores,
    sliced_wasserstein,
    two_sample_test,
)
from latentia.metrics.frechet import frechet_extrapolated

CLASSES = 5


def figures(x: Tensor, y: Tensor, train: Tensor, centers: Tensor, repeat: int) -> Iterator[Estimate]:
    """Every figure of one repetition; classes are those of the nearest of some centers."""
    yield frechet_distance(x, y)
    yield frechet_extrapolated(x, y)
    yield kernel_distance(x, y)
    yield sliced_wasserstein(x, y, directions=64, seed=repeat)
    yield from neighbor_scores(x, y)
    yield from memorization(train, y, x)
    yield diversity(x, y)
    yield two_sample_test(x, y, steps=60, seed=repeat)[0]
    logits = y @ centers.T
    yield inception_score(logits.softmax(1))
    yield class_coverage(logits.argmax(1), CLASSES, torch.arange(1.0, CLASSES + 1))[1]


def known(dimension: int, shift: float, scale: float) -> dict[str, float]:
    """Large-sample values in closed form."""
    distance = dimension * (shift**2 + (1 - scale) ** 2)
    values = {"frechet_distance": distance, "frechet_distance_extrapolated": distance, "diversity": 0.0}
    # mean distance of two Gaussian points is that of one chi variable, whatever the shift
    values["diversity"] = scale
    values["sliced_wasserstein"] = (shift**2 + (1 - scale) ** 2) ** 0.5
    if not shift and scale == 1:
        values |= {"kernel_distance": 0.0, "two_sample/accuracy": 0.5}
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("-d", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, help="write the table as JSON as well")
    options = parser.parse_args()
    began, table = time.process_time(), []
    for words, shift, scale in (("equal distributions", 0.0, 1.0), ("shifted by 0.3, 0.9 as wide", 0.3, 0.9)):
        generator = torch.Generator().manual_seed(0)

        def draw(count: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(count, options.d, generator=generator, dtype=torch.float64)

        train, centers = draw(2 * options.n), draw(CLASSES)
        found: dict[str, list[Estimate]] = defaultdict(list)
        for repeat in range(options.repeats):
            for e in figures(draw(options.n), shift + scale * draw(options.n), train, centers, repeat):
                found[e.name].append(e)
        print(f"\n{words}: n = {options.n}, D = {options.d}, {options.repeats} repetitions")
        print("| figure | truth | mean | bias, in standard errors | 95 % holds truth | holds expectation |")
        print("|---|---:|---:|---:|---:|---:|")
        truths = known(options.d, shift, scale)
        for name, estimates in found.items():
            mean = statistics.fmean(e.value for e in estimates)
            error = statistics.fmean(e.stderr or 0.0 for e in estimates)
            truth = truths.get(name, mean)

            def share(value: float, estimates: list[Estimate] = estimates) -> float:
                return statistics.fmean(abs(e.value - value) <= 1.96 * (e.stderr or 0.0) for e in estimates)

            row = {"distribution": words, "figure": name, "truth": truth, "exact": name in truths, "mean": mean}
            row |= {"bias": (mean - truth) / error, "holds_truth": share(truth), "holds_expectation": share(mean)}
            table.append(row)
            shown = f"{truth:.4g}" + (" (exact)" if name in truths else "")
            print(
                f"| {name} | {shown} | {mean:.4g} | {row['bias']:+.2f} | {share(truth):.1%} | {share(mean):.1%} |",
                flush=True,
            )
    print(f"\n{time.process_time() - began:.0f} CPU seconds")
    if options.out:
        options.out.write_text(json.dumps({"n": options.n, "d": options.d, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
