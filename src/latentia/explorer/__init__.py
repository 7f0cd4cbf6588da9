"""One offline page to explore trained models, made by `build.write_explorer`; docs/explorer.md says what it shows."""

from __future__ import annotations

__all__: list[str] = []
