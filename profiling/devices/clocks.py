"""Two clocks behind one small interface: CUDA events on the stream, and the host's own clock.

A mark is taken without waiting for the device; seconds between marks are asked for after one
`synchronize` at the end. Every mark also carries the host's time, so that the time the host needed
to issue the work is known beside the time the work took.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from profiling.devices.device import device_kind

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Mark:
    """A point in time on the stream (`event`, None on a CPU) and on the host (`host_s`)."""

    host_s: float
    event: Any = None


class Clock(Protocol):
    """What the measuring loop needs from a device."""

    name: str
    #: Whether work is queued and runs after the call that issued it has returned.
    asynchronous: bool

    def mark(self) -> Mark:
        """Take a mark on the current stream, without waiting."""

    def synchronize(self) -> None:
        """Wait until the device has done everything it was given."""

    def elapsed_s(self, begin: Mark, end: Mark) -> float:
        """Return the seconds between two marks; only after `synchronize`."""

    def recycle(self, marks: list[Mark]) -> None:
        """Take marks back whose times have been read."""


class HostClock:
    """`time.perf_counter`: for devices whose calls return when the work is done.

    >>> clock = HostClock()
    >>> clock.elapsed_s(Mark(1.0), Mark(3.5))
    2.5
    """

    name = "perf_counter"
    asynchronous = False

    def mark(self) -> Mark:
        """Take a mark."""
        return Mark(time.perf_counter())

    def synchronize(self) -> None:
        """Return at once: nothing is queued."""

    def elapsed_s(self, begin: Mark, end: Mark) -> float:
        """Return the seconds between two marks."""
        return end.host_s - begin.host_s

    def recycle(self, marks: list[Mark]) -> None:
        """Forget the marks."""


class CudaClock:
    """CUDA events on the current stream, made once and used again.

    Creating an event while timing costs microseconds on the host, so a pool is kept. The event is
    recorded before the host's clock is read, so that a mark's host time includes its own cost.

    Args:
        new_event: makes an event with `record()` and `elapsed_time(end)` in milliseconds.
        synchronize: blocks until the device has finished.
    """

    name = "cuda-event"
    asynchronous = True

    def __init__(
        self,
        new_event: Callable[[], Any] | None = None,
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        if new_event is None or synchronize is None:
            import torch

            cuda: Any = torch.cuda
            new_event = new_event or (lambda: cuda.Event(enable_timing=True))
            synchronize = synchronize or cuda.synchronize
        self._new_event = new_event
        self._synchronize = synchronize
        self._pool: list[Any] = []

    def mark(self) -> Mark:
        """Record an event on the current stream."""
        event = self._pool.pop() if self._pool else self._new_event()
        event.record()
        return Mark(time.perf_counter(), event)

    def synchronize(self) -> None:
        """Wait for the device."""
        self._synchronize()

    def elapsed_s(self, begin: Mark, end: Mark) -> float:
        """Return the seconds between two recorded events."""
        return float(begin.event.elapsed_time(end.event)) * 1e-3

    def recycle(self, marks: list[Mark]) -> None:
        """Put the events back into the pool."""
        self._pool.extend(mark.event for mark in marks)


def clock_for(device: str) -> Clock:
    """Return the clock of a device kind.

    Args:
        device: `cuda`, `cuda:1` or `cpu`.

    Raises:
        InvalidInputError: another kind of device.
        DeviceUnavailableError: no CUDA device here.
    """
    kind = device_kind(device)
    return CudaClock() if kind == "cuda" else HostClock()
