from __future__ import annotations

import pytest
from pydantic import ValidationError

from costmodel import estimate
from costmodel.reproduce import reproduce
from costmodel.reproduce.measured_limits import encoder_flops, prompt_flops
from costmodel.reproduce.measured_published import Encoder, MeasuredRow, MeasuredTable
from costmodel.reproduce.published import load_published


@pytest.fixture(scope="module")
def table():
    return reproduce("measured")


def rows_of(table, source, method):
    return [row for row in table.rows if source in row["source"] and method in row["method"]]


def test_every_published_row_is_there(table):
    sources = load_published("measured", MeasuredTable).sources
    assert sum(len(source.rows) for source in sources) == 79
    quantities = [row["quantity"] for row in table.rows]
    counts = {name: quantities.count(name) for name in set(quantities)}
    assert counts == {"time": 41, "memory": 13, "speed-up": 19, "throughput": 19}


def test_no_measured_time_lies_under_the_roofline(table):
    assert table.summary["under_the_roofline"] == []
    for row in table.rows:
        if row["quantity"] == "time":
            assert row["efficiency"] < 1
            assert float(row["published"]) > row["limit"]


def test_the_limit_is_the_estimate():
    (row,) = [
        row
        for row in reproduce("measured").rows
        if row["source"].startswith("SparseVLM") and "vanilla" in row["method"]
    ]
    cost = estimate(
        "llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=576, text_tokens=119,
        calibration="none",
    )  # fmt: skip
    assert row["limit"] == pytest.approx(1e3 * cost.totals.ttft_s)
    assert row["efficiency"] == pytest.approx(1e3 * cost.totals.ttft_s / 57.82)


def test_what_cannot_be_is_named_with_its_reason(table):
    wrong = [row for row in table.rows if row["verdict"] == "cannot be"]
    assert len(wrong) == len(table.summary["cannot_be"]) == 10
    assert all(row["note"] for row in wrong)
    pyramid = rows_of(table, "SparseVLM", "PyramidDrop")
    assert [row["verdict"] for row in pyramid] == ["possible", "cannot be", "cannot be"]
    # Its first quarter of the layers sees all 576 tokens: 144 in the mean.
    assert "which makes 144 alone" in pyramid[2]["note"]
    assert "slower than the same method" in pyramid[2]["note"]
    crossget = rows_of(table, "CrossGET", "13B")[0]
    assert crossget["verdict"] == "cannot be"
    assert crossget["limit"] < 2.0
    memory = [
        row for row in rows_of(table, "FastV, Table 4", "FastV") if row["quantity"] == "memory"
    ]
    assert all("saved, but fewer visual tokens save 0." in row["note"] for row in memory)


def test_one_efficiency_per_source_and_how_far_it_misses(table):
    fitted = table.summary["efficiency_by_source"]
    sparse = fitted["sparsevlm-table1"]
    times = [row["efficiency"] for row in rows_of(table, "SparseVLM", "")]
    product = 1.0
    for value in times:
        product *= value
    assert sparse["efficiency"] == pytest.approx(product ** (1 / 13))
    assert sparse["lowest"] < 0.5 * sparse["highest"]
    assert all(0 < found["efficiency"] < 1 for found in fitted.values())


def test_fewer_tokens_buy_less_time_than_the_roofline_promises(table):
    found = table.summary["speedup_roofline"]
    assert found["predicted_over_published"] > 1.1
    reduced = list(rows_of(table, "SparseVLM", "ToMe"))
    assert len(reduced) == 3
    for row in reduced:
        assert row["speedup_published"] < row["speedup_roofline"]
        assert abs(row["speedup_calibrated"] / row["speedup_published"] - 1) < 0.25


@pytest.mark.parametrize(
    ("encoder", "gmacs"),
    [((1024, 24, 224, 16), 61.6), ((384, 12, 224, 16), 4.6), ((1280, 32, 224, 14), 167.4)],
)
def test_encoders_count_as_their_papers_do(encoder, gmacs):
    width, layers, image, patch = encoder
    vit = Encoder(width=width, layers=layers, image=image, patch=patch)
    assert encoder_flops(vit) / 2e9 == pytest.approx(gmacs, rel=0.01)
    assert encoder_flops(vit, 7) < encoder_flops(vit)
    assert encoder_flops(vit, 0) == encoder_flops(vit)


def test_a_frozen_layer_costs_what_shortv_counts():
    row = MeasuredRow(
        model="x", shape="llava-1.5-7b", method="ShortV N=8", tokens=576, of=576, text=64,
        frozen_layers=8, speedup="1.13",
    )  # fmt: skip
    full, frozen = prompt_flops(row, reduced=False), prompt_flops(row)
    # ShortV's own Table 1: 8.5 and 6.9 TFLOP for the language model; the tower adds 0.4 to both.
    assert (full - frozen) / 1e12 == pytest.approx(8.5 - 6.9, abs=0.06)


def test_a_row_with_two_quantities_or_none_is_refused():
    with pytest.raises(ValidationError, match="one of time"):
        MeasuredRow(model="x", method="y", time="1", unit="s", speedup="2", shape="z", tokens=1)
    with pytest.raises(ValidationError, match="one of time"):
        MeasuredRow(model="x", method="y")
    with pytest.raises(ValidationError, match="with its unit"):
        MeasuredRow(model="x", method="y", time="1", shape="z", tokens=1)
    with pytest.raises(ValidationError, match="names its shape"):
        MeasuredRow(model="x", method="y", speedup="1.5")
