import pytest

from latentia import files


@pytest.fixture(autouse=True, scope="package")
def unsynced():
    """Waiting for the disk tests nothing here, and takes long where others use it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_sync", lambda _: None)
        yield
