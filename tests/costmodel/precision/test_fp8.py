"""FP8: scales per block, per matrix or per output; 16-bit arithmetic where a device has no FP8."""

from __future__ import annotations

import pytest
from llava_parameters import ALL, DECODER, DECODER_ROWS, HEAD, PROJECTOR, TOWER, TOWER_ROWS

from costmodel import estimate

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
MOST = DECODER + TOWER + PROJECTOR


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        ({}, MOST + 4 * MOST // 128**2 + 2 * (ALL - MOST)),
        ({"scale_fmt": "ue8m0"}, MOST + MOST // 128**2 + 2 * (ALL - MOST)),
        ({"weight_block_size": [64, 128]}, MOST + 4 * MOST // (64 * 128) + 2 * (ALL - MOST)),
        ({"weight_block_size": None}, MOST + 4 * 370 + 2 * (ALL - MOST)),
        ({"modules_to_not_convert": ["lm_head", "model.vision_tower", "multi_modal_projector"]},
         DECODER + 4 * DECODER // 128**2 + 2 * (ALL - DECODER)),
        ({"ignored_layers": ["vision_tower", "multi_modal_projector", "lm_head"]},
         DECODER + 4 * DECODER // 128**2 + 2 * (ALL - DECODER)),
        ({"quant_method": "fbgemm_fp8"},
         MOST + 4 * (DECODER_ROWS + TOWER_ROWS + 2 * 4096) + 2 * (ALL - MOST)),
        ({"dequantize": True}, 2 * ALL),
    ],
)  # fmt: skip
def test_siblings(checkpoint, weight_bytes, keys, size):
    assert weight_bytes(checkpoint({**FP8, **keys})) == size


def test_modelopt_scales_a_matrix_at_a_time(checkpoint, weight_bytes):
    keys = {"quant_method": "modelopt", "quant_algo": "FP8",
            "ignore": ["lm_head", "vision_tower*", "model.vision_tower*", "*projector*"]}  # fmt: skip
    assert weight_bytes(checkpoint(keys)) == DECODER + 4 * 224 + 2 * (ALL - DECODER)


def test_an_empty_list_leaves_not_even_the_head_out(checkpoint, weight_bytes):
    """32064 outputs are 251 blocks, the last of them half full."""
    most = MOST + HEAD
    scales = 4 * (MOST // 128**2 + 251 * 32)
    assert weight_bytes(checkpoint({**FP8, "modules_to_not_convert": []})) == most + scales + 2 * (
        ALL - most
    )


def test_hopper_multiplies_in_fp8_and_ampere_expands(checkpoint, resolved):
    model = checkpoint(FP8)
    hopper, ampere = resolved(model), resolved(model, "nvidia-a100-sxm4-80gb")
    assert (hopper.precision.text.linear_dtype, hopper.precision.text.operand_bytes) == ("fp8", 1)
    assert hopper.warnings == ()
    text = ampere.precision.text
    assert (text.linear_dtype, text.label, text.operand_bytes, text.dequantise) == (
        "fp16",
        "w8a16",
        2,
        True,
    )
    assert "no fp8 arithmetic" in ampere.warnings[0]
    own, other = (estimate(model, f"nvidia-{d}") for d in ("h100-sxm5-80gb", "a100-sxm4-80gb"))
    assert own.memory.weight_bytes == other.memory.weight_bytes
    assert "no fp8 arithmetic" in " ".join(other.warnings)
