"""Time one op the way it runs inside a model: back to back, weights cold, activations warm.

A repetition is a chain of calls, each on its own weights, so many that together they exceed twice
the last cache; its time is divided by the calls. On CUDA the chain is captured in a graph, so neither
the host nor the events between calls are in the figure. Timing single launches between events adds
the events; repeating one call on one weight reads it from the cache: both are wrong in opposite ways.
A chain that stays inside the cache, or could not be captured, says so in its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import DeviceUnavailableError, UnsupportedError
from profiling.records.samples import dispersion, order_statistic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from profiling.devices.interface import Clock, Device

#: Weights of one chain add up to this where the size of the last cache is not known.
CHAIN_BYTES = 256 * 1024 * 1024
#: Calls of a chain: without weights; at least; and at most, for weights of half a megabyte.
MAX_CALLS, MIN_CALLS, MAX_COPIES = 16, 4, 256
MIN_SAMPLES, MAX_SAMPLES = 5, 200
#: A chain of slow calls is shortened to this many seconds.
CHAIN_S = 0.02
#: How long a product runs without a pause before its time counts as that of a sustained load.
SUSTAINED_S = 1.0


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


def calls_for(weight_bytes: int, cache_bytes: int | None = None) -> int:
    """Return how many calls a chain has, so that its weights exceed twice the last cache.

    Args:
        weight_bytes: bytes of one call that must come from memory.
        cache_bytes: size of the last cache, None where nobody says.

    >>> calls_for(32 * 1024 * 1024), calls_for(1 << 40), calls_for(0)
    (8, 4, 16)

    A vision tower's 1024 x 1024 weights in 16 bits on a device with 50 MB of cache:

    >>> calls_for(2 * 1024**2, 50_000_000)
    49
    """
    if weight_bytes <= 0:
        return MAX_CALLS
    if cache_bytes is None:
        return max(MIN_CALLS, min(MAX_CALLS, -(-CHAIN_BYTES // weight_bytes)))
    return max(MIN_CALLS, min(MAX_COPIES, 2 * cache_bytes // weight_bytes + 2))


def cache_state(weight_bytes: int, copies: int, cache_bytes: int | None) -> str:
    """Return where a chain finds its weights: `weights-cold`, `weights-in-cache` or `no-weights`.

    >>> cache_state(2 * 1024**2, 49, 50_000_000), cache_state(2 * 1024**2, 16, 50_000_000)
    ('weights-cold', 'weights-in-cache')
    """
    if weight_bytes <= 0:
        return "no-weights"
    return "weights-cold" if weight_bytes * copies > 2 * (cache_bytes or 0) else "weights-in-cache"


def time_case(
    case: OpCase,
    device: Device,
    *,
    budget_s: float,
    sustained_s: float = 0.0,
) -> dict[str, Any]:
    """Return one row of an op table.

    Args:
        case: the op.
        device: where it runs.
        budget_s: measured time to spend, after the warm-up.
        sustained_s: run without a pause for this long first, so that clocks and power have settled;
            the row is then one of a sustained load.
    """
    clock, cache_bytes = device.clock(), device.cache_bytes()
    functions = case.prepare(calls_for(case.weight_bytes, cache_bytes))
    copies = len(functions)
    functions = _affordable(functions, clock)
    chain, captured = _chain(functions), None
    if clock.asynchronous:
        chain, captured = _captured(chain, device)
    chain()
    clock.synchronize()
    if sustained_s:
        keep_busy(chain, clock, sustained_s)
    samples: list[float] = []
    spent_s = 0.0
    while len(samples) < MAX_SAMPLES and (not samples or spent_s < budget_s):
        # A few at a time between waits: the stop is decided on the host.
        marks = []
        for _ in range(MIN_SAMPLES):
            begin = clock.mark()
            chain()
            marks.append((begin, clock.mark()))
        clock.synchronize()
        seconds = [clock.elapsed_s(begin, end) for begin, end in marks]
        clock.recycle([mark for pair in marks for mark in pair])
        samples += [item / len(functions) for item in seconds]
        spent_s += sum(seconds)
    copies = min(copies, len(functions))
    return {
        "op_class": case.op_class,
        "dtype": case.dtype,
        **case.sizes,
        "flops": case.flops,
        "bytes": case.traffic_bytes,
        **statistics(samples),
        "cache": cache_state(case.weight_bytes, copies, cache_bytes),
        "weight_copies": copies if case.weight_bytes else 1,
        "load": "sustained" if sustained_s else "burst",
        "calls": len(functions),
        **({} if captured is None else {"graph": captured}),
    }


def keep_busy(work: Callable[[], Any], clock: Clock, seconds: float) -> None:
    """Repeat work until so many seconds have passed; the host runs ahead by a few calls and no more."""
    begun_s = clock.now_s()
    while clock.now_s() - begun_s < seconds:
        for _ in range(4):
            work()
        clock.synchronize()


def _affordable(functions: list[Callable[[], Any]], clock: Clock) -> list[Callable[[], Any]]:
    """Shorten a chain of slow calls: a cold cache hardly changes calls that take milliseconds."""
    functions[0]()
    clock.synchronize()
    started = clock.now_s()
    functions[-1]()
    clock.synchronize()
    seconds = clock.now_s() - started
    if seconds > CHAIN_S:
        return functions[:1]
    most = max(MIN_CALLS, int(CHAIN_S / max(seconds, 1e-9)))
    return functions[:most]


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


def _captured(chain: Callable[[], None], device: Device) -> tuple[Callable[[], None], bool]:
    """Return the chain as a graph, or as it is where it cannot be captured, and which of the two."""
    try:
        graph, _ = device.graphs().capture(chain)
    except (UnsupportedError, DeviceUnavailableError):
        # Something inside asks the host (a quantised kernel): its row holds the host's share too.
        return chain, False
    return graph.replay, True


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
        start = clock.now_s()
        for _ in range(count):
            work()
        seconds.append((clock.now_s() - start) / count)
    clock.synchronize()
    return seconds
