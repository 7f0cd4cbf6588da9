"""Batched W₁ on the line against scipy in a loop and POT's batched function, side by side in one run.

    python benchmarks/wasserstein_1d.py [--pairs 100] [--n 2000] [--m 1000] [--rounds 30] [--json FILE]

Every contender computes the same distances of the same samples; the rounds are interleaved, so that whatever slows the
machine down slows all of them, and medians are reported. Values must agree to 1e-12, or the run fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import ot
import torch
from scipy import stats

from latentia.divergences import wasserstein


def contenders(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    x_tensor, y_tensor = torch.from_numpy(x), torch.from_numpy(y)
    x_columns, y_columns = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    x_columns_tensor, y_columns_tensor = torch.from_numpy(x_columns), torch.from_numpy(y_columns)
    return {
        "latentia": lambda: wasserstein.samples(x_tensor, y_tensor).numpy(),
        "scipy, in a loop": lambda: np.array([stats.wasserstein_distance(a, b) for a, b in zip(x, y, strict=True)]),
        "POT, batched, numpy": lambda: np.asarray(ot.wasserstein_1d(x_columns, y_columns, p=1)),
        "POT, batched, torch": lambda: ot.wasserstein_1d(x_columns_tensor, y_columns_tensor, p=1).numpy(),
    }


def measure(pairs: int, n: int, m: int, rounds: int, seed: int = 0) -> list[dict[str, float | str]]:
    """Median seconds of each contender, and how far its values lie from latentia's."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(pairs, n))
    y = generator.normal(0.5, 1.5, size=(pairs, m))
    running = contenders(x, y)
    values = {name: compute() for name, compute in running.items()}
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, compute in running.items():
            start = time.perf_counter()
            compute()
            seconds[name].append(time.perf_counter() - start)
    own = statistics.median(seconds["latentia"])
    return [
        {
            "name": name,
            "median_seconds": statistics.median(times),
            "fastest_seconds": min(times),
            "times_latentia": statistics.median(times) / own,
            "largest_difference": float(np.abs(values[name] - values["latentia"]).max()),
        }
        for name, times in seconds.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--m", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", help="write the figures to this file too")
    arguments = parser.parse_args()
    rows = measure(arguments.pairs, arguments.n, arguments.m, arguments.rounds)
    print(f"{arguments.pairs} pairs of {arguments.n} against {arguments.m} points, {torch.get_num_threads()} threads")
    print(f"{'':22} {'median ms':>10} {'fastest ms':>11} {'× latentia':>11} {'difference':>11}")
    for row in rows:
        median, fastest = 1e3 * float(row["median_seconds"]), 1e3 * float(row["fastest_seconds"])
        ratio, difference = row["times_latentia"], row["largest_difference"]
        print(f"{row['name']:22} {median:10.2f} {fastest:11.2f} {ratio:11.2f} {difference:11.1e}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"settings": vars(arguments), "threads": torch.get_num_threads(), "rows": rows}, file, indent=2)
    return 0 if all(float(row["largest_difference"]) < 1e-12 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
