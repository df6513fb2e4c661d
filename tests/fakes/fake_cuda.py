"""A GPU whose kernels run on the CPU and whose time is counted instead of measured.

`FakeCuda` stands in for `torch.cuda`: one stream with a queue, events, an allocator with peaks, graphs,
a context that can be lost. Every op that would launch a kernel costs the host `issue_s` and the stream
what the law of the device says; the host runs ahead until the queue is full or it reads something back.
A capture refuses what a capture refuses: waiting, reading back, values that come from the host. A graph
is a list of ops, and replaying it runs them again into the tensors of the capture.

`FakeDevice` is the package's own CUDA device on top of it, with the simulated clock.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fake_nvml import FakeNvml
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.flop_counter import flop_registry

from hardware_specs.detect import ReportedDevice
from profiling.counting.ledger import Ledger, _launches
from profiling.counting.one_run import attention_flops
from profiling.devices import cuda as layer
from profiling.devices import device as opening
from profiling.devices.cuda import CudaClock, CudaDevice, CudaGraphs
from profiling.instruments import nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UUID = "0a1b2c3d-0000-1111-2222-333344445555"
#: Reading one of these makes the host wait for everything that is queued.
READS_BACK = frozenset(
    {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal",
     "aten::is_nonzero", "aten::unique_dim", "aten::_unique2"}
)  # fmt: skip
#: A value from the host is copied to the device, which a capture forbids.
FROM_HOST = frozenset({"aten::lift_fresh"})
#: What is read from a tensor that has a shape and no values.
READ_FROM_SHAPES = 2.0
PLAIN = (torch.Tensor, torch.nn.Parameter)
LAUNCH = "launch:"
LOST = "CUDA error: an illegal memory access was encountered"


@dataclass
class Law:
    """Seconds of a kernel: overhead_s + max(FLOPs / flop_per_s, bytes / bytes_per_s)."""

    overhead_s: float = 4e-6
    flop_per_s: float = 500e12
    bytes_per_s: float = 3e12
    #: Multiplies each kernel's time, given how many were launched before.
    factor: Callable[[int], float] = lambda _number: 1.0

    def seconds(self, func: Any, args: Any, kwargs: Any, result: Any) -> float:
        packet = func._overloadpacket
        flops = 0
        if "scaled_dot_product" in func._schema.name:
            flops = attention_flops(*(item.shape for item in args[:3]))
        elif packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=result)
        size = sum(
            item.numel() * item.element_size()
            for item in _leaves((args, kwargs, result))
            if isinstance(item, torch.Tensor)
        )
        return self.overhead_s + max(flops / self.flop_per_s, size / self.bytes_per_s)


class OfShapes:
    """An op that gives for tensors without values what it gave for others of the same shapes.

    PyTorch works many of these shapes out in Python, at every call.
    """

    def __init__(self, func: Any, results: dict[Any, Any]) -> None:
        self.func, self.results = func, results

    def __getattr__(self, name: str) -> Any:
        return getattr(self.func, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves = list(_leaves((args, kwargs)))
        tensors = [item for item in leaves if isinstance(item, torch.Tensor)]
        if not tensors or not all(item.is_meta and type(item) in PLAIN for item in tensors):
            return self.func(*args, **kwargs)
        key = (self.func, *kwargs, *map(_described, leaves))
        if key not in self.results:
            given, form = tree_flatten(self.func(*args, **kwargs))
            self.results[key] = [_described(item) for item in given], form
        given, form = self.results[key]
        return tree_unflatten([_made(*item) for item in given], form)


def _leaves(item: Any) -> Iterator[Any]:
    """Yield what an op was given, and the length of each list before what is in it."""
    if isinstance(item, list | tuple | dict):
        yield len(item)
        for each in item.values() if isinstance(item, dict) else item:
            yield from _leaves(each)
    else:
        yield item


def _described(item: Any) -> tuple[Any, ...]:
    if isinstance(item, torch.Tensor):
        return torch.Tensor, item.shape, item.stride(), item.dtype
    return type(item), item


def _made(kind: Any, *of: Any) -> Any:
    if kind is torch.Tensor:
        return torch.empty_strided(of[0], of[1], dtype=of[2], device="meta")
    return of[0]


class Stream:
    """A stream, by name only: there is one queue."""

    device = torch.device("cpu")

    def wait_stream(self, _other: Stream) -> None: ...


@dataclass
class Graph:
    """A captured list of ops."""

    cuda: FakeCuda
    ops: list[tuple[Any, Any, Any, Any, float]] = field(default_factory=list)

    def replay(self) -> None:
        shapes_only = any(
            isinstance(item, torch.Tensor) and item.device.type == "meta"
            for item in tree_leaves([result for _, _, _, result, _ in self.ops[:1]])
        )
        with _disable_current_modes():
            for func, args, kwargs, result, _ in () if shapes_only else self.ops:
                again = func(*args, **kwargs)
                if func.is_view or any(item.alias_info for item in func._schema.arguments):
                    continue
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)
        kernels = [(func._schema.name, seconds) for func, *_, seconds in self.ops if seconds]
        ranged = nullcontext() if self.cuda.tracing is None else _launch_range(self.cuda.launches)
        with ranged:
            self.cuda.launch(kernels)


def _launch_range(number: int) -> Any:
    return torch.profiler.record_function(f"{LAUNCH}{number}")


class FakeCuda(Ledger):
    """`torch.cuda` of one device; ops run inside `with cuda:` are its kernels.

    Args:
        law: seconds of a kernel.
        issue_s: the host's seconds to launch one.
        queue: launches that fit into the queue.
        memory_bytes: beyond this much the device is out of memory.
    """

    def __init__(
        self,
        law: Law | None = None,
        issue_s: float = 10e-6,
        queue: int = 1024,
        memory_bytes: int = 141 * 10**9,
        cache_bytes: int | None = 50_000_000,
    ) -> None:
        super().__init__()
        self.law, self.issue_s, self.queue = law or Law(), issue_s, queue
        self.memory_bytes, self.cache_bytes = memory_bytes, cache_bytes
        self.host_s = self.free_s = self.busy_s = 0.0
        self.pending: deque[float] = deque()
        self.launches = 0
        #: What ops gave for tensors without values.
        self.results: dict[Any, Any] = {}
        #: The ops that made the host wait.
        self.waits: Counter[str] = Counter()
        self.main = Stream()
        self.stream_now = self.main
        self.capturing: Graph | None = None
        self.spoilt_capture = False
        self.made_current: list[Any] = []
        self.open_pools: list[int] = []
        self.pools = 0
        self.reserved = 0
        self.max_reserved = 0
        #: Launches after which the context is lost; None never loses it.
        self.lose_after: int | None = None
        self.tracing: list[tuple[int, str, float]] | None = None
        self.sensors: Any = None

    # ------------------------------------------------------------------ ops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in READS_BACK:
            self._wait(name)
            if args[0].device.type == "meta":
                return READ_FROM_SHAPES
        if self.capturing is not None and name in FROM_HOST:
            self._refuse("copying from the host")
        # A range of the profiler is an op too, but no work.
        launches = _launches(func) and not name.startswith("profiler::")
        if launches and not func.is_view and not any(a.alias_info for a in func._schema.arguments):
            func = OfShapes(func, self.results)
        number = self.launches
        if launches and self.tracing is not None and self.capturing is None:
            with _launch_range(number):
                result = super().__torch_dispatch__(func, types, args, kwargs)
        else:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        self.reserved = max(self.reserved, self.live_bytes)
        self.max_reserved = max(self.max_reserved, self.reserved)
        if self.live_bytes > self.memory_bytes:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {name}")
        seconds = self.law.seconds(func, args, kwargs, result) if launches else 0.0
        if self.capturing is not None:
            self.capturing.ops.append((func, args, kwargs, result, seconds))
            self.host_s += self.issue_s
        elif launches:
            self.launch([(name, seconds * self.law.factor(number))])
        return result

    def launch(self, kernels: list[tuple[str, float]]) -> None:
        """Queue kernels by one call of the host."""
        self._alive()
        self.host_s += self.issue_s
        while self.pending and self.pending[0] <= self.host_s:
            self.pending.popleft()
        if len(self.pending) >= self.queue:
            self.host_s = self.pending.popleft()
        for name, seconds in kernels:
            if self.tracing is not None:
                self.tracing.append((self.launches, name, seconds))
            self.free_s = max(self.host_s, self.free_s) + seconds
            self.busy_s += seconds
        self.pending.append(self.free_s)
        self.launches += 1

    def _alive(self) -> None:
        if self.lose_after is not None and self.launches >= self.lose_after:
            raise RuntimeError(LOST)

    def _refuse(self, what: str) -> None:
        self.spoilt_capture = True
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")

    def _wait(self, what: str) -> None:
        if self.capturing is not None:
            self._refuse(what)
        self._alive()
        self.waits[what] += 1
        self.host_s = max(self.host_s, self.free_s)
        self.pending.clear()

    # ------------------------------------------------------------------ torch.cuda

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    @contextmanager
    def device(self, place: Any) -> Iterator[None]:
        self.made_current.append(place)
        yield

    def synchronize(self, _place: Any = None) -> None:
        self._wait("synchronize")

    def Event(self, *, enable_timing: bool) -> Any:
        cuda = self
        assert enable_timing

        class Event:
            at_s = -1.0

            def record(self) -> None:
                cuda.host_s += 0.1 * cuda.issue_s
                self.at_s = max(cuda.host_s, cuda.free_s)

            def elapsed_time(self, end: Any) -> float:
                assert end.at_s <= cuda.host_s, "an event was read before anybody waited"
                return float(end.at_s - self.at_s) * 1e3

        return Event()

    Stream = Stream

    def current_stream(self) -> Stream:
        return self.stream_now

    def set_stream(self, stream: Stream) -> None:
        self.stream_now = stream

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.stream_now = self.stream_now, stream
        yield
        self.stream_now = before

    def is_current_stream_capturing(self) -> bool:
        return self.capturing is not None

    def graph_pool_handle(self) -> int:
        self.pools += 1
        return self.pools

    def CUDAGraph(self) -> Graph:
        return Graph(self)

    @contextmanager
    def graph(self, graph: Graph, pool: int | None = None) -> Iterator[None]:
        self._wait("synchronize")
        self.empty_cache()
        before = self.stream_now
        self.stream_now, self.capturing, self.spoilt_capture = Stream(), graph, False
        pool = self.graph_pool_handle() if pool is None else pool
        self.open_pools.append(pool)
        try:
            yield
        except BaseException:
            self.capturing = None
            # Ending a spoilt capture raises before stream and pool are put back.
            if self.spoilt_capture:
                raise RuntimeError(
                    "operation failed due to a previous error during capture"
                ) from None
            self.open_pools.remove(pool)
            self.stream_now = before
            raise
        self.capturing = None
        self.open_pools.remove(pool)
        self.stream_now = before

    def end_pool(self, _device: int, pool: int) -> None:
        if pool not in self.open_pools:
            raise RuntimeError("no allocation to this pool")
        self.open_pools.remove(pool)

    def memory_allocated(self, _place: Any) -> int:
        return self.live_bytes

    def memory_reserved(self, _place: Any) -> int:
        return self.reserved

    def max_memory_allocated(self, _place: Any) -> int:
        return self.peak_bytes

    def max_memory_reserved(self, _place: Any) -> int:
        return self.max_reserved

    def reset_peak_memory_stats(self, _place: Any) -> None:
        self.peak_bytes, self.max_reserved = self.live_bytes, self.reserved

    def empty_cache(self) -> None:
        self._alive()
        self.reserved = self.live_bytes

    def get_device_properties(self, _place: Any) -> Any:
        return SimpleNamespace(
            name="NVIDIA H200", total_memory=150_754_820_096, multi_processor_count=132, major=9,
            minor=0, uuid=UUID, L2_cache_size=self.cache_bytes,
        )  # fmt: skip

    def get_device_capability(self, _place: Any) -> tuple[int, int]:
        return 9, 0


class FakeClock(CudaClock):
    """The simulated host's clock, and the stream's events."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()
        self.cuda = cuda

    def now_s(self) -> float:
        self.cuda.host_s += 1e-7
        return self.cuda.host_s

    def sleep(self, seconds: float) -> None:
        self.cuda.host_s += seconds
        # Real threads (the one that polls the power) get a moment too.
        time.sleep(min(seconds, 5e-4))


