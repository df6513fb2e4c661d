"""The JSON document of an estimate: the names that programs read."""

from __future__ import annotations

import inspect

from costmodel import estimate

A100 = "nvidia-a100-sxm4-80gb"


def test_the_document_has_the_promised_fields() -> None:
    """Programs read these names; one more may come, none may go."""
    document = estimate("llava-1.5-7b", A100, output_tokens=2).to_dict()
    assert {
        "schema_version", "inputs", "assumptions", "stages", "totals", "memory", "calibration",
    } <= set(document)  # fmt: skip
    assert set(document["calibration"]) == {
        "name", "kind", "measured", "transferred", "assumed",
    }  # fmt: skip
    arguments = set(inspect.signature(estimate).parameters)
    assert arguments <= set(document["inputs"])
    costs = {"flops", "executed_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes",
             "activation_read_bytes", "activation_write_bytes", "hbm_bytes", "kernels", "time_s",
             "time_low_s", "time_high_s", "ideal_time_s", "bound"}  # fmt: skip
    assert list(document["stages"]) == ["vision", "projector", "reduction", "prefill", "decode"]
    for stage in document["stages"].values():
        assert set(stage) == costs
    assert set(document["totals"]) == costs | {"ttft_s", "tpot_s"}
    assert set(document["memory"]) == {
        "weight_bytes", "kv_cache_bytes", "peak_activation_bytes", "peak_memory_bytes",
        "capacity_bytes", "fits", "activation_bytes_written",
    }  # fmt: skip
    counted = estimate("llava-1.5-7b", A100, convention="fastv").to_dict()
    assert set(counted["stages"]["prefill"]) == costs
    assert arguments <= set(counted["inputs"])
