"""LLM-Viewer, the roofline tool behind PruMerge's Table 2, as of two dates.

LLM-Viewer (arXiv 2402.16363, repository hahnyuan/LLM-Viewer). Per op,

    time = max(operations / peak, bytes moved / bandwidth)

ops are added, times the layers, plus the output head once. `llmviewer-2024-02` is the tool from 27
February to 15 March 2024, when the table was made; `llmviewer-2024-07` is its later state. What the
tool calls memory access is traffic, and `store_act` the bytes of activations written over the
whole prefill; neither is a footprint. Its own footprint is `peak_memory_bytes` here: all layers'
weights (the output head is forgotten), the KV cache, and the activations one layer writes.

Only the language model is counted; vision tower, projector and embedding do not exist for the tool.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.conventions.convention import Convention, counted
from costmodel.conventions.decoder import check_batch, check_tokens, layer_groups, text_shape
from costmodel.conventions.llmviewer.devices import DEVICES, get_device, parse_bits
from costmodel.conventions.llmviewer.ops import Quirks, ToolOp, head_row, layer_rows
from costmodel.result import OpRow, defined
from hardware_specs.errors import InvalidInputError, UnsupportedError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.conventions.decoder import DecoderInput, TextShape
    from costmodel.conventions.llmviewer.devices import BitWidths
    from costmodel.quantities import Num
    from costmodel.result import Estimate
    from costmodel.roofline import StageCost

#: Decode steps evaluated at once; bounds the memory of a long answer.
_STEPS_AT_ONCE = 4096


class _Tool(NamedTuple):
    """The tool in one state, told a model, a device and a precision.

    Attributes:
        shape: the language model.
        bits: bit widths.
        quirks: which state of the tool.
        peak_flop_per_s: the peak it divides operations by.
        bandwidth_bytes_per_s: the bandwidth it divides traffic by.
    """

    shape: TextShape
    bits: BitWidths
    quirks: Quirks
    peak_flop_per_s: float
    bandwidth_bytes_per_s: float

    def layer(self, b: Num, s: Num, *, decode: bool) -> list[ToolOp]:
        """Return the ops of one decoder layer."""
        return layer_rows(self.shape, self.bits, b, s, decode=decode, quirks=self.quirks)

    def head(self, b: Num) -> ToolOp:
        """Return the output head."""
        return head_row(self.shape, self.bits, b, self.quirks)


@dataclass(slots=True)
class _Sum:
    """One op's executions, added up over layers and steps."""

    columns: list[Num]
    compute_bound_s: Num = 0.0
    memory_bound_s: Num = 0.0
    count: int = 0

    def add(self, row: ToolOp, count: int, tool: _Tool, steps: int = 0) -> None:
        """Add `count` executions of a row; with `steps` the last axis is that many decode steps."""
        compute = row.ops / tool.peak_flop_per_s
        memory = row.memory_access / tool.bandwidth_bytes_per_s
        by_compute = compute >= memory
        values = [*row[1:], np.where(by_compute, compute, 0.0), np.where(by_compute, 0.0, memory)]
        executions = count
        if steps:
            values = [_sum_last(value, steps) for value in values]
            executions *= steps
        self.columns = [
            total + count * value for total, value in zip(self.columns, values[:-2], strict=True)
        ]
        self.compute_bound_s = self.compute_bound_s + count * values[-2]
        self.memory_bound_s = self.memory_bound_s + count * values[-1]
        self.count += executions

    def finish(self, stage: str, name: str) -> OpRow:
        """Return the row of the op table."""
        ops, weight, load, store, load_kv, store_kv = (_plain(value) for value in self.columns)
        time = _plain(self.compute_bound_s + self.memory_bound_s)
        return OpRow(
            stage, name, count=self.count, flops=ops, weight_bytes=weight, kv_read_bytes=load_kv,
            kv_write_bytes=store_kv, activation_read_bytes=load, activation_write_bytes=store,
            bound=_bound(self.compute_bound_s, self.memory_bound_s), time_s=time,
        )  # fmt: skip


