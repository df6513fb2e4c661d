"""One eager run under the counters: FLOPs, compute ops, and live bytes where no allocator reports them.

FLOPs come from `torch.utils.flop_counter`: matrix products, convolutions and attention, two per
multiply-add, attention over the full S x S. It knows no formula for the CPU's flash attention, which
it would count as nothing; that gap is closed here. Older versions of transformers compute the angles of
the rotary embedding as a batched product: those FLOPs are left out, as the cost model leaves them out.
On quantised weights the counter silently loses ops, so no FLOPs are given for them.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiling.counting.memory import PeakObserver, StageMemory, ledger_for
from profiling.subject.models import QUANTISED_DTYPES

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

    from profiling.subject.execution import Execution


def attention_flops(query: Any, key: Any, value: Any) -> int:
    """Return the FLOPs of scaled dot-product attention, full S x T.

    2 b h s t e + 2 b h s t e_v, with the query's heads whatever the grouping of keys and values.
    Source: `torch.utils.flop_counter.sdpa_flop_count`, which up to torch 2.11 refuses grouped heads.

    Args:
        query: shape [b, h, s, e].
        key: shape [b, k, t, e].
        value: shape [b, k, t, e_v].

    >>> attention_flops([1, 4, 3, 8], [1, 2, 5, 8], [1, 2, 5, 8])
    1920
    """
    b, h, s, e = query
    t, e_v = key[2], value[3]
    return int(2 * b * h * s * t * e + 2 * b * h * s * t * e_v)


def grouped_flops(rows: Any, weights: Any, *_args: Any, **_kwargs: Any) -> int:
    """Return the FLOPs of the experts' products, of which every row takes one: 2 s k n.

    Args:
        rows: shape [s, k], sorted by expert.
        weights: shape [experts, k, n].

    >>> grouped_flops([18, 64], [8, 64, 32])
    73728
    """
    s, k = rows
    return int(2 * s * k * weights[-1])


def flop_counter() -> FlopCounterMode:
    """Return torch's counter, silent; it knows the CPU's flash attention, grouped heads and experts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def formula(q: Any, k: Any, v: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:  # noqa: ARG001
        return attention_flops(q, k, v)

    names = (
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    )  # fmt: skip
    mapping = {getattr(torch.ops.aten, name): formula for name in names}
    grouped = (
        getattr(torch.ops.aten, "_grouped_mm", None),
        getattr(torch.ops.transformers, "grouped_mm_fallback", None),
    )
    mapping |= {op: grouped_flops for op in grouped if op is not None}
    return FlopCounterMode(display=False, custom_mapping=mapping)


@dataclass(slots=True)
class RotaryAngles:
    """FLOPs that a counter has seen inside the model's rotary embeddings.

    Args:
        counter: a running `FlopCounterMode`.
        flops: what the rotary embeddings have added to its total so far.
    """

    counter: FlopCounterMode
    flops: int = 0
    _entered_at: int = 0

    def watch(self, model: Any) -> list[Any]:
        """Follow every rotary embedding of a model; return the hooks, for the caller to remove."""
        named = (m for name, m in model.named_modules() if name.rpartition(".")[2] == "rotary_emb")
        return [
            hook
            for module in named
            for hook in (
                module.register_forward_pre_hook(self._enter),
                module.register_forward_hook(self._leave),
            )
        ]

    def _enter(self, *_: Any) -> None:
        self._entered_at = int(self.counter.get_total_flops())

    def _leave(self, *_: Any) -> None:
        self.flops += int(self.counter.get_total_flops()) - self._entered_at


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Counts of one stage in one repetition; None where a quantity cannot be counted."""

    flops: int | None
    ops: int


@dataclass(slots=True)
class _CountObserver:
    read: Any
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    _begun: dict[str, tuple[int, int]] = field(default_factory=dict)

    def begin(self, stage: str) -> None:
        self._begun[stage] = self.read()

    def end(self, stage: str) -> None:
        before, now = self._begun.pop(stage), self.read()
        flops, ops = self.counts.get(stage, (0, 0))
        self.counts[stage] = (flops + now[0] - before[0], ops + now[1] - before[1])


@dataclass(slots=True)
class _Both:
    first: Any
    second: Any

    def begin(self, stage: str) -> None:
        self.first.begin(stage)
        self.second.begin(stage)

    def end(self, stage: str) -> None:
        self.first.end(stage)
        self.second.end(stage)


def count_run(execution: Execution) -> tuple[dict[str, StageCounts], dict[str, StageMemory]]:
    """Run one repetition under the counters and return counts and live bytes by stage."""
    quantised = execution.configuration.dtype in QUANTISED_DTYPES
    with ExitStack() as stack:
        ledger = stack.enter_context(ledger_for(execution))
        counter: Any = None if quantised else stack.enter_context(flop_counter())
        peaks = PeakObserver(ledger)
        angles = RotaryAngles(counter)
        if counter is not None:
            for hook in angles.watch(execution.model):
                stack.callback(hook.remove)
        counts = _CountObserver(
            lambda: (
                0 if counter is None else int(counter.get_total_flops()) - angles.flops,
                ledger.kernels,
            )
        )
        execution.run(_Both(peaks, counts))
    return {
        stage: StageCounts(None if quantised else flops, ops)
        for stage, (flops, ops) in counts.counts.items()
    }, peaks.stages
