import sys
from pathlib import Path

import pytest

from latentia.training import checkpoint, run_directory

for folder in ("training", "recipes"):  # for the helpers that stand beside the tests
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """What would be synced to the disk, in order; waiting for the disk itself tells these tests nothing."""
    paths = []
    for module in (checkpoint, run_directory):
        monkeypatch.setattr(module, "sync", paths.append)
    return paths
