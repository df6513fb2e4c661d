"""The interface to a device: one protocol that every kind implements.

A mark is taken without waiting for the device; seconds between marks are asked for after one
`synchronize` at the end. Every mark also carries the host's time, so that the time the host needed
to issue the work is known beside the time the work took. What a device lacks is named in
`why_missing`, with the reason, and is never a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import torch


@dataclass(slots=True)
class Mark:
    """A point in time on the stream (`event`, None on a CPU) and on the host (`host_s`)."""

    host_s: float
    event: Any = None


class Clock(Protocol):
    """The time of a device and of its host."""

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

    def now_s(self) -> float:
        """Return the host's time in seconds."""

    def sleep(self, seconds: float) -> None:
        """Let the host wait."""


class MemorySource(Protocol):
    """A source that reports allocated bytes."""

    name: str

    def allocated_bytes(self) -> int:
        """Return what is allocated now."""

    def reserved_bytes(self) -> int | None:
        """Return what the allocator holds now, None where there is no caching allocator."""

    def take_peaks(self) -> tuple[int, int | None]:
        """Return the peaks (allocated, reserved) since the last call, and start again."""


class Replayable(Protocol):
    """A captured graph."""

    def replay(self) -> None:
        """Run it again on the same memory."""


class GraphMaker(Protocol):
    """Captures work into a graph."""

    def capture(self, work: Callable[[], Any]) -> tuple[Replayable, Any]:
        """Run work once for real, then capture it; return the graph and the captured output.

        Raises:
            UnsupportedError: the work synchronises or reads device data on the host.
            DeviceUnavailableError: an earlier capture failed and left the process unable to capture.
        """


class Profiler(Protocol):
    """A profiler that has seen one run."""

    def export_chrome_trace(self, path: str) -> Any:
        """Write what it saw."""


class Device(Protocol):
    """One device.

    Attributes:
        name: as a configuration names it: `cuda`, `cuda:1`, `cpu`.
        kind: `cuda` (CUDA and ROCm) or `cpu`.
        place: where tensors of this device are made, for torch.
        why_missing: quantity -> the reason why this device has none.
    """

    name: str
    kind: str
    place: torch.device
    why_missing: Mapping[str, str]

    def current(self) -> AbstractContextManager[Any]:
        """Make events, streams, waits and statistics inside the block go to this device."""

    def clock(self) -> Clock:
        """Return a clock."""

    def memory(self) -> MemorySource | None:
        """Return the allocator's statistics, None where there is no caching allocator."""

    def graphs(self) -> GraphMaker:
        """Return what captures graphs that share one memory pool.

        Raises:
            UnsupportedError: this kind of device has no graphs.
        """

    def profiler(self) -> AbstractContextManager[Profiler]:
        """Return a profiler of host and device."""

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator of random numbers on this device."""

    def choose(self, local_rank: int) -> None:
        """Make the device of a local rank the current one, where processes share a machine."""

    def release_memory(self) -> None:
        """Give cached memory back, so that every point starts from the same state."""

    def is_alive(self) -> bool:
        """Return whether the device still runs work after an error."""

    def describe(self) -> dict[str, Any]:
        """Return name, size and software of the device as plain JSON data."""

    def uuid(self) -> str | None:
        """Return the UUID by which the driver knows the device."""

    def capability(self) -> tuple[int, int] | None:
        """Return the CUDA compute capability."""

    def cache_bytes(self) -> int | None:
        """Return the size of the last cache before memory (L2), None where nobody says."""
