import pytest

from latentia.training import checkpoint, run_directory


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """What would be synced to the disk, in order; waiting for the disk itself tells these tests nothing."""
    paths = []
    for module in (checkpoint, run_directory):
        monkeypatch.setattr(module, "sync", paths.append)
    return paths
