"""NaN and infinity in a method's input are refused, at a price the caller can choose.

A NaN sorts somewhere, so a selection over NaN looks healthy and is arbitrary. Finding one means
reading a flag back from the device. On an accelerator that read stops the host until everything
queued before it has run, a cost that would fall inside whatever is being timed. So:

    device       default     what happens
    CPU, meta    "now"       InvalidInputError from the call itself (meta tensors hold no values)
    accelerator  "deferred"  one small reduction is queued and its flag kept; nothing waits. The
                             error comes from `raise_deferred()`, which reads all flags at once

`with finite_checks("now"|"deferred"|"off")` overrides the default for the calls inside it, and
on leaving a deferred block the flags are read. Code that runs a model calls `raise_deferred()` where
it synchronises anyway, such as after generating. A function whose definition forces a read-back
(an adaptive token count) takes the flag along in the same transfer and raises at once.
Inside CUDA graph capture and torch.compile there is no check: neither may leave the device.

The flag is whether the sum of a tensor is finite: one pass, no temporary. Half precision is summed
in float32, so a sum overflows only if single values are of the order 1e38 divided by their number.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

import torch

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CheckMode = Literal["now", "deferred", "off"]
_MODES = ("now", "deferred", "off")
_mode: ContextVar[CheckMode | None] = ContextVar("finite_checks", default=None)
# One flag per device and place, combined by "or", so a long run holds a handful of bytes.
_deferred: dict[tuple[torch.device, str], Tensor] = {}


@contextmanager
def finite_checks(mode: CheckMode) -> Iterator[None]:
    """Choose when inputs are checked for NaN and infinity inside this block.

    "now" raises from the call (and synchronises an accelerator), "deferred" raises on leaving the block,
    "off" never looks.

    Raises:
        InvalidInputError: an unknown mode; on leaving a deferred block, an input was not finite.

    >>> from token_reduction.divprune import divprune
    >>> with finite_checks("off"):
    ...     kept = divprune(torch.full((4, 2), float("nan")), 2).kept_indices
    >>> len(kept)
    2
    """
    if mode not in _MODES:
        raise InvalidInputError(f"unknown check mode {mode!r}; there is: {', '.join(_MODES)}")
    token = _mode.set(mode)
    try:
        yield
    except BaseException:
        if mode == "deferred":
            _deferred.clear()
        raise
    finally:
        _mode.reset(token)
    if mode == "deferred":
        raise_deferred()


def raise_deferred() -> None:
    """Read the flags kept so far and forget them.

    Raises:
        InvalidInputError: an input of an earlier call held NaN or infinity; names which.
    """
    flags = dict(_deferred)
    _deferred.clear()
    bad = [place for (_, place), flag in flags.items() if bool(flag)]
    if bad:
        raise InvalidInputError(_message("; ".join(bad)))


def nonfinite_flag(*tensors: Tensor) -> Tensor:
    """One-element bool tensor on their device: does any of the tensors hold NaN or infinity?"""
    total: Tensor | None = None
    for tensor in tensors:
        values = tensor.detach()
        dtype = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else values.dtype
        part = values.sum(dtype=dtype)
        # A zero times anything finite stays zero: only NaN and infinity survive the product.
        total = part * 0 if total is None else total + part * 0
    if total is None:
        raise InvalidInputError("no tensor to check")
    return ~torch.isfinite(total)


def check_mode(device: torch.device) -> CheckMode:
    """The mode in force for tensors on `device`."""
    if device.type == "meta" or torch.compiler.is_compiling():
        return "off"
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return "off"
    chosen = _mode.get()
    if chosen is not None:
        return chosen
    return "now" if device.type == "cpu" else "deferred"


def require_finite(method: str, **tensors: Tensor) -> None:
    """Refuse NaN and infinity in any of the tensors on one device, now or later as the mode in force says.

    The message names the method and the tensors by their keywords.

    Raises:
        InvalidInputError: a tensor is not finite and the mode is "now".

    >>> require_finite("divprune", tokens=torch.tensor([1.0, float("inf")]))
    Traceback (most recent call last):
        ...
    hardware_specs.errors.InvalidInputError: NaN or infinity in divprune's tokens: ...
    """
    device = next(iter(tensors.values())).device
    mode = check_mode(device)
    if mode == "off":
        return
    for name, tensor in tensors.items():
        place = f"{method}'s {name}"
        flag = nonfinite_flag(tensor)
        if mode == "now":
            if bool(flag):
                raise InvalidInputError(_message(place))
        else:
            known = _deferred.get((device, place))
            _deferred[(device, place)] = flag if known is None else known | flag


def misfit(method: str, takes: str, *tensors: Tensor) -> InvalidInputError:
    """Return the error for tensors whose shapes are not what a method takes.

    >>> misfit("tome", "tokens [..., t, d] and a metric [..., t, c]", torch.ones(3), torch.ones(2, 4))
    InvalidInputError('tome takes tokens [..., t, d] and a metric [..., t, c]; given (3,) and (2, 4)')
    """
    shapes = [str(tuple(tensor.shape)) for tensor in tensors]
    given = " and ".join(filter(None, (", ".join(shapes[:-1]), shapes[-1])))
    return InvalidInputError(f"{method} takes {takes}; given {given}")


def reject(method: str, names: str) -> InvalidInputError:
    """The error for a flag that a function has read by itself."""
    return InvalidInputError(_message(f"{method}'s {names}"))


def _message(places: str) -> str:
    return (
        f"NaN or infinity in {places}: the tokens picked would be arbitrary. "
        "Look at what produced it; overflow in float16 is the usual cause"
    )
