"""A ledger of dispatched ops: live bytes, compute ops, on any device, without an allocator's help.

A CPU has no allocator statistics, and a meta device has no memory at all, but both run the same
ops. The ledger watches every op, enters each new storage, strikes it out when it dies, and counts
the ops that would launch a kernel. What ops allocate inside themselves (workspaces) it cannot see.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable

#: CUDA's caching allocator rounds every block up to this; the ledger does the same, so that its
#: totals are comparable with `torch.cuda.max_memory_allocated`.
BLOCK_BYTES = 512

#: Ops that allocate or describe but launch nothing.
_NO_KERNEL = frozenset(
    {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty",
     "aten::new_empty_strided", "aten::detach", "aten::lift_fresh", "aten::alias",
     "aten::_local_scalar_dense", "aten::_unsafe_view", "aten::_reshape_alias",
     "aten::is_same_size", "aten::sym_size", "aten::resize_"}
)  # fmt: skip


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count live bytes and compute ops of what runs inside the block; a `MemorySource` without a reserve.

    Args:
        roots: tensors that are alive already (parameters, buffers, inputs).

    >>> with Ledger([]) as ledger:
    ...     held = torch.ones(256) + 1.0
    >>> ledger.live_bytes, ledger.kernels   # one of the two results is dead already
    (1024, 2)
    """

    name = "op-ledger"

    def __init__(self, roots: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self.kernels = 0
        self._sizes: dict[int, int] = {}
        self._references: dict[int, weakref.ref[Any]] = {}
        for tensor in roots:
            self._enter(tensor)
        self.peak_bytes = self.live_bytes

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the op and record the tensors that it made."""
        result = func(*args, **(kwargs or {}))
        if _launches(func):
            self.kernels += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._enter(leaf)
        return result

    def allocated_bytes(self) -> int:
        """Return the live bytes now."""
        return self.live_bytes

    def reserved_bytes(self) -> None:
        """Return None: ops reserve nothing."""

    def take_peaks(self) -> tuple[int, None]:
        """Return the highest total since the last call, and start again from the present one."""
        peak, self.peak_bytes = self.peak_bytes, self.live_bytes
        return peak, None

    def _enter(self, tensor: torch.Tensor) -> None:
        inner = _inner_tensors(tensor)
        if inner is not None:
            for part in inner:
                self._enter(part)
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        if size == 0:
            return
        self._sizes[key] = size
        self._references[key] = weakref.ref(storage, lambda _: self._strike_out(key))
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _strike_out(self, key: int) -> None:
        self._references.pop(key, None)
        self.live_bytes -= self._sizes.pop(key, 0)


def _inner_tensors(tensor: torch.Tensor) -> list[torch.Tensor] | None:
    """Return the tensors inside a wrapper such as a quantised weight, None for a plain tensor."""
    flatten = getattr(type(tensor), "__tensor_flatten__", None)
    if flatten is None:
        return None
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [getattr(tensor, name) for name in names]


def _launches(func: Any) -> bool:
    name: str = func._schema.name
    return name not in _NO_KERNEL and not func.is_view
