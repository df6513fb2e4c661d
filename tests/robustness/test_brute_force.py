"""Break-even, largest batch and frontier, against the same questions asked one `estimate` at a time."""

from __future__ import annotations

import random

import pytest
from fuzzing.doors_api import METHODS

from costmodel import break_even, estimate, frontier, largest_batch
from costmodel.accuracy import list_benchmarks
from costmodel.memory import MEMORY_MARGIN_BYTES
from costmodel.questions.break_evens import FLAT_SHARE
from hardware_specs.errors import VlmRooflineError

MOST = 40
A100 = "nvidia-a100-sxm4-80gb"
#: Devices with a precision each of them has.
DEVICES = ((A100, "bf16"), ("google-tpu-v6e", "bf16"), ("nvidia-v100-pcie-16gb", "fp16"))
SETTINGS = (
    {},
    {"execution": "hf-eager", "logits": "all", "text_tokens": 300},
    {"calibration": "generic", "execution": "hf-eager", "batch_size": 4},
)


@pytest.mark.parametrize("method", [None, *METHODS])
def test_break_even(method):
    generator = random.Random(str(method))
    for settings in SETTINGS:
        fixed = {**settings, "method": method, "keep": None if method is None else 0.5}
        device, fixed["precision"] = generator.choice(DEVICES)
        if method in ("vtw", "m3"):
            fixed["keep"] = None
        try:
            costs = [
                estimate("llava-1.5-7b", device, visual_tokens=count, **fixed)
                for count in range(1, MOST + 1)
            ]
        except VlmRooflineError:
            # A method that cannot act on one of the counts answers none of the question.
            with pytest.raises(VlmRooflineError):
                break_even("llava-1.5-7b", device, most=MOST, **fixed)
            continue
        ttft = [cost.totals.ttft_s for cost in costs]
        peak = [cost.memory.peak_memory_bytes for cost in costs]
        latency, memory = sorted(ttft)[MOST // 2], sorted(peak)[MOST // 3]
        answer = break_even(
            "llava-1.5-7b",
            device,
            most=MOST,
            latency_s=latency * (1 + 1e-9),
            memory_bytes=memory,
            **fixed,
        )
        times = [c.stages["prefill"].time_s + c.stages["reduction"].time_s for c in costs]
        rising = [n for n, t in enumerate(times) if t * (1 - FLAT_SHARE) > times[0]]
        assert answer.knee_tokens == (rising[0] if rising else MOST), (device, fixed)
        assert answer.floor_s == pytest.approx(ttft[0], rel=1e-9)
        assert answer.most_within_latency == 1 + max(
            n for n, t in enumerate(ttft) if t <= latency * (1 + 1e-9)
        )
        assert answer.most_within_memory == 1 + max(n for n, m in enumerate(peak) if m <= memory)


@pytest.mark.parametrize(("device", "precision"), DEVICES)
@pytest.mark.parametrize("method", [None, "divprune", "fastv", "tome"])
def test_largest_batch(device, precision, method):
    fixed = {"method": method, "precision": precision}
    for memory in (None, 1.45e10, 2.2e10):
        found = largest_batch("llava-1.5-7b", device, memory_bytes=memory, **fixed)
        first = estimate("llava-1.5-7b", device, **fixed)
        budget = memory or first.memory.capacity_bytes - MEMORY_MARGIN_BYTES
        fits = 0
        while fits < 2000:
            cost = estimate("llava-1.5-7b", device, batch_size=fits + 1, **fixed)
            if cost.memory.peak_memory_bytes > budget:
                break
            fits += 1
        assert found == fits


@pytest.mark.parametrize("scores", list_benchmarks("llava-1.5-7b")[:4])
@pytest.mark.parametrize("rank", ["retained", "score"])
def test_frontier(scores, rank):
    free = frontier("llava-1.5-7b", A100, benchmark=scores, rank=rank)
    budget = sorted(point.time_s for point in free.points)[len(free.points) // 2]
    answer = frontier("llava-1.5-7b", A100, benchmark=scores, rank=rank, latency_s=budget)

    def worth(point):
        value = point.retained if rank == "retained" else point.score
        return float("-inf") if value is None else value

    within = [point for point in answer.points if point.time_s <= budget]
    assert worth(answer.best) == max(map(worth, within))
    for point in answer.points:
        beaten = any(
            other.time_s <= point.time_s and worth(other) > worth(point) for other in answer.points
        )
        assert not (point.pareto and beaten), point
