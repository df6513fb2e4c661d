"""What the work costs: analytic FLOPs, traffic, memory and time of LLaVA-like models.

Nothing here imports torch, transformers, pandas or matplotlib; names are loaded when first used.
Modules are called `audits`, `estimates` and `sweeps` so that no module hides the function of its name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.audits import Audit, audit
    from costmodel.calibration import Calibration, fit_calibration
    from costmodel.estimates import estimate
    from costmodel.methods import get_method, list_methods, register_method
    from costmodel.models import ModelConfig, list_models, load_model, register_family
    from costmodel.plans import register_plan
    from costmodel.questions.break_evens import break_even, largest_batch
    from costmodel.questions.comparisons import Comparison, compare
    from costmodel.questions.distribution import estimate_distribution
    from costmodel.questions.frontiers import frontier
    from costmodel.questions.schedules import solve_schedule
    from costmodel.questions.serving import Serving, serve
    from costmodel.questions.sweeps import sweep
    from costmodel.result import Estimate

_HOMES = {
    "Audit": "costmodel.audits",
    "Calibration": "costmodel.calibration",
    "Comparison": "costmodel.questions.comparisons",
    "Estimate": "costmodel.result",
    "ModelConfig": "costmodel.models",
    "Serving": "costmodel.questions.serving",
    "audit": "costmodel.audits",
    "break_even": "costmodel.questions.break_evens",
    "compare": "costmodel.questions.comparisons",
    "estimate": "costmodel.estimates",
    "estimate_distribution": "costmodel.questions.distribution",
    "fit_calibration": "costmodel.calibration",
    "frontier": "costmodel.questions.frontiers",
    "get_method": "costmodel.methods",
    "largest_batch": "costmodel.questions.break_evens",
    "list_methods": "costmodel.methods",
    "list_models": "costmodel.models",
    "load_model": "costmodel.models",
    "register_family": "costmodel.models",
    "register_method": "costmodel.methods",
    "register_plan": "costmodel.plans",
    "serve": "costmodel.questions.serving",
    "solve_schedule": "costmodel.questions.schedules",
    "sweep": "costmodel.questions.sweeps",
}

__all__ = [
    "Audit",
    "Calibration",
    "Comparison",
    "Estimate",
    "ModelConfig",
    "Serving",
    "audit",
    "break_even",
    "compare",
    "estimate",
    "estimate_distribution",
    "fit_calibration",
    "frontier",
    "get_method",
    "largest_batch",
    "list_methods",
    "list_models",
    "load_model",
    "register_family",
    "register_method",
    "register_plan",
    "serve",
    "solve_schedule",
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
