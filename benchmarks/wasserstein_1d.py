"""Batched W₁ on the line against scipy in a loop and POT's batched function, side by side in one run.

    python benchmarks/wasserstein_1d.py [--pairs 100] [--n 2000] [--m 1000] [--rounds 30] [--json FILE]

Every contender computes the same distances of the same samples; the rounds are interleaved, so that whatever slows the
machine down slows all of them, and medians are reported: of wall time, and of processor time, which other programs on
the machine disturb less. Values must agree to 1e-12, or the run fails.
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
    """Median wall and processor seconds of each contender, and how far its values lie from latentia's."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(pairs, n))
    y = generator.normal(0.5, 1.5, size=(pairs, m))
    running = contenders(x, y)
    values = {name: compute() for name, compute in running.items()}
    seconds: dict[str, list[float]] = {name: [] for name in running}
    processor: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, compute in running.items():
            start, processor_start = time.perf_counter(), time.process_time()
            compute()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - processor_start)
    own, own_processor = statistics.median(seconds["latentia"]), statistics.median(processor["latentia"])
    return [
        {
            "name": name,
            "median_seconds": statistics.median(times),
            "median_processor_seconds": statistics.median(processor[name]),
            "times_latentia": statistics.median(times) / own,
            "processor_times_latentia": statistics.median(processor[name]) / own_processor,
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
    print(f"{'':20} {'wall ms':>9} {'× latentia':>11} {'cpu ms':>9} {'× latentia':>11} {'difference':>11}")
    for row in rows:
        wall, cpu = 1e3 * float(row["median_seconds"]), 1e3 * float(row["median_processor_seconds"])
        print(
            f"{row['name']:20} {wall:9.2f} {row['times_latentia']:11.2f} {cpu:9.2f} "
            f"{row['processor_times_latentia']:11.2f} {row['largest_difference']:11.1e}"
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"settings": vars(arguments), "threads": torch.get_num_threads(), "rows": rows}, file, indent=2)
    return 0 if all(float(row["largest_difference"]) < 1e-12 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
