"""Live bytes by the ledger, the allocator simulated, and both against sums done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from profiling.counting.ledger import Ledger
from profiling.counting.memory import PeakObserver, ledger_for
from profiling.devices.cuda import CudaMemory
from profiling.records.measurement import TOTAL
from profiling.subject.execution import Execution
from token_reduction.caches import cache_of


def test_the_ledger_follows_every_tensor_to_its_end() -> None:
    weight = torch.randn(64, 64)  # 16384 bytes
    with Ledger([weight]) as ledger:
        assert ledger.live_bytes == 16384
        rows = torch.ones(32, 64)  # 8192
        product = rows @ weight  # 8192
        assert ledger.live_bytes == 16384 + 2 * 8192
        view = product.view(-1).reshape(64, 32)
        del product, rows
        # The view keeps the product's storage alive.
        assert ledger.live_bytes == 16384 + 8192
        del view
        assert ledger.live_bytes == 16384
        assert ledger.take_peaks() == (16384 + 2 * 8192, None)
        assert ledger.take_peaks() == (16384, None)


def test_views_and_empty_tensors_launch_nothing() -> None:
    with Ledger() as ledger:
        made = torch.empty(8, 8)
        made.fill_(1.0)
        made.view(64).unsqueeze(0).t()
        made.softmax(-1)
    assert ledger.kernels == 2


def test_blocks_are_rounded_as_the_allocator_rounds_them() -> None:
    # 4 bytes take a block of 512, 513 floats take 2052 bytes in 5 blocks.
    assert Ledger([torch.zeros(1)]).live_bytes == 512
    assert Ledger([torch.zeros(513)]).live_bytes == 2560
    shared = torch.zeros(128)
    assert Ledger([shared, shared.view(2, 64), shared[1:]]).live_bytes == 512


def test_quantised_weights_count_what_they_hold() -> None:
    pytest.importorskip("torchao")
    from profiling.subject.quantisation import quantise_module

    layer = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False, dtype=torch.bfloat16))
    before = Ledger(layer.parameters()).live_bytes
    quantise_module(layer, "w8a16")
    # One byte a weight and one bf16 scale a row: 65536 + 512.
    assert before == 131072
    assert 65536 <= Ledger(layer.parameters()).live_bytes <= 65536 + 2048


class Allocator:
    """`torch.cuda`'s statistics, with peaks that can be set and reset."""

    def __init__(self) -> None:
        self.now = 100
        self.peak = 100
        self.resets = 0

    def grow(self, by: int) -> None:
        self.now += by
        self.peak = max(self.peak, self.now)

    def memory_allocated(self, _device: str) -> int:
        return self.now

    def max_memory_allocated(self, _device: str) -> int:
        return self.peak

    def max_memory_reserved(self, _device: str) -> int:
        return self.peak + 1000

    def reset_peak_memory_stats(self, _device: str) -> None:
        self.resets += 1
        self.peak = self.now


def test_a_stage_inside_another_counts_for_both() -> None:
    allocator = Allocator()
    observer = PeakObserver(CudaMemory("cuda", allocator))
    observer.begin(TOTAL)
    observer.begin("vision")
    allocator.grow(50)
    allocator.grow(-40)
    observer.end("vision")
    observer.begin("prefill")
    allocator.grow(20)
    observer.begin("reduction")
    allocator.grow(300)
    allocator.grow(-300)
    observer.end("reduction")
    observer.end("prefill")
    observer.end(TOTAL)
    peaks = {name: item.peak_allocated_bytes for name, item in observer.stages.items()}
    assert peaks == {TOTAL: 430, "vision": 150, "prefill": 430, "reduction": 430}
    assert observer.stages["prefill"].resident_bytes == 110
    assert observer.stages["vision"].peak_reserved_bytes == 1150


def test_a_runs_memory_starts_from_weights_and_inputs(
    tiny: Any, tiny_shape: Any, configure: Any
) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=16))
    with execution.ready(), ledger_for(execution) as ledger:
        weights = Ledger([*tiny.parameters(), *tiny.buffers()]).live_bytes
        inputs = Ledger(execution.resident_tensors()).live_bytes
        assert ledger.live_bytes == weights + inputs
        output = execution.first_logits()
        # The cache: keys and values of 2 layers, 23 tokens, 2 heads of 16 floats.
        cache = [t for layer in cache_of(output).layers for t in (layer.keys, layer.values)]
        assert Ledger(cache).live_bytes == 4 * -(-23 * 2 * 16 * 4 // 512) * 512
        del output, cache
        assert ledger.live_bytes == weights + inputs


def test_a_longer_prompt_needs_more(tiny: Any, tiny_shape: Any, configure: Any) -> None:
    from profiling.counting.one_run import count_run

    peaks = []
    for visual in (1, 64, 128):
        execution = Execution(tiny, tiny_shape, configure(visual_tokens=visual))
        with execution.ready():
            _, stages = count_run(execution)
        peaks.append(stages["prefill"].peak_allocated_bytes)
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[2]
