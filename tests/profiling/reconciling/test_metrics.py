from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from profiling.reconciling.metrics import (
    knee_of,
    leave_one_count_out,
    metrics,
    rank_correlation,
)


def test_every_metric_by_hand():
    # errors: 0.1, 0.2, 0.5, 0.0
    found = metrics(
        [1.1, 0.8, 3.0, 4.0],
        [1.0, 1.0, 2.0, 4.0],
        low=[1.05, 0.7, 1.0, 3.0],
        high=[1.2, 0.9, 3.0, 5.0],
        noise=[0.2, 0.1, None, 0.0],
    )
    assert found.count == 4
    assert found.mape == pytest.approx(0.2)
    assert found.median == pytest.approx(0.15)  # between 0.1 and 0.2
    assert found.p90 == pytest.approx(0.41)  # 0.2 + 0.7 x (0.5 - 0.2)
    assert found.max == pytest.approx(0.5)
    assert found.bias == pytest.approx((1.1 * 0.8 * 1.5 * 1.0) ** 0.25)
    assert found.coverage == 0.5  # the third and the fourth lie inside
    assert found.within_noise == pytest.approx(2 / 3)  # 0.1 <= 0.2, 0.2 > 0.1, 0 <= 0


def test_nothing_known_is_none_not_zero():
    found = metrics([1.0], [2.0], noise=[None])
    assert found.coverage is None
    assert found.within_noise is None
    assert metrics([], []) is None


@pytest.mark.parametrize(("p", "m"), [([1.0], [0.0]), ([0.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_what_cannot_be_compared_is_refused(p, m):
    with pytest.raises(InvalidInputError):
        metrics(p, m)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=20), st.floats(0.5, 2.0))
def test_a_constant_factor_is_all_bias(measured, factor):
    found = metrics([m * factor for m in measured], measured)
    assert found.bias == pytest.approx(factor)
    assert found.mape == pytest.approx(abs(factor - 1))


def test_ranks_with_ties():
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    expected = 4.5 / math.sqrt(4.5 * 5.0)
    assert rank_correlation([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(expected)
    assert rank_correlation([1, 2, 3], [9, 5, 1]) == -1.0
    assert rank_correlation([1], [1]) is None


def test_leaving_out_a_count_by_hand():
    # measured / predicted: 1, 1, 2; without the last the scale is 1, so 2 is met with 1/2: 50 %.
    found = leave_one_count_out([1, 2, 3], [1.0, 1.0, 1.0], [1.0, 1.0, 2.0])
    assert found.max == pytest.approx(0.5)
    assert found.worst_count == 3
    # Without one of the others the scale is sqrt(2): 41 % each.
    assert found.mape == pytest.approx((0.5 + 2 * (math.sqrt(2) - 1)) / 3)


def test_two_counts_teach_nothing_about_a_third():
    assert leave_one_count_out([1, 2, 2], [1.0] * 3, [1.0] * 3) is None


def test_the_knee_is_where_the_time_stops_being_flat():
    counts = [1, 64, 128, 256, 512]
    # Flat is within 10 %: dropping every token there saves less than that.
    assert knee_of(counts, [10.0, 10.0, 11.0, 20.0, 40.0]) == 128
    assert knee_of(counts, [10.0, 12.0, 11.0, 20.0, 40.0]) == 1
    assert knee_of(counts, [10.0] * 5) == 512
    assert knee_of([1, 2], [1.0, 2.0]) is None


def test_the_knee_of_a_dense_sweep_is_the_cost_models():
    from costmodel.questions.break_evens import break_even
    from costmodel.questions.sweeps import sweep

    device = "nvidia-a100-sxm4-80gb"
    counts = list(range(1, 577))
    table = sweep("llava-1.5-7b", device, visual_tokens=counts, stage_columns=True)
    found = knee_of(counts, table["prefill_time_s"].tolist())
    assert found == break_even("llava-1.5-7b", device).knee_tokens
