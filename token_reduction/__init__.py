"""Token-reduction methods: pure functions that shorten a list of visual tokens, and their way into a model.

`list_methods`, `get_method` and `method_info` need no torch. Each method's function lives in the
module of its name and is imported from there: `from token_reduction.prumerge import prumerge`.

>>> get_method("divprune", keep=64).place
'after-projector'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods import Method, MethodInfo, get_method, list_methods, method_info
from hardware_specs.lazily import public
from token_reduction.tokens.observation import observe, observed

if TYPE_CHECKING:
    from token_reduction.reduction import reduce_tokens

__all__ = [
    "Method",
    "MethodInfo",
    "get_method",
    "list_methods",
    "method_info",
    "observe",
    "observed",
    "reduce_tokens",
]

__getattr__, __dir__ = public(__name__, {"reduction": "reduce_tokens"})
