"""CDPruner: after the projector keep patches that fit the question and differ from each other, per crop.

Source: Zhang et al., NeurIPS 2025 (arXiv 2506.10967) and Theia-4869/CDPruner. Patches are projected into
CLIP's joint space and compared with the question there. The kernel of a determinantal point process is
relevance times cosine of the projected tokens; round(keep x n) of them are picked one after the other.
Everything is float32, as in the program. The question's embedding is given: CLIP's text tower, which the
program runs beside the vision tower on its own stream, is not charged.

Own FLOPs per crop, n patches of width c and tokens of width d, k kept, g width of the joint space: 2 n c g
for the projection, 2 n g for the relevance, 2 n^2 d for the cosines, n (k + 1) (k - 2) for the picks.

variant="split" is the form that OpenVINO GenAI ships: relevance is the mean cosine with the language
model's own embeddings of the text, no CLIP needed, and has half of the kernel's weight; the tokens of an
image are cut into two halves, of which each gives half of an even count, in lockstep. Before layer 0, on
any model. Own FLOPs per image of n = a + b tokens, t text tokens: 2 n t d, 2 (a^2 + b^2) d, and the picks
of each half.

variant="released" prices the program at ed9c12d: each pick takes its places from lists made on the host,
four of which are copied over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.methods.class_attention import Ranked, kept_patches, ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count, least
from costmodel.methods.llm_ranking import narrowed
from costmodel.methods.options import FILE, Option
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import pieces_of
from costmodel.methods.tower import check_one_layer
from costmodel.ops.linear import linear
from costmodel.precision import Numerics, parse_precision
from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from costmodel.methods.token_lists import Items
    from costmodel.quantities import Num, OpCost

COUNT = 64
EMBEDDINGS = Option(
    "embeddings",
    None,
    FILE,
    "CLIP's visual_projection.weight and the question's text_embeds; random without",
)
#: Width of CLIP ViT-L's joint space, and embeddings of a question of at most 77 tokens.
JOINT_WIDTH, QUESTIONS = 768, 1
#: Kernels of one pick beside the product with the rows picked before.
PICK_KERNELS = 14
#: In the authors' program: argmax, its store, four copies of places with their reads or writes (8), root,
#: quotient, store, square, two differences, and the value that is written.
RELEASED_PICK_KERNELS = 17


def _picks(lists: Num, n: Num, kept: Num, num: Numerics, count: Num, kernels: int) -> list[OpCost]:
    """The picks of `kept` of n tokens in each list: passes over what is left, and the rows picked before."""
    # The first pick subtracts nothing and the second one row; each later one a product with all before.
    update = product(
        "earlier_rows", lists, 1, n, (kept + 1) / 2, num, greatest(kept - 2, 0) * count
    )
    flops = lists * n * (kept + 1)
    return [
        passes(
            "pick", lists * n, num, reads=12, writes=9, kernels=kernels, flops=6, count=kept * count
        ),
        update._replace(flops=flops, matrix_flops=flops),
    ]


def _own(given: MethodInput, crops: Ranked, pick_kernels: int) -> list[OpCost]:
    images, n, runs, c = crops.images, crops.patches, crops.runs, given.tower.hidden_size
    width = given.model.text.hidden_size
    own, num = given.precision.vision, parse_precision("fp32").vision
    kept = kept_count("cdpruner", given.keep, n)
    return [
        passes("post_layernorm", images * n * c, own, reads=2, writes=2, kernels=2, flops=4,
               count=runs),
        linear("visual_projection", c, JOINT_WIDTH, num)(images * n, runs),
        passes("normalise_features", images * n * width, num, reads=3, writes=2, kernels=4, flops=3,
               count=runs),
        passes("normalise_embeddings", images * n * JOINT_WIDTH, num, reads=2, kernels=3, flops=3,
               count=runs),
        product("relevance", 1, images * n, QUESTIONS, JOINT_WIDTH, num, runs),
        passes("min_max", images * n, num, reads=6, writes=4, kernels=7, flops=4, count=runs),
        product("cosine", images, n, n, width, num, runs),
        passes("kernel", images * n * n, num, reads=2, writes=2, kernels=2, flops=2, count=runs),
        gather("variance", images * n, 1, num, runs),
        *_picks(images, n, kept, num, runs, pick_kernels),
        *kept_patches(given, crops, kept),
    ]  # fmt: skip


def _plan(given: MethodInput) -> MethodPlan:
    if not given.tower.has_cls:
        raise UnsupportedError(
            f"cdpruner compares patches and question in CLIP's joint space, and the {given.tower.family} "
            f"tower of {given.model.name} has no class token, so it is no CLIP; divprune needs none"
        )
    check_one_layer("cdpruner", given)
    crops = ranked_crops(given)
    kept = kept_count("cdpruner", given.keep, crops.patches)
    ops = _own(given, crops, PICK_KERNELS)
    note = {"cdpruner": "keep counts patches of each crop; CLIP's text tower is not charged"}
    return before_layers(given, crops.left(given, kept), ops, note)


def _released(given: MethodInput) -> list[OpCost]:
    """The program's ops: picks wait for places from the host."""
    return _own(given, ranked_crops(given), RELEASED_PICK_KERNELS)


