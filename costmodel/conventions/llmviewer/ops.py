"""LLM-Viewer's op table: what one decoder layer and the output head count and move.

Read from hahnyuan/LLM-Viewer, `model_analyzer.py`, the branch without flash attention. Letters:
b batch, s context length, q query rows (s in a prefill, 1 in a decode step), d hidden width,
h heads, k KV heads, e = d / h, f FFN width, v vocabulary; wb, ab, kb bytes per weight, activation,
KV element.

Its slips are kept, since published numbers carry them:

- `mlp_act` works on d elements where the FFN has f.
- `lm_head` counts one operation per MAC, and reads and writes one row whatever the batch; until
  March 2024 its weights have one byte each, whatever the bit width.
- `qk_matmul` reads no query in a prefill and reads the keys twice (2024-02); later it reads the
  keys once, and a query of k heads where there are h.
- Residual adds read one operand.
- The scores are written and read for softmax whole, since no kernel is fused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from costmodel.conventions.decoder import TextShape
    from costmodel.conventions.llmviewer.devices import BitWidths
    from costmodel.quantities import Num


class Quirks(NamedTuple):
    """What changed in LLM-Viewer between two of its states.

    Attributes:
        keys_read_twice: the prefill's `qk_matmul` reads the KV cache twice and no query.
        head_weight_bytes: bytes per weight of `lm_head`; None follows the bit width.
    """

    keys_read_twice: bool
    head_weight_bytes: int | None


class ToolOp(NamedTuple):
    """One execution of one op, in LLM-Viewer's columns."""

    name: str
    ops: Num
    load_weight: Num = 0
    load_act: Num = 0
    store_act: Num = 0
    load_kv: Num = 0
    store_kv: Num = 0

    @property
    def memory_access(self) -> Num:
        """Bytes moved: all loads and stores."""
        return self.load_weight + self.load_act + self.store_act + self.load_kv + self.store_kv


def layer_rows(
    shape: TextShape, bits: BitWidths, b: Num, s: Num, *, decode: bool, quirks: Quirks
) -> list[ToolOp]:
    """Return the ops of one decoder layer at context length s; a decode step has one query row."""
    d, f, h, k = shape.hidden_size, shape.intermediate_size, shape.num_heads, shape.num_kv_heads
    e = d // h
    ab, kb = bits.activation_bytes, bits.kv_bytes
    q: Num = 1 if decode else s
    scores = b * h * q * s

    def linear(name: str, ic: int, oc: int, *, cached: bool = False) -> ToolOp:
        out = oc * b * q
        return ToolOp(
            name,
            2 * ic * oc * b * q,
            load_weight=ic * oc * bits.weight_bytes,
            load_act=ic * b * q * ab,
            store_act=0 if cached else out * ab,
            store_kv=out * kb if cached else 0,
        )

    def pointwise(name: str, operations: int, reads: int = 1) -> ToolOp:
        return ToolOp(
            name, operations * b * d * q, load_act=reads * b * d * q * ab, store_act=b * d * q * ab
        )

    if decode:
        query, key_reads = e * b * h * ab, 1
    elif quirks.keys_read_twice:
        query, key_reads = 0, 2
    else:
        query, key_reads = s * e * b * k * ab, 1
    keys = s * e * b * k * kb
    return [
        linear("q_proj", d, d),
        linear("k_proj", d, e * k, cached=True),
        linear("v_proj", d, e * k, cached=True),
        linear("out_proj", d, d),
        linear("gate_proj", d, f),
        linear("up_proj", d, f),
        linear("down_proj", f, d),
        ToolOp("qk_matmul", 2 * q * s * e * h * b, load_act=query, store_act=scores * ab,
              load_kv=key_reads * keys),
        ToolOp("softmax", 5 * scores, load_act=scores * ab, store_act=scores * ab),
        ToolOp("sv_matmul", 2 * q * s * e * h * b, load_act=scores * ab,
              store_act=q * e * b * h * ab, load_kv=keys),
        pointwise("attn_norm", 7),
        pointwise("mlp_norm", 7),
        pointwise("attn_add", 1),
        pointwise("mlp_add", 1),
        pointwise("mlp_act", 2, reads=2),
    ]  # fmt: skip


def head_row(shape: TextShape, bits: BitWidths, b: Num, quirks: Quirks) -> ToolOp:
    """Return the output head, which LLM-Viewer adds once per stage."""
    d, v = shape.hidden_size, shape.vocab_size
    weight = bits.weight_bytes if quirks.head_weight_bytes is None else quirks.head_weight_bytes
    return ToolOp(
        "lm_head",
        b * d * v,
        load_weight=d * v * weight,
        load_act=d * bits.activation_bytes,
        store_act=v * bits.activation_bytes,
    )
