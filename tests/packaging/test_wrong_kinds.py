"""The Python interface answers values of a wrong kind in its own words, never in Python's."""

from __future__ import annotations

import inspect

import pytest

import costmodel
import hardware_specs
import profiling
from hardware_specs.errors import InvalidInputError, VlmRooflineError

MODEL, DEVICE = "llava-1.5-7b", "nvidia-l4"
SPEC = hardware_specs.get_hardware(DEVICE)
#: Function -> arguments with which it would go to work.
GOOD = {
    hardware_specs.get_hardware: (DEVICE,), hardware_specs.get_node: ("l40s-8-pcie",),
    hardware_specs.load_hardware: ("x.yaml",), hardware_specs.match_device_name: ("NVIDIA L4",),
    hardware_specs.could_be: (SPEC, "NVIDIA L4"), hardware_specs.node_of: (SPEC,),
    hardware_specs.save_hardware: (SPEC, "x.yaml"),
    costmodel.audit: ("x.csv",), costmodel.break_even: (MODEL, DEVICE),
    costmodel.fit_calibration: ("x.csv", SPEC),
    costmodel.frontier: (MODEL, DEVICE), costmodel.get_method: ("fastv",),
    costmodel.largest_batch: (MODEL, DEVICE),
    costmodel.load_model: (MODEL,), costmodel.parquet_parts: ("parts",), costmodel.register_family: (None,),
    costmodel.register_plan: (None,), costmodel.serve: (MODEL, DEVICE), costmodel.top_k: (1,),
    costmodel.histogram: ("time_s",), costmodel.pareto: ("time_s", "flops"),
    profiling.CampaignPlan: (), profiling.Configuration: (MODEL, "fp32"), profiling.Options: (),
    profiling.StopRule: (), profiling.WarmUpRule: (), profiling.calibrate: ("nowhere",),
    profiling.explain: ("x.json",), profiling.grid: ([MODEL],), profiling.launch: (None, "runs"),
    profiling.load_measurements: ("runs",), profiling.profile: ("nothing",),
    profiling.read_measurements: ("runs",),
    profiling.read_plan: ("x.yaml",), profiling.reconcile: ("runs",), profiling.run_campaign: (None, "runs"),
    profiling.run_device_campaign: (None, "runs"), profiling.run_kernel_passes: (None, "runs"),
    profiling.run_points: (None, "runs"),
}  # fmt: skip
MORE = {
    costmodel.frontier: {"benchmark": "pope"},
    costmodel.audit: {"copies": 0},
    costmodel.serve: {"output_tokens": 8},
}


@pytest.mark.parametrize("function", GOOD, ids=lambda function: function.__name__)
def test_every_argument_may_be_anything(function, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = inspect.signature(function).parameters.values()
    named = [
        each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    given = dict(zip(named, GOOD[function], strict=False)) | MORE.get(function, {})
    for name in named:
        for wrong in (5, None, "x", [], b"x", {}):
            try:
                found = function(**{**given, name: wrong})
                if inspect.isgenerator(found):
                    next(found, None)
            except VlmRooflineError as error:
                assert len(str(error).splitlines()) == 1


def test_an_iterator_is_no_list() -> None:
    """The check would leave nothing of it."""
    with pytest.raises(InvalidInputError, match="visual_tokens must be a list"):
        profiling.grid([MODEL], visual_tokens=iter([64]), device="cpu")
