"""The KV cache in the calls and outputs of transformers, which from 5.24 on call it `cache`.

Earlier releases call it `past_key_values`; 5.24 still takes and gives that name, with a warning each time.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What transformers has called a cache, today's name first.
CACHE_NAMES = ("cache", "past_key_values")


@cache
def cache_keyword() -> str:
    """Return the name under which the installed transformers takes and returns a cache.

    >>> cache_keyword() in ("cache", "past_key_values")
    True
    """
    from transformers.modeling_outputs import BaseModelOutputWithPast

    known = {field.name for field in fields(BaseModelOutputWithPast)}
    return next(name for name in CACHE_NAMES if name in known)


def cache_in(call: Mapping[str, Any]) -> Any:
    """Return the cache among the arguments of a call, under either name, or None."""
    return next((call[name] for name in CACHE_NAMES if call.get(name) is not None), None)


def cache_of(output: Any) -> Any:
    """Return the cache of a model's output, or None."""
    return getattr(output, cache_keyword())


def set_cache(output: Any, value: Any) -> None:
    """Put another cache into a model's output."""
    setattr(output, cache_keyword(), value)
