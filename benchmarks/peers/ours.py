"""latentia: its own engine, recipe and objective, records and checkpoints included, as a user runs it.

Arguments are settings of the recipe, `compile=true`. Threads wait for one another, and memory is kept, as in the
command line.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from latentia.threads import keep_memory, training_environment

os.environ.update(training_environment() | os.environ)

from common import BATCH, DEVICE, HIDDEN, LATENT, STEPS, Gate
from engine_gate import gate_engine

import latentia
from latentia.configuration import apply_overrides, parse_overrides
from latentia.estimate import Estimate


class Costs:
    """The mean cost over the last whole epoch: a record is the mean since the one before, and epochs end with one."""

    def __init__(self) -> None:
        self.of_epoch: float | None = None
        self._last: Estimate | None = None
        self._sum, self._summed = 0.0, 0

    def note(self, step: int, latest: Mapping[str, Estimate]) -> None:
        cost = latest.get("vae/cost")
        if cost is not None and cost is not self._last:
            self._sum, self._summed, self._last = self._sum + (step - self._summed) * cost.value, step, cost
            if step % STEPS == 0:
                self.of_epoch, self._sum = self._sum / STEPS, 0.0


def main() -> None:
    keep_memory()
    basis = f"data=mnist data.binarize=threshold data.validation=0 latent={LATENT} batch_size={BATCH}"
    words = [*basis.split(), "network=mlp", f"network.hidden=[{HIDDEN}]", f"accelerator={DEVICE}", "epochs=1000000"]
    recipe = latentia.VAERecipe.parse(apply_overrides({"type": "vae"}, parse_overrides([*words, *sys.argv[1:]])))
    costs = Costs()
    gate = Gate(STEPS, lambda: {"loss": costs.of_epoch})
    with tempfile.TemporaryDirectory() as folder:
        gate_engine(gate, costs.note)
        latentia.train(recipe, Path(folder) / "run", quiet=True)


if __name__ == "__main__":
    main()
