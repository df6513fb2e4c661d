"""One measured stage against its estimates: the gap, split into named parts that add up.

From the ideal roofline of the fused plan to what was measured, each step swaps one assumption:

    ideal                fused plan, datasheet peaks
    efficiency_compute   fused plan, calibrated: ops whose ideal time is arithmetic
    efficiency_memory    fused plan, calibrated: ops whose ideal time is traffic
    efficiency_link      several devices: what collectives take beyond their bytes at the link's rate
    granularity          the plan that ran: its extra kernels and their traffic
    host                 the time to launch those kernels, where it is longer than they take
    left_out_*           stages a paper leaves out, inside what was measured
    unexplained          measured less all of these

Each part is the difference of two successive predictions, so the parts add up to measured - ideal by
construction; a part may be negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmodel.roofline import StageCost

#: The ideal and the parts in words, in the order they are stacked up to the measured time.
LABELS = {
    "ideal_s": "ideal roofline",
    "efficiency_compute_s": "efficiency, compute",
    "efficiency_memory_s": "efficiency, memory",
    "efficiency_link_s": "efficiency, links",
    "granularity_s": "kernel granularity",
    "host_s": "launch and host floor",
    "left_out_vision_s": "vision tower",
    "left_out_projector_s": "projector",
    "left_out_method_s": "method's own cost",
    "unexplained_s": "unexplained",
}
PARTS = tuple(name for name in LABELS if name != "ideal_s")


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage priced three ways.

    Attributes:
        ideal: fused plan at datasheet peaks.
        fused: fused plan under the calibration.
        executed: the plan that ran, under the calibration.
    """

    ideal: StageCost
    fused: StageCost
    executed: StageCost


@dataclass(frozen=True, slots=True)
class Gap:
    """A measured time and the parts between the ideal roofline and it; all in seconds.

    >>> gap = Gap(10.0, 4.0, 1.0, 0.5, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.5)
    >>> gap.predicted_s, sum(gap.parts.values()) == gap.measured_s - gap.ideal_s
    (7.5, True)
    """

    measured_s: float
    ideal_s: float
    efficiency_compute_s: float
    efficiency_memory_s: float
    efficiency_link_s: float
    granularity_s: float
    host_s: float
    left_out_vision_s: float
    left_out_projector_s: float
    left_out_method_s: float
    unexplained_s: float

    @property
    def parts(self) -> dict[str, float]:
        """The parts by name, in the order of `PARTS`; they add up to measured - ideal."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def predicted_s(self) -> float:
        """The full prediction: the ideal and every part that has an explanation."""
        explained = (getattr(self, name) for name in PARTS if name != "unexplained_s")
        return math.fsum((self.ideal_s, *explained))

    def to_dict(self) -> dict[str, float]:
        """Return every field by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def split_gap(
    measured_s: float,
    stage: PlannedStage,
    *,
    vision_s: float = 0.0,
    projector_s: float = 0.0,
    method_s: float = 0.0,
) -> Gap:
    """Split a measured time.

    Args:
        measured_s: seconds measured.
        stage: the stage as a paper would count it, priced three ways.
        vision_s: predicted seconds of a vision tower inside what was measured, but not in `stage`.
        projector_s: predicted seconds of a projector inside it.
        method_s: predicted seconds of a method's own work inside it.

    >>> from costmodel.roofline import StageCost
    >>> ideal = StageCost(kernels=1, time_s=3.0, compute_s=2.0, memory_s=1.0)
    >>> fused = StageCost(kernels=1, time_s=4.0, compute_s=2.5, memory_s=1.5)
    >>> executed = StageCost(kernels=9, time_s=7.0, compute_s=2.5, memory_s=3.0, host_s=7.0)
    >>> gap = split_gap(7.25, PlannedStage(ideal, fused, executed))
    >>> gap.granularity_s, gap.host_s, gap.unexplained_s
    (1.5, 1.5, 0.25)
    """
    ideal, fused, executed = stage.ideal, stage.fused, stage.executed
    ideal_s = float(ideal.time_s)
    explained = (
        float(fused.compute_s) - float(ideal.compute_s),
        float(fused.memory_s) - float(ideal.memory_s),
        float(fused.link_s) - float(ideal.link_s),
        float(executed.device_s) - float(fused.device_s),
        float(executed.time_s) - float(executed.device_s),
        vision_s,
        projector_s,
        method_s,
    )
    rest = math.fsum((measured_s, -ideal_s, *(-part for part in explained)))
    return Gap(measured_s, ideal_s, *explained, rest)
