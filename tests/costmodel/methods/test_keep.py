"""`keep`: a count or a ratio, and each program's rounding of a ratio."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.methods.keep import check_keep, resolve_keep
from hardware_specs.errors import InvalidInputError


def test_int_one_is_one_token_and_float_one_is_all() -> None:
    assert resolve_keep(1, 576) == 1
    assert resolve_keep(1.0, 576) == 576
    assert resolve_keep(np.int64(1), 576) == 1
    assert resolve_keep(np.float32(1.0), 576) == 576


@pytest.mark.parametrize(
    ("ratio", "n", "rounding", "count"),
    [
        (0.098, 576, "nearest", 56),  # 56.448
        (0.5, 5, "nearest", 2),  # 2.5, ties to even
        (0.5, 7, "nearest", 4),  # 3.5, ties to even
        (0.7, 576, "up", 404),  # 403.2
        (0.7, 576, "down", 403),
        (0.75, 576, "up", 432),  # exact
        (1.0, 2880, "down", 2880),
    ],
)
def test_rounding(ratio, n, rounding, count) -> None:
    assert resolve_keep(ratio, n, rounding=rounding) == count


@pytest.mark.parametrize("bad", [True, False, np.True_])
def test_bool_is_refused(bad) -> None:
    with pytest.raises(InvalidInputError):
        check_keep(bad)


@pytest.mark.parametrize(
    "bad", [0, -3, 0.0, -0.1, 1.5, 64.0, math.nan, math.inf, "0.5", None, [1], 1j]
)
def test_out_of_range_is_refused(bad) -> None:
    with pytest.raises(InvalidInputError, match="keep"):
        check_keep(bad)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"577.*576"):
        resolve_keep(577, 576)


def test_a_ratio_that_rounds_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="none"):
        resolve_keep(0.001, 16)
    assert resolve_keep(0.001, 16, rounding="up") == 1


@given(
    ratio=st.floats(min_value=0.01, max_value=1.0),
    n=st.integers(min_value=1, max_value=5000),
)
def test_the_three_roundings_bracket_the_product(ratio, n) -> None:
    exact = Fraction(ratio) * n
    up = resolve_keep(ratio, n, rounding="up")
    assert 1 <= up <= n
    assert abs(up - exact) < 1 + Fraction(1, 10**9)
    if ratio * n >= 1:
        down = resolve_keep(ratio, n, rounding="down")
        nearest = resolve_keep(ratio, n)
        assert down <= nearest <= up <= down + 1
