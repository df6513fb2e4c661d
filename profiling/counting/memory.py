"""Peak memory per stage: from the device's allocator, or from the ledger of ops where there is none.

The allocator keeps its statistics on the host, in the order of the calls, so they can be read at
stage borders without waiting for the device. This happens in a run of its own, never a timed one.
What compares with the cost model is `allocated` (tensors); `reserved` is what the allocator holds.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from profiling.records.measurement import TOTAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from profiling.counting.ledger import Ledger
    from profiling.devices.interface import MemorySource
    from profiling.subject.execution import Execution


class LedgerMemory:
    """Live bytes by the ledger of dispatched ops; there is no reserve to speak of."""

    name = "op-ledger"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def allocated_bytes(self) -> int:
        """Return the live bytes now."""
        return self._ledger.live_bytes

    def reserved_bytes(self) -> None:
        """Return None: ops reserve nothing."""

    def take_peaks(self) -> tuple[int, int | None]:
        """Return the ledger's peak since the last call."""
        return self._ledger.take_peak(), None


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


@contextmanager
def ledger_for(model: nn.Module, execution: Execution) -> Iterator[Ledger]:
    """Open a ledger that starts with the model's weights and inputs."""
    from profiling.counting.ledger import Ledger

    roots = [*model.parameters(), *model.buffers(), *execution.resident_tensors()]
    with Ledger(roots) as ledger:
        yield ledger


def activation_bytes(stages: dict[str, StageMemory], weight_bytes: int) -> int | None:
    """Return the total's peak less the weights: what the cost model calls activations and cache.

    Args:
        stages: as `allocator_peaks` returns them.
        weight_bytes: bytes of the model's weights.

    >>> activation_bytes({"total": StageMemory(10, 25)}, 10)
    15
    """
    total = stages.get(TOTAL)
    return None if total is None else total.peak_allocated_bytes - weight_bytes
