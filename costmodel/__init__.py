"""What the work costs: analytic FLOPs, traffic, memory and time of LLaVA-like models.

Nothing here imports torch, transformers, pandas or matplotlib; names are loaded when first used.
Modules are called `estimates` and `sweeps` so that no module hides the function of its name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.break_evens import break_even, largest_batch
    from costmodel.calibration import Calibration, fit_calibration
    from costmodel.estimates import estimate
    from costmodel.frontiers import frontier
    from costmodel.methods.distribution import estimate_distribution
    from costmodel.models import ModelConfig, list_models, load_model
    from costmodel.result import Estimate
    from costmodel.sweeps import sweep

_HOMES = {
    "Calibration": "costmodel.calibration",
    "Estimate": "costmodel.result",
    "ModelConfig": "costmodel.models",
    "break_even": "costmodel.break_evens",
    "estimate": "costmodel.estimates",
    "estimate_distribution": "costmodel.methods.distribution",
    "fit_calibration": "costmodel.calibration",
    "frontier": "costmodel.frontiers",
    "largest_batch": "costmodel.break_evens",
    "list_models": "costmodel.models",
    "load_model": "costmodel.models",
    "sweep": "costmodel.sweeps",
}

__all__ = [
    "Calibration",
    "Estimate",
    "ModelConfig",
    "break_even",
    "estimate",
    "estimate_distribution",
    "fit_calibration",
    "frontier",
    "largest_batch",
    "list_models",
    "load_model",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
