"""Peak memory per stage: from the device's allocator, or from the ledger of ops where there is none.

The allocator keeps its statistics on the host, in the order of the calls, so they can be read at
stage borders without waiting for the device. This happens in a run of its own, never a timed one.
What compares with the cost model is `allocated` (tensors); `reserved` is what the allocator holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiling.counting.ledger import Ledger
    from profiling.devices.interface import MemorySource
    from profiling.subject.execution import Execution


@dataclass(slots=True)
class StageMemory:
    """Memory that one stage was observed to need, in bytes."""

    resident_bytes: int
    peak_allocated_bytes: int = 0
    peak_reserved_bytes: int | None = None


@dataclass(slots=True)
class PeakObserver:
    """Follow the peaks between stage borders; a stage inside another counts for both.

    Args:
        source: reports the bytes that are allocated.
    """

    source: MemorySource
    stages: dict[str, StageMemory] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def begin(self, stage: str) -> None:
        """Record the peak of the enclosing stage, and start this stage's."""
        self._settle()
        if stage not in self.stages:
            self.stages[stage] = StageMemory(self.source.allocated_bytes())
        self._open.append(stage)

    def end(self, stage: str) -> None:
        """Record the stage's peak."""
        self._settle()
        self._open.remove(stage)

    def _settle(self) -> None:
        allocated, reserved = self.source.take_peaks()
        for name in self._open:
            entry = self.stages[name]
            entry.peak_allocated_bytes = max(entry.peak_allocated_bytes, allocated)
            if reserved is not None:
                entry.peak_reserved_bytes = max(entry.peak_reserved_bytes or 0, reserved)


def allocator_peaks(execution: Execution, source: MemorySource) -> dict[str, StageMemory]:
    """Return the allocator's peaks of one repetition, stage by stage.

    In eager mode only: a replayed graph allocates nothing, and its pool is no peak of a stage.
    """
    observer = PeakObserver(source)
    execution.run(observer)
    return observer.stages


def ledger_for(execution: Execution) -> Ledger:
    """Return a ledger that starts with the model's weights and inputs."""
    from profiling.counting.ledger import Ledger

    model = execution.model
    return Ledger([*model.parameters(), *model.buffers(), *execution.resident_tensors()])
