"""The form that the charts of evaluations share, drawn without pyplot: no window, no global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ecgmon.pipelines.offline.pictures import figure_type

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI: Final = 120
INK: Final = "#17202a"
QUIET: Final = "#7b8794"
GRID: Final = "#e3e7ea"
RECONSTRUCTION: Final = "#1f6fb2"
ERROR: Final = "#d9480f"


def figure_of(columns: int, rows: int = 1, *, size: tuple[float, float]) -> tuple[Figure, Any]:
    """Make a figure with axes in rows and columns; also return the axes, an array of shape (rows, columns)."""
    figure = figure_type()(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for part in axes.flat:
        part.grid(visible=True, color=GRID, linewidth=0.7)
        part.set_axisbelow(True)
        for spine in part.spines.values():
            spine.set_color(QUIET)
    return figure, axes
