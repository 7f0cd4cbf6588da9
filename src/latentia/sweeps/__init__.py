"""Sweeps: one recipe trained at many settings, in processes side by side or as jobs of a batch scheduler."""

from latentia.sweeps.sweep import Sweep, sweep

__all__ = ["Sweep", "sweep"]
