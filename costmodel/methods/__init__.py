"""What each token-reduction method does to the lengths, and what it costs itself.

A method is known here under the name it has in `token_reduction`. Its plan is a token schedule (how
many visual tokens each layer of the vision tower, the projector and each layer of the language
model sees) and the ops of its own selecting and merging, the stage `reduction`.
"""

from __future__ import annotations

from costmodel.methods.registry import (
    MethodCost,
    MethodPlan,
    MethodRequest,
    get_method_cost,
    list_method_costs,
)

__all__ = ["MethodCost", "MethodPlan", "MethodRequest", "get_method_cost", "list_method_costs"]
