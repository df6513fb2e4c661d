from __future__ import annotations

import pytest

from hardware_specs.errors import InvalidFileError
from profiling import reconcile
from profiling.reconciling import OpProfile, read_op_profile, write_op_profile
from profiling.reconciling.opclasses import by_class
from profiling.records.measurement import TokenCounts
from profiling.tracing.op_profile import OpRecord

TOKENS = TokenCounts(576, 64, 40, 1, (104,) * 32)


def a_pass(lab, *rows):
    return OpProfile(
        lab.configuration(), TOKENS, rows, lab.ENVIRONMENT, "2026-01-02T03:04:05+00:00"
    )


def test_a_pass_reads_back_as_it_was_written(lab, tmp_path):
    profile = a_pass(lab, OpRecord("prefill", "q_proj", "gemm", 32, 0.001))
    path = write_op_profile(profile, tmp_path)
    assert read_op_profile(path) == profile


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"kind": "ops"}', '{"kind": "op-profile", "schema_version": 9}',
     '{"kind": "op-profile", "schema_version": 1, "rows": 3}'],
)  # fmt: skip
def test_a_damaged_pass_is_named(tmp_path, text):
    path = tmp_path / "x_ops.json"
    path.write_text(text)
    with pytest.raises(InvalidFileError, match="x_ops"):
        read_op_profile(path)


def test_ops_meet_their_predictions_by_name_and_by_class(lab):
    profile = a_pass(
        lab,
        OpRecord("prefill", "q_proj", "gemm", 32, 0.010),
        OpRecord("prefill", "k_proj", "gemm", 32, 0.020),
        OpRecord("prefill", "aten_extra", "copy", 5, 0.003),
    )
    result = reconcile([lab.measured(), profile], lab.law_of())
    rows = {(row["stage"], row["name"]): row for row in result.ops}
    query = rows[("prefill", "q_proj")]
    assert query["predicted_kernels"] == 32
    assert query["flops"] == 2 * 104 * 4096 * 4096 * 32
    assert query["measured_s"] == pytest.approx(
        query["ideal_s"] + query["efficiency_s"] + query["unexplained_s"]
    )
    assert query["provenance"] == "a known law"
    # An op the model does not have keeps its time, all of it unexplained.
    assert rows[("prefill", "aten_extra")]["unexplained_s"] == 0.003
    classes = {(row["stage"], row["op_class"]): row for row in by_class(result.ops)}
    assert classes[("prefill", "gemm")]["measured_s"] == pytest.approx(0.030)
    assert classes[("prefill", "gemm")]["share"] == pytest.approx(30 / 33)
    assert classes[("prefill", "copy")]["measured_kernels"] == 5
    assert result.to_dict()["op_classes"]


def test_passes_beside_the_records_are_found(lab, tmp_path):
    from profiling.records.storage import write_measurement

    write_measurement(lab.measured(), tmp_path)
    write_op_profile(a_pass(lab, OpRecord("prefill", "q_proj", "gemm", 32, 0.01)), tmp_path)
    assert any(row["name"] == "q_proj" and row["measured_s"] for row in reconcile(tmp_path).ops)


def test_an_op_takes_the_models_class(lab):
    profile = a_pass(lab, OpRecord("prefill", "rope", "pointwise", 320, 0.004))
    rows = [row for row in reconcile([lab.measured(), profile]).ops if row["name"] == "rope"]
    prefill = [row for row in rows if row["stage"] == "prefill"]
    assert len(prefill) == 1
    assert prefill[0]["measured_s"] == 0.004
    assert prefill[0]["predicted_kernels"] == 320
