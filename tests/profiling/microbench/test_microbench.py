"""The micro-benchmark suite on small shapes, its table and what a calibration reads from it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.calibration.tables import read_tables
from hardware_specs.errors import (
    CalibrationError,
    InvalidFileError,
    UnknownPrecisionError,
)
from profiling.devices.cpu import CpuDevice
from profiling.microbench import suite as microbench
from profiling.microbench.cases import (
    attention_case,
    gemm_case,
    gemm_cases,
    linear_widths,
)
from profiling.microbench.streams import stream_case
from profiling.microbench.suite import CPU_SUITE, run_microbenchmarks
from profiling.microbench.table import OpTable, read_op_table
from profiling.microbench.timing import calls_for, time_case

if TYPE_CHECKING:
    from pathlib import Path

SMALL = replace(
    CPU_SUITE, rows=(1, 8), max_flops=1e7, max_bytes=1 << 16, peak_side=64, budget_s=0.0,
    total_s=60.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tiny_source: str) -> OpTable:
    done: list[tuple[int, int]] = []
    result = run_microbenchmarks(
        "cpu", model=tiny_source, dtypes=["fp32"], suite=SMALL,
        on_progress=lambda number, total: done.append((number, total)),
    )  # fmt: skip
    assert [number for number, _ in done] == list(range(done[0][1]))
    return result


def test_every_class_is_measured(table: OpTable) -> None:
    frame = table.frame()
    assert set(frame["op_class"]) == {
        "gemm", "conv", "attention_prefill", "attention_encoder", "attention_decode", "norm",
        "pointwise", "copy", "embedding", "host",
    }  # fmt: skip
    assert (frame["time_s"] > 0).all()
    assert (frame["min_s"] <= frame["time_s"]).all()
    assert (frame["samples"] >= 5).all()
    assert set(frame.loc[frame["op_class"] == "host", "name"]) == {
        "launch", "module_kernel", "synchronise",
    }  # fmt: skip
    assert frame["device"].nunique() == 1
    assert table.skipped == {}


def test_rows_hold_sizes_flops_and_bytes(table: OpTable) -> None:
    frame = table.frame()
    gemm = frame[frame["op_class"] == "gemm"]
    assert (gemm["flops"] == 2 * gemm["m"] * gemm["n"] * gemm["k"]).all()
    prefill = frame[frame["op_class"] == "attention_prefill"].iloc[0]
    # 4 b h s t e with b=1, h=4, s=t=41, e=16.
    assert prefill["flops"] == 4 * 4 * 41 * 41 * 16
    assert bool(prefill["causal"])
    copy = frame[frame["op_class"] == "copy"].iloc[0]
    assert copy["bytes"] == 2 * 4 * copy["elements"]
    # The patch convolution of one 56 x 56 image: 16 patches, 3 * 14 * 14 inputs, 32 outputs.
    conv = frame[frame["op_class"] == "conv"].iloc[0]
    assert (conv["m"], conv["n"], conv["k"]) == (16, 32, 588)


def test_a_table_survives_its_file(table: OpTable, tmp_path: Path) -> None:
    path = table.write(tmp_path / "ops.json")
    assert read_op_table(path) == replace(
        table,
        rows=tuple(table.rows),
        environment=json.loads(json.dumps(dict(table.environment))),
    )
    ((_, frame),) = read_tables(tmp_path)
    assert len(frame) == len(table.rows)
    assert "samples_s" not in frame.columns


@pytest.mark.parametrize(
    "text",
    ["{", '{"kind": "runs"}', '{"kind": "ops", "schema_version": 9, "rows": []}',
     '{"kind": "ops", "schema_version": 1, "rows": [{"op_class": "gemm", "time_s": 0}]}',
     '{"kind": "ops", "schema_version": 1, "rows": [{"op_class": "gemm"}]}'],
)  # fmt: skip
def test_a_damaged_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ops.json").write_text(text)
    with pytest.raises(InvalidFileError):
        read_op_table(tmp_path / "ops.json")


def test_a_folder_without_tables_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema_version": 2}')
    with pytest.raises(CalibrationError, match="holds no"):
        read_tables(tmp_path)


def test_ops_that_fail_are_named_and_the_rest_goes_on(
    tiny_source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = microbench.time_case

    def fails(case: Any, *args: Any, **kwargs: Any) -> Any:
        if case.op_class == "conv":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if case.op_class == "norm":
            raise RuntimeError("no kernel for this device")
        return real(case, *args, **kwargs)

    monkeypatch.setattr(microbench, "time_case", fails)
    table = run_microbenchmarks("cpu", model=tiny_source, dtypes=["fp32"], suite=SMALL)
    classes = set(table.frame()["op_class"])
    assert "gemm" in classes
    assert not classes & {"conv", "norm"}
    assert any("out of memory" in reason for reason in table.skipped.values())
    assert any("no kernel" in reason for reason in table.skipped.values())


def test_a_suite_without_time_says_what_it_left_out(tiny_source: str) -> None:
    table = run_microbenchmarks(
        "cpu", model=tiny_source, dtypes=["fp32"], suite=replace(SMALL, total_s=0.0)
    )
    assert {row["op_class"] for row in table.rows} == {"host"}
    assert all("used up" in reason for reason in table.skipped.values())


def test_quantised_products_are_timed_where_they_run(tiny_source: str) -> None:
    pytest.importorskip("torchao")
    table = run_microbenchmarks("cpu", model=tiny_source, dtypes=["w8a16", "w4a16"], suite=SMALL)
    assert "w8a16" in set(table.frame().loc[lambda f: f["op_class"] == "gemm", "dtype"])
    assert all("w4a16" in name for name in table.skipped)
    with pytest.raises(UnknownPrecisionError):
        run_microbenchmarks("cpu", model=tiny_source, dtypes=["fp3"], suite=SMALL)


def test_weights_rotate_until_they_exceed_the_caches() -> None:
    # 4096 x 4096 bf16 is 32 MiB: eight of them make 256.
    case = gemm_case(1, 4096, 4096, "bf16", "cpu")
    assert case.weight_bytes == 32 * 1024 * 1024
    assert calls_for(case.weight_bytes) == 8
    small = gemm_case(4, 32, 32, "fp32", "cpu")
    functions = small.prepare(3)
    first, second = functions[0](), functions[1]()
    assert first.shape == (4, 32)
    assert not torch.equal(first, second)


def test_a_wide_model_gives_every_width_once() -> None:
    from costmodel.models import load_model

    shape = load_model("llava-1.5-7b")
    widths = linear_widths(shape)
    assert len(widths) == len(set(widths.values()))
    assert {(4096, 4096), (11008, 4096), (4096, 11008), (32064, 4096)} <= set(widths.values())
    assert {(1024, 1024), (4096, 1024), (1024, 4096)} <= set(widths.values())
    cases = list(gemm_cases(shape, "bf16", "meta", (1, 616), max_flops=1e15))
    assert all(case.sizes["m"] == 1 for case in cases if case.sizes["n"] == 32064)
    assert {case.sizes["m"] for case in cases} == {1, 616}


def test_attention_equals_its_definition() -> None:
    case = attention_case("attention_prefill", 1, 3, 3, 4, 2, 8, True, "fp32", "cpu")
    assert case.flops == 4 * 4 * 3 * 3 * 8
    output = case.prepare(1)[0]()
    assert output.shape == (1, 4, 3, 8)


def test_a_slow_chain_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    case = replace(
        stream_case("copy", 64, "fp32", "cpu", width=8),
        prepare=lambda count: [lambda: time.sleep(0.025)] * count,
    )
    row = time_case(case, CpuDevice(), budget_s=0.0)
    assert row["calls"] == 1
    assert row["samples"] == 5
    assert row["time_s"] >= 0.025


def test_calibrate_fits_what_was_measured(
    tiny_source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import costmodel.calibration
    from profiling.microbench.calibrate import calibrate

    seen = {}

    generic = costmodel.calibration.Calibration.load("generic")
    products = replace(generic.classes["gemm", "fp32"], points=20, provenance="measured")
    fitted = replace(generic, classes={**generic.classes, ("gemm", "fp32"): products})

    def fit(frame: Any, hardware: Any, near: Any) -> Any:
        assert near is None
        seen["classes"], seen["hardware"] = set(frame["op_class"]), hardware.id
        return fitted

    monkeypatch.setattr(costmodel.calibration, "fit_calibration", fit, raising=False)
    result = calibrate(
        "cpu", hardware="nvidia-h200-sxm-141gb", model=tiny_source, dtypes=["fp32"], suite=SMALL,
        table=tmp_path / "ops.json",
    )  # fmt: skip
    assert result.classes is fitted.classes
    assert {"gemm", "attention_prefill", "copy"} <= seen["classes"]
    assert seen["hardware"] == "nvidia-h200-sxm-141gb"
    assert len(read_op_table(tmp_path / "ops.json").rows) > 20
