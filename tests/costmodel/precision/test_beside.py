"""Precision files beside a config.json that does not repeat them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from costmodel import estimate, load_model
from costmodel.models import config_dict
from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from pathlib import Path

H100 = "nvidia-h100-sxm5-80gb"
GPTQ = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True, "damp_percent": 0.1}
AWQ = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
FP8 = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
NVFP4 = {
    "quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16,
    "exclude_modules": ["lm_head"],
}  # fmt: skip


def folder(where: Path, quantised: dict | None = None, **files: object) -> Path:
    document = config_dict("llava-1.5-7b")
    if quantised:
        document["quantization_config"] = quantised
    (where / "config.json").write_text(json.dumps(document), encoding="utf-8")
    for name, values in files.items():
        (where / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return where


@pytest.mark.parametrize(
    ("name", "content", "same"),
    [
        ("quantize_config", GPTQ, {"quant_method": "gptq", **GPTQ}),
        ("quant_config", AWQ, {"quant_method": "awq", "bits": 4, "group_size": 128}),
        (
            "hf_quant_config",
            {"producer": {"name": "modelopt"}, "quantization": FP8},
            {
                "quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"],
                "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            },
        ),
        (
            "hf_quant_config",
            {"producer": {"name": "modelopt"}, "quantization": NVFP4},
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
        ),
    ],
)  # fmt: skip
def test_bytes(tmp_path, name, content, same):
    beside, inside = tmp_path / "beside", tmp_path / "inside"
    beside.mkdir()
    inside.mkdir()
    cost = estimate(str(folder(beside, **{name: content})), H100)
    wanted = estimate(str(folder(inside, same)), H100)
    plain = load_model("llava-1.5-7b").parameters * 2
    assert cost.memory.weight_bytes == wanted.memory.weight_bytes < 0.6 * plain
    assert cost.memory.kv_cache_bytes == wanted.memory.kv_cache_bytes


def test_the_config_itself_comes_first(tmp_path):
    own = {"quant_method": "awq", "bits": 4, "group_size": 128}
    cost = estimate(str(folder(tmp_path, own, quantize_config={**GPTQ, "bits": 8})), H100)
    assert cost.memory.weight_bytes == 4_539_330_560


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"quantize_config": GPTQ, "quant_config": AWQ}, "both tell the weights' precision"),
        ({"quantize_config": [4]}, "where a JSON object must be"),
        ({"hf_quant_config": {"quantization": {**FP8, "kv_cache_quant_algo": "NVFP4"}}}, "FP8"),
        ({"hf_quant_config": {"quantization": {"quant_algo": "W4A8_MX"}}}, "quant_algo"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, files, said):
    with pytest.raises(InvalidFileError, match=said):
        estimate(str(folder(tmp_path, **files)), H100)
