import pytest

from latentia import files


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """What would be synced to the disk, in order; waiting for the disk itself tests nothing here."""
    paths = []
    monkeypatch.setattr(files, "_sync", paths.append)
    return paths
