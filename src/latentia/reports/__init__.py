"""Reports: pictures, tables and pages about finished runs. They read records and models, and train nothing.

Names are imported when they are first used, so that `import latentia.reports` needs neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentia.reports.comparison import Comparison
    from latentia.reports.curve_figures import plot_curves
    from latentia.reports.gallery import save_figures
    from latentia.reports.image_figures import (
        plot_decoded_plane,
        plot_film_strip,
        plot_interpolations,
        plot_latent_slices,
        plot_reconstructions,
        plot_samples,
    )
    from latentia.reports.point_figures import plot_encoded, plot_points
    from latentia.reports.report import write_report

__all__ = [
    "Comparison",
    "plot_curves",
    "plot_decoded_plane",
    "plot_encoded",
    "plot_film_strip",
    "plot_interpolations",
    "plot_latent_slices",
    "plot_points",
    "plot_reconstructions",
    "plot_samples",
    "save_figures",
    "write_report",
]

_HOMES = {
    "comparison": ("Comparison",),
    "curve_figures": ("plot_curves",),
    "gallery": ("save_figures",),
    "image_figures": (
        "plot_decoded_plane",
        "plot_film_strip",
        "plot_interpolations",
        "plot_latent_slices",
        "plot_reconstructions",
        "plot_samples",
    ),
    "point_figures": ("plot_encoded", "plot_points"),
    "report": ("write_report",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
