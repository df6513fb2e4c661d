"""CUDA and ROCm through `torch.cuda`: the only module that calls it.

ROCm builds of torch answer under the same names, so one implementation serves both.
"""

from __future__ import annotations

import time
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import DeviceUnavailableError, UnsupportedError
from profiling.devices.interface import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import torch

#: Tried after a failed capture to see whether captures still work.
_PROBE = 7.0


def _cuda() -> Any:
    """Return `torch.cuda`, whose functions carry no types."""
    import torch

    return torch.cuda


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
        self._new_event = new_event or (lambda: _cuda().Event(enable_timing=True))
        self._synchronize = synchronize or _cuda().synchronize
        self._pool: list[Any] = []

    def mark(self) -> Mark:
        """Record an event on the current stream."""
        event = self._pool.pop() if self._pool else self._new_event()
        event.record()
        return Mark(self.now_s(), event)

    def synchronize(self) -> None:
        """Wait for the device."""
        self._synchronize()

    def elapsed_s(self, begin: Mark, end: Mark) -> float:
        """Return the seconds between two recorded events."""
        return float(begin.event.elapsed_time(end.event)) * 1e-3

    def recycle(self, marks: list[Mark]) -> None:
        """Put the events back into the pool."""
        self._pool.extend(mark.event for mark in marks)

    def now_s(self) -> float:
        """Return the host's time."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let the host wait."""
        time.sleep(seconds)


class CudaMemory:
    """`torch.cuda`'s allocator statistics of one device.

    Args:
        place: the device, for torch.
        cuda: stands in for `torch.cuda`.
    """

    name = "cuda-allocator"

    def __init__(self, place: Any = "cuda", cuda: Any = None) -> None:
        self._cuda = _cuda() if cuda is None else cuda
        self._place = place

    def allocated_bytes(self) -> int:
        """Return what tensors hold now."""
        return int(self._cuda.memory_allocated(self._place))

    def reserved_bytes(self) -> int:
        """Return what the allocator holds now."""
        return int(self._cuda.memory_reserved(self._place))

    def take_peaks(self) -> tuple[int, int]:
        """Return the allocator's peaks since the last call."""
        allocated = int(self._cuda.max_memory_allocated(self._place))
        reserved = int(self._cuda.max_memory_reserved(self._place))
        self._cuda.reset_peak_memory_stats(self._place)
        return allocated, reserved


class CudaGraphs:
    """CUDA graphs that share one memory pool.

    Args:
        cuda: stands in for `torch.cuda`.
        end_pool: ends an allocation into a pool that a failed capture left open.
    """

    #: Why this process can capture no more; None while it can.
    spoilt: str | None = None

    def __init__(
        self, cuda: Any = None, end_pool: Callable[[int, Any], None] | None = None
    ) -> None:
        self._cuda = _cuda() if cuda is None else cuda
        self._end_pool = end_pool
        self._pool: Any = None

    def capture(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        """Warm up on a side stream, as capture requires, then capture.

        After a failure the stream that was current is current again and the pool is closed; a small
        capture then shows whether further ones work.

        Raises:
            UnsupportedError: the work synchronises or reads device data on the host.
            DeviceUnavailableError: an earlier capture left the process unable to capture.
        """
        import torch

        if CudaGraphs.spoilt is not None:
            raise DeviceUnavailableError(
                f"this process can capture no CUDA graph after a failed capture ({self.spoilt}); "
                "start again to go on with the remaining points"
            )
        cuda = self._cuda
        before = cuda.current_stream()
        stream = cuda.Stream()
        stream.wait_stream(before)
        with cuda.stream(stream):
            for _ in range(2):
                work()
        before.wait_stream(stream)
        cuda.synchronize()
        if self._pool is None:
            # Made here, so that it is known by number when a capture fails.
            self._pool = cuda.graph_pool_handle()
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, pool=self._pool):
                output = work()
        except RuntimeError as error:
            self._restore(before)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            first = str(error).strip().splitlines()[0]
            if not self._can_capture():
                CudaGraphs.spoilt = first
            raise UnsupportedError(
                f"the language model cannot be captured in a CUDA graph: {first}; use mode eager"
            ) from error
        return graph, output

    def _restore(self, before: Any) -> None:
        """Put the stream back and close the pool: where ending a capture fails, torch does neither."""
        import torch

        self._cuda.set_stream(before)
        end = self._end_pool or getattr(torch._C, "_cuda_endAllocateToPool", None)
        if end is not None:
            # It refuses a pool that was closed already.
            with suppress(RuntimeError):
                end(self._cuda.current_device(), self._pool)
        # What the failed capture allocated belongs to no graph.
        self._pool = None

    def _can_capture(self) -> bool:
        """Return whether a small graph can still be captured and gives what it computes."""
        import torch

        cuda = self._cuda
        try:
            cuda.synchronize()
            cell = torch.full((1,), _PROBE, device=cuda.current_stream().device)
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                doubled = cell + cell
            graph.replay()
            cuda.synchronize()
            return float(doubled) == 2 * _PROBE
        except RuntimeError:
            return False


