"""Downsampling: a smaller picture for the vision tower, whose position embeddings are interpolated.

The baseline that VTC-Bench (arXiv 2510.07143) holds every method against: it costs next to nothing and
makes the tower cheaper as well. A crop of s x s patches becomes one of r x r: a count must be such a
square, a ratio gives the nearest. Where images keep their own resolution, a grid of h x w tokens becomes one
of round(h sqrt(keep)) x round(w sqrt(keep)), in every frame of a clip; keep is a ratio there.

Own FLOPs: none that a counter sees; one pass over the pixels, one over the positions.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import TYPE_CHECKING, Any

from costmodel.methods.class_attention import ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import by_pair, greatest, kept_count, share
from costmodel.methods.pieces import passes
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num

#: Half of each side.
RATIO = 0.25
#: Channels of a picture.
CHANNELS = 3


def nearest_square(n: int, count: int) -> int:
    """Return the square number nearest to a count, 1 at least and n at most; 0 of 0.

    >>> nearest_square(576, 58), nearest_square(576, 1), nearest_square(729, 700)
    (64, 1, 676)
    """
    if not n:
        return 0
    side = min(max(round(sqrt(count)), 1), isqrt(n))
    return side * side


def whole_square(n: int, count: int) -> int:
    """Return a count that is a square.

    Raises:
        InvalidInputError: it is none; names the nearest that are.

    >>> whole_square(576, 144)
    144
    """
    if n and isqrt(count) ** 2 != count:
        low = isqrt(count)
        raise InvalidInputError(
            f"downsample makes a square grid of patches, and {count} is no square; give "
            f"{low**2} or {(low + 1) ** 2}, or a ratio"
        )
    return count


def squares_kept(keep: object, n: Num) -> Num:
    """Return the patches of a crop of n that is made smaller: of a ratio the nearest square."""
    counted = kept_count("downsample", keep, n)
    return by_pair(nearest_square if isinstance(keep, float) else whole_square, n, counted)


def smaller_grid(rows: int, columns: int, keep: object) -> tuple[int, int]:
    """Return the rows and columns of tokens that an image of its own resolution is made smaller to.

    Raises:
        InvalidInputError: a count, which few grids of an image's shape have.

    >>> smaller_grid(36, 64, 0.25), smaller_grid(26, 47, 1 / 9), smaller_grid(1, 3, 0.01)
    ((18, 32), (9, 16), (1, 1))
    """
    if not isinstance(keep, float):
        raise InvalidInputError(
            "downsample makes both sides of an image shorter alike where images keep their own "
            f"resolution, which gives not every count; give a ratio such as {RATIO}, not {keep}"
        )
    rows, columns = (max(round(side * sqrt(keep)), 1) for side in (rows, columns))
    return rows, columns


def _plan_of_native(given: MethodInput) -> MethodPlan:
    tower, seen, items = given.tower, given.seen, items_of(given)
    geometry: Any = given.model.geometry
    merge, num = tower.merge, given.precision.vision
    note = {
        "downsample": "the grid of a bare count is not known: the nearest count to keep is priced"
    }
    if seen is not None and seen.grids:
        grids = [
            (number, *(side * merge for side in smaller_grid(h // merge, w // merge, given.keep)))
            for number, h, w in seen.grids
        ]
        smaller = geometry.seen_of_grids(grids)
        kept, note = smaller.patches // merge**2, {}
    else:
        smaller_grid(1, 1, given.keep)
        n = items.per_sample * items.tokens
        kept = items.per_sample * greatest(
            share(given.keep, items.tokens, "nearest"), items.tokens > 0
        )
        smaller = None if seen is None else seen.part(kept, n + (n == 0))
    each = CHANNELS * tower.tubelet * (merge * tower.patch_size) ** 2 * given.batch_size
    before, after = given.visual_tokens * each, kept * each
    resize = passes("resize", before, num, reads=3, writes=2, flops=2, count=items.runs)
    ops = [resize._replace(activation_write_bytes=(2 * after + before) * num.activation_bytes)]
    plan = before_layers(given, kept * items.runs, ops, note, projected=kept * items.runs)
    return plan._replace(seen=smaller)


def _plan(given: MethodInput) -> MethodPlan:
    if given.tower.native:
        return _plan_of_native(given)
    tower, crops = given.tower, ranked_crops(given)
    images, runs = crops.images, crops.runs
    kept = squares_kept(given.keep, tower.patches)
    beside = tower.tokens - tower.patches
    num = given.precision.vision
    pixels = images * CHANNELS * tower.patches * tower.patch_size**2
    resize = passes("resize", pixels, num, writes=0, flops=2, count=runs)
    smaller = images * CHANNELS * kept * tower.patch_size**2 * num.activation_bytes
    ops = [
        resize._replace(activation_write_bytes=smaller),
        passes("positions", kept * tower.hidden_size, num, kernels=4, flops=8, count=runs),
    ]
    tokens = crops.left(given, kept)
    note = {"downsample": "keep counts patches of each crop; position embeddings are interpolated"}
    plan = before_layers(given, tokens, ops, note, projected=tokens)
    spans = (LayerSpan(given.vision_layers, kept + beside),)
    return plan._replace(vision_spans=spans, patches=kept)


INFO = MethodInfo(
    name="downsample",
    schedule=_plan,
    place="before-vision",
    summary="a smaller picture for the vision tower: a baseline, and the tower gets cheaper too",
    formula="a square number of patches per crop, or round(h sqrt(k)) x round(w sqrt(k)) tokens; no FLOPs",
    complexity="O(pixels)",
    source="a baseline of VTC-Bench, arXiv 2510.07143; no program of its own",
    default_text=f"{RATIO}: half of the picture's side, 144 of 576 patches of each crop",
    keep_meaning="patches of each crop, a square number; a ratio where images keep their own resolution",
    default_keep=RATIO,
    on_merged=True,
)
