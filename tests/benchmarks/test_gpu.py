"""The script for a GPU: every line that a CPU can run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import turns


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torchs = torch.compile

    def quicker(function: Any, *, options: dict[str, Any], **settings: Any) -> Any:
        assert options["fallback_random"]
        return torchs(function, backend="aot_eager", **settings)

    monkeypatch.setattr(torch, "compile", quicker)
    monkeypatch.syspath_prepend(str(Path(turns.__file__).parent))
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--accelerator", "cpu", "--short", "--json", str(file)])
    import gpu  # pyright: ignore[reportMissingImports]

    gpu.main()
    parts: dict[str, dict[str, Any]] = json.loads(file.read_text())["parts"]
    assert set(parts) == {"vae", "dcgan", "likelihood", "seeds"}
    measured = [*parts["vae"].values(), *parts["dcgan"].values(), *parts.values()]
    assert not [row for row in measured if isinstance(row, dict) and "error" in row]
    assert parts["vae"]["plain"]["seconds_an_epoch"] > 0
    assert parts["dcgan"]["compiled"]["speed_over_plain"] > 0
    assert parts["likelihood"]["images"] == 8
    assert parts["seeds"]["compiled"]["ratio"] > 0