class FakeDevice(CudaDevice):
    """The package's CUDA device, its tensors on the CPU, or nowhere (`meta`)."""

    def __init__(self, name: str, cuda: FakeCuda, place: str = "cpu") -> None:
        super().__init__(name)
        self.cuda = cuda
        self.place = torch.device(place)

    def clock(self) -> FakeClock:
        return FakeClock(self.cuda)

    def graphs(self) -> CudaGraphs:
        return CudaGraphs(self.cuda, self.cuda.end_pool)

    @contextmanager
    def profiler(self) -> Iterator[Any]:
        self.cuda.tracing = []
        cpu = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=cpu, record_shapes=True) as profiler:
            yield SimpleNamespace(export_chrome_trace=lambda path: self._export(profiler, path))
        self.kernels, self.cuda.tracing = self.cuda.tracing, None

    def _export(self, profiler: Any, path: str) -> None:
        """Write the trace as on a GPU: launches with the kernels that they started."""
        profiler.export_chrome_trace(path)
        document = json.loads(Path(path).read_text())
        for event in document["traceEvents"]:
            if event.get("name", "").startswith(LAUNCH) and event.get("ph") == "X":
                number = int(event["name"].removeprefix(LAUNCH))
                event |= {"cat": "cuda_runtime", "name": "cudaLaunchKernel",
                          "args": {"correlation": number}}  # fmt: skip
        document["traceEvents"] += [
            {"ph": "X", "cat": "kernel", "name": name, "ts": 0.0, "dur": seconds * 1e6, "tid": 7,
             "args": {"correlation": number, "stream": 7}}
            for number, name, seconds in self.kernels
        ]  # fmt: skip
        Path(path).write_text(json.dumps(document))


