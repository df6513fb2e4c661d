"""HiPrune: anchors that a middle vision layer looks at, with their neighbours, and registers of a deep one.

Source: Liu et al. (ACL 2026, arXiv 2508.00553) and Danielement321/HiPrune. Of K tokens, round(K x alpha /
5) anchors are what all patches look at most in vision layer 9 (counted from 1); the patches left, right,
above and below each stay with it; the rest of K are what is looked at most in layer -2. Spatial order,
after the projector.

Behind the merger of a tower of native resolution, the same on an image's merged tokens: anchors of the layer
half-way (16 of 32 in Qwen2.5-VL), registers of layer -2, each patch's attention in its image or window.

Own FLOPs per crop, n patches in a tower of width c: 2 x 2 (n+1)^2 c for the maps of two layers.
"""

from __future__ import annotations

from costmodel.methods.class_attention import kept_patches, ranked_crops, received_by_merged
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count
from costmodel.methods.options import Option, fraction, optional, whole
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of
from hardware_specs.errors import InvalidInputError

COUNT = 64
SHALLOW = Option(
    "shallow",
    None,
    optional(whole(1)),
    "vision layer of the anchors, from 1; None is 9, behind a merger half of the tower's",
)
ALPHA = Option("alpha", 0.1, fraction(0.0, 1.0), "share of K for the anchors")
#: An anchor and its four neighbours.
GROUP = 5


def anchor_count(count: int, alpha: float) -> int:
    """Return how many of K tokens are anchors.

    >>> [anchor_count(count, 0.1) for count in (192, 128, 64)]  # 3.84, 2.56, 1.28
    [4, 3, 1]
    """
    return round(count * alpha / GROUP)


def shallow_layer(asked: int | None, layers: int, *, native: bool) -> int:
    """Return the layer of the anchors, from 0.

    Raises:
        InvalidInputError: a layer that the tower does not have, or no layer -2.

    >>> shallow_layer(None, 24, native=False), shallow_layer(None, 32, native=True)
    (8, 15)
    """
    found = (layers // 2 if native else 9) if asked is None else asked
    if layers < 2 or not 1 <= found <= layers:
        raise InvalidInputError(
            f"hiprune looks at vision layer {found if layers > 1 else -2}, counted from 1, and this tower "
            f"has {layers}; give shallow="
        )
    return found - 1


def _plan(given: MethodInput) -> MethodPlan:
    tower = given.tower
    shallow = shallow_layer(SHALLOW.of(given), tower.num_layers, native=tower.native)
    if tower.native:
        return _merged_plan(given, shallow)
    crops = ranked_crops(given)
    num, h, e = given.precision.vision, tower.num_heads, tower.head_dim
    images, n, runs = crops.images, crops.patches, crops.runs
    kept = kept_count("hiprune", given.keep, n)
    length = n + 1
    ops = [
        gather("keys_and_queries", 2 * images * length, tower.hidden_size, num, 2 * runs, kernels=1),
        product("attention_again", images * h, length, length, e, num, 2 * runs),
        passes("looked_at", images * h * length**2, num, reads=5, writes=4, kernels=3, flops=7,
               count=2 * runs),
        passes("finite", images * n, num, kernels=2 * FINITE_KERNELS, count=runs),
        sort("rank", 2 * images, n, num, 2 * runs),
        passes("marks", images * n, num, reads=4, writes=4, kernels=12, count=runs),
        *kept_patches(given, crops, kept),
    ]  # fmt: skip
    note = {"hiprune": "keep counts patches of each crop"}
    return before_layers(given, crops.left(given, kept), ops, note)


def _merged_plan(given: MethodInput, shallow: int) -> MethodPlan:
    """The same on the tokens of every image behind a merger."""
    items, own, d = items_of(given), given.precision.vision, given.model.text.hidden_size
    lists, n, runs = items.lists, items.tokens, items.runs
    kept = kept_count("hiprune", given.keep, n)
    ops = [
        *(op for layer in (shallow, -2) for op in received_by_merged(given, items, layer)),
        passes("finite", lists * n, own, kernels=2 * FINITE_KERNELS, count=runs),
        sort("rank", 2 * lists, n, own, 2 * runs),
        passes("marks", lists * n, own, reads=4, writes=4, kernels=12, count=runs),
        sort("order", lists, kept, own, runs),
        gather("kept_tokens", lists * kept, d, given.precision.projector, runs),
    ]
    note = {"hiprune": "keep counts tokens of each image"}
    return before_layers(given, items.per_sample * kept * runs, ops, note)


INFO = MethodInfo(
    name="hiprune",
    schedule=_plan,
    place="after-projector",
    summary="keep anchors of a middle vision layer with their neighbours, and what a deep layer looks at",
    formula="round(keep n) tokens per crop; 4(n+1)^2 c FLOPs",
    complexity="O(n^2 c) per crop",
    source="Liu et al. 2025, HiPrune, arXiv 2508.00553; Danielement321/HiPrune",
    default_text=f"{COUNT} patches of each crop",
    needs_text="the whole attention of vision layers 9 and -2",
    by_crop=True,
    on_merged=True,
    needs_class_token=True,
    needs=frozenset({"clip_attention_maps"}),
    keep_meaning="patches of each crop kept",
    default_keep=COUNT,
    options=(SHALLOW, ALPHA),
    published=(
        "192, 128 and 64 of 576 tokens, alpha 0.1",
        "Qwen2.5-VL: 0.334, 0.223 and 0.112 of the tokens, anchors of layer 16",
    ),
    recomputes="the attention maps of vision layers 9 and -2, behind a merger of the middle one and -2",
)
