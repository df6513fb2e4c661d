"""compressed-tensors: groups of layers, each with bits, type and blocks of its own."""

from __future__ import annotations

import pytest
from llava_parameters import ALL, DECODER, DECODER_ROWS, HEAD

IGNORE = ["re:.*lm_head", "re:vision_tower.*", "re:multi_modal_projector.*"]
PLAIN = 2 * (ALL - DECODER)


def config(weights: dict, operands: dict | None = None, layout: str | None = None, **keys) -> dict:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": operands}
    return {
        "quant_method": "compressed-tensors", "format": layout, "ignore": IGNORE,
        "config_groups": {"group_0": group}, "quantization_status": "compressed", **keys,
    }  # fmt: skip


def integer(bits: int, strategy: str, size: int | None = None, *, symmetric: bool = True) -> dict:
    return {
        "num_bits": bits, "type": "int", "strategy": strategy, "group_size": size,
        "symmetric": symmetric,
    }  # fmt: skip


def floating(bits: int, strategy: str, size: int | None = None, **keys) -> dict:
    return {"num_bits": bits, "type": "float", "strategy": strategy, "group_size": size, **keys}


@pytest.mark.parametrize(
    ("keys", "decoder", "text"),
    [
        (config(integer(4, "group", 128), layout="pack-quantized"),
         DECODER * (4 + 16 / 128) / 8, ("w4a16", 2)),
        (config(integer(4, "group", 64, symmetric=False), layout="pack-quantized"),
         DECODER * (4 + 20 / 64) / 8, ("w4.31a16", 2)),
        (config(integer(8, "channel"), layout="pack-quantized"),
         DECODER + 2 * DECODER_ROWS, ("w8a16", 2)),
        (config(integer(8, "channel"), integer(8, "token"), "int-quantized"),
         DECODER + 2 * DECODER_ROWS, ("w8a8", 1)),
        (config(integer(8, "channel", symmetric=False), integer(8, "token"), "int-quantized"),
         DECODER + 3 * DECODER_ROWS, ("w8a8", 1)),
        (config(floating(8, "channel"), floating(8, "token"), "float-quantized"),
         DECODER + 2 * DECODER_ROWS, ("fp8", 1)),
        (config(floating(8, "tensor"), floating(8, "tensor"), "float-quantized"),
         DECODER + 2 * 224, ("fp8", 1)),
        (config(floating(8, "block", block_structure=[128, 128]), floating(8, "group", 128),
                "float-quantized"),
         DECODER + 2 * DECODER // 128**2, ("fp8", 1)),
        (config(floating(8, "channel"), None, "naive-quantized"),
         DECODER + 2 * DECODER_ROWS, ("w8a16", 2)),
        (config(floating(4, "tensor_group", 16), floating(4, "tensor_group", 16),
                "nvfp4-pack-quantized"),
         DECODER * (4 + 8 / 16) / 8 + 4 * 224, ("fp4", 0.5)),
        (config(floating(4, "tensor_group", 16), None, "nvfp4-pack-quantized"),
         DECODER * (4 + 8 / 16) / 8 + 4 * 224, ("w4.5a16", 2)),
        (config(floating(4, "group", 32), None, "mxfp4-pack-quantized"),
         DECODER * (4 + 8 / 32) / 8, ("w4.25a16", 2)),
        (config(integer(4, "group", 128), layout="dense"), 2 * DECODER, ("fp16", 2)),
    ],
)  # fmt: skip
def test_siblings(checkpoint, weight_bytes, resolved, keys, decoder, text):
    model = checkpoint(keys)
    assert weight_bytes(model) == decoder + PLAIN
    found = resolved(model, "nvidia-b200-sxm-180gb").precision.text
    assert (found.label, found.operand_bytes) == text


def test_groups_by_pattern_mix_in_one_model(checkpoint, weight_bytes):
    """Down in 8 bits, the rest in 4: two groups, each with targets of its own."""
    keys = config(integer(4, "group", 128), layout="pack-quantized")
    keys["config_groups"] = {
        "down": {"targets": ["re:.*down_proj"], "weights": integer(8, "channel")},
        "rest": {"targets": ["Linear"], "weights": integer(4, "group", 128)},
    }
    down = 32 * 4096 * 11008
    expected = down + 2 * 32 * 4096 + (DECODER - down) * (4 + 16 / 128) / 8 + PLAIN
    assert weight_bytes(checkpoint(keys)) == expected


def test_nothing_ignored_takes_the_head_as_well(checkpoint, weight_bytes):
    keys = config(integer(8, "channel"), layout="pack-quantized", ignore=IGNORE[1:])
    size = DECODER + HEAD + 2 * (DECODER_ROWS + 32064) + 2 * (ALL - DECODER - HEAD)
    assert weight_bytes(checkpoint(keys)) == size


def test_a_narrow_kv_cache(checkpoint, resolved):
    keys = config(floating(8, "tensor"), floating(8, "tensor"), "float-quantized",
                  kv_cache_scheme={"num_bits": 8, "type": "float"})  # fmt: skip
    precision = resolved(checkpoint(keys)).precision
    assert (precision.text.kv_bytes, precision.vision.kv_bytes) == (1, 2)


def test_inside_text_config_the_tower_is_not_meant(checkpoint, weight_bytes):
    keys = config(integer(4, "group", 128), layout="pack-quantized", ignore=["lm_head"])
    assert weight_bytes(checkpoint(keys, inside=True)) == DECODER * (4 + 16 / 128) / 8 + PLAIN


def test_nvfp4_before_blackwell_keeps_its_bytes(checkpoint, resolved, weight_bytes):
    model = checkpoint(config(floating(4, "tensor_group", 16), floating(4, "tensor_group", 16),
                              "nvfp4-pack-quantized"))  # fmt: skip
    found = resolved(model)
    assert (found.precision.text.linear_dtype, found.precision.text.label) == ("fp16", "w4.5a16")
    assert "no fp4 arithmetic" in found.warnings[0]
    assert weight_bytes(model) == weight_bytes(model, "nvidia-h100-sxm5-80gb")


@pytest.mark.parametrize("method", ["mxfp4", "nvfp4"])
def test_four_bit_floats_by_their_own_method(checkpoint, weight_bytes, method):
    decoder = {"mxfp4": DECODER * (4 + 8 / 32) / 8, "nvfp4": DECODER * (4 + 8 / 16) / 8 + 4 * 224}
    keys = {"quant_method": method, "modules_to_not_convert": ["lm_head"]}
    assert weight_bytes(checkpoint(keys)) == decoder[method] + PLAIN
