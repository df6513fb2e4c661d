"""V2Drop: at three layers of the language model keep the image tokens that the layer before changed most.

Source: Chen et al., CVPR 2026 (xuyang-liu16/V2Drop). At the entry of layers 3, 17 and 22 a token's score is
the length of the difference between what enters the layer and what entered the one before; max(1, int(n x
share)) of the n image tokens left stay, at shares 0.5, 0.5 and 0 as released, so that one token is left.
Nothing of the attention is read. Layers before a cut see and cache what there was.

Own FLOPs: none that a counter sees; 2 n d vector operations per cut, n tokens of width d.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count, least, share
from costmodel.methods.llm_ranking import cut_layers, narrowed
from costmodel.methods.options import LAYER_LIST, HasOptions, Option, Values, fraction
from costmodel.methods.pieces import FINITE_KERNELS, gather, in_layer, passes, sort
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num, OpCost

LAYERS = Option("layers", (3, 17, 22), LAYER_LIST, "layers at whose entry tokens are dropped")


def _shares(value: object) -> tuple[float, ...]:
    """Read a list of shares in [0, 1], or its text."""
    parts = value.strip("[]() ").split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise TypeError(value)
    found = tuple(fraction(0.0, 1.0).parse(part) for part in parts)
    if not found:
        raise ValueError(value)
    return found


SHARES = Option(
    "shares",
    (0.5, 0.5, 0.0),
    Values(_shares, "a list of shares in [0, 1]"),
    "of the image tokens left, what each cut leaves without keep; 0 leaves one",
)


def stages_of(method: HasOptions, layers: int, keep: object) -> tuple[tuple[int, object], ...]:
    """Return the layers that cut, each with the keep of that cut: one for all, or the shares for None.

    Raises:
        InvalidInputError: a layer the model does not have, or not a share for each.
    """
    cuts = cut_layers("v2drop", LAYERS.of(method), layers)
    if keep is not None:
        return tuple((cut, keep) for cut in cuts)
    shares = SHARES.of(method)
    if len(shares) != len(cuts):
        raise InvalidInputError(
            f"v2drop cuts at {len(cuts)} layers and has {len(shares)} shares; give shares= of as many, "
            "or one keep= for all"
        )
    return tuple(zip(cuts, shares, strict=True))


def left_of(keep: object, n: Num) -> Num:
    """Return how many of n image tokens a cut leaves, one at least.

    >>> left_of(0.5, 577), left_of(0.0, 144), left_of(64, 32)
    (288, 1, 32)
    """
    if isinstance(keep, float):
        return greatest(share(keep, n, "down"), (n > 0) * 1)
    return kept_count("v2drop", least(keep, n), n)  # type: ignore[arg-type]


def _cut(given: MethodInput, n: Num, kept: Num, runs: Num) -> list[OpCost]:
    d, num, b = given.model.text.hidden_size, given.precision.text, given.batch_size
    return [
        gather("visual_rows", 2 * b * n, d, num, runs, kernels=2),
        passes("change", b * n * d, num, reads=3, writes=1, kernels=2, flops=3, count=runs),
        passes("scores", b * n, num, kernels=FINITE_KERNELS, count=runs),
        sort("rank", b, n, num, runs),
        sort("order", b, kept, num, runs),
        *narrowed(given, n, kept, runs, moves=4, kernels=10),
    ]


def _plan(given: MethodInput) -> MethodPlan:
    left, ops = [given.visual_tokens], []
    stages = stages_of(given, given.model.text.num_layers, given.keep)
    for layer, keep in stages:
        if layer < 1:
            raise InvalidInputError(
                "v2drop compares with the layer before; give layers of at least 1"
            )
        n = left[-1]
        kept = left_of(keep, n)
        ops += in_layer(_cut(given, n, kept, (n > 0) * 1), layer)
        left.append(kept)
    note = {"v2drop": "keep is what each cut leaves of what there is"}
    return between_layers(given, [layer for layer, _ in stages], left, ops, note)


INFO = MethodInfo(
    name="v2drop",
    schedule=_plan,
    place="llm-layer",
    summary="at three LLM layers keep the image tokens that the layer before changed most",
    formula="n, int(n/2), int(n/4), 1 tokens from layers 0, 3, 17, 22 on; no FLOPs",
    complexity="O(n d) at three layers",
    source="Chen et al. 2026, V2Drop (CVPR 2026); xuyang-liu16/V2Drop",
    default_text="half of the tokens from layer 3 on, half of those from 17, one from 22",
    needs_text="the hidden states that enter two layers in a row",
    published=("layers 3, 17, 22: shares 0.5, 0.5, 0 as released, called 192",),
    needs=frozenset({"llm_states"}),
    keep_meaning="share of the image tokens left that each cut keeps, or a count",
    rounding=None,
    options=(LAYERS, SHARES),
)
