"""What the figures of a benchmark depend on, told beside them."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def machine(accelerator: str = "cpu", threads: int | None = None) -> dict[str, str]:
    """Date, processor, device, cores, threads, versions, system and load, as text."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model or platform.processor() or platform.machine(),
        "device": accelerator if accelerator == "cpu" else _gpu(),
        "cores": str(os.cpu_count()),
        "threads": str(threads or os.environ.get("OMP_NUM_THREADS", "all")),
        "torch": version("torch"),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
    }


def _gpu() -> str:
    """Name of the GPU and its driver, as nvidia-smi tells them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "cuda"
