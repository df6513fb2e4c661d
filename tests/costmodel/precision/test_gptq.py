"""GPTQ: zero points where it is not symmetric, the inputs' order where it has one of its own."""

from __future__ import annotations

import pytest
from llava_parameters import ALL, DECODER, HEAD

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
#: Inputs of every product of the decoder: six of width 4096 and one of width 11008 per layer.
INPUTS = 32 * (6 * 4096 + 11008)


@pytest.mark.parametrize(
    ("keys", "decoder"),
    [
        ({}, DECODER * (4 + 16 / 128) / 8),
        ({"sym": False}, DECODER * (4 + 20 / 128) / 8),
        ({"desc_act": True}, DECODER * (4 + 16 / 128) / 8 + 4 * INPUTS),
        ({"bits": 8}, DECODER * (8 + 16 / 128) / 8),
        ({"bits": 3}, DECODER * (3 + 16 / 128) / 8),
        ({"group_size": 32}, DECODER * (4 + 16 / 32) / 8),
        ({"checkpoint_format": "gptq_v2", "sym": True}, DECODER * (4 + 16 / 128) / 8),
    ],
)
def test_siblings(checkpoint, weight_bytes, keys, decoder):
    assert weight_bytes(checkpoint({**GPTQ, **keys})) == decoder + 2 * (ALL - DECODER)


def test_public_case(checkpoint, weight_bytes):
    assert weight_bytes(checkpoint(GPTQ)) == 4_514_033_664


def test_a_quantised_head(checkpoint, weight_bytes):
    expected = (DECODER + HEAD) * (4 + 16 / 128) / 8 + 2 * (ALL - DECODER - HEAD)
    assert weight_bytes(checkpoint({**GPTQ, "lm_head": True})) == expected


def test_layers_left_out_by_gptqmodel(checkpoint, weight_bytes):
    """All of down_proj stays in 16 bits: 32 x 4096 x 11008 weights."""
    down = 32 * 4096 * 11008
    expected = (DECODER - down) * (4 + 16 / 128) / 8 + 2 * (ALL - DECODER + down)
    model = checkpoint({**GPTQ, "dynamic": {r"-:.*\.down_proj": {}}})
    assert weight_bytes(model) == expected
