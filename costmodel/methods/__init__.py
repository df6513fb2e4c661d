"""The token-reduction methods: what each one is, what it does to the lengths, and what it costs itself.

A method's module here holds one `MethodInfo` with every fact about it and the plan that prices it: a token
schedule (how many visual tokens each layer of the vision tower, the projector and each layer of the
language model sees) and the ops of its own selecting and merging, the stage `reduction`. The module of the
same name in `token_reduction` holds the function on tensors and what puts it into a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.lazily import public

if TYPE_CHECKING:
    from costmodel.methods.choosing import chosen_method
    from costmodel.methods.info import MethodInfo
    from costmodel.methods.method import Method
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.methods.registry import get_method, list_methods, method_info, register_method

__all__ = [
    "Method",
    "MethodInfo",
    "MethodInput",
    "MethodPlan",
    "chosen_method",
    "get_method",
    "list_methods",
    "method_info",
    "register_method",
]

__getattr__, __dir__ = public(
    __name__,
    {
        "choosing": "chosen_method",
        "info": "MethodInfo",
        "method": "Method",
        "plan": "MethodInput MethodPlan",
        "registry": "get_method list_methods method_info register_method",
    },
)
