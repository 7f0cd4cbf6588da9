"""Reports: pictures, tables and the page about finished runs. They read records and models, and train nothing.

Names are imported when they are first asked for, so that `import latentia.reports` costs neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentia.reports.changes import changed_settings
    from latentia.reports.curve_figures import curves
    from latentia.reports.encoded_figures import encoded_test_set
    from latentia.reports.gallery import draw_all, draw_side_by_side
    from latentia.reports.image_figures import film_strip, reconstructions, samples, side_by_side
    from latentia.reports.latent_figures import decoded_plane, interpolations, latent_slices
    from latentia.reports.likelihood_figures import bound_against_draws, draw_likelihood, plane_mass
    from latentia.reports.posterior_figures import extreme_gaps, posterior_contours
    from latentia.reports.report import write_report
    from latentia.reports.style import save_figure
    from latentia.reports.terminal import estimates_table, show_run
    from latentia.reports.toy_figures import toy_scatter

__all__ = [
    "bound_against_draws",
    "changed_settings",
    "curves",
    "decoded_plane",
    "draw_all",
    "draw_likelihood",
    "draw_side_by_side",
    "encoded_test_set",
    "estimates_table",
    "extreme_gaps",
    "film_strip",
    "interpolations",
    "latent_slices",
    "plane_mass",
    "posterior_contours",
    "reconstructions",
    "samples",
    "save_figure",
    "show_run",
    "side_by_side",
    "toy_scatter",
    "write_report",
]

_HOME = {
    "bound_against_draws": "likelihood_figures",
    "changed_settings": "changes",
    "curves": "curve_figures",
    "decoded_plane": "latent_figures",
    "draw_all": "gallery",
    "draw_likelihood": "likelihood_figures",
    "draw_side_by_side": "gallery",
    "encoded_test_set": "encoded_figures",
    "estimates_table": "terminal",
    "extreme_gaps": "posterior_figures",
    "film_strip": "image_figures",
    "interpolations": "latent_figures",
    "latent_slices": "latent_figures",
    "plane_mass": "likelihood_figures",
    "posterior_contours": "posterior_figures",
    "reconstructions": "image_figures",
    "samples": "image_figures",
    "save_figure": "style",
    "show_run": "terminal",
    "side_by_side": "image_figures",
    "toy_scatter": "toy_figures",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
