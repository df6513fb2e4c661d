"""bitsandbytes: every linear layer but the head, unless the file leaves some out."""

from __future__ import annotations

import pytest
from llava_parameters import ALL, DECODER, DECODER_ROWS, HEAD, PROJECTOR, TOWER, TOWER_ROWS

NF4 = {
    "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": False, "bnb_4bit_compute_dtype": "float16",
}  # fmt: skip
MOST = DECODER + TOWER + PROJECTOR
LAYER = 4 * 4096**2 + 3 * 4096 * 11008


def _sized(quantised: int) -> float:
    return quantised * (1 / 2 + 4 / 64) + 2 * (ALL - quantised)


@pytest.mark.parametrize(
    ("skipped", "quantised"),
    [
        (None, MOST),
        (["vision_tower", "multi_modal_projector", "lm_head"], DECODER),
        (["model.vision_tower", "lm_head"], DECODER + PROJECTOR),
        (["lm_head"], MOST),
        ([], MOST + HEAD),
        (["lm_head", "language_model.model.layers.0"], MOST - LAYER),
        (["lm_head", "model.language_model.layers.1"], MOST - LAYER),
        (["lm_head", "layers.31.mlp", "vision_tower", "multi_modal_projector"],
         DECODER - 3 * 4096 * 11008),
        (["lm_head", "down_proj"], MOST - 32 * 4096 * 11008),
        (["lm_head", "re:.*self_attn.*"], MOST - 32 * 4 * 4096**2 - 24 * 4 * 1024**2),
        (["lm_head", "no_such_layer"], MOST),
    ],
)  # fmt: skip
def test_modules_left_out(checkpoint, weight_bytes, skipped, quantised):
    """Names old and new, parts of names, layers, products, patterns."""
    model = checkpoint({**NF4, "llm_int8_skip_modules": skipped})
    assert weight_bytes(model) == _sized(quantised)


def test_public_cases(checkpoint, weight_bytes):
    assert weight_bytes(checkpoint(NF4)) == 4_353_339_392
    language_only = checkpoint(
        {**NF4, "llm_int8_skip_modules": ["vision_tower", "multi_modal_projector", "lm_head"]}
    )
    assert weight_bytes(language_only) == 4_817_596_416


def test_double_quantisation(checkpoint, weight_bytes):
    """One byte per 64 weights, four per 16,384, and one offset of four for each of 370 matrices."""
    matrices = 32 * 7 + 24 * 6 + 2
    expected = MOST * (1 / 2 + 1 / 64 + 4 / 16384) + 4 * matrices + 2 * (ALL - MOST)
    assert weight_bytes(checkpoint({**NF4, "bnb_4bit_use_double_quant": True})) == expected


def test_eight_bits(checkpoint, weight_bytes):
    """A byte per weight and a float per output; the projector has 2 x 4096 outputs."""
    rows = DECODER_ROWS + TOWER_ROWS + 2 * 4096
    expected = MOST + 4 * rows + 2 * (ALL - MOST)
    assert (
        weight_bytes(checkpoint({"quant_method": "bitsandbytes", "load_in_8bit": True})) == expected
    )


@pytest.mark.parametrize("kind", [None, "fp4", "nf4"])
def test_fp4_has_the_bytes_of_nf4(checkpoint, weight_bytes, kind):
    assert weight_bytes(checkpoint({**NF4, "bnb_4bit_quant_type": kind})) == _sized(MOST)


def test_old_files_name_no_method(checkpoint, weight_bytes):
    assert weight_bytes(checkpoint({"load_in_4bit": True, "load_in_8bit": False})) == _sized(MOST)


@pytest.mark.parametrize(
    ("compute", "found"),
    [("float16", "fp16"), ("bfloat16", "bf16"), ("float32", "fp16"), (None, "fp16")],
)
def test_products_run_in_the_dtype_that_the_file_names(checkpoint, resolved, compute, found):
    text = resolved(checkpoint({**NF4, "bnb_4bit_compute_dtype": compute})).precision.text
    assert (text.linear_dtype, text.attention_dtype, text.label) == (found, "fp16", "w4.5a16")


def test_a_product_in_another_format_is_an_op_of_its_own(checkpoint):
    from costmodel import estimate

    model = checkpoint({**NF4, "llm_int8_skip_modules": ["lm_head", "v_proj"]})
    names = {op.name: op for op in estimate(model, "nvidia-l4").ops if op.stage == "prefill"}
    assert "qkv_proj" not in names
    assert names["v_proj"].weight_bytes == 32 * 2 * 4096**2
    assert names["q_proj"].weight_bytes == 32 * 4096**2 * (1 / 2 + 4 / 64)
