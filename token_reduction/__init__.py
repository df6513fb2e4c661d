"""How visual tokens get fewer: token-reduction methods as pure functions, and into a model.

`list_methods`, `get_method` and `method_info` need no torch. Each method's function lives in the
module of its name and is imported from there: `from token_reduction.prumerge import prumerge`.

>>> get_method("divprune", keep=64).place
'after-projector'
"""

from __future__ import annotations

from token_reduction.registry import Method, MethodInfo, get_method, list_methods, method_info

__all__ = ["Method", "MethodInfo", "get_method", "list_methods", "method_info"]
