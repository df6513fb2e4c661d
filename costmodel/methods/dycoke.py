"""DyCoke: of every second frame of a clip keep the places least like the frame before; thrice of four.

Source: Tao et al., CVPR 2025 (arXiv 2411.15024) and KD-TAO/DyCoke. With the frames in fours,
frame 1 is compared with 0, frame 3 with 2, and frame 2 with 0, place by place; of a compared frame int(keep
p) of p tokens stay, the least similar. The third comparison ends four frames before the end of the clip.

Own FLOPs of this first stage: none that a counter sees; one pass over the n tokens of width d, a sort of p in
each compared frame.

variant="both" adds the second stage, at every decode step: from layer 3 on, int(n x (1 - 0.7)) of the n
visual entries of the KV cache are read, those that the step's token attends to most in layer 2; the rest
stays in the cache unread. Its own FLOPs are a row of scores a step, 2 h s e; and what is read is first copied
together, so a layer moves 3 (s - n + m) instead of s entries where m of n are read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from costmodel.methods.clips import clips_of, clips_plan
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count, share
from costmodel.methods.llm_ranking import cut_layers
from costmodel.methods.options import Option, fraction, whole
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.models import TextConfig
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost

#: One minus the program's merging ratio of 0.7.
RATIO = 0.3
PARK = Option("park", 0.7, fraction(0.0, 1.0, above=True), "share of visual entries left unread")
AT = Option("at", 3, whole(1), "language-model layer from which on")
ALIKE = Option(
    "alike",
    0.9,
    fraction(-1.0, 1.0),
    "cosine of a step's attention to the last one's from which on its choice stays",
)


def entries_read(n: Num, park: float) -> Num:
    """Return how many of n visual entries of the cache a decode step reads.

    >>> entries_read(3098, 0.7), entries_read(10, 1.0)  # 3098 x 0.30000000000000004 = 929.4
    (929, 0)
    """
    return share(1 - park, n, "down")


def compared_frames(frames: Num) -> Num:
    """Return how many frames of a clip are compared with another: every second, and one of four.

    >>> compared_frames(32), compared_frames(4), compared_frames(5)  # 16 + 7, 2 + 0, 2 + 1
    (23, 2, 3)
    """
    return frames // 2 + greatest(-(-(frames - 4) // 4), 0)


def _plan(given: MethodInput) -> MethodPlan:
    clips = clips_of(given)
    n, each, runs, d = clips.tokens, clips.each, clips.runs, given.model.text.hidden_size
    num, lists = given.precision.projector, clips.lists
    fewer = compared_frames(clips.frames)
    kept = n - fewer * (each - kept_count("dycoke", given.keep, each, "down"))
    ops = (
        passes("lengths", lists * n * d, num, reads=1, writes=0, kernels=2, flops=2, count=runs),
        passes("compared", lists * fewer * each * d, num, reads=4, writes=2, kernels=8, flops=3,
               count=runs),
        passes("marks", lists * n, num, reads=6, writes=6, kernels=20, count=runs),
        sort("rank", lists * fewer, each, num, runs),
        sort("order", lists, n, num, runs),
        gather("kept_tokens", lists * (kept + clips.tail), d, num, runs),
    )  # fmt: skip
    return clips_plan("dycoke", given, clips, kept, ops)


def _plan_of_both(given: MethodInput) -> MethodPlan:
    plan, runs = _plan(given), clips_of(given).runs
    text = given.model.text
    (at,) = cut_layers("dycoke", (AT.of(given),), text.num_layers, option="at")
    n = plan.llm_spans[0].tokens
    read = entries_read(n, PARK.of(given)) * runs + n * (1 - runs)
    said = f"decode steps read {1 - PARK.of(given):.3g} of the visual entries from layer {at} on; all stay"
    return plan._replace(
        decode_spans=(LayerSpan(at, n), LayerSpan(text.num_layers - at, read)),
        step_ops=partial(_step_ops, text, given.precision.text),
        notes={**plan.notes, "dycoke": said},
    )


def _step_ops(
    text: TextConfig, num: Numerics, b: Num, spans: tuple[LayerSpan, ...], others: Num, steps: Num
) -> list[OpCost]:
    """The choice of entries at all decode steps, and their copies in the layers that read a part."""
    n, read = (span.tokens for span in spans)
    h, e, times = text.num_heads, text.head_dim, steps * (read < n)
    copies = times * spans[1].layers * 2
    return [
        product("row_again", b * h, 1, others + n, e, num, times),
        passes("row_softmax", b * h * (others + n), num, reads=3, writes=2, kernels=4, flops=7,
               count=times),
        passes("alike", b * n, num, reads=8, writes=6, kernels=18, flops=6, count=times),
        sort("entries", b, n, num, times),
        gather("entries_read", b * (others + read), text.num_kv_heads * e, num, copies, kernels=2),
    ]  # fmt: skip


_PROGRAM = MethodInfo(
    name="dycoke",
    schedule=_plan,
    place="after-projector",
    summary="of a clip's frames but every fourth keep the places least like a frame before",
    formula="n - f (p - int(keep p)) of n = T p tokens, f = T//2 + ceil((T - 4)/4) frames; no FLOPs",
    complexity="O(n d) per clip",
    source="Tao et al. 2025, DyCoke, arXiv 2411.15024; KD-TAO/DyCoke",
    default_text="58 of 196 tokens in 23 of 32 frames: 3,098 of 6,272",
    published=(
        "merging ratio 0.7 (keep 0.3) on 32 frames of 196 tokens",
        "variant=both: 0.7 of the visual entries unread from layer 3 on",
    ),
    keep_meaning="share of a compared frame's tokens that stay",
    keep_kind="ratio",
    default_keep=RATIO,
    rounding=None,
    variants=("program", "both"),
    clips=True,
)
INFO = replace(
    _PROGRAM,
    forms={
        "both": replace(
            _PROGRAM,
            schedule=_plan_of_both,
            second_place="decode",
            summary="the same, and at every decode step leave most of the clip's cached entries unread",
            formula=f"{_PROGRAM.formula}; 2 h s e FLOPs a decode step",
            complexity="O(n d) per clip, O(h s e) per decode step",
            needs=frozenset({"llm_query", "kv_cache"}),
            needs_text="at every decode step the query of layer 2, and its cached keys",
            recomputes="at every decode step a row of scores in layer 2",
            asks_question=True,
            options=(PARK, AT, ALIKE),
        )
    },
)
