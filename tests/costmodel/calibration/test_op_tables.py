"""Reading tables: files, folders, kinds by columns."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from costmodel.calibration.tables import group_points, host_seconds, kind_of, read_tables
from hardware_specs.errors import CalibrationError

GEMM = pd.DataFrame({"dtype": ["bf16", "int8"], "m": 4, "n": 5, "k": 6, "time_s": 1e-5})
OPS = {
    "kind": "ops",
    "rows": [
        {"op_class": "gemm", "dtype": "bf16", "m": 1, "n": 2, "k": 3, "time_s": 1e-5,
         "samples_s": [1e-5, 2e-5]},
        {"op_class": "copy", "dtype": "bf16", "bytes": 10.0, "time_s": 1e-6},
        {"op_class": "host", "dtype": "any", "name": "launch", "time_s": 3e-6},
    ],
}  # fmt: skip


def test_csv_parquet_json_folder_and_lists_give_the_same_rows(tmp_path):
    GEMM.to_csv(tmp_path / "a.csv", index=False)
    GEMM.to_parquet(tmp_path / "b.parquet", index=False)
    (tmp_path / "c.json").write_text(json.dumps(OPS))
    (tmp_path / "other.json").write_text('{"kind": "measurement"}')
    (tmp_path / "notes.txt").write_text("nothing")
    folder = read_tables(tmp_path)
    assert [name for name, _ in folder] == ["a.csv", "b.parquet", "c.json"]
    each = read_tables([str(tmp_path / n) for n in ("a.csv", "b.parquet", "c.json")])
    for (_, a), (_, b) in zip(folder, each, strict=True):
        pd.testing.assert_frame_equal(a, b)
    pd.testing.assert_frame_equal(folder[0][1], GEMM)
    assert "samples_s" not in folder[2][1].columns


def test_kinds_follow_from_columns():
    assert kind_of("t", GEMM) == "gemm"
    attention = pd.DataFrame(
        columns=["batch_size", "seq_len", "heads", "head_dim", "causal", "time_s"]
    )
    assert kind_of("t", attention) == "attention"
    assert kind_of("t", pd.DataFrame(columns=["bytes", "time_s"])) == "stream"
    with pytest.raises(CalibrationError, match="one of these sets"):
        kind_of("t", pd.DataFrame(columns=["x", "time_s"]))


def test_points_are_grouped_by_class_and_canonical_dtype(tmp_path):
    path = tmp_path / "ops.json"
    path.write_text(json.dumps(OPS))
    groups, remarks = group_points([*read_tables(GEMM), *read_tables(path)], [])
    assert {(g.op_class, g.dtype): len(g) for g in groups} == {
        ("gemm", "bf16"): 2,
        ("gemm", "w8a8"): 1,
        ("copy", "bf16"): 1,
    }
    assert remarks == []
    assert host_seconds(read_tables(path)) == {"launch": [3e-6]}


def test_attention_classes_follow_from_mask_and_lengths():
    frame = pd.DataFrame(
        {
            "batch_size": 1, "seq_len": [64, 64, 1], "kv_len": [64, 64, 900], "heads": 8,
            "head_dim": 64, "causal": [True, False, False], "time_s": 1e-5,
        }
    )  # fmt: skip
    groups, remarks = group_points([("t", frame)], [])
    assert [g.op_class for g in groups] == [
        "attention_prefill", "attention_encoder", "attention_decode",
    ]  # fmt: skip
    assert groups[2].sizes["kv_heads"].tolist() == [8.0]
    assert remarks == ["t names no dtype: taken as bf16"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "missing.csv", "no table at"),
        (lambda p: p, "holds no .csv"),
        (lambda p: 5, "not int"),
        (lambda p: [], "no table was given"),
    ],
)
def test_what_is_no_table_is_an_error(make, words, tmp_path):
    with pytest.raises(CalibrationError, match=words):
        read_tables(make(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "m,n", "is none of"),
        ("a.parquet", "junk", "cannot be read"),
        ("a.json", "{}", "its kind is not 'ops'"),
    ],
)
def test_files_that_cannot_be_read_are_named(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(CalibrationError, match=words):
        read_tables(tmp_path / name)
