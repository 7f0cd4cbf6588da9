"""latentia: its own engine, recipe and objective, records and checkpoints included, as a user runs it.

Arguments are settings of the recipe, `compile=true`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from common import BATCH, DEVICE, HIDDEN, LATENT, STEPS, Gate

import latentia
from latentia.configuration import apply_overrides, parse_overrides
from latentia.estimate import Estimate
from latentia.training.progress import Progress


class AtTheGate:
    """Waits between two steps of the engine, when all that a step brings is done; sums the costs that it records."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.gate = Gate(STEPS, lambda: {"loss": self.loss})
        self._cost: Estimate | None = None
        self._sum, self._summed = 0.0, 0

    def begin(self) -> None:
        """From now on the engine waits; call before it begins."""
        shown = Progress.advance

        def advance(progress: Progress, step: int, latest: Mapping[str, Estimate]) -> None:
            shown(progress, step, latest)
            self._note(step, latest.get("vae/cost"))
            self.gate.wait()

        Progress.advance = advance  # pyright: ignore[reportAttributeAccessIssue]  (it has another word for self)
        self.gate.wait()

    def _note(self, step: int, cost: Estimate | None) -> None:
        """A record is the mean since the one before; every epoch ends with one."""
        if cost is not None and cost is not self._cost:
            self._sum, self._summed, self._cost = self._sum + (step - self._summed) * cost.value, step, cost
            if step % STEPS == 0:
                self.loss, self._sum = self._sum / STEPS, 0.0


def main() -> None:
    basis = f"data=mnist data.binarise=threshold data.validation=0 latent={LATENT} network.hidden=[{HIDDEN}]"
    words = [*basis.split(), f"batch_size={BATCH}", "epochs=1000000", f"accelerator={DEVICE}", *sys.argv[1:]]
    recipe = latentia.VAERecipe.parse(apply_overrides({"type": "vae"}, parse_overrides(words)))
    with tempfile.TemporaryDirectory() as folder:
        AtTheGate().begin()
        latentia.train(recipe, Path(folder) / "run", quiet=True)


if __name__ == "__main__":
    main()
