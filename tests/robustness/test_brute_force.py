"""Break-even, largest batch and frontier, against the same questions asked one `estimate` at a time."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from fuzzing.doors_api import METHODS, taking

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
    (model,) = taking(method, ("llava-1.5-7b",))
    for settings in SETTINGS:
        fixed = {**settings, "method": method, "keep": None if method is None else 0.5}
        device, fixed["precision"] = generator.choice(DEVICES)
        if method in ("vtw", "m3"):
            fixed["keep"] = None
        priced = {}
        for count in range(1, MOST + 1):
            with suppress(VlmRooflineError):
                priced[count] = estimate(model, device, visual_tokens=count, **fixed)
        if not priced:
            with pytest.raises(VlmRooflineError):
                break_even(model, device, most=MOST, **fixed)
            continue
        # Counts that a method cannot start from are left out.
        counts, costs = [*priced], [*priced.values()]
        ttft = [cost.totals.ttft_s for cost in costs]
        peak = [cost.memory.peak_memory_bytes for cost in costs]
        latency, memory = sorted(ttft)[len(costs) // 2], sorted(peak)[len(costs) // 3]
        answer = break_even(
            model,
            device,
            most=MOST,
            latency_s=latency * (1 + 1e-9),
            memory_bytes=memory,
            **fixed,
        )
        times = [c.stages["prefill"].time_s + c.stages["reduction"].time_s for c in costs]
        rising = [n for n, t in enumerate(times) if t * (1 - FLAT_SHARE) > times[0]]
        assert answer.visual_tokens.tolist() == counts
        assert answer.knee_tokens == counts[rising[0] - 1 if rising else -1], (device, fixed)
        assert answer.floor_s == pytest.approx(ttft[0], rel=1e-9)
        within = [n for n, t in zip(counts, ttft, strict=True) if t <= latency * (1 + 1e-9)]
        assert answer.most_within_latency == max(within)
        within = [n for n, m in zip(counts, peak, strict=True) if m <= memory]
        assert answer.most_within_memory == max(within)


def test_a_knee_does_not_hang_on_the_counts_looked_at():
    fixed = {"method": "fitprune", "execution": "hf-eager", "logits": "all", "precision": "bf16",
             "vision_layers": "useful", "text_tokens": 587, "output_tokens": 153}  # fmt: skip
    for device in ("google-tpu-v6e", "nvidia-h100-sxm5-80gb"):
        knees = {
            most: break_even("llava-onevision-7b", device, most=most, **fixed).knee_tokens
            for most in (150, 300, 600)
        }
        assert len(set(knees.values())) == 1, (device, knees)


def test_only_whole_images_of_a_method_inside_the_tower():
    answer = break_even("llava-1.5-7b", A100, method="tome", most=2000)
    assert answer.visual_tokens.tolist() == [576, 1152, 1728]


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


@pytest.mark.parametrize("method", [None, *METHODS])
def test_largest_batch_at_the_very_edge(method):
    """A budget of a batch's own peak holds it, and one byte less does not; below one sample it is 0."""
    generator = random.Random(f"edge {method}")
    (model,) = taking(method, ("llava-1.5-7b",))
    asked = 0
    for settings in (*SETTINGS, {"output_tokens": 128, "precision": "int4", "attention": "eager"}):
        device, precision = generator.choice(DEVICES)
        fixed = {"precision": precision, **settings, "method": method}
        fixed.pop("batch_size", None)
        count = generator.choice((1, 3, 29))
        with suppress(VlmRooflineError):
            peaks = [
                estimate(model, device, batch_size=n, **fixed).memory.peak_memory_bytes
                for n in (1, count)
            ]
            for budget, expected in (
                (peaks[1], count),
                (peaks[1] - 1, count - 1),
                (peaks[0] - 1, 0),
            ):
                found = largest_batch(model, device, memory_bytes=budget, **fixed)
                assert found == expected, (device, fixed, count, budget)
            asked += 1
    assert asked


@pytest.mark.parametrize("scores", list_benchmarks("llava-1.5-7b")[:4])
@pytest.mark.parametrize("rank", ["retained", "score"])
def test_frontier(scores, rank):
    free = frontier("llava-1.5-7b", A100, benchmark=scores, rank=rank)
    budget = sorted(point.time_s for point in free.points)[len(free.points) // 2]
    memory = sorted(point.peak_memory_bytes for point in free.points)[-len(free.points) // 3]
    budgets = {"latency_s": budget, "memory_bytes": memory}
    answer = frontier("llava-1.5-7b", A100, benchmark=scores, rank=rank, **budgets)

    def worth(point):
        value = point.retained if rank == "retained" else point.score
        return float("-inf") if value is None or point.hearsay else value

    within = [
        point
        for point in answer.points
        if point.time_s <= budget and point.peak_memory_bytes <= memory
    ]
    assert worth(answer.best) == max(map(worth, within))
    for point in answer.points:
        beaten = any(
            other.time_s <= point.time_s and worth(other) > worth(point) for other in answer.points
        )
        assert not (point.pareto and beaten), point
