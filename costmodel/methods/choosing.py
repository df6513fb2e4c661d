"""What `method=`, `keep=` and `layer=` mean together; methods are imported where one is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.method import Method


def chosen_method(
    method: str | Method | None, keep: Any, layer: int | None
) -> tuple[Method | None, Any, int | None]:
    """Return the method that `method=`, `keep=` and `layer=` mean together, with its keep and layer.

    Raises:
        UnknownMethodError: no such method.
        InvalidInputError: a keep or layer without a method, or unlike the one in the method.

    >>> from costmodel.methods import get_method
    >>> chosen_method(get_method("fastv", keep=0.25), 0.5, None)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: keep=0.5 was given, and fastv with keep=0.25; give it once
    """
    if method is None or (isinstance(method, str) and method.lower() == "none"):
        name = "keep" if keep is not None else "layer" if layer is not None else None
        if name is not None:
            raise InvalidInputError(
                f"{name} belongs to a method, and none was given; name a method, or set the number of "
                "visual tokens instead"
            )
        return None, None, None
    from costmodel.methods.method import Method
    from costmodel.methods.registry import get_method
    from costmodel.methods.spelling import agreed

    if not isinstance(method, Method):
        method = get_method(method)
    return (
        method,
        agreed(method.name, "keep", method.given_keep, keep),
        agreed(method.name, "layer", method.given_layer, layer),
    )
