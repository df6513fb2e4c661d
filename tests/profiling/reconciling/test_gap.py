from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.roofline import StageCost
from profiling.reconciling.gap import PARTS, PlannedStage, split_gap

seconds = st.floats(0.0, 1e3, allow_nan=False)


@st.composite
def stages(draw):
    compute, memory, link, host = draw(seconds), draw(seconds), draw(seconds), draw(seconds)
    return StageCost(
        kernels=1,
        compute_s=compute,
        memory_s=memory,
        link_s=link,
        host_s=host,
        time_s=max(compute + memory + link, host),
    )


@given(seconds, stages(), stages(), stages(), seconds, seconds, seconds)
def test_parts_add_up_to_measured_less_ideal(measured, ideal, fused, executed, a, b, c):
    gap = split_gap(
        measured, PlannedStage(ideal, fused, executed), vision_s=a, projector_s=b, method_s=c
    )
    scale = max(1.0, *(abs(part) for part in gap.parts.values()))
    assert math.fsum(gap.parts.values()) == pytest.approx(
        gap.measured_s - gap.ideal_s, abs=1e-12 * scale
    )
    assert tuple(gap.parts) == PARTS
    assert gap.predicted_s + gap.unexplained_s == pytest.approx(measured, abs=1e-12 * scale)


def test_every_part_by_hand():
    ideal = StageCost(kernels=3, compute_s=4.0, memory_s=2.0, link_s=0.5, time_s=6.5)
    fused = StageCost(kernels=3, compute_s=5.0, memory_s=2.5, link_s=1.25, time_s=8.75)
    # 40 launches take 12 s, their device time is 10.25 s.
    executed = StageCost(
        kernels=40, compute_s=5.0, memory_s=4.0, link_s=1.25, host_s=12.0, time_s=12.0
    )
    gap = split_gap(
        20.0, PlannedStage(ideal, fused, executed), vision_s=3.0, projector_s=0.5, method_s=0.25
    )
    assert gap.to_dict() == {
        "measured_s": 20.0,
        "ideal_s": 6.5,
        "efficiency_compute_s": 1.0,
        "efficiency_memory_s": 0.5,
        "efficiency_link_s": 0.75,
        "granularity_s": 1.5,  # 10.25 - 8.75
        "host_s": 1.75,  # 12 - 10.25
        "left_out_vision_s": 3.0,
        "left_out_projector_s": 0.5,
        "left_out_method_s": 0.25,
        "unexplained_s": 4.25,  # 20 - 15.75
    }
    assert gap.predicted_s == 15.75


def test_a_measurement_below_its_prediction_leaves_a_negative_rest():
    cost = StageCost(kernels=1, compute_s=2.0, time_s=2.0)
    gap = split_gap(1.5, PlannedStage(cost, cost, cost))
    assert gap.unexplained_s == -0.5