class CudaDevice:
    """One CUDA or ROCm device.

    Args:
        name: `cuda` (the current device) or `cuda:N`.

    Raises:
        DeviceUnavailableError: torch sees no such device.
    """

    kind = "cuda"
    why_missing: Mapping[str, str] = MappingProxyType({})

    def __init__(self, name: str = "cuda") -> None:
        import torch

        cuda = _cuda()
        if not cuda.is_available():
            built = "with CUDA" if torch.version.cuda else "without CUDA"
            raise DeviceUnavailableError(
                f"no CUDA device: torch {torch.__version__} is built {built} and sees none; "
                "use --device cpu, or install a CUDA build of torch on a machine with a GPU"
            )
        index = name.partition(":")[2]
        if index and int(index) >= cuda.device_count():
            raise DeviceUnavailableError(
                f"no device {name}: there are {cuda.device_count()} CUDA devices"
            )
        self.name = name
        self.place: torch.device = torch.device(name)

    def current(self) -> AbstractContextManager[Any]:
        """Make this the current device: events, streams and waits name none."""
        manager: AbstractContextManager[Any] = _cuda().device(self.place)
        return manager

    def clock(self) -> CudaClock:
        """Return a clock of events."""
        return CudaClock()

    def memory(self) -> CudaMemory:
        """Return the allocator's statistics."""
        return CudaMemory(self.place)

    def graphs(self) -> CudaGraphs:
        """Return what captures graphs."""
        return CudaGraphs()

    def profiler(self) -> AbstractContextManager[Any]:
        """Return torch's profiler of host and device."""
        return _profiler()

    def generator(self, seed: int) -> torch.Generator:
        """Return a seeded generator on the device."""
        import torch

        return torch.Generator(self.place).manual_seed(seed)

    def choose(self, local_rank: int) -> None:
        """Make the GPU of a local rank the current device of this process.

        Raises:
            DeviceUnavailableError: there are not as many.
        """
        count = _cuda().device_count()
        if local_rank >= count:
            raise DeviceUnavailableError(
                f"no GPU for LOCAL_RANK {local_rank}: there are {count}; start at most {count} processes here"
            )
        _cuda().set_device(local_rank)

    def release_memory(self) -> None:
        """Give cached blocks back; a device that was lost has none."""
        try:
            _cuda().empty_cache()
        except RuntimeError:
            if self.is_alive():
                raise

    def is_alive(self) -> bool:
        """Return whether a wait and a small kernel still work.

        Messages do not tell: an error of cuBLAS, of cuDNN or of a capture leaves the context whole,
        and its text begins like that of a lost one.
        """
        import torch

        try:
            _cuda().synchronize(self.place)
            return float(torch.ones(1, device=self.place) + 1.0) == 2.0
        except RuntimeError:
            return False

    def describe(self) -> dict[str, Any]:
        """Return name, size and software, and whether cuDNN may run attention."""
        import torch

        properties: Any = _cuda().get_device_properties(self.place)
        backends: Any = torch.backends
        found = {
            "device_name": properties.name,
            "device_memory_bytes": int(properties.total_memory),
            "sm_count": int(properties.multi_processor_count),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": backends.cudnn.version(),
            "cudnn_attention": bool(backends.cuda.cudnn_sdp_enabled()),
            "flash_attention": bool(backends.cuda.flash_sdp_enabled()),
            "allow_tf32": bool(backends.cuda.matmul.allow_tf32),
            "cache_bytes": self.cache_bytes(),
        }
        if torch.version.hip:
            found["gcn_architecture"] = properties.gcnArchName
        return found

    def uuid(self) -> str:
        """Return the device's UUID as torch knows it."""
        return str(_cuda().get_device_properties(self.place).uuid)

    def capability(self) -> tuple[int, int]:
        """Return the compute capability."""
        major, minor = _cuda().get_device_capability(self.place)
        return int(major), int(minor)

    def cache_bytes(self) -> int | None:
        """Return the size of the L2 cache."""
        size = getattr(_cuda().get_device_properties(self.place), "L2_cache_size", None)
        return int(size) if size else None


def _profiler() -> AbstractContextManager[Any]:
    from torch.profiler import ProfilerActivity, profile

    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    return profile(activities=both, record_shapes=True)
