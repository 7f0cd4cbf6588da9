"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # tests run side by side; their tensors are small

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the suite runs in the background; its tests interrupt runs
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what the imports made, 700 000 objects, out of each garbage collection: a fifth of the suite's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of MNIST's four IDX files; the test is skipped, aloud, where there is none."""
    given = os.environ.get("LATENTIA_DATA")
    places = [Path(given)] if given else [BESIDE]
    for place in places:
        for folder in (place / "mnist", place):
            if len([*folder.glob("t10k-*-ubyte*"), *folder.glob("train-*-ubyte*")]) >= 4:
                return folder
    pytest.skip(f"real MNIST is not in {places[0]}: put its IDX files there, or set LATENTIA_DATA to their folder")


settings.register_profile("shared machine", deadline=None, derandomize=True)  # its time limits trip under load
settings.load_profile("shared machine")


@pytest.fixture(autouse=True, scope="module")
def same_interrupt_handler():
    """Restore the handler of Ctrl-C: the command's entry point replaces it by one that ends the process."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
