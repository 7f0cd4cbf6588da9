"""What each metric says of real images against real images, by how many there are: its bias at small n.

    OMP_NUM_THREADS=1 LATENTIA_DATA=… python benchmarks/metric_bias.py         MNIST, features of the shipped classifier

The images are dealt afresh, without overlap, from the training images for both sides, so that the distributions are
one. Printed are the mean over the deals and the standard error of that mean; the value of equal distributions as n
grows is in the second column, where there is one.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict

import torch

from latentia.data import MNIST
from latentia.metrics import (
    Classifier,
    Metric,
    MetricInputs,
    cached_features,
)

LIMITS = {
    "frechet_distance/classifier": 0,
    "frechet_distance_extrapolated/classifier": 0,
    "kernel_distance/classifier": 0,
    "sliced_wasserstein": 0,
    "two_sample/accuracy": 0.5,
    "classes/kl": 0,
    "diversity": 1,
    "density": 1,
    "memorization/nearest_ratio": 1,
}
TRAIN = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 2000, 10_000])
    parser.add_argument("--numbers", type=int, default=10_000, help="images of each side dealt at a size, at most")
    options = parser.parse_args()
    images = MNIST().load().train.x
    features = Classifier()
    everything = cached_features(features, images).double()
    probabilities = features.probabilities(images)
    metrics = [member() for member in Metric.members().values()]
    table: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n in options.sizes:
        for deal in range(max(1, min(10, options.numbers // n))):
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(deal))
            real, fake, train = order[:n], order[n : 2 * n], order[2 * n : 2 * n + TRAIN]
            both = (probabilities[real], probabilities[fake])
            evidence = MetricInputs(
                features, everything[real], everything[fake], everything[train], lambda both=both: both, deal
            )
            for metric in metrics:
                for estimate in metric(evidence):
                    table[estimate.name][n].append(estimate.value)
        print(f"n = {n} done", flush=True)
    print("| figure | as n grows | " + " | ".join(f"n = {n}" for n in options.sizes) + " |")
    print("|---|---:" + "|---:" * len(options.sizes) + "|")
    for name, by_size in table.items():
        cells = []
        for n in options.sizes:
            values = by_size[n]
            error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.2g}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.4g}{error}")
        print(f"| {name} | {LIMITS.get(name, '')} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
