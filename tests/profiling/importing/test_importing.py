"""Other tools' results: every number is found again in its file, what is missing stays missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    UnknownHardwareError,
    UnknownModelError,
    UnknownPrecisionError,
)
from profiling import import_results, load_measurements, reconcile
from profiling.importing import LeftOutWarning, Told, read_results, write_records
from profiling.importing.formats import FORMATS
from profiling.records.measurement import GENERATION, TOTAL
from profiling.records.storage import read_measurements

if TYPE_CHECKING:
    from profiling.records.measurement import Measurement

FOLDER = Path(__file__).parents[2] / "data" / "results"
#: The members of a result that `vllm bench serve --save-result --save-detailed` writes.
SERVE = {
    "date": "20260101-120000", "backend": "openai-chat", "model_id": "llava-hf/llava-1.5-7b-hf",
    "tokenizer_id": "llava-hf/llava-1.5-7b-hf", "num_prompts": 4, "request_rate": "inf",
    "max_concurrency": 2, "duration": 1.5, "completed": 4, "total_input_tokens": 4 * 616,
    "total_output_tokens": 4 * 9, "ttfts": [0.05, 0.06, 0.07, 0.08], "mean_ttft_ms": 65.0,
    "median_ttft_ms": 65.0, "p99_ttft_ms": 80.0, "median_tpot_ms": 12.5, "errors": ["", "", "", ""],
}  # fmt: skip
LATENCY = {"avg_latency": 2.0, "latencies": [1.9, 2.0, 2.1], "percentiles": {"50": 2.0}}


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _row_of(record: Measurement, rows: list[dict[str, str]]) -> dict[str, str]:
    return rows[int(record.environment["imported"].rpartition(" ")[2]) - 1]


def test_optimums_own_report_number_by_number() -> None:
    found = read_results(FOLDER / "optimum_full_report.csv")
    assert (len(found.records), found.left_out) == (5, ())
    rows = _rows("optimum_full_report.csv")
    for record in found.records:
        row = _row_of(record, rows)
        assert set(record.stages) == {"prefill", GENERATION}
        assert record.stages["prefill"].event_s == (float(row["forward.latency(s)"]),)
        assert record.stages[GENERATION].event_s == (float(row["generate.latency(s)"]),)
        peak = float(row["forward.max_memory_allocated(MB)"]) * 1e6
        assert record.stages["prefill"].peak_allocated_bytes == peak
        configuration = record.configuration
        assert (configuration.model, configuration.dtype) == ("llama-2-7b", "fp16")
        assert configuration.batch_size == int(row["benchmark.input_shapes.batch_size"])
        # The first of the new tokens is the prefill's.
        assert configuration.output_tokens == int(row["benchmark.new_tokens"]) - 1
        assert (configuration.text_tokens, configuration.visual_tokens) == (256, 0)
        assert record.environment["device_name"] == "NVIDIA A100-SXM4-80GB"
        assert record.environment["torch"] == "2.1.0+cu118"
        assert "logits at every position" in (record.boundary or "")
        # Nothing that the tool did not measure is a number.
        assert record.stages["prefill"].flops is None
        assert record.stages["prefill"].kernels is None
        assert record.tpot_s is None
        assert record.ttft_s is None


def test_rows_faster_than_the_device_are_named_and_left_out(tmp_path: Path) -> None:
    rows = _rows("optimum_a100.csv")
    flagged = [number for number, row in enumerate(rows, 1) if row["above_peak"] == "True"]
    assert flagged
    with pytest.warns(LeftOutWarning, match="became no record"):
        records = import_results(FOLDER / "optimum_a100.csv")
    used = {int(record.environment["imported"].rpartition(" ")[2]) for record in records}
    assert not used & set(flagged)
    # Without the column the device's own peak tells.
    plain = tmp_path / "plain.csv"
    with plain.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "above_peak"])
        writer.writeheader()
        for row in rows:
            writer.writerow({name: value for name, value in row.items() if name != "above_peak"})
    told = {item.where: item.why for item in read_results(plain).left_out}
    for number in flagged:
        assert "faster than its matrix products need at the peak" in told[f"row {number}"]
    others = [why for where, why in told.items() if where not in {f"row {n}" for n in flagged}]
    assert all("bitsandbytes" in why for why in others)


def test_an_empty_cell_is_missing_not_zero() -> None:
    records = read_results(FOLDER / "optimum_a100.csv").records
    rows = _rows("optimum_a100.csv")
    seen = set()
    for record in records:
        row = _row_of(record, rows)
        seen.add(row["decode_s"] == "")
        assert ("decode" in record.stages) == (row["decode_s"] != "")
        peak = record.stages[GENERATION].peak_allocated_bytes
        assert peak == (float(row["max_alloc_MB"]) * 1e6 if row["max_alloc_MB"] else None)
    assert seen == {True, False}


def test_lmms_evals_mean_request() -> None:
    told = Told(hardware="jetson-agx-thor", dtype="bf16", visual_tokens=850)
    (record,) = read_results(FOLDER / "lmms_eval_mme.json", told).records
    # 1,116.63 s over 2,374 requests; 2,159,783 tokens went in and 4,839 came out.
    assert record.stages[GENERATION].event_s[0] == pytest.approx(1116.6342152273282 / 2374)
    assert record.configuration.text_tokens == round(2159783 / 2374) - 850
    assert record.configuration.output_tokens == 1
    assert record.configuration.model == "qwen2.5-vl-3b"
    assert "no preprocessing" in (record.boundary or "")
    assert "/opt" not in json.dumps(record.to_dict())
    (left,) = read_results(FOLDER / "lmms_eval_mme.json").left_out
    assert left.why == (
        "the file does not say the arithmetic (--dtype), how many tokens are visual (--visual-tokens)"
    )


def test_edge_llms_tables() -> None:
    found = read_results(FOLDER / "edge_llm.csv", Told(dtype="awq"))
    rows = _rows("edge_llm.csv")
    assert {"vision", "prefill", "decode"} <= {name for r in found.records for name in r.stages}
    for record in found.records:
        row = _row_of(record, rows)
        batch = int(float(row["batch"]))
        for stage, column in (("vision", "vit_s"), ("prefill", "prefill_s")):
            if stage in record.stages:
                assert record.stages[stage].event_s == (float(row[column]),)
        if "decode" in record.stages:
            # Speculation makes several tokens of one step.
            assert row["mode"] == "Vanilla"
            assert record.tpot_s == pytest.approx(batch / float(row["decode_tok_s"]))
        if row["prefill_tokens"]:
            total = record.configuration.text_tokens + (record.configuration.visual_tokens or 0)
            assert total == float(row["prefill_tokens"])
        else:
            assert set(record.stages) == {"vision"}
            assert "text_tokens" in record.why_missing
    # Modules of one name are told apart.
    assert {r.environment["device_file"] for r in found.records} >= {
        "nvidia-jetson-agx-orin-64gb", "nvidia-jetson-agx-thor-128gb",
    }  # fmt: skip


def test_vllm_serve_is_a_first_token_and_a_step(tmp_path: Path) -> None:
    path = tmp_path / "serve.json"
    path.write_text(json.dumps(SERVE))
    told = {"hardware": "a100", "dtype": "fp16", "visual_tokens": 576}
    first, step = import_results(path, **told)  # type: ignore[arg-type]
    assert first.stages[TOTAL].event_s == (0.05, 0.06, 0.07, 0.08)
    assert (first.configuration.batch_size, first.configuration.text_tokens) == (1, 40)
    for word in ("queue", "preprocessing", "vision tower", "prefill", "sampling"):
        assert word in (first.boundary or "")
    assert set(step.stages) == {"decode"}
    assert (step.configuration.batch_size, step.configuration.output_tokens) == (2, 8)
    assert step.tpot_s == pytest.approx(0.0125)
    assert "beside 1 others at most" in (step.boundary or "")
    # Without a limit nobody knows how many requests shared a step.
    path.write_text(json.dumps(SERVE | {"max_concurrency": None}))
    (left,) = read_results(path, Told({}, "a100", "fp16", None, 576)).left_out
    assert left.where == "result 1, decode"
    assert "the batch (--batch-size)" in left.why


def test_vllm_latency_needs_to_be_told_everything_but_times(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(LATENCY))
    (left,) = read_results(path).left_out
    for option in ("--model", "--dtype", "--batch-size", "--text-tokens"):
        assert option in left.why
    (record,) = import_results(
        path, models="llama-2-7b", hardware="a100", dtype="fp16", batch_size=8, text_tokens=32,
        output_tokens=128,
    )  # fmt: skip
    assert record.stages[GENERATION].event_s == (1.9, 2.0, 2.1)
    assert record.configuration.output_tokens == 127


def test_optimums_json_of_a_generation_and_of_none(tmp_path: Path) -> None:
    path = FOLDER / "optimum_benchmark.json"
    (left,) = read_results(path).left_out
    assert left.why == "its task is feature-extraction, not text-generation"
    document: dict[str, Any] = json.loads(path.read_text())
    document["config"]["backend"] |= {
        "name": "pytorch", "version": "2.5.0", "task": "text-generation", "device": "cuda",
        "model": "meta-llama/Llama-2-7b-hf", "torch_dtype": "float16", "quantization_scheme": None,
    }  # fmt: skip
    document["config"]["scenario"] |= {"new_tokens": 100}
    document["config"]["environment"]["gpu"] = ["NVIDIA A100-SXM4-80GB"]
    document["report"] = {
        "prefill": {"memory": {"unit": "MB", "max_allocated": 14000.0},
                    "latency": {"unit": "s", "mean": 0.5, "values": [0.4, 0.6]}},
        "decode": {"memory": None, "latency": {"unit": "s", "mean": 9.9, "values": [9.9]}},
    }  # fmt: skip
    made = tmp_path / "benchmark.json"
    made.write_text(json.dumps(document))
    (record,) = import_results(made, dtype="bf16")
    assert record.stages["prefill"].event_s == (0.4, 0.6)
    assert record.stages["prefill"].peak_allocated_bytes == 14_000_000_000
    assert record.stages["decode"].event_s == (9.9,)
    # What the file says goes before what is told.
    assert record.configuration.dtype == "fp16"
    assert record.environment["device_file"] == "nvidia-a100-sxm4-80gb"


def test_records_are_read_reconciled_and_tabled(tmp_path: Path) -> None:
    found = read_results(FOLDER / "optimum_a100.csv")
    folders = write_records([found], tmp_path)
    assert folders == {tmp_path: "nvidia-a100-sxm4-80gb"}
    assert len(read_measurements(tmp_path)) == len(found.records)
    table = load_measurements(tmp_path)
    assert set(table["stage"]) == {"prefill", "decode", GENERATION}
    result = reconcile(tmp_path)
    assert result.summary["runs"] + len(result.skipped) == len(found.records)
    # A model that is not shipped cannot be priced, and says how it can.
    assert all("--model" in row["reason"] for row in result.skipped)
    for row in result.rows:
        parts = sum(row[name] for name in row if name.endswith("_s") and name.startswith(
            ("efficiency", "granularity", "host", "left_out", "unexplained")))  # fmt: skip
        assert parts + row["ideal_s"] == pytest.approx(row["measured_s"])
    assert result.summary["time"][GENERATION]["mape"] < 0.25


def test_a_generation_is_its_first_token_and_its_steps(tmp_path: Path) -> None:
    write_records([read_results(FOLDER / "optimum_a100.csv")], tmp_path)
    rows = {}
    for row in reconcile(tmp_path).rows:
        key = (row["model"], row["dtype"], row["batch_size"], row["text_tokens"], row["round"])
        rows.setdefault((*key, row["output_tokens"]), {})[row["stage"]] = row["predicted_s"]
    whole = [found for found in rows.values() if {"prefill", "decode", GENERATION} <= set(found)]
    assert whole
    for found in whole:
        assert found["prefill"] + found["decode"] == pytest.approx(found[GENERATION])


def test_several_devices_get_a_folder_each(tmp_path: Path) -> None:
    folders = write_records([read_results(FOLDER / "edge_llm.csv", Told(dtype="awq"))], tmp_path)
    assert len(folders) > 1
    assert {path.name for path in folders} == set(folders.values())
    thor = tmp_path / "nvidia-jetson-agx-thor-128gb"
    assert reconcile(thor).hardware.id == "nvidia-jetson-agx-thor-128gb"


def test_files_of_one_configuration_are_its_rounds(tmp_path: Path) -> None:
    told = Told({"": "llama-2-7b"}, "a100", "bf16", 4, text_tokens=100, output_tokens=10)
    for name, seconds in (("one", 1.9), ("two", 2.0), ("one", 2.1)):
        path = tmp_path / name / "latency.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**LATENCY, "latencies": [seconds]}))
        write_records([read_results(path, told)], tmp_path / "records")
    # The last once more: the same record is no round of its own.
    write_records([read_results(path, told)] * 2, tmp_path / "records")
    records = read_measurements(tmp_path / "records")
    assert sorted((r.round, r.stages[GENERATION].event_s) for r in records) == [
        (0, (1.9,)),
        (1, (2.0,)),
        (2, (2.1,)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("x.json", "{}", "results of no tool that is known"),
        ("x.json", "[1, 2]", "results of no tool"),
        ("x.json", '{"a": ', "not valid JSON"),
        ("x.csv", "a,b\n1,2\n", "results of no tool"),
        ("x.csv", "", "results of no tool"),
    ],
)
def test_what_is_no_result_is_refused(name: str, text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidFileError, match=word):
        read_results(tmp_path / name)


def test_what_was_told_is_checked() -> None:
    with pytest.raises(InvalidInputError, match="batch_size"):
        Told(batch_size=0)
    with pytest.raises(UnknownPrecisionError, match="fp17"):
        Told(dtype="fp17")
    with pytest.raises(UnknownModelError, match="unknown model"):
        import_results(FOLDER / "optimum_full_report.csv", models="no-such")
    with pytest.raises(UnknownHardwareError, match="z80"):
        import_results(FOLDER / "optimum_full_report.csv", hardware="z80")


def test_every_format_says_what_it_was_tested_on() -> None:
    untested = {name for name in FORMATS.names() if "no real file" in FORMATS.get(name).tested}
    assert untested == {"vllm-serve", "vllm-latency"}
    page = (Path(__file__).parents[3] / "docs" / "explain.md").read_text(encoding="utf-8")
    for name in FORMATS.names():
        assert f"`{name}`" in page
    assert page.count("no real file") >= len(untested)


def test_more_tokens_than_any_request_makes_are_left_out_at_once(tmp_path: Path) -> None:
    path = tmp_path / "serve.json"
    path.write_text(json.dumps({**SERVE, "total_output_tokens": 4 * 10**9}))
    found = read_results(path, Told(dtype="bf16", visual_tokens=576))
    assert not found.records
    assert "no request makes 1000000000 tokens" in found.left_out[0].why
