"""Time one op the way it runs inside a model: back to back, weights cold, activations warm.

A repetition is a chain of calls, each on its own weights, so many that together they exceed the
caches; its time is divided by the calls. On CUDA the chain is captured in a graph, so neither the
host nor the events between calls are in the figure. Timing single launches between events adds the
events; repeating one call on one weight reads it from the cache: both are wrong in opposite ways.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.records.samples import dispersion, order_statistic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from profiling.devices.clocks import Clock

#: Weights of one chain add up to this where memory allows: beyond any cache.
CHAIN_BYTES = 256 * 1024 * 1024
MAX_CALLS = 16
MIN_CALLS = 4


@dataclass(frozen=True, slots=True)
class OpCase:
    """One op to time.

    Args:
        op_class: its class in the cost model.
        dtype: a dtype label.
        sizes: the columns that identify it (m, n, k, ...).
        flops: FLOPs of one call.
        traffic_bytes: bytes of one call, each operand once.
        weight_bytes: bytes that must be cold.
        prepare: given the number of calls, makes their functions.
    """

    op_class: str
    dtype: str
    sizes: dict[str, Any]
    flops: int
    traffic_bytes: int
    weight_bytes: int
    prepare: Callable[[int], list[Callable[[], Any]]]


def calls_for(weight_bytes: int) -> int:
    """Return how many calls a chain has, so that its weights exceed the caches.

    >>> calls_for(32 * 1024 * 1024), calls_for(1 << 40), calls_for(0)
    (8, 4, 16)
    """
    needed = MAX_CALLS if weight_bytes <= 0 else -(-CHAIN_BYTES // weight_bytes)
    return max(MIN_CALLS, min(MAX_CALLS, needed))


def time_case(
    case: OpCase,
    clock: Clock,
    *,
    budget_s: float = 0.15,
    min_samples: int = 5,
    max_samples: int = 200,
    use_graph: bool = True,
) -> dict[str, Any]:
    """Return one row of an op table.

    Args:
        case: the op.
        clock: the device's clock.
        budget_s: measured time to spend, after the warm-up.
        min_samples: fewest samples.
        max_samples: most samples.
        use_graph: capture the chain in a CUDA graph where the clock is CUDA's.
    """
    functions = _affordable(case.prepare(calls_for(case.weight_bytes)), clock)
    count = len(functions)
    chain = _chain(functions)
    if use_graph and clock.asynchronous:
        chain = _captured(chain)
    chain()
    clock.synchronize()
    samples: list[float] = []
    spent_s = 0.0
    while len(samples) < max_samples and (len(samples) < min_samples or spent_s < budget_s):
        # A few at a time between waits: the stop is decided on the host.
        marks = []
        for _ in range(min_samples):
            begin = clock.mark()
            chain()
            marks.append((begin, clock.mark()))
        clock.synchronize()
        seconds = [clock.elapsed_s(begin, end) for begin, end in marks]
        clock.recycle([mark for pair in marks for mark in pair])
        samples += [item / count for item in seconds]
        spent_s += sum(seconds)
    return {
        "op_class": case.op_class,
        "dtype": case.dtype,
        **case.sizes,
        "flops": case.flops,
        "bytes": case.traffic_bytes,
        **statistics(samples),
        "cache": "weights-cold",
        "calls": count,
    }


def _affordable(functions: list[Callable[[], Any]], clock: Clock) -> list[Callable[[], Any]]:
    """Shorten a chain of slow calls: a cold cache hardly changes calls that take milliseconds."""
    functions[0]()
    clock.synchronize()
    started = time.perf_counter()
    functions[-1]()
    clock.synchronize()
    seconds = time.perf_counter() - started
    return functions[: 1 if seconds > 0.02 else 4 if seconds > 0.002 else len(functions)]


def statistics(samples: Sequence[float]) -> dict[str, Any]:
    """Return the columns every row has, from its raw samples in seconds."""
    return {
        "time_s": order_statistic(samples, 0.5),
        "min_s": min(samples),
        "dispersion": dispersion(samples),
        "samples": len(samples),
        "samples_s": [float(f"{item:.6g}") for item in samples],
    }


def _chain(functions: list[Callable[[], Any]]) -> Callable[[], None]:
    def run() -> None:
        for function in functions:
            function()

    return run


def _captured(chain: Callable[[], None]) -> Callable[[], None]:
    from hardware_specs.errors import UnsupportedError
    from profiling.subject.modes import TorchGraphs

    try:
        graph, _ = TorchGraphs().capture(chain)
    except UnsupportedError:
        # Something inside cannot be captured (a quantised kernel that asks the host): time it live.
        return chain
    return graph.replay


def host_seconds(
    work: Callable[[], Any], count: int, clock: Clock, repeats: int = 30
) -> list[float]:
    """Return the host's seconds per call, each from a burst that starts on an idle device.

    Args:
        work: one call that issues work and does not wait.
        count: calls per burst; few enough not to fill the device's queue.
        clock: waits between bursts.
        repeats: number of bursts.
    """
    for _ in range(3):
        work()
    seconds = []
    for _ in range(repeats):
        clock.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            work()
        seconds.append((time.perf_counter() - start) / count)
    clock.synchronize()
    return seconds
