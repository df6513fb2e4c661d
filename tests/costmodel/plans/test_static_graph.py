"""The plan `static-graph`: eager kernels over a static cache."""

from __future__ import annotations

import pytest

from costmodel import estimate
from hardware_specs.errors import UnsupportedError

A100 = "nvidia-a100-sxm4-80gb"


def test_only_the_concatenation_differs_from_a_replayed_dynamic_cache():
    given = {"batch_size": 8, "output_tokens": 4, "visual_tokens": 576, "calibration": "none"}
    dynamic, static = (
        estimate("llava-1.5-7b", A100, execution=plan, **given)
        for plan in ("cuda-graph", "static-graph")
    )
    ops = {
        cost.inputs["execution"]: {(op.stage, op.name): op.hbm_bytes for op in cost.ops}
        for cost in (dynamic, static)
    }
    assert set(ops["cuda-graph"]) - set(ops["static-graph"]) == {
        ("prefill", "cache_cat"), ("decode", "cache_cat"),
    }  # fmt: skip
    # K and V of 8 new tokens, 32 layers of 4096, are read and written at 2 bytes, four times.
    assert ops["static-graph"]["decode", "cache_write"] == 4 * 32 * 2 * 2 * 8 * 4096 * 2
    assert static.totals.kernels == dynamic.totals.kernels
    assert static.totals.host_s == 0.0


@pytest.mark.parametrize("method", ["fastv", "vtw", "pyramiddrop"])
def test_ragged_layers_have_no_static_cache(method):
    with pytest.raises(UnsupportedError, match="one static cache for all"):
        estimate("llava-1.5-7b", A100, execution="static-graph", method=method)
    assert estimate("llava-1.5-7b", A100, execution="static-graph", method="divprune")
