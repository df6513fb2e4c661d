"""`Explanation`: what a trace says, as data, and the one sentence that sums it up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiling.explaining.comparison import in_words
from profiling.explaining.naming import OTHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.explaining.calls import Call
    from profiling.explaining.comparison import Comparison
    from profiling.explaining.layers import Run
    from profiling.explaining.model_stages import AgainstModel
    from profiling.explaining.roofs import OpRow
    from profiling.explaining.timeline import Timeline

SCHEMA_VERSION = 1
#: Ops listed in the JSON document; the rest is added up in one entry.
MOST_OPS = 400
#: What the JSON document says of the time line.
_OF_TIME = ("span_s", "busy_s", "host_idle_s", "host_bound_share", "gaps", "longest_gap_s", "launches",
            "launch_s", "waits", "wait_s")  # fmt: skip
#: A trace of which less is attributed is told by the rest.
_MOSTLY = 0.5
#: Kernels' names are cut to this in what is printed.
_SHOWN_NAME = 120


@dataclass(frozen=True)
class Family:
    """Kernels of one implementation: how many, and their seconds."""

    kind: str
    name: str
    kernels: int
    time_s: float


@dataclass(frozen=True)
class Explanation:
    """What a trace says.

    Attributes:
        source: the trace's name.
        device_names: as the driver prints them.
        hardware: the device; None where it is not known.
        calibration: its calibration, None without one.
        on_cpu: whether ops stand for kernels, since there are none.
        kernel_time_s: all device work: kernels and copies, those on several streams added up.
        attributed_time_s: kernels linked to an op whose class is known.
        unattributed_time_s: all other kernels: without an op, or of no known class.
        copies_time_s: copies and fills of memory by the device's copy engines.
        unlinked_time_s: of the unattributed, kernels that no op was found for.
        unlinked_classes: seconds of these by the class that their names say.
        layers: the repeated layers, in words and numbers.
        stages: seconds of linked device work by stage.
        spans: seconds of the time line by stage: its work, and the gap before each piece of it.
        classes: seconds of kernels by op class; `other` is what is unattributed.
        families: kernels by implementation.
        unaligned_time_s: products that ran on kernels for unaligned operands.
        time: the device's time line.
        damaged: events without a usable time.
        ops: each op beside its roof and its estimate.
        against: beside the estimate of a model; None without one.
        comparison: beside another trace; None without one.
        notes: what a reader should know.
    """

    source: str
    device_names: tuple[str, ...]
    hardware: HardwareSpec | None
    calibration: Calibration | None
    on_cpu: bool
    kernel_time_s: float
    attributed_time_s: float
    unattributed_time_s: float
    copies_time_s: float
    unlinked_time_s: float
    unlinked_classes: dict[str, float]
    layers: tuple[dict[str, Any], ...]
    stages: dict[str, float]
    spans: dict[str, float]
    classes: dict[str, float]
    families: tuple[Family, ...]
    unaligned_time_s: float
    time: Timeline
    damaged: int
    ops: tuple[OpRow, ...]
    notes: tuple[str, ...] = ()
    against: AgainstModel | None = None
    comparison: Comparison | None = None
    _calls: tuple[Call, ...] = field(default=(), repr=False, compare=False)
    _placed: tuple[str, ...] = field(default=(), repr=False, compare=False)
    _runs: tuple[Run, ...] = field(default=(), repr=False, compare=False)

    @property
    def device(self) -> str:
        """The device in words."""
        if self.on_cpu:
            return "CPU"
        return ", ".join(self.device_names) or "a device that the trace does not name"

    @property
    def idle_s(self) -> float:
        """Seconds between the first and the last device work in which nothing ran."""
        return self.time.idle_s

    @property
    def sentence(self) -> str:
        """What to know first."""
        if self.comparison is not None:
            return self.comparison.sentence
        return _sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `--json`, `schema_version` 1."""
        whole = self.kernel_time_s or 1.0
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": "explanation",
            "source": self.source,
            "device_names": list(self.device_names),
            "hardware": None if self.hardware is None else self.hardware.id,
            "calibration": None if self.calibration is None else self.calibration.name,
            "kernel_time_s": self.kernel_time_s,
            "attributed_time_s": self.attributed_time_s,
            "unattributed_time_s": self.unattributed_time_s,
            "copies_time_s": self.copies_time_s,
            "idle_s": self.idle_s,
            "attributed_share": self.attributed_time_s / whole,
            "unlinked_time_s": self.unlinked_time_s,
            "unlinked_share": self.unlinked_time_s / whole,
            "unlinked_classes": self.unlinked_classes,
            "layers": [dict(layer) for layer in self.layers],
            "stages": self.stages,
            "stage_spans": self.spans,
            "classes": self.classes,
            "families": [vars(family) for family in self.families],
            "unaligned_time_s": self.unaligned_time_s,
            **{name: getattr(self.time, name) for name in _OF_TIME},
            "damaged_events": self.damaged,
            "ops": _ops_document(self.ops),
            "notes": list(self.notes),
            "model": None if self.against is None else self.against.to_dict(),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "sentence": self.sentence,
        }
        return document

    def by_class(self) -> list[dict[str, Any]]:
        """Return by op class the seconds measured, at datasheet rates and by the calibration.

        An op without a roof, or that the calibration does not hold, is in `unpriced_s` alone.
        """
        groups: dict[str, dict[str, Any]] = {}
        for row in self.ops:
            found = groups.setdefault(
                row.op_class,
                {"op_class": row.op_class, "kernels": 0, "time_s": 0.0, "ideal_s": 0.0,
                 "priced_s": 0.0, "predicted_s": 0.0, "unpriced_s": 0.0},
            )  # fmt: skip
            found["kernels"] += row.kernels
            found["time_s"] += row.time_s
            if row.predicted_s is None:
                found["unpriced_s"] += row.time_s
            else:
                found["priced_s"] += row.time_s
                found["predicted_s"] += row.predicted_s
                found["ideal_s"] += row.ideal_s or 0.0
        return sorted(groups.values(), key=lambda group: -float(group["time_s"]))

    def __repr__(self) -> str:
        """Say the sentence."""
        return f"<Explanation of {self.source}: {self.sentence}>"


