"""The device's time line: busy, idle, the gaps between kernels, and what the host was late for.

The span runs from the first device work to the end of the last, on each device apart. A gap is the
host's where the next work was handed over only after the device had gone idle: then no kernel was waiting.
Otherwise the device itself took the time (a launch inside a queue, another stream that was waited for).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from profiling.tracing.events import Event, Trace

#: What a call waits for the device by.
_WAITS = ("Synchronize", "synchronize", "EventQuery")


@dataclass(frozen=True, slots=True)
class Timeline:
    """Seconds of the device's time line.

    Attributes:
        span_s: from the first work to the end of the last, over all devices.
        busy_s: at least one stream of the device worked.
        idle_s: none did.
        host_idle_s: of the idle time, before work that the host handed over late.
        gaps: stretches of idle time.
        longest_gap_s: the longest.
        launches: calls that handed work over.
        launch_s: seconds of the host inside them.
        waits: calls in which the host waited for the device.
        wait_s: seconds inside them.
    """

    span_s: float
    busy_s: float
    idle_s: float
    host_idle_s: float
    gaps: int
    longest_gap_s: float
    launches: int
    launch_s: float
    waits: int
    wait_s: float

    @property
    def host_bound_share(self) -> float:
        """The share of the span in which the device waited for the host."""
        return self.host_idle_s / self.span_s if self.span_s > 0 else 0.0


def timeline(
    trace: Trace, works: Iterable[Event], launched: Mapping[int, Event | None]
) -> Timeline:
    """Return the time line of device work.

    Args:
        trace: that the work is of.
        works: kernels and copies, or the outermost ops of a CPU.
        launched: the launch of each work by its `id`; None where the trace has none.
    """
    by_device: dict[str, list[Event]] = defaultdict(list)
    for work in works:
        by_device[work.place[0]].append(work)
    span = busy = host = longest = 0.0
    gaps = 0
    for items in by_device.values():
        items.sort(key=lambda work: work.begin_us)
        end = items[0].begin_us
        for work in items:
            gap = work.begin_us - end
            if gap > 0:
                gaps += 1
                longest = max(longest, gap)
                launch = launched.get(id(work))
                # On a CPU the host's own time is what lies between two ops.
                if trace.on_cpu or (launch is not None and launch.begin_us >= end):
                    host += gap
            busy += max(0.0, work.end_us - max(end, work.begin_us))
            end = max(end, work.end_us)
        span += end - items[0].begin_us
    calls = [event for events in trace.host.values() for event in events if event.kind == "launch"]
    waits = [event for event in calls if any(word in event.name for word in _WAITS)]
    starts = {id(launch): launch for launch in launched.values() if launch is not None}
    return Timeline(
        span * 1e-6, busy * 1e-6, max(0.0, span - busy) * 1e-6, host * 1e-6, gaps, longest * 1e-6,
        len(starts), sum(launch.length_us for launch in starts.values()) * 1e-6 if calls else 0.0,
        len(waits), sum(event.length_us for event in waits) * 1e-6,
    )  # fmt: skip
