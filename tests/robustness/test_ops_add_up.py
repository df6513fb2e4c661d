"""What a request's ops say, one by one, adds up to what its stages say."""

from __future__ import annotations

import math
import random

import pytest
from fuzzing.doors_api import DEVICES, METHODS, taking

from costmodel import estimate, list_models
from costmodel.calibration import Calibration
from hardware_specs import get_hardware
from hardware_specs.errors import VlmRooflineError

COUNTS = (
    "flops", "executed_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_read_bytes",
    "activation_write_bytes", "hbm_bytes", "kernels",
)  # fmt: skip
#: Ends of the ideal bracket add up; those of a calibration's intervals do not, see `costmodel.uncertainty`.
TIMES = ("time_s", "ideal_time_s")
ENDS = ("time_low_s", "time_high_s")


def check_ops(cost, host, own_host):
    """Ops against stages; `host` gives the seconds that launching a stage's kernels takes."""
    for name, stage in cost.stages.items():
        rows = [row for row in cost.ops if row.stage == name]
        for quantity in COUNTS:
            total = math.fsum(getattr(row, quantity) for row in rows)
            assert math.isclose(total, getattr(stage, quantity), rel_tol=1e-9), (name, quantity)
        launching = host(stage.kernels)
        ideal = cost.inputs["calibration"] is None
        for quantity in (*TIMES, *ENDS) if ideal else TIMES:
            device = math.fsum(getattr(row, quantity) for row in rows)
            # A processor launches its own work; a GPU's host launches while the device computes.
            expected = device + launching if own_host else max(device, launching)
            if quantity == "ideal_time_s":
                expected = device
            assert math.isclose(getattr(stage, quantity), expected, rel_tol=1e-9), (name, quantity)
        assert stage.time_low_s <= stage.time_s * (1 + 1e-9) <= stage.time_high_s * (1 + 2e-9), name
        device = math.fsum(row.time_s for row in rows)
        assert math.isclose(stage.device_s, device, rel_tol=1e-9, abs_tol=1e-18), name
        if cost.inputs["calibration"] is not None:
            assert all(
                row.sol_percent is None or row.sol_percent <= 100 * (1 + 1e-9) for row in rows
            )


@pytest.mark.parametrize("execution", ["fused", "hf-eager", "cuda-graph"])
@pytest.mark.parametrize("method", [None, *METHODS])
def test_ops_add_up_to_their_stage(method, execution):
    """On devices at random, ideal and calibrated, the rest at random too."""
    generator = random.Random(f"{method}|{execution}")
    priced = 0
    models = list_models()
    if method is not None:
        models = taking(method, ("llava-1.5-7b", "llava-next-vicuna-7b"))
    for device in generator.sample(DEVICES, 16):
        given = {
            "model": generator.choice(models), "hardware": device, "method": method, "execution": execution,
            "output_tokens": generator.choice((0, 1, 7)), "batch_size": generator.choice((1, 8)),
            "text_tokens": generator.choice((1, 40, 900)), "precision": generator.choice(("auto", "bf16")),
            "attention": generator.choice(("flash", "eager")),
        }  # fmt: skip
        for calibration in (None, "generic"):
            try:
                cost = estimate(calibration=calibration, **given)
            except VlmRooflineError:
                continue

            def host(kernels, calibration=calibration, device=device):
                if calibration is None or execution != "hf-eager" or not kernels:
                    return 0.0
                loaded = Calibration.load(calibration).for_hardware(get_hardware(device))
                return kernels * loaded.host_s_per_kernel + loaded.host_sync_s

            check_ops(cost, host, device.startswith("cpu-"))
            priced += 1
    assert priced >= 10
