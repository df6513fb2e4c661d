"""Changes to a model that can be taken back: hooks, and attributes set on one instance.

Nothing here touches a class, a weight, a config or a global registry, so taking the changes back
leaves the very objects that were there before. Instance attributes go first in Python's look-up, which
is why setting one replaces a method of one module only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_MISSING = object()


@dataclass(slots=True)
class Patches:
    """Changes made so far, newest last, each with what undoes it."""

    _undo: list[Callable[[], None]] = field(default_factory=list)

    def before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook(module, args, kwargs)` before the module's forward; it may return new (args, kwargs)."""
        self._undo.append(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook(module, args, output)` after the module's forward; it may return a new output."""
        self._undo.append(module.register_forward_hook(hook).remove)

    def always_after(self, module: nn.Module, hook: Callable[[], None]) -> None:
        """Call `hook()` after the module's forward, also when it raised."""
        handle = module.register_forward_hook(lambda *_: hook(), always_call=True)
        self._undo.append(handle.remove)

    def replace(self, owner: object, name: str, value: object) -> None:
        """Set an attribute on one instance, in front of its class."""
        attributes = vars(owner)
        previous = attributes.get(name, _MISSING)
        attributes[name] = value

        def restore() -> None:
            if previous is _MISSING:
                attributes.pop(name, None)
            else:
                attributes[name] = previous

        self._undo.append(restore)

    def undo(self) -> None:
        """Take everything back, newest first."""
        while self._undo:
            self._undo.pop()()
