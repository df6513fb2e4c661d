"""`compare`: ratios to the unreduced run with their intervals, what pruning cannot touch, and why."""

from __future__ import annotations

import csv
import io
import json

import pytest

from costmodel import compare, estimate
from costmodel.energy import PowerModel
from costmodel.questions.comparisons import COMPARED
from costmodel.questions.reasons import why_it_does_not_pay
from hardware_specs.errors import InvalidInputError, UnknownMethodError
from vlm_roofline.cli import main

A100 = "nvidia-a100-sxm4-80gb"
MEASURED = {"execution": "hf-eager", "calibration": A100, "host_s": 6e-6}


def test_ratios_are_those_of_two_estimates() -> None:
    given = {"output_tokens": 16, "batch_size": 4}
    before = estimate("llava-1.5-7b", A100, **given)
    after = estimate("llava-1.5-7b", A100, method="fastv", keep=64, **given)
    answer = compare("llava-1.5-7b", A100, methods=["none", "fastv"], keep=64, **given)
    plain, row = answer.rows
    assert (plain.method, row.method, row.keep) == ("none", "fastv", 64)
    for name, key in (("ttft", "ttft_s"), ("tpot", "tpot_s"), ("total", "time_s")):
        assert plain.ratios[name].value == 1.0
        ratio = row.ratios[name]
        expected = getattr(after.totals, key) / getattr(before.totals, key)
        assert ratio.value == pytest.approx(expected, rel=1e-9)
        assert ratio.low <= ratio.value <= ratio.high
    memory = after.memory.peak_memory_bytes / before.memory.peak_memory_bytes
    assert row.ratios["peak_memory"] == pytest.approx((memory, memory, memory))
    assert row.mean_visual_tokens == (2 * 576 + 30 * 64) / 32
    assert after.visual_tokens_by_layer == ((2, 576), (30, 64))


@pytest.mark.parametrize("execution", ["fused", "hf-eager", "cuda-graph"])
@pytest.mark.parametrize("output_tokens", [0, 64])
def test_nothing_is_faster_than_at_most(execution: str, output_tokens: int) -> None:
    methods = ["fastv", "vtw", "divprune", "prumerge", "fitprune", "tome", "pyramiddrop"]
    answer = compare(
        "llava-1.5-7b", ["a100", "l4"], methods=methods, execution=execution,
        output_tokens=output_tokens,
    )  # fmt: skip
    assert len(answer.rows) == 2 * (1 + len(methods))
    for row in answer.rows:
        assert 1 / row.ratios["total"].value <= row.at_most * (1 + 1e-9), row.method


def test_common_errors_cancel() -> None:
    """The interval of the ratio is narrower than the quotients of the times' ends."""
    given = {**MEASURED, "output_tokens": 16}
    row = compare("llava-1.5-7b", A100, methods="divprune", **given).rows[1]
    before = estimate("llava-1.5-7b", A100, **given).totals
    after = estimate("llava-1.5-7b", A100, method="divprune", **given).totals
    apart = after.time_high_s / before.time_low_s - after.time_low_s / before.time_high_s
    ratio = row.ratios["total"]
    assert 0 < ratio.high - ratio.low < apart / 4


def test_fastv_with_a_cache_is_decode_bound() -> None:
    """FastV's issue 22: figures of docs/comparing.md."""
    plain, row = compare("llava-1.5-7b", A100, methods="fastv", output_tokens=100, **MEASURED).rows
    assert (plain.ttft_s, row.ttft_s) == pytest.approx((0.055, 0.040), rel=0.03)
    assert (plain.tpot_s, row.tpot_s) == pytest.approx((0.0140, 0.0134), rel=0.03)
    assert row.ratios["tpot"].value == pytest.approx(0.96, abs=0.02)
    assert row.ratios["total"].value == pytest.approx(0.95, abs=0.02)
    assert row.at_most == pytest.approx(1.13, abs=0.03)
    assert row.why.startswith("decode-bound: 96 % of the unreduced time")
    slow = {**MEASURED, "host_s": 17e-6}
    plain, row = compare("llava-1.5-7b", A100, methods="fastv", output_tokens=100, **slow).rows
    assert (plain.tpot_s, row.tpot_s) == pytest.approx((0.0221, 0.0221), abs=1e-4)
    assert "launches the same kernels" in row.why


def test_vispruner_per_token() -> None:
    """VisPruner's issue 6: 2.26 s for 135 tokens against 2.05 s for 120 is 2.0 % faster a token."""
    assert pytest.approx(0.98, abs=1e-3) == (2.26 / 135) / (2.05 / 120)
    plain, row = compare(
        "llava-1.5-7b", A100, methods="vispruner", keep=128, output_tokens=120, **MEASURED
    ).rows
    assert (row.tpot_s, plain.tpot_s) == pytest.approx((0.0130, 0.0140), rel=0.03)
    assert row.ratios["tpot"].value == pytest.approx(0.93, abs=0.02)
    assert row.why.startswith("decode-bound")


