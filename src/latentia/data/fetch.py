"""Downloads that are checked: a file is taken only if its sha256 is the published one."""

from __future__ import annotations

__all__ = ["fetch"]

from collections.abc import Sequence
from pathlib import Path

from latentia.errors import DataError


def fetch(data_set: str, file: str, sha256: str, mirrors: Sequence[str]) -> Path:
    """The file from the cache, or else from the first mirror that gives it sound.

    Args:
        data_set: its name, also of its folder in the cache.
        file: name of the file.
        sha256: what its content must hash to.
        mirrors: addresses that end in a slash, tried in order.

    Raises:
        DataError: what each mirror answered, and how to bring the file by hand.
    """
    import pooch  # its import, with requests, is paid only where there is something to fetch

    folder = pooch.os_cache("latentia") / data_set
    answers = []
    for mirror in mirrors:
        try:
            return Path(pooch.retrieve(mirror + file, known_hash=f"sha256:{sha256}", fname=file, path=folder))
        except (OSError, ValueError) as error:  # the network's errors are OSErrors, a wrong checksum is a ValueError
            answers.append(f"  {mirror}{file}: {_first_line(error)}")
    raise DataError(
        f"{file} of {data_set} could not be downloaded:\n"
        + "\n".join(answers)
        + f"\nBring it to a folder by hand and set data.folder or LATENTIA_DATA to it, or put the file into {folder}."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
