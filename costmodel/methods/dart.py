"""DART: at language-model layer K keep a few pivots, and the image tokens that resemble them least.

Source: Wen et al., EMNLP 2025 (arXiv 2502.11494) and ZichenWen1/DART. 4 image and 4 text tokens with
the largest L1 norm of their keys in layer K-1 are pivots. Each in turn takes the ceil(keep / 8) image
tokens least similar to it that are not taken yet. 8 ceil(keep / 8) tokens and the image pivots stay:
132 of 576 for the program's 128. Layers 0..K-1 see and cache every token.

variant="embedding" is the form that NVIDIA's TensorRT Edge-LLM ships, whose engine has no way in at a layer:
before layer 0, from the input embeddings. Every image keeps ceil(keep n), or its share of a count, its own
pivots among them; text pivots are shared.

Own FLOPs, n image tokens, d width: 2 x 8 n d for the similarities.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import first, greatest, kept_count, least, of_rows, some
from costmodel.methods.llm_ranking import eager_norm, narrowed, picked, rotated
from costmodel.methods.options import Option, choice, whole
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers
from costmodel.methods.token_lists import pieces_of
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.methods.token_lists import Items
    from costmodel.quantities import Num, OpCost

COUNT, LAYER = 128, 2
#: One minus the reduction ratio that TensorRT Edge-LLM has without an option.
RATIO = 0.75
IMAGE_PIVOTS = Option("image_pivots", 4, whole(0), "pivots among the image tokens")
TEXT_PIVOTS = Option("text_pivots", 4, whole(0), "pivots in the text behind them")
ORDER = Option(
    "order",
    "set",
    choice("set", "norm"),
    "whose turn is first: as the program's set of them has it, or by falling norm",
)


def kept_tokens(given: MethodInput) -> Num:
    """Return the image tokens that stay.

    Raises:
        InvalidInputError: more than there are, fewer text tokens than text pivots, or no pivot.
    """
    n, of_image, of_text = given.visual_tokens, IMAGE_PIVOTS.of(given), TEXT_PIVOTS.of(given)
    pivots = of_image + of_text
    if not pivots:
        raise InvalidInputError(
            "dart needs a pivot: give image_pivots or text_pivots of at least 1"
        )
    if given.variant == "embedding" and isinstance(given.keep, float):
        lengths, shares, _ = zip(*_shares(given), strict=True)
        kept = _total(lengths, shares)
    else:
        kept = kept_count("dart", given.keep, n)
    if given.variant == "program":
        kept = (-(-kept // pivots) * pivots + of_image) * (n > 0)
    beyond = kept > n
    if some(beyond):
        error = InvalidInputError(
            f"dart keeps {first(kept, beyond):g} tokens here, {of_image} pivots among them, more than the "
            f"{first(n, beyond):g} image tokens there are; give a smaller keep"
        )
        raise of_rows(error, beyond)
    if some((given.text_tokens < of_text) & (n > 0)):
        raise InvalidInputError(
            f"dart takes {of_text} pivots from the text after the image; give text_tokens of "
            f"at least {of_text}"
        )
    return kept


def _turns(given: MethodInput, n: Num, pivots: Num, count: Num) -> list[OpCost]:
    """What the pivots take of n image tokens, one after the other, in each of `count` lists."""
    d, num = given.model.text.hidden_size, given.precision.text
    return [
        gather("pivots", pivots, d, num, count, kernels=2),
        product("similarity", 1, pivots, n, d, num, count),
        # Each pivot waits for the one before: mask, sort, mark as taken.
        passes("turn", n, num, reads=3, writes=2, kernels=2, count=count * pivots),
        sort("least_similar", 1, n, num, count * pivots),
    ]


def _plan(given: MethodInput) -> MethodPlan:
    text, num = given.model.text, given.precision.text
    if not given.layer:
        raise InvalidInputError(
            "dart looks at the keys of the layer before; give a layer of at least 1"
        )
    kept = kept_tokens(given)
    b, n, t = given.batch_size, given.visual_tokens, given.text_tokens
    s, runs = t + n, (n > 0) * 1
    rows, d, k = b * runs, text.hidden_size, text.num_kv_heads
    of_image = IMAGE_PIVOTS.of(given)
    pivots = of_image + TEXT_PIVOTS.of(given)
    ops = [
        rotated("keys", given, b * s, k, runs),
        eager_norm("norm", given, b * s, runs),
        passes("key_norms", s * k * text.head_dim, num, reads=2, kernels=2, count=rows),
        passes("normalise", s * d, num, reads=2, kernels=3, flops=3, count=rows),
        sort("image_pivots", 1, n, num, rows),
        sort("text_pivots", 1, t, num, rows),
        *_turns(given, n, pivots, rows),
        *picked(given, n, kept, rows, rank=False),
        *narrowed(given, n, kept, runs),
    ]
    note = f"keep counts tokens taken by {pivots} pivots, rounded up to {pivots}; "
    note += f"{of_image} image pivots on top"
    return between_layers(given, (given.layer,), (n, kept), ops, {"dart": note})


def _shares(given: MethodInput) -> list[tuple[Items, Num, Num]]:
    """Return each length of images, the share of one, and how many of them keep one token more.

    A ratio is each image's own, rounded up. Of a count, shared in proportion, what is left goes to the
    largest remainders.
    """
    lengths, n = pieces_of(given), greatest(given.visual_tokens, 1)
    if isinstance(given.keep, float):
        return [(one, kept_count("dart", given.keep, one.tokens, "up"), 0) for one in lengths]
    kept = kept_count("dart", given.keep, given.visual_tokens)
    shares = [kept * one.tokens // n for one in lengths]
    left = [kept * one.tokens % n for one in lengths]
    rest = kept - _total(lengths, shares)
    found = []
    for number, one in enumerate(lengths):
        before: Num = 0
        for other, another in enumerate(lengths):
            equal = (left[other] == left[number]) & (other < number)
            before = before + another.per_sample * ((left[other] > left[number]) | equal)
        found.append((one, shares[number], least(greatest(rest - before, 0), one.per_sample)))
    return found


def _total(lengths: Iterable[Items], shares: Iterable[Num]) -> Num:
    total: Num = 0
    for images, share in zip(lengths, shares, strict=True):
        total = total + images.per_sample * share
    return total


def _plan_of_embeddings(given: MethodInput) -> MethodPlan:
    d, num = given.model.text.hidden_size, given.precision.text
    kept, n, t = kept_tokens(given), given.visual_tokens, given.text_tokens
    runs = (n > 0) * 1
    rows = given.batch_size * runs
    ops = [
        passes("norms", (t + n) * d, num, reads=2, writes=1, kernels=4, flops=2, count=rows),
        passes("normalise", (t + n) * d, num, reads=2, kernels=3, flops=3, count=rows),
        sort("text_pivots", 1, t, num, rows),
    ]
    for images, share, larger in _shares(given):
        each = images.tokens
        ops += [sort("image_pivots", 1, each, num, images.lists * images.runs)]
        # A share smaller than its pivots is all of them.
        for own, count in ((share, images.per_sample - larger), (share + 1, larger)):
            pivots = least(IMAGE_PIVOTS.of(given), own) + TEXT_PIVOTS.of(given)
            ops += _turns(given, each, pivots, rows * count * (pivots > 0))
    ops += [sort("order", 1, kept, num, rows), *narrowed(given, n, kept, runs)]
    note = "keep counts tokens that stay, pivots among them; every image keeps its share"
    return between_layers(given, (0,), (n, kept), ops, {"dart": note})


_PROGRAM = MethodInfo(
    name="dart",
    schedule=_plan,
    place="llm-layer",
    summary="at LLM layer K keep a few pivots and the image tokens least like them",
    formula="n tokens in layers 0..K-1, 8 ceil(keep / 8) + 4 from K on; 16 n d FLOPs",
    complexity="O(n d) once, 8 sequential picks",
    source="Wen et al. 2025, DART, arXiv 2502.11494; ZichenWen1/DART",
    default_text=f"{COUNT} tokens, and 4 image pivots on top",
    needs_text="keys of layer K-1; 4 text tokens after the image",
    published=(
        "reduction ratio 0.778, at most 128 tokens (keep 128), K=2",
        "variant=embedding: TensorRT Edge-LLM's, reduction ratios 0.25 and 0.5 (keep 0.75, 0.5)",
    ),
    variants=("program", "embedding"),
    takes_layer=True,
    default_layer=LAYER,
    needs=frozenset({"llm_keys", "llm_states"}),
    keep_meaning="tokens taken by the pivots, rounded up to their number; image pivots on top",
    default_keep=COUNT,
    options=(IMAGE_PIVOTS, TEXT_PIVOTS, ORDER),
    asks_question=True,
    together=True,
    recomputes="rotary positions of the keys of layer K-1, the model's last norm on what enters layer K",
)
INFO = replace(
    _PROGRAM,
    forms={
        "embedding": replace(
            _PROGRAM,
            schedule=_plan_of_embeddings,
            summary="before the LLM keep, of every image, a few pivots and the tokens least like them",
            formula="ceil(keep n) tokens of each image; 16 n d FLOPs",
            default_text=f"{RATIO} of the tokens of each image",
            keep_meaning="tokens that stay, pivots among them; a ratio is of each image, a count is shared",
            default_keep=RATIO,
            rounding="up",
            options=(IMAGE_PIVOTS, TEXT_PIVOTS),
            needs=frozenset({"llm_states"}),
            needs_text="the input embeddings; 4 text tokens",
            takes_layer=False,
            default_layer=None,
            recomputes="nothing",
            together=False,
        )
    },
)