def test_other_reasons() -> None:
    def why(method: str, **given: object) -> str:
        return compare("llava-1.5-7b", A100, methods=method, **given).rows[1].why or ""

    assert "its own cost" in why("fastv", keep=576, layer=0)
    assert "host-bound" in why("fastv", visual_tokens=300, execution="hf-eager", host_s=30e-6)
    assert "memory-bound" in why("divprune", visual_tokens=64, keep=32)
    assert "fused attention lost" in why("fitprune", keep=0.9, calibration=A100)
    assert why("divprune") == ""


def test_what_cannot_be_priced_is_said() -> None:
    answer = compare("llava-1.5-7b", "l4", methods=["fastv", "tome"], visual_tokens=100)
    assert [row.method for row in answer.rows] == ["none", "fastv"]
    assert answer.refused[0].method == "tome"
    assert answer.refused[0].reason
    with pytest.raises(UnknownMethodError, match="fastv"):
        compare("llava-1.5-7b", "l4", methods=["fastvv"])
    with pytest.raises(InvalidInputError, match="keep is an empty list"):
        compare("llava-1.5-7b", "l4", methods=["fastv"], keep=[])
    with pytest.raises(InvalidInputError, match="compare needs a method"):
        compare("llava-1.5-7b", "l4", methods=[])
    with pytest.raises(InvalidInputError, match="compare sets tokens_per_layer itself"):
        compare("llava-1.5-7b", "l4", methods=["fastv"], tokens_per_layer=[1] * 32)


def test_energy_where_powers_are_known() -> None:
    power = PowerModel(60.0, 250.0, 350.0, 400.0, spread=0.1, windows=9)
    _, row = compare("llava-1.5-7b", A100, methods="fastv", keep=64, power=power).rows
    assert row.energy_j is not None
    assert row.ratios["energy"].low <= row.ratios["energy"].value <= row.ratios["energy"].high < 1
    assert compare("llava-1.5-7b", A100, methods="fastv").rows[1].energy_j is None


def test_documents() -> None:
    answer = compare("llava-1.5-7b", ["l4", "a100"], methods=["fastv"], keep=[64, 0.5])
    document = json.loads(json.dumps(answer.to_dict()))
    assert {
        "hardware", "method", "keep", "ttft_s", "tpot_s", "total_s", "peak_memory_bytes", "fits",
        "energy_j", "mean_visual_tokens", "ratios", "at_most", "why",
    } == set(document["rows"][0])  # fmt: skip
    assert set(document["rows"][0]["ratios"]) == set(COMPARED)
    rows = list(csv.DictReader(io.StringIO(answer.to_csv())))
    assert len(rows) == 6
    assert float(rows[1]["ttft_ratio"]) == document["rows"][1]["ratios"]["ttft"]["value"]
    assert answer.to_latex().count(r"\\") == 7
    assert r"\toprule" in answer.to_latex()
    assert len(answer.to_markdown().splitlines()) == 8
    assert "<table>" in answer._repr_html_()
    assert len(repr(answer)) < 200
    lines = str(answer).splitlines()
    assert len(lines) >= 8
    assert len({len(line) for line in lines[1:8]}) == 1
    assert str(answer.rows[1].ratios["ttft"].value)[:4] in lines[3]


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "latex"])
def test_command(capsys, form: str) -> None:
    arguments = ["llava-1.5-7b", "-d", "l4,a100", "--method", "none,fastv", "--keep", "0.5"]
    assert main(["compare", *arguments, "--format", form, "--output-tokens", "8"]) == 0
    shown = capsys.readouterr()
    assert "nvidia-l4" in shown.out
    assert "'a100' is taken as" in shown.err
    assert main(["compare", *arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 4
    assert main(["compare", *arguments, "--format", "word"]) == 2


def test_estimate_says_it_in_a_line(capsys) -> None:
    assert main(["estimate", "llava-1.5-7b", "-d", A100, "--method", "fastv"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "against no method: TTFT 0.70" in said
    assert "times faster" in said


def test_a_method_for_clips_says_that_an_image_stays_whole() -> None:
    held = {"model": "llava-1.5-7b", "hardware": "nvidia-l4", "calibration": None}
    reason = why_it_does_not_pay(estimate(**held, method="fastvid"), estimate(**held))
    assert reason is not None
    assert reason.startswith(
        "all 576 visual tokens stay in every layer; fastvid compares the frames"
    )
