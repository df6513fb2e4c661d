"""PyramidDrop: after each quarter of the language model keep a share of the image tokens left.

Source: Xing et al., CVPR 2025 (arXiv 2410.17247) and Cooperx521/PyramidDrop. Before layers T/4, T/2 and
3T/4 of T (8, 16 and 24 of 32) int(keep x n) of the n image tokens left stay: those that the last token
attends to as the layer to come would compute it.

Own FLOPs per stage, s tokens of the sequence, d width, h heads, k KV heads of e: 2 s d k e for the keys
of all tokens and 2 d h e for the last query in the layer to come, 2 s h e for its row of scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, least
from costmodel.methods.llm_ranking import cut_layers, eager_norm, narrowed, picked, rotated
from costmodel.methods.options import LAYER_LIST, Option, optional
from costmodel.methods.pieces import in_layer, passes, product
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers
from costmodel.ops.linear import linear
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.quantities import Num, OpCost

RATIO = 0.5
LAYERS = Option(
    "layers",
    None,
    optional(LAYER_LIST),
    "layers before which tokens are dropped; None is each quarter: 8, 16, 24 of 32",
)


def stage_layers(layers: int, asked: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the layers before which tokens are dropped: those asked for, or the ends of the quarters.

    Raises:
        InvalidInputError: fewer layers than quarters, or a layer the model does not have.

    >>> stage_layers(32), stage_layers(40), stage_layers(40, (9, 3))
    ((8, 16, 24), (10, 20, 30), (3, 9))
    """
    if asked is not None:
        return cut_layers("pyramiddrop", asked, layers)
    if layers < 4:
        raise InvalidInputError(
            f"pyramiddrop drops tokens after each quarter of the language model, and {layers} "
            "layers have no quarters; give layers=..."
        )
    return layers // 4, layers // 2, 3 * layers // 4


def last_row_stage(given: MethodInput, n: Num, kept: Num, runs: Num) -> list[OpCost]:
    """Return the work of a cut by the last token's attention, as the layer to come would compute it."""
    text, num = given.model.text, given.precision.text
    b, s = given.batch_size, given.text_tokens + n
    d, h, k, e = text.hidden_size, text.num_heads, text.num_kv_heads, text.head_dim
    rows = b * runs
    return [
        eager_norm("next_norm", given, b * s, runs),
        linear("next_k_proj", d, k * e, num, text.qkv_bias)(b * s, runs),
        rotated("next_rope", given, b * s, k, runs),
        passes("repeat_keys", b * s * h * e, num, flops=0, count=runs),
        linear("last_q_proj", d, h * e, num, text.qkv_bias)(b, runs),
        rotated("last_rope", given, b, h, runs),
        product("last_row_scores", h, s, 1, e, num, rows),
        passes("last_row_softmax", h * s, num, reads=4, writes=3, kernels=3, flops=7, count=rows),
        *picked(given, n, kept, rows),
        *narrowed(given, n, kept, runs),
    ]


def _plan(given: MethodInput) -> MethodPlan:
    keep = given.keep
    cuts = stage_layers(given.model.text.num_layers, LAYERS.of(given))
    left = [given.visual_tokens]
    runs = (left[0] > 0) * 1
    ops: list[OpCost] = []
    for stage, layer in enumerate(cuts):
        n = left[-1]
        # A count that an earlier stage reached keeps all of it.
        asked = keep if isinstance(keep, float) or not stage else least(keep, n)
        kept = kept_count("pyramiddrop", asked, n, "down")
        work = last_row_stage(given, n, kept, runs)
        ops += in_layer(work, layer)
        left.append(kept)
    note = {"pyramiddrop": "keep is the share that each stage leaves of what there is"}
    return between_layers(given, cuts, left, ops, note)


INFO = MethodInfo(
    name="pyramiddrop",
    schedule=_plan,
    place="llm-layer",
    summary="after each quarter of the LLM keep half of the image tokens that are left",
    formula="n, int(keep n), ... over four quarters of the layers; 2sdke + 2dhe + 2she FLOPs a stage",
    complexity="O(s d k e) at three layers",
    source="Xing et al. 2025, PyramidDrop, arXiv 2410.17247; Cooperx521/PyramidDrop",
    default_text="half of what is left, three times: 576, 288, 144, 72",
    needs_text="norm, keys and last query of the layer to come, computed once more",
    published=("keep 0.5 after layers 8, 16 and 24 of 32",),
    needs=frozenset({"llm_query", "llm_keys"}),
    keep_meaning="share of the image tokens left that each stage keeps, or a count",
    default_keep=RATIO,
    rounding="down",
    options=(LAYERS,),
    asks_question=True,
    together=True,
    recomputes="norm, keys and last query of the layer to come, at three layers",
)
