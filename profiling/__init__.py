"""Measure what a vision-language model costs when it runs, with the cost model's stages and names.

    profile(model, device=..., visual_tokens=[...], ...)  -> list of Measurement
    calibrate(device)                                     -> Calibration, from micro-benchmarks
    run_device_campaign(CampaignPlan("core"), folder)     -> a device measured within a budget of seconds
    run_points(Plan(grid(...)), folder, shard)            -> records of a campaign that many workers share
    launch(plan, folder, workers=...)                     -> the same, with worker processes
    load_measurements(folder)                             -> tidy DataFrame
    explain(trace, other=None, model=None)                -> Explanation, of anybody's profiler trace
    import_results(path)                                  -> list of Measurement, from other tools' results
    reconcile(measurements, calibration)                  -> Reconciliation, the gap in named parts
    count_model(model, ...)                               -> FLOPs by three counters, side by side

Importing this package imports neither torch nor pandas: each name loads its module when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.lazily import public

if TYPE_CHECKING:
    from profiling.counting.three_counters import count_model
    from profiling.device_campaign import CampaignPlan, run_device_campaign
    from profiling.explaining import explain
    from profiling.importing import import_results
    from profiling.measuring.campaign import Plan, run_campaign, run_points
    from profiling.measuring.kernel_pass import run_kernel_passes
    from profiling.measuring.launching import launch
    from profiling.measuring.plan_file import read_plan
    from profiling.measuring.planning import grid
    from profiling.measuring.point import Options
    from profiling.measuring.profile import profile
    from profiling.measuring.stopping import StopRule, WarmUpRule
    from profiling.microbench.calibrate import calibrate
    from profiling.microbench.suite import Suite, run_microbenchmarks
    from profiling.reconciling import reconcile
    from profiling.records.frame import load_measurements
    from profiling.records.measurement import Configuration, Measurement
    from profiling.records.storage import read_measurements
    from profiling.subject.models import build_model

__all__ = [
    "CampaignPlan",
    "Configuration",
    "Measurement",
    "Options",
    "Plan",
    "StopRule",
    "Suite",
    "WarmUpRule",
    "build_model",
    "calibrate",
    "count_model",
    "explain",
    "grid",
    "import_results",
    "launch",
    "load_measurements",
    "profile",
    "read_measurements",
    "read_plan",
    "reconcile",
    "run_campaign",
    "run_device_campaign",
    "run_kernel_passes",
    "run_microbenchmarks",
    "run_points",
]

__getattr__, __dir__ = public(
    __name__,
    {
        "counting.three_counters": "count_model",
        "device_campaign": "CampaignPlan run_device_campaign",
        "explaining": "explain",
        "importing": "import_results",
        "measuring.campaign": "Plan run_campaign run_points",
        "measuring.kernel_pass": "run_kernel_passes",
        "measuring.launching": "launch",
        "measuring.plan_file": "read_plan",
        "measuring.planning": "grid",
        "measuring.point": "Options",
        "measuring.profile": "profile",
        "measuring.stopping": "StopRule WarmUpRule",
        "microbench.calibrate": "calibrate",
        "microbench.suite": "run_microbenchmarks Suite",
        "reconciling": "reconcile",
        "records.frame": "load_measurements",
        "records.measurement": "Configuration Measurement",
        "records.storage": "read_measurements",
        "subject.models": "build_model",
    },
)
