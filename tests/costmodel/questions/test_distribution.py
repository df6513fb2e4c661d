"""Adaptive methods over a distribution of token counts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import estimate
from costmodel.methods import list_methods, method_info
from costmodel.questions.distribution import PERCENTILES, estimate_distribution
from hardware_specs.errors import InvalidInputError, UnknownMethodError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_published_counts() -> None:
    spread = estimate_distribution(MODEL, A100, "prumerge")
    each = [estimate(MODEL, A100, method="prumerge", keep=k) for k in (40, 40, 35, 16)]
    assert spread.mean["flops"] == pytest.approx(np.mean([cost.totals.flops for cost in each]))
    assert spread.mean["time_s"] == pytest.approx(np.mean([cost.totals.time_s for cost in each]))
    assert spread.percentiles["flops"][5] == each[3].totals.flops
    assert spread.percentiles["flops"][95] == each[0].totals.flops


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["prumerge", "prumerge+", "divprune", "fastv", "ats", "tome", "evit"]),
    st.lists(st.integers(8, 180), min_size=1, max_size=6),
    st.sampled_from([1, 4]),
    st.sampled_from([0, 5]),
)
def test_one_call_equals_many(method, counts, batch, output) -> None:
    asked = {"batch_size": batch, "output_tokens": output}
    spread = estimate_distribution(MODEL, A100, method, counts, **asked)
    for place, count in enumerate(counts):
        cost = estimate(MODEL, A100, method=method, keep=count, **asked)
        assert spread.values["flops"][place] == cost.totals.flops
        assert spread.values["time_s"][place] == pytest.approx(cost.totals.time_s, rel=1e-12)
        assert spread.values["peak_memory_bytes"][place] == cost.memory.peak_memory_bytes
        assert spread.values["kv_cache_bytes"][place] == cost.memory.kv_cache_bytes


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 576), st.integers(0, 9)), min_size=1, max_size=8
    ).filter(lambda pairs: any(weight for _, weight in pairs))
)  # fmt: skip
def test_mean_and_percentiles_are_those_of_the_repeated_list(pairs) -> None:
    counts, weights = zip(*pairs, strict=True)
    spread = estimate_distribution(MODEL, A100, "divprune", counts, weights)
    repeated = np.repeat(spread.values["flops"], weights)
    assert spread.mean["flops"] == pytest.approx(repeated.mean())
    for p in PERCENTILES:
        exact = np.percentile(repeated, p, method="inverted_cdf")
        assert spread.percentiles["flops"][p] == pytest.approx(exact)


def test_a_mean_count_is_no_mean_cost() -> None:
    spread = estimate_distribution(MODEL, A100, "divprune", [16, 560], output_tokens=0)
    middle = estimate(MODEL, A100, method="divprune", keep=288).totals.flops
    assert spread.mean["flops"] > middle  # attention grows with the square


def test_document_and_frame() -> None:
    spread = estimate_distribution(MODEL, A100, "prumerge", {"a": 10, "b": 20}, [3, 1])
    assert spread.weights == (0.75, 0.25)
    document = json.loads(json.dumps(spread.to_dict(), allow_nan=False))
    assert document["labels"] == ["a", "b"]
    assert set(document["mean"]) == set(document["values"]) == set(document["percentiles"])
    assert list(spread.to_frame()["label"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("counts", "weights", "message"),
    [
        ([], None, "counts is empty"),
        ([40, -1], None, "whole number"),
        ([40, 4.5], None, "whole number"),
        (40, None, "data sets with theirs"),
        ([40], [1, 2], "1 numbers"),
        ([40], 1, "1 numbers"),
        ([40], ["x"], "1 numbers"),
        ([40, 50], [0, 0], "all 0"),
        ([40, 50], [1, float("nan")], "2 numbers"),
        ([40, 600], None, "than the 576"),
    ],
)
def test_bad_distributions(counts, weights, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        estimate_distribution(MODEL, A100, "prumerge", counts, weights)


def test_methods_without_published_counts() -> None:
    with pytest.raises(InvalidInputError, match="no paper reports a distribution"):
        estimate_distribution(MODEL, A100, "divprune")
    with pytest.raises(InvalidInputError, match="needs a method"):
        estimate_distribution(MODEL, A100, "none", [10])
    with pytest.raises(UnknownMethodError):
        estimate_distribution(MODEL, A100, "x", [10])


#: Methods whose keep is no number of tokens.
NO_COUNT = ("vtw", "fitprune", "sparsevlm", "pixelprune")
CLIPS = tuple(name for name in list_methods() if method_info(name).clips)


@pytest.mark.parametrize("method", [n for n in list_methods() if n not in (*NO_COUNT, *CLIPS)])
def test_every_counting_method_takes_a_distribution(method) -> None:
    spread = estimate_distribution(MODEL, A100, method, [36, 144])
    assert spread.values["flops"][0] < spread.values["flops"][1]