def even_count(kept: Num, n: Num) -> Num:
    """Return a count made even upwards, so that both halves give as many; all where that is too many.

    >>> even_count(9, 36), even_count(36, 36), even_count(5, 5)
    (10, 36, 5)
    """
    return least(kept + kept % 2, n)


def _plan_of_halves(given: MethodInput) -> MethodPlan:
    ops: list[OpCost] = []
    left: Num = 0
    for items in pieces_of(given):
        kept = even_count(kept_count("cdpruner", given.keep, items.tokens), items.tokens)
        ops += _of_halves(given, items, kept)
        left = left + items.per_sample * kept * items.runs
    ops += narrowed(given, given.visual_tokens, left, (given.visual_tokens > 0) * 1)
    unit = "image, tile or frame that stands by itself"
    note = {"cdpruner": f"keep counts tokens of each {unit}, made even; half of them of each half"}
    return before_layers(given, left, ops, note)


def _of_halves(given: MethodInput, items: Items, kept: Num) -> list[OpCost]:
    d, num, text = given.model.text.hidden_size, parse_precision("fp32").text, given.text_tokens
    n, lists, runs = items.tokens, items.lists, items.runs
    ops = [
        passes("normalise", (n + text) * d, num, reads=3, writes=2, kernels=8, flops=3,
               count=lists * runs),
    ]  # fmt: skip
    # Halves of the same length go through every step together.
    first, odd = n // 2, n % 2
    for half, count, both, own in (
        (first, kept // 2, 2 - odd, lists * runs),
        (n - first, kept - kept // 2, 1, lists * runs * odd),
    ):
        ops += [
            product("relevance", both, half, text, d, num, own * (text > 0)),
            passes("min_max", both * half, num, reads=6, writes=4, kernels=12, flops=4, count=own),
            product("cosine", both, half, half, d, num, own),
            passes("kernel", both * half * half, num, reads=3, writes=3, kernels=4, flops=3, count=own),
            *_picks(both, half, count, num, own, PICK_KERNELS),
        ]  # fmt: skip
    return [*ops, sort("order", lists, kept, num, runs)]


_PROGRAM = MethodInfo(
    name="cdpruner",
    schedule=_plan,
    place="after-projector",
    summary="keep patches that fit the question and differ from each other (greedy DPP)",
    formula="round(keep n) tokens per crop; 2ncg + 2ng + 2n^2 d + n(k+1)(k-2) FLOPs, k dependent picks",
    complexity="O(n^2 d + n c g + n k^2) per crop, k sequential steps",
    source="Zhang et al. 2025, CDPruner, arXiv 2506.10967; Theia-4869/CDPruner",
    default_text=f"{COUNT} patches of each crop",
    needs_text="CLIP's visual projection and its embedding of the question, from a file",
    by_crop=True,
    needs=frozenset({"clip_features", "clip_joint_space"}),
    keep_meaning="patches of each crop kept",
    default_keep=COUNT,
    options=(EMBEDDINGS,),
    variants=("program", "split", "released"),
    released=_released,
    asks_question=True,
    recomputes="the tower's last norm on the patches",
)
INFO = replace(
    _PROGRAM,
    forms={
        "split": replace(
            _PROGRAM,
            schedule=_plan_of_halves,
            place="llm-layer",
            summary="before the LLM keep of each half of an image what fits the text and differs",
            formula="round(keep n) tokens per image, made even; 2ntd + n^2 d FLOPs and picks in two halves",
            needs=frozenset({"llm_states"}),
            needs_text="the language model's embeddings of the text",
            default_text=f"{COUNT} tokens of each image",
            by_crop=False,
            keep_meaning="tokens of each image kept, made even",
            recomputes="nothing",
        )
    },
)
