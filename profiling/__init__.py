"""Measure what a vision-language model costs when it runs, with the cost model's stages and names.

    profile(model, device=..., visual_tokens=[...], ...)  -> list of Measurement
    calibrate(device)                                     -> Calibration, from micro-benchmarks
    load_measurements(folder)                             -> tidy DataFrame
    reconcile(measurements, calibration)                  -> Reconciliation, the gap in named parts
    count_model(model, ...)                               -> FLOPs by three counters, side by side

Importing this package imports neither torch nor pandas: each name loads its module when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiling.calibrating import calibrate
    from profiling.campaign import run_campaign
    from profiling.counters import count_model
    from profiling.frame import load_measurements
    from profiling.measurement import Configuration, Measurement
    from profiling.microbench import run_microbenchmarks
    from profiling.models import build_model
    from profiling.planning import grid
    from profiling.reconciling import reconcile
    from profiling.runner import profile
    from profiling.storage import read_measurements

#: name -> the module that holds it.
_HOMES = {
    "Configuration": "profiling.measurement",
    "Measurement": "profiling.measurement",
    "build_model": "profiling.models",
    "calibrate": "profiling.calibrating",
    "count_model": "profiling.counters",
    "grid": "profiling.planning",
    "load_measurements": "profiling.frame",
    "profile": "profiling.runner",
    "read_measurements": "profiling.storage",
    "reconcile": "profiling.reconciling",
    "run_campaign": "profiling.campaign",
    "run_microbenchmarks": "profiling.microbench",
}

__all__ = [
    "Configuration",
    "Measurement",
    "build_model",
    "calibrate",
    "count_model",
    "grid",
    "load_measurements",
    "profile",
    "read_measurements",
    "reconcile",
    "run_campaign",
    "run_microbenchmarks",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
