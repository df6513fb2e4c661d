"""Observers of the reduction inside a running model: they are told when a method's own work begins and ends.

`reduce_tokens` puts `observed("reduction")` around each piece of a method's own work (scores, top-k,
merge, gather), wherever it sits, and a measurement registers a callback with `observe`. This needs no
torch and never synchronises: a callback that wants device time records an event.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_callbacks: dict[object, Callable[[str, bool], None]] = {}


@contextmanager
def observe(callback: Callable[[str, bool], None]) -> Iterator[None]:
    """Call `callback(name, begins)` whenever observed work begins (True) or ends (False) inside this block.

    >>> seen = []
    >>> with observe(lambda name, begins: seen.append((name, begins))):
    ...     with observed("reduction"):
    ...         seen.append("work")
    >>> seen
    [('reduction', True), 'work', ('reduction', False)]
    """
    # By a key of its own, as the same function may observe twice.
    key = object()
    _callbacks[key] = callback
    try:
        yield
    finally:
        del _callbacks[key]


@contextmanager
def observed(name: str) -> Iterator[None]:
    """Tell the observers that work called `name` begins, and at the end that it ended."""
    if not _callbacks:
        yield
        return
    told = tuple(_callbacks.values())
    for callback in told:
        callback(name, True)
    try:
        yield
    finally:
        for callback in told:
            callback(name, False)
