"""Records and calibrations whose times are known beforehand, as one fixture, `lab`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from costmodel.calibration import OP_CLASSES, Calibration, ClassParameters, Parameter
from costmodel.calibration.device import device_of
from hardware_specs import get_hardware
from profiling.reconciling.joining import Predictor
from profiling.reconciling.rows import stage_view
from profiling.records.measurement import (
    TOTAL,
    Configuration,
    Measurement,
    Sampling,
    StageSamples,
    TokenCounts,
)
from profiling.records.model_names import carried_config

A100 = "nvidia-a100-sxm4-80gb"
ENVIRONMENT = {
    "device_name": "NVIDIA A100-SXM4-80GB",
    "device_memory_bytes": 85_094_825_984,
    "sm_count": 108,
    "torch": "2.13.0",
}


def law_of(hardware_id=A100, *, compute=0.5, memory=0.25, host_s=0.0):
    """A calibration whose every op takes max(ideal math / compute, ideal memory / memory)."""
    hardware = get_hardware(hardware_id)
    values = {
        "compute_efficiency": compute,
        "memory_efficiency": memory,
        "overhead_s": 0.0,
        "exponent": 200.0,  # a maximum: nothing is hidden, nothing added
    }
    parameters = {name: Parameter(value) for name, value in values.items()}
    classes = {}
    for op_class in OP_CLASSES:
        family = {"gemm": "smooth", "conv": "smooth"}.get(op_class, "")
        extra = parameters
        if op_class.startswith("attention"):
            family = "split-keys"
            # The roofline counts softmax as vector work, the law as score work: none here.
            extra = parameters | {"score_cost": Parameter(0.0)}
        for dtype in ("bf16", "fp16"):
            classes[(op_class, dtype)] = ClassParameters(
                op_class, dtype, extra, "a known law", points=64,
                quantiles=((0.05, -0.1), (0.95, 0.1)), kernels=family,
            )  # fmt: skip
    return Calibration(
        hardware_id=hardware.id, device_name=hardware.name, software="a known law", date="2026-01-01",
        device=device_of(hardware), classes=classes, host_s_per_kernel=host_s, host_sync_s=0.0,
        l2_bandwidth_ratio=0.0,
    )  # fmt: skip


def configuration(**values):
    return replace(Configuration("llava-1.5-7b", "bf16", visual_tokens=64), **values)


def measured(
    config=None,
    *,
    calibration=None,
    factor=1.0,
    extra_s=0.0,
    stages=("vision", "projector", "prefill", TOTAL),
    environment=None,
    flops=None,
    **fields,
):
    """A record whose times are the prediction x factor + extra_s, five samples with 2 % spread."""
    config = config or configuration()
    environment = ENVIRONMENT if environment is None else environment
    count = config.visual_tokens if config.visual_tokens is not None else 576
    tokens = fields.pop(
        "tokens", TokenCounts(576, count, config.text_tokens, 1, (count + config.text_tokens,) * 32)
    )
    blank = Measurement(
        configuration=config,
        status="ok",
        sampling=Sampling(timer="cuda-event"),
        tokens=tokens,
        environment=environment,
        started_at="2026-01-02T03:04:05+00:00",
        model_config=carried_config(config.model),
        **fields,
    )
    prediction = Predictor(get_hardware(A100), calibration).predict(blank)
    samples = {}
    for name in stages:
        view = stage_view(prediction, name)
        time_s = float(view.everything.time_s) * factor + extra_s
        samples[name] = StageSamples(
            event_s=tuple(time_s * share for share in (0.98, 0.99, 1.0, 1.01, 1.02)),
            flops=int(view.everything.flops) if flops is None else flops,
            kernels=int(view.everything.kernels),
            peak_allocated_bytes=int(prediction.memory.peak_memory_bytes),
        )
    return replace(blank, stages=samples)


@pytest.fixture(scope="session")
def lab():
    """What makes records and laws."""
    return SimpleNamespace(
        A100=A100,
        ENVIRONMENT=ENVIRONMENT,
        configuration=configuration,
        law_of=law_of,
        measured=measured,
    )
