"""`vlm-roofline calibrate` on tables, and on what the micro-benchmarks return."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from costmodel.calibration import Calibration
from hardware_specs.errors import CalibrationError
from vlm_roofline.cli import main

A100 = "nvidia-a100-sxm4-80gb"


@pytest.fixture(scope="module")
def table(tmp_path_factory, public, public_module):
    frame = public_module.gemms(public, A100, "bfloat16", "vLLM/SGLang")
    rows = np.random.default_rng(0).choice(len(frame), 64, replace=False)
    path = tmp_path_factory.mktemp("tables") / "gemm.csv"
    frame.iloc[rows].to_csv(path, index=False)
    return path


def test_a_table_becomes_a_calibration(table, tmp_path, capsys):
    out = tmp_path / "new" / "a100.json"
    assert main(["calibrate", str(table), "--hardware", A100, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "gemm" in text
    assert "64" in text
    assert "not measured, parameters assumed" in text
    found = Calibration.load(out)
    assert found.lookup("gemm", "bf16").points == 64
    assert found.provenance("gemm", "bf16") == "fitted on 64 points of gemm.csv"


def test_json_is_the_saved_document(table, tmp_path, capsys):
    out = tmp_path / "a100.json"
    command = ["calibrate", str(table), "--hardware", A100, "--out", str(out), "--json"]
    assert main([*command, "--software", "vLLM", "--date", "2026-01-31"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["out"] == str(out)
    assert document["calibration"] == json.loads(out.read_text())
    assert document["calibration"]["software"] == "vLLM"
    assert document["calibration"]["date"] == "2026-01-31"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{table}"], "--hardware"),
        (["{table}", "--hardware", "nvidia-h100-sxm5-80gb"], "was measured on 'NVIDIA A100"),
        (["{table}", "--hardware", "nvidia-z9"], "unknown hardware"),
        (["nowhere.csv", "--hardware", A100], "no table at"),
        (["--keep-table", "ops.csv"], "'ops.csv' must end in .json"),
        (
            ["--device", "cpu", "--dtypes", "bf16", "--hardware", "nvidia-v100-sxm2-16gb"],
            "no peak for bf16",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, table, tmp_path, refused):
    out = tmp_path / "x.json"
    given = (each.format(table=table) for each in arguments)
    assert words in refused("calibrate", *given, "--out", out)
    assert not out.exists()


def test_without_a_table_the_device_is_measured(monkeypatch, tmp_path, capsys):
    import profiling

    asked = {}

    def measure(device, **options):
        options.pop("on_progress")(1, 2)
        asked.update(options, device=device)
        return Calibration.load(A100)

    monkeypatch.setattr(profiling, "calibrate", measure, raising=False)
    out = tmp_path / "here.json"
    command = ["calibrate", "--device", "cpu", "--dtypes", "fp32,bf16", "--out", str(out)]
    assert main(command) == 0
    assert asked == {
        "device": "cpu", "hardware": None, "model": "llava-1.5-7b",
        "dtypes": ["fp32", "bf16"], "table": None, "near": None,
    }  # fmt: skip
    assert Calibration.load(out) == Calibration.load(A100)
    assert "attention_prefill" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [False, True])
def test_ops_whose_fit_is_refused_are_kept(kept, monkeypatch, tmp_path, capsys):
    """The message's command fits them again."""
    import profiling
    from hardware_specs import get_hardware
    from profiling.microbench.table import OpTable, read_op_table

    rows = (
        {
            "op_class": "copy",
            "dtype": "bf16",
            "flops": 0,
            "bytes": size,
            "time_s": 5e-6 + size / 1e12,
        }
        for size in np.geomspace(1e6, 1e9, 30).tolist()
    )
    ops = OpTable(rows=tuple(rows))
    own = replace(get_hardware(A100), id="my-a100")

    def refuse(device, *, table, **options):
        if table is not None:
            ops.write(table)
        error = CalibrationError("the products make no calibration")
        error.measured = ops, own
        raise error

    monkeypatch.setattr(profiling, "calibrate", refuse, raising=False)
    out, table = tmp_path / "here.json", tmp_path / "table.json"
    assert main(["calibrate", "--out", str(out), *(["--keep-table", str(table)] * kept)]) == 2
    said = capsys.readouterr().err
    assert read_op_table(table if kept else tmp_path / "here.ops.json").rows == ops.rows
    command = said.partition(": vlm-roofline ")[2].split()
    assert "30 ops" in said
    assert main(command) == 0
    assert Calibration.load(out).hardware_id == "my-a100"