def _sum_last(value: Num, length: int) -> Num:
    """Sum over the last axis after stretching it to `length`."""
    array = np.asarray(value)
    shape = (*array.shape[:-1], length) if array.ndim else (length,)
    summed: Num = np.broadcast_to(array, shape).sum(axis=-1)
    return summed


def _plain(value: Num) -> Any:
    """Return zero-dimensional numpy values as Python numbers."""
    if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0:
        return value.item()
    return value


def _bound(compute_s: Num, memory_s: Num) -> Any:
    """Name the side on which most of the time is spent."""
    return _plain(np.where(np.asarray(compute_s) >= memory_s, "compute", "memory"))


def evaluate_llmviewer(
    quirks: Quirks, assumptions: dict[str, str], given: DecoderInput
) -> Estimate:
    """Count one prefill, and `output_tokens` decode steps at contexts S, S + 1, ...

    Raises:
        UnsupportedError: flash attention.
        UnknownHardwareError: a device outside the tool's table.
        InvalidInputError: a count out of range, or no token at all.
    """
    _check_attention(given.attention)
    shape, bits = text_shape(given.model), parse_bits(given.precision)
    device, steps = get_device(given.hardware), given.output_tokens
    tool = _Tool(shape, bits, quirks, bits.peak_flop_per_s(device), device.bandwidth_bytes_per_s)
    b = check_batch(given.batch_size)
    text = check_tokens("text_tokens", 0 if given.text_tokens is None else given.text_tokens)
    groups = layer_groups(given.visual_tokens, given.llm_visual_tokens_per_layer, shape.num_layers)
    if any(np.any(np.asarray(tokens + text) < 1) for tokens, _ in groups):
        raise InvalidInputError("LLM-Viewer needs at least one token in every layer")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
        raise InvalidInputError(
            f"output_tokens must be an integer of at least 0, not {shown(steps)}"
        )
    contexts = [(tokens + text, layers) for tokens, layers in groups]
    prefill = _prefill(tool, b, contexts)
    decode = _decode(tool, b, contexts, int(steps))
    stages = {"prefill": _stage(prefill)}
    if decode:
        stages["decode"] = _stage(decode)
    memory = _memory(tool, b, contexts, prefill)
    return counted(given, assumptions, (*prefill, *decode), stages, **memory)


def _check_attention(attention: str | None) -> None:
    if attention == "flash":
        raise UnsupportedError(
            "LLM-Viewer's flash attention is not reproduced: that branch charges the attention "
            "output as S x S where it is S x d, its traffic rests on an on-chip buffer size, and "
            "PruMerge's Table 2 was made without it; use attention='eager'"
        )
    if attention not in (None, "eager"):
        raise InvalidInputError(f"attention must be 'eager' or None here, not {attention!r}")


def _prefill(tool: _Tool, b: Num, contexts: list[tuple[Num, int]]) -> list[OpRow]:
    sums: dict[str, _Sum] = defaultdict(lambda: _Sum([0] * 6))
    for s, layers in contexts:
        for row in tool.layer(b, s, decode=False):
            sums[row.name].add(row, layers, tool)
    head = tool.head(b)
    sums[head.name].add(head, 1, tool)
    return [total.finish("prefill", op) for op, total in sums.items()]


def _decode(tool: _Tool, b: Num, contexts: list[tuple[Num, int]], steps: int) -> list[OpRow]:
    """Add up the decode steps; the step axis is the last, behind any axes of the scenarios."""
    sums: dict[str, _Sum] = defaultdict(lambda: _Sum([0] * 6))
    wide_b = np.asarray(b)[..., None]
    for first in range(0, steps, _STEPS_AT_ONCE):
        ahead = np.arange(first, min(first + _STEPS_AT_ONCE, steps))
        for s, layers in contexts:
            wide_s = np.asarray(s)[..., None] + ahead
            for row in tool.layer(wide_b, wide_s, decode=True):
                sums[row.name].add(row, layers, tool, len(ahead))
        head = tool.head(wide_b)
        sums[head.name].add(head, 1, tool, len(ahead))
    return [total.finish("decode", op) for op, total in sums.items()]


