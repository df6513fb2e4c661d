"""AWQ: 4-bit weights, and per group of 128 an fp16 scale and a 4-bit zero point."""

from __future__ import annotations

import pytest
from llava_parameters import ALL, DECODER, HEAD

from costmodel import estimate

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


def test_decoder_products_alone_are_quantised(checkpoint, weight_bytes):
    """6,476,005,376 (1/2 + 2.5/128) + 587,421,696 x 2 B, by hand 4,539,330,560."""
    model = checkpoint({**AWQ, "version": "gemm", "modules_to_not_convert": ["vision_tower"]})
    assert weight_bytes(model) == 4_539_330_560
    assert ALL - DECODER == 587_421_696


@pytest.mark.parametrize(
    ("keys", "bits_per_weight"),
    [
        ({}, 4 + 20 / 128),
        ({"zero_point": False}, 4 + 16 / 128),
        ({"group_size": 64}, 4 + 20 / 64),
        ({"w_bit": 4, "q_group_size": 64, "bits": None, "group_size": None}, 4 + 20 / 64),
        ({"bits": 8}, 8 + 24 / 128),
        ({"bits": None, "group_size": None, "zero_point": None}, 4 + 20 / 128),
    ],
)
def test_siblings(checkpoint, weight_bytes, keys, bits_per_weight):
    expected = DECODER * bits_per_weight / 8 + 2 * (ALL - DECODER)
    assert weight_bytes(checkpoint({**AWQ, **keys})) == expected


def test_a_whole_column_shares_its_scale_with_group_size_minus_one(checkpoint, weight_bytes):
    rows = 32 * (5 * 4096 + 2 * 11008)
    expected = DECODER / 2 + rows * 2.5 + 2 * (ALL - DECODER)
    assert weight_bytes(checkpoint({**AWQ, "group_size": -1})) == expected


def test_time_and_name_of_the_public_case(checkpoint):
    cost = estimate(checkpoint(AWQ), "nvidia-rtx-3090", output_tokens=100, calibration="none")
    assert cost.inputs["precision"] == "awq"
    assert cost.totals.tpot_s == pytest.approx(4.2e-3, rel=0.03)
    assert cost.stages["decode"].weight_bytes == pytest.approx(
        100 * (DECODER * (4 + 20 / 128) / 8 + 2 * HEAD), rel=1e-3
    )
    assert (
        estimate(checkpoint(), "nvidia-rtx-3090").totals.flops
        == estimate(checkpoint(AWQ), "nvidia-rtx-3090").totals.flops
    )
