"""Theory meets measurement: every run beside its estimate, the gap between them explained.

    reconcile("measurements/", "calibration.json")  -> Reconciliation: rows, summary, DataFrame
    read_op_profile("..._ops.json")                 -> OpProfile, a profiler pass beside the records

The gap is split into named parts that add up (`gap`), judged by several errors (`metrics`), and what
cannot be, such as a run faster than its roof, is flagged rather than hidden (`rows`).
"""

from __future__ import annotations

from profiling.reconciling.gap import LABELS, PARTS, Gap, PlannedStage, split_gap
from profiling.reconciling.metrics import Metrics, metrics
from profiling.reconciling.reconciliation import Reconciliation, reconcile
from profiling.tracing.op_profile import (
    OpProfile,
    read_op_profile,
    write_op_profile,
)

__all__ = [
    "LABELS",
    "PARTS",
    "Gap",
    "Metrics",
    "OpProfile",
    "PlannedStage",
    "Reconciliation",
    "metrics",
    "read_op_profile",
    "reconcile",
    "split_gap",
    "write_op_profile",
]