def _stage(ops: Sequence[OpRow]) -> StageCost:
    """Add an op table up to a stage."""
    summed = {
        name: sum(getattr(op, name) for op in ops)
        for name in (
            "flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_read_bytes",
            "activation_write_bytes", "time_s",
        )
    }  # fmt: skip
    compute, memory = (
        sum((np.asarray(op.bound) == side) * np.asarray(op.time_s) for op in ops)
        for side in ("compute", "memory")
    )
    return defined(**summed, compute_s=compute, memory_s=memory)


def _memory(
    tool: _Tool, b: Num, contexts: list[tuple[Num, int]], prefill: list[OpRow]
) -> dict[str, Any]:
    """Return the tool's own footprint, and the activations a prefill writes."""
    layers = [op for op in prefill if op.name != "lm_head"]
    weights = sum(op.weight_bytes for op in layers)
    cache = sum(op.kv_write_bytes for op in layers)
    widest: Num = 0
    for s, _ in contexts:
        written = sum(row.store_act for row in tool.layer(b, s, decode=False))
        widest = _plain(np.maximum(widest, written))
    return {
        "weight_bytes": weights,
        "kv_cache_bytes": cache,
        "peak_activation_bytes": widest,
        "peak_memory_bytes": weights + cache + widest,
        "activation_bytes_written": sum(op.activation_write_bytes for op in prefill),
    }


def _preset(name: str, when: str, quirks: Quirks) -> Convention:
    source = f"LLM-Viewer (arXiv 2402.16363), repository hahnyuan/LLM-Viewer, {when}"
    head = "1 byte" if quirks.head_weight_bytes else "the weights' width"
    keys = "twice, without the query" if quirks.keys_read_twice else "once, with k query heads"
    assumptions = {
        "formula": "per op max(operations / peak, bytes / bandwidth), summed",
        "counted_as_flop": "a multiply-accumulate is 2 operations, in lm_head 1; norms, softmax, "
        "residual adds and the activation count; nothing scales with bit width",
        "ffn_matrices": "3; the activation is charged d elements, not f",
        "attention": "full S x S, scores written out and read back; no flash attention",
        "grouped_query_attention": "modelled",
        "lm_head": f"one row, weights of {head} per element",
        "keys": f"qk_matmul of a prefill reads them {keys}",
        "text": "S = visual + text tokens",
        "vision": "not counted",
        "decode": "one query per step at contexts S, S + 1, ...",
        "hbm_bytes": "traffic (the tool's memory_access), not a footprint",
        "peak_memory_bytes": "the tool's footprint: layer weights without lm_head, KV cache, and "
        "what one layer writes",
        "peak": "INT8 when weights, activations and KV all have 8 bits or fewer, else FP16",
        "hardware": "the tool's own device table",
        "source": source,
    }
    return Convention(
        name,
        f"LLM-Viewer, {when}",
        source,
        default_text_tokens=None,
        operations_per_mac=2,
        ffn_matrices=3,
        counts_text=True,
        counts_head=True,
        assumptions=assumptions,
        count=partial(evaluate_llmviewer, quirks, assumptions),
        devices=tuple(DEVICES),
    )


LLMVIEWER_2024_02 = _preset(
    "llmviewer-2024-02",
    "27 February to 15 March 2024",
    Quirks(keys_read_twice=True, head_weight_bytes=1),
)
LLMVIEWER_2024_07 = _preset(
    "llmviewer-2024-07", "July 2024", Quirks(keys_read_twice=False, head_weight_bytes=None)
)
