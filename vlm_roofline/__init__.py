"""What visual tokens really cost: the public names of all four packages, and the command line.

    from vlm_roofline import estimate, sweep, get_hardware, reduce_tokens, profile

A name imports what it needs when it is first used. `vlm_roofline.cli` holds the commands; no other
package imports this one.

>>> import vlm_roofline
>>> cost = vlm_roofline.estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=64)
>>> cost.totals.flops
1759019892736
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel import *  # noqa: F403
    from hardware_specs import *  # noqa: F403
    from profiling import *  # noqa: F403
    from token_reduction import *  # noqa: F403

_PACKAGES = ("hardware_specs", "costmodel", "token_reduction", "profiling")


def __getattr__(name: str) -> Any:
    """Hand on a public name of one of the packages, or all of their names as `__all__`."""
    if name == "__all__":
        return __dir__()
    if not name.startswith("_"):
        for package in map(import_module, _PACKAGES):
            if name in package.__all__:
                value = globals()[name] = getattr(package, name)
                return value
    raise AttributeError(f"module 'vlm_roofline' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({name for package in _PACKAGES for name in import_module(package).__all__})
