from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from profiling.records.samples import (
    dispersion,
    order_statistic,
    quantile,
    required_samples,
    summarise,
)

seconds = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50)


@given(seconds, st.floats(0.0, 1.0))
def test_order_statistics_equal_numpys(samples: list[float], q: float) -> None:
    assert order_statistic(samples, q) == pytest.approx(float(np.quantile(samples, q)), rel=1e-9)


@given(seconds)
def test_a_summary_lies_inside_its_samples(samples: list[float]) -> None:
    summary = summarise(samples)
    assert summary.min_s == min(samples)
    assert min(samples) <= summary.median_s <= max(samples)
    assert summary.count == len(samples)


@given(st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=30), st.floats(0.1, 100.0))
def test_dispersion_does_not_depend_on_the_unit(samples: list[float], factor: float) -> None:
    scaled = dispersion([factor * value for value in samples])
    assert scaled == pytest.approx(dispersion(samples), rel=1e-6, abs=1e-12)


def test_thirty_samples_support_no_p90_and_a_hundred_no_p99() -> None:
    # MLPerf's floors are 64 and 662.
    assert quantile([1.0] * 30, 0.9) is None
    assert quantile([1.0] * 67, 0.9) == 1.0
    assert quantile([1.0] * 100, 0.99) is None
    assert summarise([1.0] * 30).p90_s is None
    assert summarise([1.0] * 34).p80_s == 1.0


def test_required_samples_grow_towards_the_tails() -> None:
    needs = [required_samples(q) for q in (0.8, 0.9, 0.95, 0.99)]
    assert needs == sorted(needs)
    assert required_samples(0.2) == required_samples(0.8) == math.ceil(6.62 / 0.2)
    with pytest.raises(InvalidInputError, match=r"inside \(0, 1\)"):
        required_samples(1.0)


def test_no_sample_gives_no_number() -> None:
    assert summarise([]).mean_s is None
    with pytest.raises(InvalidInputError, match="no samples"):
        order_statistic([], 0.5)
