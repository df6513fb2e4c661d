"""ToMe: merge r pairs of similar tokens in every vision layer, between attention and MLP.

Source: Bolya et al., ICLR 2023 (arXiv 2210.09461) and facebookresearch/ToMe. Of t tokens at most
(t - 1) // 2 pairs merge (t // 2 without a class token). The default r = 13 is CrossGET's on the same
tower; with keep, merges are spread evenly over the layers before the features, earlier ones first.

Own FLOPs per layer and crop, t tokens, e width of a head: 2 ceil(t/2) floor(t/2) e for the cosines of
even with odd tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count, least
from costmodel.methods.options import FLAG, MERGES, Option, fraction
from costmodel.methods.pieces import gather, in_layer, passes, product, sort
from costmodel.methods.tower import tower_plan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num, OpCost

#: Pairs merged per layer by default.
PAIRS = 13
R = Option(
    "r", PAIRS, MERGES, "pairs merged per layer; 13 is CrossGET's on the same tower",
    for_keep=True,
)  # fmt: skip
INFLECT = Option("inflect", 0.0, fraction(-1.0, 1.0), "slope of r over the layers", for_keep=True)
PROPORTIONAL = Option("proportional", True, FLAG, "add log(size) to the attention logits")


def parse_r(num_layers: int, r: int | Sequence[int], inflect: float = 0.0) -> list[int]:
    """Return the pairs merged in each layer.

    Formula: constant, or linear from r (1 - inflect) to 2r minus that, so that -1 merges early, 1 late; a
    list is padded with zeros.

    Raises:
        InvalidInputError: a negative number, more numbers than layers, or a slope with a list.

    >>> parse_r(3, 8), parse_r(3, 8, -1.0), parse_r(3, [4])
    ([8, 8, 8], [16, 8, 0], [4, 0, 0])
    """
    if not isinstance(r, int):
        values = list(r)
        if inflect or len(values) > num_layers or any(value < 0 for value in values):
            raise InvalidInputError(
                f"a list of r needs at most {num_layers} numbers >= 0 and no slope; "
                f"given {values} with inflect={inflect}"
            )
        return values + [0] * (num_layers - len(values))
    if r < 0 or not -1.0 <= inflect <= 1.0:
        raise InvalidInputError(f"r={r} must be >= 0 and inflect={inflect} in [-1, 1]")
    first = int(r * (1.0 - inflect))
    step = (2 * r - 2 * first) / max(num_layers - 1, 1)
    return [int(first + step * layer) for layer in range(num_layers)]


def merges_for_keep(name: str, keep: Any, patches: int, num_layers: int) -> list[Num]:
    """Return the merges per layer that leave `keep` of the patch tokens, spread evenly, earlier layers first.

    Each of `num_layers` layers merges at most half of what it sees. `keep` is a count, an array of counts, or
    a ratio.

    Raises:
        InvalidInputError: fewer tokens than halving in every layer can reach.

    >>> merges_for_keep("tome", 10, 16, 4)
    [2, 2, 1, 1]
    """
    target = kept_count(name, keep, patches)
    now: Num = patches
    merges = []
    for layer in range(num_layers):
        later = num_layers - layer - 1
        even = -((target - now) // (later + 1))
        # The later layers can only halve, so what they could not merge goes now.
        merged = least(greatest(even, now - target * 2**later), now // 2)
        merges.append(merged)
        now = now - merged
    if np.any(now > target):
        raise InvalidInputError(
            f"{name}: keep={keep} asks for fewer tokens than {num_layers} layers can leave of {patches}: "
            f"they merge at most half of what they see and reach {np.max(now):g}; give a larger keep"
        )
    return merges


def merges_per_layer(
    name: str,
    keep: Any,
    *,
    patches: int,
    layers: int,
    depth: int,
    r: int | Sequence[int],
    inflect: float = 0.0,
) -> list[Num]:
    """Return the tokens that ToMe or CrossGET merges in each layer of a tower.

    `keep` spreads the merges over the `depth` layers that run before the features are read and leaves the
    others alone; without it every layer merges r (see `parse_r`), as in the authors' programs.

    Raises:
        InvalidInputError: a keep out of reach, or a list of r that does not fit.

    >>> merges_per_layer("tome", 10, patches=16, layers=5, depth=4, r=13)
    [2, 2, 1, 1, 0]
    """
    if keep is None:
        return [*parse_r(layers, r, inflect)]
    return merges_for_keep(name, keep, patches, depth) + [0] * (layers - depth)


def _matching_ops(given: MethodInput, images: Num, t: Num, r: Num) -> list[OpCost]:
    num, c, e = given.precision.vision, given.tower.hidden_size, given.tower.head_dim
    even, odd = (t + 1) // 2, t // 2
    # The sizes merge as the tokens do; their logarithms are a bias on the attention's logits.
    sizes = 4 if PROPORTIONAL.of(given) else 2
    return [
        passes("mean_keys", images * t * e, num, reads=c / e, writes=1, kernels=1, flops=c / e),
        passes("normalise", images * t * e, num, reads=3, writes=1, kernels=2, flops=3),
        product("similarity", images, even, odd, e, num),
        passes("best_match", images * even * odd, num, reads=1, writes=0, kernels=2),
        sort("rank", images, even, num),
        passes("indices", images * even, num, reads=4, writes=4, kernels=4, flops=0),
        passes("weigh", images * t * c, num, reads=1, writes=1, kernels=1),
        gather("unmerged", images * (even - r), c, num),
        gather("merged", images * r, c, num),
        passes("scatter_add", images * (odd + r) * c, num, reads=2, writes=1, kernels=2),
        passes("concatenate", images * (t - r) * c, num, reads=2, writes=2, kernels=2),
        passes("sizes", images * t, num, reads=sizes, writes=sizes, kernels=3 + sizes),
    ]


def _plan(given: MethodInput) -> MethodPlan:
    tower, images = given.tower, given.batch_size * given.crops
    wanted = merges_per_layer(
        "tome", given.keep, patches=tower.patches, layers=tower.num_layers,
        depth=tower.deepest, r=R.of(given), inflect=INFLECT.of(given),
    )  # fmt: skip
    t: Num = tower.tokens
    spans, ops = [], []
    for layer, asked in enumerate(wanted[: given.vision_layers]):
        r = least(asked, (t - tower.has_cls) // 2)
        spans.append(LayerSpan(1, t, t, t - r))
        ops += in_layer(_matching_ops(given, images, t, r), layer, (r > 0) * (images > 0))
        t = t - r
    return tower_plan("tome", given, spans, t, ops)


INFO = MethodInfo(
    name="tome",
    place="vision-layers",
    source="Bolya et al. 2023, Token Merging, arXiv 2210.09461; facebookresearch/ToMe",
    summary="merge r pairs of similar tokens in every vision layer",
    formula="t -> t - r per layer; 2 ceil(t/2) floor(t/2) e FLOPs per layer",
    complexity="O(t^2 e) per layer",
    schedule=_plan,
    needs=frozenset({"clip_keys"}),
    needs_text="the keys of every vision layer",
    keep_meaning="patch tokens left when the features are read; None merges r per layer",
    default_text="13 pairs per layer: 278 of 576 patches are left after 23 layers",
    options=(R, INFLECT, PROPORTIONAL),
    published=("ViT-L: r=8", "25 % of 576 in PruMerge's Table 7 (keep 144)"),
)
