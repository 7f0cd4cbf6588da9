"""Damage what latentia reads, at random, and count what it does with it.

    python benchmarks/fuzz.py                    # 20 000 inputs, spread over all readers
    python benchmarks/fuzz.py -n 500 --only npz
    python benchmarks/fuzz.py -n 300             # as the tests do; some three minutes

Four kinds of input are damaged: files of data (`fuzz_readers.py`), every file of a run directory, against every command
that reads it (`fuzz_runs.py`), and expressions of distributions and settings of recipes (`fuzz_text.py`). What counts
as right is described in `fuzzing.py`; what went wrong is printed and kept in a folder, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import fuzz_readers
import fuzz_runs
import fuzz_text
from fuzzing import OUTCOMES, fuzz

READERS = [*fuzz_readers.READERS, *fuzz_runs.READERS, *fuzz_text.READERS]


def main() -> int:
    """Fuzz all readers, print the counts, and return 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--inputs", type=int, default=20_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name contains this")
    parser.add_argument("--seconds", type=float, default=5, help="time allowed for one input")
    parser.add_argument("--megabytes", type=int, default=500, help="memory allowed for one input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that went wrong")
    options = parser.parse_args()
    readers = [reader for reader in READERS if options.only in reader.name]
    each = -(-options.inputs // max(1, round(sum(reader.weight for reader in readers))))
    total = Counter[str]()
    print(f"{'reader':28}" + "".join(f"{kind:>10}" for kind in OUTCOMES), flush=True)
    for reader in readers:
        found = fuzz([reader], each, options.seed, options.seconds, options.megabytes, options.keep)[reader.name]
        print(f"{reader.name:28}" + "".join(f"{found[kind]:10}" for kind in OUTCOMES), flush=True)
        total += found
    print(f"{f'all {sum(total.values())}':28}" + "".join(f"{total[kind]:10}" for kind in OUTCOMES))
    return int(any(total[kind] for kind in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
