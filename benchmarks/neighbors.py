"""Precision, recall, density and coverage beside the prdc package, in one run: time and peak memory.

    python benchmarks/neighbors.py --prdc PATH/TO/ANOTHER/VENV/bin/python

`--prdc` is the interpreter of an environment with the package (`pip install prdc`); it is no dependency of latentia.
The two take turns, each time in a fresh process with two threads, on the same features; printed are medians of wall
and CPU time, the peak of resident memory beyond that after the imports and the features, and the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = """
import json, resource, sys, time
import numpy as np
{imports}
arrays = np.load(sys.argv[1])
real, fake = arrays["real"], arrays["fake"]
{warm}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began, cpu = time.perf_counter(), time.process_time()
{work}
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"seconds": seconds, "cpu": cpu, "before": before, "peak": peak, "scores": scores}}))
"""
OURS = COMMON.format(
    imports="import torch\nfrom latentia.metrics import neighbor_scores",
    warm="real, fake = torch.from_numpy(real), torch.from_numpy(fake)\nneighbor_scores(real[:200], fake[:200])",
    work="scores = {name: e.value for name, e in neighbor_scores(real, fake, k=5{options})._asdict().items()}",
)
PEER = COMMON.format(
    imports="import contextlib, io\nfrom prdc import compute_prdc",
    warm="with contextlib.redirect_stdout(io.StringIO()):\n    compute_prdc(real[:200], fake[:200], nearest_k=5)",
    work="with contextlib.redirect_stdout(io.StringIO()):\n    found = compute_prdc(real, fake, nearest_k=5)\n"
    "scores = {k: float(v) for k, v in found.items()}",
)


def run(python: str, program: str, path: Path, threads: int) -> dict:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    done = subprocess.run(
        [python, "-c", program, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    import numpy as np

    parser = argparse.ArgumentParser()
    parser.add_argument("--prdc", required=True, help="python of an environment with the prdc package")
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("-d", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((options.n, options.d)), rng.standard_normal((options.n, options.d)) * 0.95 + 0.05
    contenders = {
        "latentia, with standard errors": (sys.executable, OURS.replace("{options}", "")),
        "latentia, values alone": (sys.executable, OURS.replace("{options}", ", interval=False")),
        "prdc": (options.prdc, PEER),
    }
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        np.savez(path, real=real, fake=fake)
        for _ in range(options.repeats):
            for name, (python, program) in contenders.items():
                results[name].append(run(python, program, path, options.threads))
    print(f"{options.n} x {options.n} x {options.d}, {options.threads} threads, {options.repeats} turns", end="; ")
    print(f"load {', '.join(f'{x:.1f}' for x in os.getloadavg())} on {os.cpu_count()} cores")
    seconds = {name: statistics.median(r["seconds"] for r in rs) for name, rs in results.items()}
    cpu = {name: statistics.median(r["cpu"] for r in rs) for name, rs in results.items()}
    memory = {name: statistics.median(r["peak"] - r["before"] for r in rs) / 1024 for name, rs in results.items()}
    for name, rs in results.items():
        all_seconds = ", ".join(f"{r['seconds']:.2f}" for r in rs)
        wall, total, share = (each["prdc"] / each[name] for each in (seconds, cpu, memory))
        print(f"{name:32} {seconds[name]:6.2f} s, {cpu[name]:6.2f} s of CPU, {memory[name]:6.0f} MiB", end="; ")
        print(f"{wall:.1f} x faster, {total:.1f} x less CPU, 1/{share:.0f} of the memory ({all_seconds})")
        print(f"{'':32} {json.dumps(rs[-1]['scores'])}")


if __name__ == "__main__":
    main()
