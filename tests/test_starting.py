"""`import latentia` is quick: it brings nothing heavy, and costs less than 0.3 s of CPU time in all."""

from __future__ import annotations

import resource
import subprocess
import sys


def cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_import_brings_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "scipy", "pydantic", "matplotlib", "typer", "lightning_fabric"}
    code = f"import sys, latentia; found = {heavy!r} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_takes_less_than_a_third_of_a_second() -> None:
    """CPU time of the whole process, the least of three; a bare interpreter's is a tenth of the bound."""
    assert min(cpu_seconds("import latentia") for _ in range(3)) < 0.3