def _ops_document(rows: Sequence[OpRow]) -> list[dict[str, Any]]:
    names = ("stage", "op_class", "name", "sizes", "dtype", "calls", "kernels", "time_s", "flops",
             "hbm_bytes", "ideal_s", "predicted_s")  # fmt: skip
    document = [
        {**{name: getattr(row, name) for name in names}, "kernel": row.kernel[:_SHOWN_NAME]}
        for row in rows[:MOST_OPS]
    ]
    rest = rows[MOST_OPS:]
    if rest:
        document.append(
            {**dict.fromkeys(names), "name": f"{len(rest)} more", "op_class": None,
             "calls": sum(row.calls for row in rest), "kernels": sum(row.kernels for row in rest),
             "time_s": math.fsum(row.time_s for row in rest), "kernel": None}
        )  # fmt: skip
    return document


def _sentence(found: Explanation) -> str:
    parts = [str(layer["says"]) for layer in found.layers[:3]] or ["no repeated layer was found"]
    share = found.attributed_time_s / found.kernel_time_s if found.kernel_time_s else 0.0
    parts.append(f"{share:.1%} of {in_words(found.kernel_time_s)} of device time is attributed")
    if share < _MOSTLY:
        parts.append(
            f"{found.unlinked_time_s / found.kernel_time_s:.1%} is linked to no op, by its kernels' names "
            f"most of it {_largest(found.unlinked_classes, found.kernel_time_s)}"
            if found.unlinked_time_s > 0
            else "the rest is of no known class"
        )
    elif known := {name: time for name, time in found.classes.items() if name != OTHER}:
        parts.append(f"most of it is {_largest(known, found.kernel_time_s)}")
    if found.time.host_bound_share >= 0.05:
        parts.append(
            f"for {found.time.host_bound_share:.0%} of its span the device waited for the host"
        )
    return "; ".join(parts) + "."


def _largest(classes: dict[str, float], whole_s: float) -> str:
    name, time = max(classes.items(), key=lambda item: item[1])
    return f"{name} ({time / whole_s:.0%})"
