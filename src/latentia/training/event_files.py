"""The records of a run as TensorBoard event files, in `<run>/tensorboard`, beside metrics.jsonl."""

from __future__ import annotations

__all__ = ["EventFiles"]

from collections.abc import Iterable
from pathlib import Path

from latentia.errors import RunError
from latentia.estimate import Estimate


class EventFiles:
    """Writes estimates as scalars.

    Args:
        folder: where.
        after: steps played before; what an earlier, longer attempt wrote after them is hidden.

    Raises:
        RunError: if tensorboard is not installed.
    """

    def __init__(self, folder: Path, after: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter  # takes a second, and is an extra
        except ImportError:
            raise RunError(
                "tensorboard=true needs the package tensorboard; install it with pip install 'latentia[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None)

    def write(self, step: int, estimates: Iterable[Estimate]) -> None:
        """Add each estimate under its own name."""
        for estimate in estimates:
            self._writer.add_scalar(estimate.name, estimate.value, step)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
