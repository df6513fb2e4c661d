"""`serve`: what a replica serves in steady state under continuous batching, in closed form.

A request takes t_p to its first token (vision tower and prefill, one at a time) and L steps of decode, which
it shares with b - 1 others at t_d(b) each. An engine that always has b requests running spends

    t(b) = t_p + L t_d(b) / b

on each, so that throughput = 1 / t(b). Prefills of others interrupt a request's decode, so that

    TPOT = t_d(b) + (b - 1) t_p / L,    TTFT = t_p + t_d(b) / 2

without a queue. At a rate r of requests per second below 1 / t(b) the running batch follows from Little's
law, b = r (b t_p + L t_d(b)), and the wait for other prefills is that of an M/D/1 queue,
r t_p^2 / (2 (1 - r t_p)). Pipeline stages work on a batch each: t_p and L t_d count 1 / pp of the time, at
b / pp per batch. Replicas share the rate.

The batch that fits holds the whole length of every request beside the activations of one prefill. No
scheduler, no paging and no length but the mean is in this: ratios between plans, models and methods are
better than any absolute number. Sources: Orca (Yu et al. 2022) for the schedule; Little 1961; M/D/1.

>>> found = serve("llava-1.5-7b", "nvidia-a100-sxm4-80gb", output_tokens=128, batch=32)
>>> found.batch, 1 / found.requests_per_s < 32 * found.ttft_s
(32, True)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from costmodel.estimates import answer
from costmodel.kinds import Amount, check_budget, check_count
from costmodel.request import Request, check_names
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from costmodel.time_source import TimeSource

SCHEMA_VERSION = 1
#: Requests that nobody runs at once.
MOST_BATCH = 4096
#: Seconds that no host needs for a step.
MOST_STEP_S = 60.0


@dataclass(frozen=True)
class Serving:
    """What a plan of devices serves in steady state.

    Attributes:
        batch: requests that run at once, of all replicas.
        limited_by: `batch` as given, `rate` of the requests, or `memory`.
        requests_per_s: served requests per second.
        tokens_per_s: output tokens per second.
        ttft_s: mean time to the first token, with the wait for a step and for other prefills.
        tpot_s: mean time per output token, with the prefills of others in between.
        engine_s: time of a replica that one request takes, t(b).
        largest_batch: requests that fit the memory, of all replicas; None where the capacity is not known.
        most_requests_per_s: throughput at the largest batch; None likewise.
        devices: how many there are.
        price_per_thousand: of a thousand requests; None without a price.
        inputs: the arguments as resolved.
        source: what the times rest on.
        warnings: what the caller should know.
    """

    batch: int | float
    limited_by: str
    requests_per_s: float
    tokens_per_s: float
    ttft_s: float
    tpot_s: float
    engine_s: float
    largest_batch: int | None
    most_requests_per_s: float | None
    devices: int
    price_per_thousand: float | None
    inputs: dict[str, Any]
    source: TimeSource
    warnings: tuple[str, ...] = ()

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `--json`, `schema_version` 1."""
        found = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name != "source"
        }
        return {
            "schema_version": SCHEMA_VERSION,
            **found,
            "warnings": list(self.warnings),
            "calibration": asdict(self.source),
        }


