"""Execution plans: which kernels a stage launches. A plan is one file; this is their registry.

A plan is a table from kinds of blocks to rules that lower them to ops, beside the facts that memory
and time need. `register_plan` adds one from outside, as does an entry point of the group
`vlm_roofline.plans`.
"""

from __future__ import annotations

from costmodel.plans.plan import Plan, Rows, Rule, Setting, Step, over
from costmodel.registry import Registry
from hardware_specs.errors import check_kind

__all__ = [
    "Plan",
    "Rows",
    "Rule",
    "Setting",
    "Step",
    "get_plan",
    "list_plans",
    "over",
    "register_plan",
]

_PLANS: Registry[Plan] = Registry(
    "execution plan",
    {
        "fused": "costmodel.plans.fused",
        "hf-eager": "costmodel.plans.hf_eager",
        "cuda-graph": "costmodel.plans.cuda_graph",
        "static-graph": "costmodel.plans.static_graph",
    },
    attribute="PLAN",
    group="vlm_roofline.plans",
)


def list_plans() -> tuple[str, ...]:
    """Name the execution plans.

    >>> list_plans()[:4]
    ('fused', 'hf-eager', 'cuda-graph', 'static-graph')
    """
    return _PLANS.names()


def get_plan(name: str) -> Plan:
    """Return the plan called `name`.

    Raises:
        UnknownNameError: there is no such plan; the message has near matches.

    >>> get_plan("hf-eager").label
    'eager PyTorch'
    """
    if isinstance(name, str) and name not in _PLANS:
        name = name.lower()
    return _PLANS.get(name)


def register_plan(plan: Plan) -> None:
    """Add an execution plan, which `execution=` then knows by its name.

    Raises:
        InvalidInputError: the name is taken.
    """
    check_kind("plan", plan, Plan, "a Plan")
    _PLANS.register(plan.name, plan)
