"""DivPrune: keep the tokens farthest from each other, after the projector or at a language-model layer.

Source: Alvar et al., CVPR 2025 (arXiv 2503.02175) and vbdi/divprune. K = round(ratio x n) tokens of n
stay. They are chosen one after the other, and each pick waits for the one before: K small kernels in a row.

Own FLOPs, n tokens of width d: 2 n^2 d for the distances. The authors' program computes that product
twice (2 x 2.718 GFLOP at 576 tokens of width 4096). With the 24.159 GFLOP of a projector that still
sees all tokens this is the 29.595 GFLOP that one paper's profiler reports for DivPrune.

variant="released" prices that program: both products, and a loop that copies the rows of all picks so far
and takes their minimum again for each pick, K^2 n / 2 values in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, share
from costmodel.methods.options import DTYPE, Option, optional
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers, between_layers
from costmodel.methods.token_lists import items_of
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost

#: SUBSET_RATIO of the authors' run script.
RATIO = 0.098
COMPUTE_DTYPE = Option(
    "compute_dtype", None, optional(DTYPE), "precision of the distances; None is the tokens' own"
)
#: torch's name -> the cost model's, and bytes of an element.
_DTYPES = {
    "float16": ("fp16", 2),
    "bfloat16": ("bf16", 2),
    "float32": ("fp32", 4),
    "float64": ("fp64", 8),
}
#: Kernels of one pick: argmax, gather of its row, running minimum.
PICK_KERNELS = 3
#: Those of the authors' program, which starts over from all picks: 6 calls a pick.
RELEASED_PICK_KERNELS = 6


def divprune_ops(given: MethodInput, lists: Num, n: Num, kept: Num, runs: Num) -> list[OpCost]:
    """Return DivPrune's own ops on `lists` token lists of n tokens, of each of which `kept` stay."""
    own, d = given.precision.projector, given.model.text.hidden_size
    num = _numerics(own, COMPUTE_DTYPE.of(given))
    pairs = lists * n * n
    ops = [] if num is own else [passes("convert", lists * n * d, num, flops=0, count=runs)]
    return [
        *ops,
        passes("normalise", lists * n * d, num, reads=2, writes=1, kernels=3, flops=3, count=runs),
        product("distance", lists, n, n, d, num, runs),
        passes("complement", pairs, num, kernels=1, count=runs),
        passes("first_pick", pairs, num, reads=1, writes=0, kernels=3, count=runs),
        # Argmax reads the closest distances, the gather one row, the minimum both.
        passes("pick", lists * n, num, reads=4, writes=2, kernels=PICK_KERNELS, flops=2,
               count=kept * runs),
        sort("order", lists, kept, num, runs),
        gather("kept_tokens", lists * kept, d, own, runs),
    ]  # fmt: skip


def _numerics(own: Numerics, dtype: str | None) -> Numerics:
    """The numerics of the distances."""
    if dtype is None:
        return own
    name, size = _DTYPES[dtype]
    return own._replace(activation_bytes=size, attention_dtype=name)


def _plan(given: MethodInput) -> MethodPlan:
    if given.layer:
        n = given.visual_tokens
        kept = kept_count("divprune", given.keep, n)
        ops = divprune_ops(given, given.batch_size, n, kept, (n > 0) * 1)
        return between_layers(given, (given.layer,), (n, kept), ops, {})
    # Layer 0 sees what the projector gives.
    per_sample, lists, n, runs = items_of(given)
    kept = kept_count("divprune", given.keep, n)
    ops = divprune_ops(given, lists, n, kept, runs)
    return before_layers(given, per_sample * kept * runs, ops, {})


def _program_flops(given: MethodInput) -> Num:
    """Two n x n x d products, where one is enough."""
    _, lists, n, runs = items_of(given)
    return 2 * (2 * lists * n * n * given.model.text.hidden_size) * runs


def _released(given: MethodInput) -> list[OpCost]:
    """The authors' loop: each pick gathers the rows of all before it and takes their minimum anew."""
    if given.layer:
        raise InvalidInputError(
            f"divprune's program acts before layer 0 alone, and layer={given.layer} was given; leave "
            "layer out, or variant for the paper's layers"
        )
    d, num = given.model.text.hidden_size, given.precision.projector
    _, lists, n, runs = items_of(given)
    kept, pairs = kept_count("divprune", given.keep, n), n * n
    once = lists * runs  # one image after the other
    return [
        passes("normalise", n * d, num, reads=2, kernels=2, flops=3, count=2 * once),
        product("distance", 1, n, n, d, num, 2 * once),
        passes("complement", pairs, num, count=2 * once),
        sort("first_pick", n, n, num, once),
        # arange, its picks, their rows copied, minimum, argmax, and the pick stored.
        passes("pick", n * kept / 2, num, reads=2, kernels=RELEASED_PICK_KERNELS, flops=1,
               count=kept * once),
        sort("order", 1, kept, num, once),
        gather("kept_tokens", kept, d, num, once, kernels=2),
    ]  # fmt: skip


INFO = MethodInfo(
    name="divprune",
    place="after-projector",
    source="Alvar et al. 2025, DivPrune, arXiv 2503.02175; vbdi/divprune",
    summary="keep the tokens farthest from each other (greedy max-min cosine distance)",
    formula="K = round(keep n) tokens; 2 n^2 d FLOPs, K dependent picks",
    complexity="O(n^2 d + K n), K sequential steps",
    schedule=_plan,
    default_keep=RATIO,
    default_text=f"{RATIO} of the tokens, {share(RATIO, 576)} of 576",
    takes_layer=True,
    options=(COMPUTE_DTYPE,),
    published=("keep 0.098 before layer 0", "paper: also at layers 1 to 3 (Table 3)"),
    program_flops=_program_flops,
    variants=("program", "released"),
    released=_released,
)
