"""Continuous batching in closed form, against a simulation and by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from costmodel import Serving, estimate, serve
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
L = 64


def test_by_hand() -> None:
    """t(b) = t_p + L t_d / b; TPOT = t_d + (b - 1) t_p / L."""
    first = estimate(MODEL, A100, output_tokens=L).totals.ttft_s
    step = estimate(MODEL, A100, output_tokens=L, batch_size=8).totals.tpot_s
    found = serve(MODEL, A100, output_tokens=L, batch=8, price_per_hour=3.6)
    assert found.requests_per_s == pytest.approx(1 / (first + L * step / 8))
    assert found.tpot_s == pytest.approx(step + 7 * first / L)
    assert found.ttft_s == pytest.approx(first + step / 2)
    assert found.price_per_thousand == pytest.approx(1 / found.requests_per_s)
    assert (found.batch, found.limited_by) == (8, "batch")
    # The host's time of a step and of a request are part of both.
    more = serve(MODEL, A100, output_tokens=L, batch=8, step_s=0.01, request_s=0.02)
    assert more.engine_s == pytest.approx(found.engine_s + 0.02 + L * 0.01 / 8)


def _simulated(batch: int, requests: int) -> float:
    """Requests per second of an engine that admits one as soon as another leaves, step by step."""
    first = float(estimate(MODEL, A100, output_tokens=L).totals.ttft_s)
    step = float(estimate(MODEL, A100, output_tokens=L, batch_size=batch).totals.tpot_s)
    clock, done, running = 0.0, 0, [L * i // batch for i in range(batch)]
    while done < requests:
        clock += step
        running = [left - 1 for left in running]
        for slot, left in enumerate(running):
            if left <= 0:
                done += 1
                clock += first
                running[slot] = L
    return done / clock


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_a_simulated_engine_serves_as_much(batch: int) -> None:
    found = serve(MODEL, A100, output_tokens=L, batch=batch)
    assert found.requests_per_s == pytest.approx(_simulated(batch, 4000), rel=0.02)


def test_the_batch_at_a_rate_serves_the_rate() -> None:
    most = serve(MODEL, A100, output_tokens=L, batch=32)
    previous: Serving | None = None
    for share in (0.1, 0.5, 0.9, 0.99):
        found = serve(
            MODEL, A100, output_tokens=L, batch=32, rate_per_s=share * most.requests_per_s
        )
        assert found.limited_by == "rate"
        assert found.batch <= 32
        if found.batch > 1:
            assert 1 / found.engine_s == pytest.approx(found.requests_per_s, rel=5e-3)
        if previous is not None:
            assert found.batch > previous.batch
            assert found.tpot_s >= previous.tpot_s
        previous = found
    with pytest.raises(InvalidInputError, match="more than the"):
        serve(MODEL, A100, output_tokens=L, batch=32, rate_per_s=1.01 * most.requests_per_s)


def test_the_largest_batch_fills_the_memory() -> None:
    found = serve(MODEL, A100, output_tokens=L)
    assert found.limited_by == "memory"
    assert found.batch == found.largest_batch
    alone = estimate(MODEL, A100, output_tokens=L).memory
    rest = alone.peak_memory_bytes - alone.kv_cache_bytes + 2**30
    assert alone.capacity_bytes is not None
    assert found.largest_batch == (alone.capacity_bytes - rest) // alone.kv_cache_bytes
    with pytest.raises(InvalidInputError, match="not one request"):
        serve(MODEL, A100, output_tokens=L, memory_bytes=10e9)
    # Half the weights, and half the cache of each request, on either of two devices.
    assert (serve(MODEL, A100, output_tokens=L, tp=2).largest_batch or 0) > 2 * found.batch


def test_more_devices_serve_more() -> None:
    plans = ({}, {"tp": 2}, {"tp": 4}, {"tp": 8})
    served = [
        serve(MODEL, A100, output_tokens=L, batch=16, **plan).requests_per_s for plan in plans
    ]
    for one, two in pairwise(served):
        assert one < two < 2 * one
    single = serve(MODEL, A100, output_tokens=L, batch=16)
    double = serve(MODEL, A100, output_tokens=L, batch=32, dp=2, price_per_hour=1.0)
    assert double.requests_per_s == pytest.approx(2 * single.requests_per_s)
    assert (double.tpot_s, double.devices) == (single.tpot_s, 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"batch": 0},
        {"rate_per_s": -1},
        {"price_per_hour": float("inf")},
        {"batch_size": 2},
        {"step_s": -1e-3},
        {"step_s": float("nan")},
    ],
)
def test_bad_arguments_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        serve(MODEL, A100, output_tokens=L, **bad)  # type: ignore[arg-type]


#: A100 40 GB, vLLM 0.5.4, 500 pairs of image and text, all at once: requests/s by the largest batch
#: (github.com/ml-energy/leaderboard-v2 @ c3af7f3, Apache-2.0), LLaVA-1.5-7B and 134 output tokens.
MEASURED = {16: 3.095, 32: 4.179, 64: 5.204}


@pytest.mark.parametrize("batch", [32, 64])
def test_a_larger_batch_serves_as_much_more_as_measured(batch: int) -> None:
    served = {
        b: serve(MODEL, "nvidia-a100-sxm4-40gb", output_tokens=134, batch=b).requests_per_s
        for b in (16, batch)
    }
    assert served[batch] / served[16] == pytest.approx(MEASURED[batch] / MEASURED[16], rel=0.03)
