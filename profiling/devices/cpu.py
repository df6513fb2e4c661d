"""The CPU: calls return when the work is done, and the host's own clock times them."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import UnsupportedError
from profiling.devices.interface import Mark

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import torch


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

    def now_s(self) -> float:
        """Return the host's time."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let the host wait."""
        time.sleep(seconds)


class CpuDevice:
    """The processor that runs this program."""

    kind = "cpu"
    why_missing: Mapping[str, str] = MappingProxyType(
        {
            "enqueue_s": "calls on a CPU return when the work is done",
            "peak_reserved_bytes": "a CPU has no caching allocator",
            "busy_s": "on a CPU the host is the device",
        }
    )

    def __init__(self, name: str = "cpu") -> None:
        import torch

        self.name = name
        self.place: torch.device = torch.device(name)

    def current(self) -> AbstractContextManager[Any]:
        """Do nothing: there is one CPU."""
        return nullcontext()

    def clock(self) -> HostClock:
        """Return the host's clock."""
        return HostClock()

    def memory(self) -> None:
        """Return None: a CPU has no caching allocator."""

    def graphs(self) -> Any:
        """Refuse: a CPU has no graphs.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "mode 'cuda-graph' needs a CUDA device; on a CPU run 'eager' or 'compile'"
        )

    def profiler(self) -> AbstractContextManager[Any]:
        """Return torch's profiler of host ops."""
        from torch.profiler import ProfilerActivity, profile

        # Kineto writes that it looks for GPUs and finds none.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        return profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def generator(self, seed: int) -> torch.Generator:
        """Return a seeded generator."""
        import torch

        return torch.Generator(self.place).manual_seed(seed)

    def choose(self, local_rank: int) -> None:
        """Do nothing: processes share the CPU."""

    def release_memory(self) -> None:
        """Do nothing: freed memory is free."""

    def is_alive(self) -> bool:
        """Return True: this program runs on it."""
        return True

    def describe(self) -> dict[str, Any]:
        """Return the vector extensions that torch uses."""
        import torch

        return {"cpu_capability": torch.backends.cpu.get_cpu_capability()}

    def uuid(self) -> None:
        """Return None: a processor shows no UUID."""

    def capability(self) -> None:
        """Return None: compute capability is CUDA's."""

    def cache_bytes(self) -> None:
        """Return None: torch does not say."""
