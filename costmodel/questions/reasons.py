"""Why fewer tokens do not make a request much faster: what holds the time that pruning does not touch.

"The tokens fell, the time did not" has five usual causes, each of which an estimate knows: the host
launches as many kernels as before, decoding reads the weights whatever was pruned, the vision tower ran
before, choosing the tokens costs what it saves, and a method that reads attention scores gives up the
fused kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmodel.result import Estimate

#: A method pays where it saves this share of the request's time.
PAYS = 0.10
#: A cause is named where it holds this share of the unreduced time, or of what the prefill saves.
HOLDS = 0.40
#: Ops of an attention that writes its scores out, by the beginning of their names.
_WRITTEN = ("attention_scores", "scale", "mask", "softmax", "attention_values", "attention_output")


def why_it_does_not_pay(cost: Estimate, unreduced: Estimate) -> str | None:
    """Return what keeps a reduced request from being faster, or None where it saves a tenth.

    Args:
        cost: the request with its method.
        unreduced: the same without.

    >>> from costmodel import estimate
    >>> given = {"model": "llava-1.5-7b", "hardware": "nvidia-a100-sxm4-80gb", "output_tokens": 128}
    >>> print(why_it_does_not_pay(estimate(**given, method="fastv"), estimate(**given)))
    decode-bound: 97 % of the unreduced time is decode, which reads the weights whatever is pruned
    """
    whole = float(unreduced.totals.time_s)
    if float(cost.totals.time_s) <= (1 - PAYS) * whole:
        return None
    if (
        not cost.stages["reduction"].kernels
        and cost.mean_visual_tokens == unreduced.mean_visual_tokens
    ):
        # The method itself says why: one for clips leaves images as they are.
        told = [text for text in cost.warnings if text not in unreduced.warnings]
        return "; ".join(
            [f"all {cost.mean_visual_tokens:.5g} visual tokens stay in every layer", *told]
        )
    causes: list[tuple[float, str]] = []
    decode = float(unreduced.stages["decode"].time_s)
    again = "reads the weights"
    if unreduced.stages["decode"].bound == "host":
        again = "launches the same kernels"
    causes.append((
        decode / whole,
        f"decode-bound: {decode / whole:.0%} of the unreduced time is decode, which {again} whatever is "
        "pruned",
    ))  # fmt: skip
    tower = float(unreduced.stages["vision"].time_s)
    causes.append((
        tower / whole,
        f"tower-bound: {tower / whole:.0%} of the unreduced time is the vision tower, which runs before",
    ))  # fmt: skip
    before, after = unreduced.stages["prefill"], cost.stages["prefill"]
    own = float(cost.stages["reduction"].time_s)
    scores = _written_scores_s(cost)
    saved = float(before.time_s) - float(after.time_s) + scores
    if after.bound == "host":
        causes.append((
            max(HOLDS, float(before.time_s) / whole),
            f"host-bound: launching the {after.kernels:,} kernels of the prefill takes longer than running "
            "them",
        ))  # fmt: skip
    if own > 0:
        causes.append((
            own / saved if saved > 0 else 1.0,
            f"its own cost: choosing takes {_ms(own)}, the shorter prefill saves {_ms(saved - scores)}",
        ))  # fmt: skip
    if scores > 0:
        causes.append((
            scores / saved if saved > 0 else 1.0,
            f"fused attention lost: layers that write their scores out take {_ms(scores)} for it",
        ))  # fmt: skip
    if after.bound == "memory":
        causes.append((
            float(before.time_s) / whole,
            "memory-bound: the prefill reads the same weights for fewer tokens",
        ))  # fmt: skip
    named = [
        text.replace("%", " %") for share, text in sorted(causes, reverse=True) if share >= HOLDS
    ]
    if named:
        return "; ".join(named[:2])
    share, largest = max(causes)
    kept = f"it keeps {cost.mean_visual_tokens:.5g} visual tokens per layer on average"
    return kept if share <= 0 else f"{kept}; {largest.replace('%', ' %')}"


def _written_scores_s(cost: Estimate) -> float:
    """Seconds of a prefill's attention whose scores are written out because the method reads them."""
    if cost.inputs["attention"] == "eager":
        return 0.0
    return sum(
        float(row.time_s)
        for row in cost.ops
        if row.stage == "prefill" and row.name.partition("[")[0] in _WRITTEN
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
