"""Habits of libraries that would spoil a measurement, kept out while one runs.

1. Releases of transformers that count a capturing stream as tracing (5.17, not 5.23) build a mask
   inside a capture, and attention then runs another kernel than eager does.
2. LLaVA's check of token counts in transformers formats its message whether or not it is needed; the
   count in it is read back from the device, also under `TRANSFORMERS_DISABLE_TORCH_CHECK`.
3. torchao (0.18) prints the operand of every eager int8 product to look for a word in the text.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


@contextmanager
def capture_is_no_tracing() -> Iterator[None]:
    """Make `transformers` run the same attention inside a capture as outside."""
    library: Any = import_module("transformers.utils.import_utils")
    original = getattr(library, "is_cuda_stream_capturing", None)
    if original is None:
        yield
        return
    library.is_cuda_stream_capturing = lambda: False
    try:
        yield
    finally:
        library.is_cuda_stream_capturing = original


@contextmanager
def counts_stay_unread(model: nn.Module) -> Iterator[None]:
    """Keep a model's check of placeholder counts from reading the device back for its message.

    The kernels of the check still run; only the number in the message is not fetched.

    Args:
        model: its inner `model` may have `get_placeholder_mask`.
    """
    base: Any = getattr(model, "model", None)
    original = getattr(base, "get_placeholder_mask", None)
    if original is None:
        yield
        return

    base.get_placeholder_mask = _unprinted(original)
    try:
        yield
    finally:
        del base.get_placeholder_mask


@contextmanager
def products_stay_unprinted(dtype: str) -> Iterator[None]:
    """Keep torchao's int8 products from printing their operand, which reads it back piece by piece."""
    if dtype != "w8a8":
        yield
        return
    library: Any = import_module("torchao.kernel.intmm")
    original = library.safe_int_mm
    library.safe_int_mm = _unprinted(original)
    try:
        yield
    finally:
        library.safe_int_mm = original


def _unprinted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function inside which a tensor in a message is a word, and nothing is read back."""
    import torch

    kind: Any = torch.Tensor

    def call(*args: Any, **kwargs: Any) -> Any:
        before = kind.__format__, kind.__repr__
        kind.__format__ = lambda _tensor, _spec: "(not read back)"
        kind.__repr__ = lambda _tensor, **_options: "(not read back)"
        try:
            return function(*args, **kwargs)
        finally:
            kind.__format__, kind.__repr__ = before

    return call
