"""M3: average-pool the patch grid after the projector, per crop.

Source: Cai et al. 2024, Matryoshka Multimodal Models. 576 patches become 576, 144, 36, 9 or 1; any
square whose root divides the side of the grid works. No counted FLOPs, one addition per value. Results
need a model trained for it.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.counts import kept_count
from costmodel.methods.pieces import passes
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import crops_of
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest

#: The third of the published scales.
COUNT = 36


def _plan(request: MethodRequest) -> MethodPlan:
    images, n, runs = crops_of(request)
    keep = COUNT if request.keep is None else request.keep
    kept = kept_count("m3", keep, n)
    check_pooling(n, kept)
    tokens = request.crops * kept * runs
    d, num = request.model.text.hidden_size, request.precision.projector
    pool = passes("pool", images * n * d, num, writes=0, count=runs)
    write = images * kept * d * num.activation_bytes
    span = LayerSpan(request.model.text.num_layers, tokens)
    return MethodPlan(
        (span,),
        request.projected_tokens,
        None,
        (pool._replace(activation_write_bytes=write),),
        {"m3": "keep counts tokens of each crop; trained for it"},
    )


def check_pooling(n: Any, kept: Any) -> None:
    """Raise unless every grid of n patches can be pooled to `kept` tokens.

    >>> check_pooling(576, 144)
    >>> check_pooling(576, 100)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: m3 cannot pool 24 x 24 patches to 100 tokens; there is: \
576, 144, 64, 36, 16, 9, 4, 1
    """
    for patches, count in {
        (int(a), int(b)) for a, b in np.broadcast(np.atleast_1d(n), np.atleast_1d(kept))
    }:
        side, out = isqrt(patches), isqrt(count)
        if patches == 0 or (
            side * side == patches and out * out == count and out and not side % out
        ):
            continue
        if side * side != patches:
            raise InvalidInputError(
                f"m3 pools a square grid of patches; {patches} tokens per crop form none"
            )
        scales = [str(s * s) for s in range(side, 0, -1) if side % s == 0]
        raise InvalidInputError(
            f"m3 cannot pool {side} x {side} patches to {count} tokens; "
            f"there is: {', '.join(scales)}"
        )


METHODS = {
    "m3": MethodCost(
        name="m3",
        schedule=_plan,
        place="after-projector",
        summary="average-pool the patch grid",
        formula="keep tokens per crop, a square; no FLOPs",
        complexity="O(n d)",
        source="Cai et al. 2024, Matryoshka Multimodal Models, arXiv 2405.17430",
        default_keep="36 tokens per crop",
        needs="a model trained with it",
        by_crop=True,
        published=("576, 144, 36, 9 and 1 tokens",),
    )
}
