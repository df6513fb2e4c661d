"""Traces that others recorded: every second is accounted for, and the layers are found in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from public_traces import EAGER, FOLDER, TRACES, explained

from profiling.tracing.events import read_events

if TYPE_CHECKING:
    from profiling.explaining import Explanation


@pytest.fixture(params=TRACES)
def found(request: pytest.FixtureRequest) -> Explanation:
    return explained(request.param)


def test_attributed_unattributed_and_copies_are_the_device_time(found: Explanation) -> None:
    """The device time is added up anew here, from the file's own events."""
    device_s = math.fsum(event.length_us for event in read_events(FOLDER / found.source).device)
    device_s *= 1e-6
    parts = found.attributed_time_s + found.unattributed_time_s + found.copies_time_s
    assert parts == pytest.approx(device_s, rel=1e-3)
    assert found.kernel_time_s == pytest.approx(device_s, rel=1e-9)
    assert min(found.attributed_time_s, found.unattributed_time_s, found.copies_time_s) >= 0


def test_classes_are_what_is_attributed_and_stages_what_is_linked(found: Explanation) -> None:
    known = math.fsum(time for name, time in found.classes.items() if name != "other")
    assert known == pytest.approx(found.attributed_time_s, rel=1e-9, abs=1e-12)
    assert found.classes.get("other", 0.0) == pytest.approx(found.unattributed_time_s, abs=1e-9)
    stages = math.fsum(found.stages.values())
    # Copies that no op was found for are copies all the same.
    linked_s = found.kernel_time_s - found.unlinked_time_s
    assert linked_s - found.copies_time_s <= stages * (1 + 1e-9) <= linked_s * (1 + 2e-9)
    assert math.fsum(found.unlinked_classes.values()) == pytest.approx(found.unlinked_time_s)


def test_busy_and_idle_are_the_span(found: Explanation) -> None:
    time = found.time
    assert time.busy_s + time.idle_s == pytest.approx(time.span_s)
    assert 0 <= time.host_idle_s <= time.idle_s + 1e-12
    # Ends are sums of long numbers: microseconds since 1970.
    assert time.busy_s <= found.kernel_time_s * 1.001


@pytest.mark.parametrize("name", EAGER)
def test_eager_traces_are_attributed_but_for_what_ran_before_them(name: str) -> None:
    """Only kernels that were launched by the profiler's step before are missing: 436 in one trace."""
    found = explained(name)
    linked_s = found.kernel_time_s - found.unlinked_time_s
    assert found.attributed_time_s + found.copies_time_s >= 0.95 * linked_s
    if found.unlinked_time_s < 0.05 * found.kernel_time_s:
        assert found.attributed_time_s >= 0.95 * found.kernel_time_s
    else:
        assert any("launched before the trace began" in note for note in found.notes)


#: (layers, width, tokens of a sequence, sequences), as the models' configs and inputs have them.
LAYERS = {
    "h100_bert_small": (4, 512, None, None),
    "h100_qwen1.5_0.5b": (24, 1024, 559, 16),
    "h100_vit_b16": (12, 768, 197, None),
    "mi300x_vit_b16": (12, 768, 197, None),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_width_and_tokens_are_found(name: str) -> None:
    count, width, tokens, batch = LAYERS[name]
    layers = explained(name).layers
    assert {layer["width"] for layer in layers} == {width}
    assert {layer["of"] for layer in layers} == {count}
    assert sum(layer["count"] * layer["passes"] for layer in layers) % count == 0
    if tokens is not None:
        assert {layer["tokens"] for layer in layers} == {tokens}
    if batch is not None:
        assert {layer["batch"] for layer in layers} == {batch}
