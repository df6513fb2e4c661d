"""Published accuracy of reduced models, sourced, to set beside their cost.

Every score was read in a source that the file names; none is quoted from memory. Papers differ in
their evaluation programs and in what they trained, so a score is best compared with the unreduced model
of its own table: `retained` is that ratio.
"""

from __future__ import annotations

from costmodel.accuracy.published import (
    list_benchmarks,
    load_scores,
    load_sources,
    scores_frame,
)
from costmodel.accuracy.rows import Benchmark, Score, Source

__all__ = [
    "Benchmark",
    "Score",
    "Source",
    "list_benchmarks",
    "load_scores",
    "load_sources",
    "scores_frame",
]
