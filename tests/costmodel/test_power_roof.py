"""The power roof: sustained load on small-power cards."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel import estimate, list_models, sweep
from costmodel.power_roof import power_roof
from hardware_specs import get_hardware

T4, L4, A100 = "nvidia-t4", "nvidia-l4", "nvidia-a100-sxm4-80gb"


def rate(device, **given):
    """Sustained FLOP/s of the language model's products at 4,096 tokens."""
    cost = estimate("llama-2-7b", device, text_tokens=4096, **given)
    ops = [
        op for op in cost.ops if op.op_class == "gemm" and op.stage == "prefill" and op.count > 1
    ]
    return sum(op.executed_flops for op in ops) / sum(op.time_s for op in ops)


@pytest.mark.parametrize(
    ("device", "limit", "measured"), [(T4, None, (26e12, 28e12)), (L4, None, (50e12, 52e12)),
                                      (A100, 275.0, (165e12, 175e12))],
)  # fmt: skip
def test_sustained_products_are_as_measured(device, limit, measured):
    """70, 72 and 275 W: what such cards sustain in public prefills, within a tenth."""
    low, high = measured
    assert 0.9 * low <= rate(device, power_limit_w=limit) <= 1.1 * high


def test_one_product_by_hand():
    """A T4 at 70 W: 2.1 pJ per FLOP, 100 pJ per byte, a fifth of the limit is not work's."""
    roof = power_roof(get_hardware(T4))
    assert roof.seconds(1e12, 1e10, roof.joules_per_flop("fp16")) == pytest.approx(3.1 / 56)
    assert roof.joules_per_flop("w4a16") == roof.joules_per_flop("fp16")
    assert roof.joules_per_flop("w8a8") == pytest.approx(0.55 * 2.1e-12)
    assert roof.joules_per_flop("fp32") == 15e-12


def test_power_is_a_bound_and_the_limit_is_an_argument():
    cost = estimate("llava-1.5-7b", L4, visual_tokens=576, batch_size=8)
    assert cost.stages["prefill"].bound == "power"
    assert cost.inputs["power_limit_w"] == 72.0
    assert {"memory", "power"} <= {op.bound for op in cost.ops}
    burst = estimate("llava-1.5-7b", L4, visual_tokens=576, batch_size=8, power_limit_w=1e5)
    assert burst.stages["prefill"].bound == "compute"
    assert burst.totals.time_s < 0.75 * cost.totals.time_s
    # The roofline of the data sheet knows no limit, and a unknown architecture has no roof.
    ideal = estimate("llava-1.5-7b", L4, calibration="none")
    assert ideal.inputs["power_limit_w"] is None
    assert power_roof(get_hardware("amd-mi300x")) is None
    assert "llava-1.5-7b" in list_models()


def test_time_falls_with_the_limit_and_rows_agree():
    limits = [35.0, 72.0, 144.0, 1e5]
    table = sweep(
        "llava-1.5-7b", L4, visual_tokens=[576, 64], batch_size=[1, 8], power_limit_w=limits
    )
    times = table.pivot_table("time_s", ["visual_tokens", "batch_size"], "power_limit_w")
    assert (np.diff(times[limits].to_numpy(), axis=1) <= 0).all()
    for row in table.to_dict("records"):
        cost = estimate(
            "llava-1.5-7b", L4,
            **{name: row[name] for name in ("visual_tokens", "batch_size", "power_limit_w")},
        )  # fmt: skip
        assert row["time_s"] == pytest.approx(cost.totals.time_s, rel=1e-9)
        assert row["bound"] == cost.totals.bound