class Sensors(FakeNvml):
    """NVML of the fake device: the counter moves every so often, and counts what kernels draw."""

    def __init__(self, cuda: FakeCuda, period_s: float = 0.02) -> None:
        super().__init__()
        self.cuda, self.period_s = cuda, period_s
        self.idle_w, self.busy_w = 100.0, 600.0
        self._moved_s, self._counted_mj = -1.0, 0.0

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: int) -> float:
        if self.cuda.host_s - self._moved_s >= self.period_s:
            self._moved_s = self.cuda.host_s
            busy_s = self.cuda.busy_s - max(0.0, self.cuda.free_s - self.cuda.host_s)
            joules = self.idle_w * self.cuda.host_s + (self.busy_w - self.idle_w) * busy_s
            self._counted_mj = float(int(joules * 1e3))
        return self._counted_mj


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A fake GPU under the name `cuda`, from here to the end of the test."""
    cuda = FakeCuda()
    sensors = cuda.sensors = Sensors(cuda)
    monkeypatch.setattr(layer, "_cuda", lambda: cuda)
    monkeypatch.setitem(opening.OPENERS, "cuda", lambda name: FakeDevice(name, cuda))
    monkeypatch.setattr(CudaGraphs, "spoilt", None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", cuda.is_current_stream_capturing)
    monkeypatch.setattr(nvml, "import_module", lambda _name: sensors)
    monkeypatch.setattr(
        "hardware_specs.detect.reported_gpu",
        lambda: ReportedDevice("NVIDIA H200", 150_754_820_096, 132),
    )
    for name in ("cpu", "numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, _reading(cuda, name))
    with cuda:
        yield cuda


@pytest.fixture
def sensors(gpu: FakeCuda) -> Sensors:
    """The fake GPU's sensors, which may be told to fail."""
    return gpu.sensors


@pytest.fixture
def gpu_of_shapes(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A fake GPU whose tensors have shapes and no values: ops of any size take no time of the test."""
    monkeypatch.setitem(opening.OPENERS, "cuda", lambda name: FakeDevice(name, gpu, "meta"))
    return gpu


def _reading(cuda: FakeCuda, name: str) -> Any:
    original = getattr(torch.Tensor, name)

    def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        cuda._wait(name)
        return original(tensor, *args, **kwargs)

    return read