class _Engine:
    """One replica: the time of a prefill, and of a step at any batch."""

    def __init__(self, request: Request, step_s: float) -> None:
        self._request, self._step_s = request, step_s
        self.pp = request.pp
        self.alone = self.at(1)
        self.prefill_s = float(self.alone.totals.ttft_s)
        self.tokens = request.output_tokens

    def at(self, batch: int) -> Any:
        """Return the estimate of a batch that runs together."""
        return answer(replace(self._request, batch_size=batch, dp=1))

    def step_s(self, batch: float) -> float:
        """Return t_d, seconds of a decode step of a batch, between whole batches on a straight line."""
        each = max(batch / self.pp, 1.0)
        low = int(each)
        time = float(self.at(low).totals.tpot_s)
        if each > low:
            time += (each - low) * (float(self.at(low + 1).totals.tpot_s) - time)
        return time + self._step_s

    def engine_s(self, batch: float) -> float:
        """Return t(b), the replica's seconds of one request."""
        return self.prefill_s / self.pp + self.tokens * self.step_s(batch) / batch

    def tpot_s(self, batch: float) -> float:
        """Return seconds per output token."""
        return self.step_s(batch) + max(batch - 1, 0) * self.prefill_s / (self.pp * self.tokens)

    def running(self, rate: float, most: int) -> float | None:
        """Return the batch at a rate, None beyond what `most` requests at once can serve.

        Little's law is b = r b t(b): the batch whose throughput is the rate.
        """
        if rate * self.engine_s(most) > 1:
            return None
        alone = rate * self.engine_s(1)
        if alone <= 1:
            # Not always one: the share of time that somebody is served.
            return alone
        low, high = 1.0, float(most)
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if rate * self.engine_s(middle) > 1 else (low, middle)
        return high

    def fits(self, memory_bytes: float | None) -> int | None:
        """Return how many requests fit at their full length, beside one prefill's activations."""
        memory, margin = self.alone.memory, self._request.memory_margin_bytes
        budget = memory_bytes
        if budget is None:
            if memory.capacity_bytes is None:
                return None
            budget = memory.capacity_bytes - margin
        left = budget - (memory.peak_memory_bytes - memory.kv_cache_bytes)
        return max(int(left // memory.kv_cache_bytes), 0)


def serve(
    model: Any,
    hardware: Any,
    *,
    output_tokens: int,
    batch: int | None = None,
    rate_per_s: float | None = None,
    memory_bytes: float | None = None,
    price_per_hour: float | None = None,
    step_s: float = 0.0,
    **arguments: Any,
) -> Serving:
    """Say what devices serve in steady state: throughput, TTFT, TPOT, the batch that fits and the price.

    Args:
        model: a model in any form that `estimate` takes.
        hardware: a device, likewise.
        output_tokens: output tokens of a request, L.
        batch: requests that run at once, of all replicas, each of which runs the same number; None is as
            many as fit, or as the rate needs.
        rate_per_s: requests that arrive per second; None is as many as can be served.
        memory_bytes: memory of a device; None is its own less `memory_margin_bytes`.
        price_per_hour: of one device, in any currency.
        step_s: host seconds of a decode step, beside the device's (a serving engine's scheduler).
        arguments: any other argument of `estimate` but `batch_size` and `convention`; `request_s` is what
            the engine's own host spends on a request.

    Raises:
        InvalidInputError: no output, no request that fits, or a rate beyond what can be served.

    >>> one, two = (serve("llava-1.5-7b", "a100", output_tokens=128, batch=32, tp=tp) for tp in (1, 2))
    >>> 1 < two.requests_per_s / one.requests_per_s < 2
    True
    """
    check_names(arguments, "batch_size", "convention", by="serve")
    for name, value in (
        ("rate_per_s", rate_per_s),
        ("memory_bytes", memory_bytes),
        ("price_per_hour", price_per_hour),
    ):
        check_budget(name, value)
    check_count("output_tokens", output_tokens, 1)
    step_s = Amount(MOST_STEP_S, "ms").check("step_s", step_s)
    request = Request(model, hardware, output_tokens=output_tokens, **arguments)
    if request.tower == "apart":
        raise InvalidInputError(
            "serve counts the vision tower in its replica's own time; give tower='replicated' or 'sharded'"
        )
    engine, replicas = _Engine(request, step_s), request.dp
    fitting = engine.fits(memory_bytes)
    if fitting == 0:
        raise InvalidInputError(
            f"not one request of {model} fits a device beside the weights; take more devices (tp, pp), fewer "
            "tokens or a smaller precision"
        )
    most = min(fitting or MOST_BATCH, MOST_BATCH)
    limit = "memory"
    if batch is not None:
        # A replica's share.
        each = -(-check_count("batch", batch, 1) // replicas)
        if each <= most:
            most, limit = each, "batch"
    served = 1 / engine.engine_s(most)
    running: float = most
    wait = 0.0
    if rate_per_s is not None:
        share = rate_per_s / replicas
        found = engine.running(share, most)
        if found is None:
            raise InvalidInputError(
                f"{rate_per_s:g} requests per second are more than the {served * replicas:.4g} that "
                f"{most * replicas} requests at once are served at; take more devices or a larger batch"
            )
        running, served, limit = found, share, "rate"
        busy = share * engine.prefill_s / engine.pp
        wait = busy * engine.prefill_s / (2 * (1 - busy))
    b = max(running, 1.0)
    requests = served * replicas
    return Serving(
        batch=round(running * replicas, 3) if running % 1 else int(running) * replicas,
        limited_by=limit,
        requests_per_s=requests,
        tokens_per_s=requests * output_tokens,
        ttft_s=engine.prefill_s + wait + min(running, 1.0) * engine.step_s(b) / 2,
        tpot_s=engine.tpot_s(b),
        engine_s=engine.engine_s(b),
        largest_batch=None if fitting is None else fitting * replicas,
        most_requests_per_s=None if fitting is None else replicas / engine.engine_s(min(fitting, MOST_BATCH)),
        devices=request.parallel.devices,
        price_per_thousand=None
        if price_per_hour is None
        else 1000 / requests * request.parallel.devices * price_per_hour / 3600,
        inputs={**engine.alone.inputs, "batch_size": None, "dp": request.dp, "step_s": step_s},
        source=engine.alone.calibration,
        warnings=engine.alone.warnings,
    )  # fmt: skip
