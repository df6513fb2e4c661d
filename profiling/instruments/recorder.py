"""Seconds of every stage: marks while the model runs, differences after one synchronisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiling.devices.interface import Clock, Mark


@dataclass(frozen=True, slots=True)
class RepetitionTimes:
    """Seconds of one repetition, a list per stage: one entry per time the stage was entered."""

    event_s: dict[str, list[float]]
    host_s: dict[str, list[float]]


@dataclass(slots=True)
class Recorder:
    """Take a mark at each stage border, and read the seconds after one synchronisation.

    >>> from profiling.devices.cpu import HostClock
    >>> recorder = Recorder(HostClock())
    >>> recorder.begin("prefill"); recorder.end("prefill"); recorder.close()
    >>> [list(repetition.event_s) for repetition in recorder.collect()]
    [['prefill']]
    """

    clock: Clock
    _open: list[tuple[str, bool, Mark]] = field(default_factory=list)
    _closed: list[list[tuple[str, bool, Mark]]] = field(default_factory=list)

    def begin(self, stage: str) -> None:
        """Take the mark of a stage's beginning."""
        self._open.append((stage, True, self.clock.mark()))

    def end(self, stage: str) -> None:
        """Take the mark of a stage's end."""
        self._open.append((stage, False, self.clock.mark()))

    def close(self) -> None:
        """End the repetition."""
        self._closed.append(self._open)
        self._open = []

    def discard(self) -> None:
        """Forget everything that has not been collected, such as the rest of a failed run."""
        self._open = []
        self._closed = []

    def collect(self) -> list[RepetitionTimes]:
        """Return the closed repetitions; only after the clock was synchronised."""
        repetitions = []
        for marks in self._closed:
            event_s: dict[str, list[float]] = {}
            host_s: dict[str, list[float]] = {}
            begun: dict[str, list[Mark]] = {}
            for stage, is_begin, mark in marks:
                if is_begin:
                    begun.setdefault(stage, []).append(mark)
                    continue
                start = begun[stage].pop()
                event_s.setdefault(stage, []).append(self.clock.elapsed_s(start, mark))
                host_s.setdefault(stage, []).append(mark.host_s - start.host_s)
            repetitions.append(RepetitionTimes(event_s, host_s))
            self.clock.recycle([mark for _, _, mark in marks])
        self._closed = []
        return repetitions
