"""The plan `static-graph`: eager kernels captured once, over a KV cache that is laid out beforehand.

This is what people run under CUDA graphs: new keys and values are written into their places (one
indexed copy of each, of the new tokens alone) where `cuda-graph` replays the concatenation of a dynamic
cache. Attention reads the tokens that are there; a kernel without lengths would read the empty places
as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.blocks import Rotate
from costmodel.plans.cuda_graph import PLAN as CUDA_GRAPH
from costmodel.plans.hf_eager import rotated
from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.plans.plan import Rows, Setting, Step
    from costmodel.quantities import OpCost


def _rotate(block: Rotate, setting: Setting) -> list[Step]:
    """Rotate q and k, then write K and V of the new tokens into the cache."""
    numerics, k, e = setting.numerics, block.kv_heads, block.head_dim

    def written(n: Rows) -> OpCost:
        new = 2 * n["batch"] * n["queries"] * k * e
        return op_cost(
            "cache_write",
            "copy",
            numerics.attention_dtype,
            n["count"],
            kv_write_bytes=new * numerics.kv_bytes,
            activation_read_bytes=new * numerics.activation_bytes,
            kernels=2,
        )

    turned = rotated(block, setting)
    return [turned] if block.rows else [turned, written]


PLAN = replace(
    CUDA_GRAPH,
    name="static-graph",
    label="eager kernels in a CUDA graph, static cache",
    rules={**CUDA_GRAPH.rules, Rotate: _rotate},
    static_cache=True,
)
