"""What leaves a run: files for other programs, and runs shared on the Hugging Face Hub."""

from __future__ import annotations

from latentia.sharing.exporting import export
from latentia.sharing.hub import pull, push

__all__ = ["export", "pull", "push"]
