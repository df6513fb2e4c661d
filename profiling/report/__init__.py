"""Figures of measurements beside their predictions.

    plot_accuracy(result.rows)                   predicted against measured, with intervals
    plot_gap(row)                                waterfall from the roofline to the clock
    plot_gap_over_tokens(rows)                   the same parts, stacked over visual tokens
    reconciliation_figures(result)               all of them, by name

matplotlib is imported when a figure is made.
"""

from __future__ import annotations

from profiling.report.figures import reconciliation_figures, save_figures
from profiling.report.plot_accuracy import plot_accuracy
from profiling.report.plot_gap import plot_gap, plot_gap_over_tokens

__all__ = [
    "plot_accuracy",
    "plot_gap",
    "plot_gap_over_tokens",
    "reconciliation_figures",
    "save_figures",
]
