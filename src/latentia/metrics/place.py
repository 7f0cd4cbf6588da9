"""Where things that can be made or fetched again are kept: LATENTIA_CACHE, or ~/.cache/latentia."""

from __future__ import annotations

__all__ = ["cache_root"]

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder; it need not exist."""
    place = os.environ.get("LATENTIA_CACHE")
    return Path(place).expanduser() if place else Path.home() / ".cache" / "latentia"
