"""What no request can have: less than nothing, more tokens than before, less time than the roofline."""

from __future__ import annotations

import math

import pytest
from fuzzing.doors_api import DEVICES, METHODS
from fuzzing.verdict import check_sane
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import estimate, list_models
from hardware_specs.errors import VlmRooflineError

A100 = "nvidia-a100-sxm4-80gb"
QUANTITIES = (
    "flops", "executed_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_read_bytes",
    "activation_write_bytes", "hbm_bytes", "kernels", "time_s",
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_no_op_does_less_than_nothing(method):
    priced = 0
    for model in list_models():
        for tokens in (1, 2, 22, None):
            for keep in (None, 1, 0.1):
                for calibration in (None, "generic"):
                    try:
                        cost = estimate(
                            model, A100, visual_tokens=tokens, method=method, keep=keep,
                            calibration=calibration, output_tokens=1,
                        )  # fmt: skip
                    except VlmRooflineError as error:
                        # A time that cannot be is no refusal of the request.
                        assert "no number" not in str(error), (model, tokens, keep)
                        continue
                    check_sane([cost.to_dict(), [row.to_dict() for row in cost.ops]])
                    priced += 1
    assert priced > 10


@pytest.mark.parametrize("method", METHODS)
def test_a_reduction_never_adds_tokens(method):
    """The KV cache of each layer is no longer than that of the unreduced model."""
    for model in list_models():
        for tokens in (1, 64, 100, None):
            for keep in (None, 0.5, 200):
                given_ = {"visual_tokens": tokens, "output_tokens": 1}
                try:
                    reduced = estimate(model, A100, method=method, keep=keep, **given_)
                except VlmRooflineError:
                    continue
                # As many tokens as what the inputs say the request had.
                whole = estimate(
                    model, A100, **{**given_, "visual_tokens": reduced.inputs["visual_tokens"]}
                )
                pairs = zip(reduced.kv_bytes_by_layer, whole.kv_bytes_by_layer, strict=True)
                assert all(less <= more for less, more in pairs), (model, tokens, keep)


@pytest.mark.parametrize("device", DEVICES)
def test_calibrated_is_never_below_the_roofline(device):
    priced = 0
    for precision in ("fp16", "bf16", "fp8", "int4", "int8", "fp32"):
        for scenario in (
            {},
            {"method": "divprune", "output_tokens": 4},
            {"visual_tokens": 1, "batch_size": 8},
        ):
            try:
                ideal = estimate(
                    "llava-1.5-7b", device, precision=precision, calibration="none", **scenario
                )
                cost = estimate(
                    "llava-1.5-7b", device, precision=precision, calibration="generic", **scenario
                )
            except VlmRooflineError:
                continue
            priced += 1
            for row in cost.ops:
                assert row.sol_percent is None or row.sol_percent <= 100 * (1 + 1e-9), row.name
            for stage, bound in ideal.stages.items():
                assert cost.stages[stage].time_s >= bound.time_s * (1 - 1e-9), (precision, stage)
            assert cost.totals.time_s >= ideal.totals.time_s * (1 - 1e-9), precision
    assert priced


SCENARIOS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(list_models()),
        "hardware": st.sampled_from(("nvidia-a100-sxm4-80gb", "google-tpu-v5e", "amd-mi300x-oam")),
        "text_tokens": st.integers(1, 4000),
        "output_tokens": st.integers(0, 300),
        "batch_size": st.integers(1, 64),
        "method": st.sampled_from((None, *METHODS)),
        "execution": st.sampled_from(("fused", "hf-eager", "cuda-graph")),
        "calibration": st.sampled_from((None, "generic")),
    }
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(SCENARIOS)
def test_the_total_is_the_sum_of_the_stages(scenario):
    try:
        cost = estimate(**scenario)
    except VlmRooflineError:
        return
    for name in QUANTITIES:
        parts = [getattr(stage, name) for stage in cost.stages.values()]
        assert math.isclose(getattr(cost.totals, name), math.fsum(parts), rel_tol=1e-9), name
    assert cost.totals.time_low_s <= cost.totals.time_s <= cost.totals.time_high_s
    check_sane(cost.to_dict())


@settings(max_examples=300, derandomize=True, deadline=None)
@given(SCENARIOS, st.integers(2, 9))
def test_work_is_linear_in_the_batch(scenario, times):
    try:
        one = estimate(**scenario)
        many = estimate(**{**scenario, "batch_size": scenario["batch_size"] * times})
    except VlmRooflineError:
        return
    for name in ("flops", "executed_flops", "kv_read_bytes", "kv_write_bytes"):
        assert getattr(many.totals, name) == pytest.approx(times * getattr(one.totals, name)), name
    assert many.totals.time_s <= times * one.totals.time_s * (1 + 1e-9)
