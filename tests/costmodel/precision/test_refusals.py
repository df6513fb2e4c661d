"""What a file cannot tell is refused by name, and never priced as FP16 in silence."""

from __future__ import annotations

import pytest

from costmodel import estimate
from hardware_specs.errors import InvalidFileError

CT = {"quant_method": "compressed-tensors", "format": "pack-quantized"}


def group(**weights) -> dict:
    return {**CT, "config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"quant_method": "hqq"}, "quant_method is 'hqq'"),
        ({"quant_method": "awk"}, "did you mean awq"),
        ({"quant_method": "AWQ "}, "quant_method"),
        ({"quant_method": ["awq"]}, "quant_method"),
        ({"bits": 4}, "quant_method is None"),
        ("awq", "must be an object"),
        ([], "must be an object"),
        ({"quant_method": "gptq"}, "bits is missing"),
        ({"quant_method": "gptq", "bits": 5}, "bits is 5"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "128"}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "sym": "yes"}, "sym"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*": {"bits": 8}}}, "dynamic"),
        ({"quant_method": "awq", "bits": True}, "bits"),
        ({"quant_method": "awq", "modules_to_not_convert": "lm_head"}, "modules_to_not_convert"),
        ({"quant_method": "bitsandbytes"}, "load_in_4bit"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "bnb_4bit_quant_type"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "int8"}, "bnb_4bit_compute_dtype"),
        ({"load_in_4bit": True, "llm_int8_skip_modules": ["re:("]}, "regular expression"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "x"}, "scale_fmt"),
        (CT, "config_groups"),
        (group(type="int"), "num_bits"),
        (group(num_bits=4, type="int", strategy="odd"), "strategy"),
        (group(num_bits=8, strategy="block", block_structure=[0, 128]), "block_structure"),
        ({**group(num_bits=4, type="int"), "format": "marlin-24"}, "format"),
        ({**group(num_bits=8, type="int"), "sparsity_config": {"format": "sparse-24-bitmask"}},
         "sparsity_config"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "quant_algo"),
    ],
)  # fmt: skip
def test_a_scheme_whose_bytes_are_unknown(checkpoint, keys, names):
    model = checkpoint(keys)
    with pytest.raises(InvalidFileError, match=names) as error:
        estimate(model, "nvidia-h100-sxm5-80gb")
    assert "quantization_config" in str(error.value)
    assert "config.json" in str(error.value)
    assert "\n" not in str(error.value)
    assert (
        estimate(model, "nvidia-h100-sxm5-80gb", precision="int4").memory.weight_bytes
        == 4_514_033_664
    )


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8", "float64", 16, ["float16"]])
def test_a_dtype_that_no_model_is_loaded_in(checkpoint, dtype):
    with pytest.raises(InvalidFileError, match=r"config\.json: dtype is"):
        estimate(checkpoint(dtype=dtype), "nvidia-l4")
