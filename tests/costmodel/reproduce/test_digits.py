from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.reproduce.digits import decimals, interval_of, page_time_s, page_value, prints_as
from hardware_specs.errors import InvalidFileError


@pytest.mark.parametrize(
    ("value", "published", "same"),
    [
        (9.3276, "9.3", True),
        (9.35, "9.4", True),
        (9.349, "9.4", False),
        (4.55, "4.6", True),  # 4.55 is 4.5499999 in binary; on paper it rounds up
        (4.64, "4.60", False),
        (4.6, "4.60", True),
        (0.284, "0.28", True),
        (0.2275, "0.28", False),
        (70.2, "70", True),
    ],
)
def test_prints_as(value, published, same):
    assert prints_as(value, published) is same


@given(st.integers(0, 10**6), st.integers(0, 4))
def test_a_number_prints_as_itself(digits, places):
    text = f"{digits / 10**places:.{places}f}"
    assert decimals(text) == places
    assert prints_as(float(text), text)


@pytest.mark.parametrize("bad", ["", "about 9", "1e3", "nan", "Infinity"])
def test_what_is_no_printed_number(bad):
    with pytest.raises(InvalidFileError, match="plain decimal"):
        decimals(bad)


def test_the_page_shows_four_digits_at_most():
    # One decimal up to 100 of a unit, none from there, the next unit at 1000.
    shown = {9.3276e12: 9.3e12, 909.5e9: 910e9, 99.96e9: 100e9, 283.9e6: 284e6, 71.0e6: 71e6}
    for value, page in shown.items():
        assert page_value(value) == pytest.approx(page, rel=1e-12)
    values = np.array(list(shown))
    assert page_value(values) == pytest.approx(list(shown.values()), rel=1e-12)
    assert page_time_s(0.014871974) == pytest.approx(0.0149, rel=1e-12)


def test_interval_of_nothing():
    assert interval_of(np.array([False, False]), np.array([1, 2])) is None
