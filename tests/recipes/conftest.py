import pytest

from latentia.training import checkpoint, run_directory


@pytest.fixture(autouse=True, scope="session")
def unsynced():
    """Waiting for the disk tells these tests nothing, and takes long where others use it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (checkpoint, run_directory):
            patch.setattr(module, "sync", lambda _: None)
        yield
