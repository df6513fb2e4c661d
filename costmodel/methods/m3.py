"""M3: average-pool the patch grid after the projector, per crop.

Source: Cai et al. 2024, Matryoshka Multimodal Models. 576 patches become 576, 144, 36, 9 or 1; any
square whose root divides the side of the grid works. No counted FLOPs, one addition per value. Results
need a model trained for it.
"""

from __future__ import annotations

from math import isqrt

from costmodel.methods.class_attention import ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import by_pair, kept_count
from costmodel.methods.pieces import passes
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from hardware_specs.errors import InvalidInputError

#: The third of the published scales.
COUNT = 36


def _plan(given: MethodInput) -> MethodPlan:
    crops = ranked_crops(given)
    images, n, runs = crops.images, crops.patches, crops.runs
    kept = by_pair(check_pooling, n, kept_count("m3", given.keep, n))
    d, num = given.model.text.hidden_size, given.precision.projector
    pool = passes("pool", images * n * d, num, writes=0, count=runs)
    pool = pool._replace(activation_write_bytes=images * kept * d * num.activation_bytes)
    note = {"m3": "keep counts tokens of each crop; trained for it"}
    return before_layers(given, crops.left(given, kept), [pool], note)


def check_pooling(n: int, kept: int) -> int:
    """Return `kept`, or raise where a grid of n patches cannot be pooled to so many tokens.

    >>> check_pooling(576, 144)
    144
    >>> check_pooling(576, 100)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: m3 cannot pool 24 x 24 patches to 100 tokens; there is: \
576, 144, 64, 36, 16, 9, 4, 1
    """
    side, out = isqrt(n), isqrt(kept)
    if n == 0:
        return kept
    if side * side != n:
        raise InvalidInputError(f"m3 pools a square grid of patches; {n} tokens per crop form none")
    if out * out != kept or not out or side % out:
        scales = [str(s * s) for s in range(side, 0, -1) if side % s == 0]
        raise InvalidInputError(
            f"m3 cannot pool {side} x {side} patches to {kept} tokens; "
            f"there is: {', '.join(scales)}"
        )
    return kept


INFO = MethodInfo(
    name="m3",
    place="after-projector",
    source="Cai et al. 2024, Matryoshka Multimodal Models, arXiv 2405.17430",
    summary="average-pool the patch grid",
    formula="keep tokens per crop, a square; no FLOPs",
    complexity="O(n d)",
    schedule=_plan,
    needs_text="a model trained with it",
    keep_meaning="tokens after pooling; its root must divide the side of the grid",
    default_keep=COUNT,
    default_text=f"{COUNT} tokens per crop",
    trained=True,
    published=("576, 144, 36, 9 and 1 tokens",),
    by_crop=True,
)
