"""What the work costs: analytic FLOPs, traffic, memory and time of LLaVA-like models.

Nothing here imports torch, transformers, pandas or matplotlib; names are loaded when first used.
Modules are called `audits`, `estimates` and `sweeps` so that no module hides the function of its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.lazily import public

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
    from costmodel.questions.parts import parquet_parts
    from costmodel.questions.reducers import histogram, pareto, top_k
    from costmodel.questions.schedules import solve_schedule
    from costmodel.questions.serving import Serving, serve
    from costmodel.questions.sweeps import sweep
    from costmodel.result import Estimate

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
    "histogram",
    "largest_batch",
    "list_methods",
    "list_models",
    "load_model",
    "pareto",
    "parquet_parts",
    "register_family",
    "register_method",
    "register_plan",
    "serve",
    "solve_schedule",
    "sweep",
    "top_k",
]

__getattr__, __dir__ = public(
    __name__,
    {
        "audits": "Audit audit",
        "calibration": "Calibration fit_calibration",
        "estimates": "estimate",
        "methods": "get_method list_methods register_method",
        "models": "list_models load_model ModelConfig register_family",
        "plans": "register_plan",
        "questions.break_evens": "break_even largest_batch",
        "questions.comparisons": "compare Comparison",
        "questions.distribution": "estimate_distribution",
        "questions.frontiers": "frontier",
        "questions.parts": "parquet_parts",
        "questions.reducers": "histogram pareto top_k",
        "questions.schedules": "solve_schedule",
        "questions.serving": "serve Serving",
        "questions.sweeps": "sweep",
        "result": "Estimate",
    },
)
