"""The closed-form counts of the token-pruning papers, and a convention built from one of them.

Per layer, with n tokens, width d and FFN width f, in multiply-accumulates (MAC):

    MAC2(n) = 4 n d^2 + 2 n^2 d + 2 n d f     an FFN of two matrices
    MAC3(n) = 4 n d^2 + 2 n^2 d + 3 n d f     the three matrices a SwiGLU FFN has

A paper prints one of them, or twice MAC3, under the name FLOPs; n holds the visual tokens alone or
the text as well. None counts the output head, norms or softmax, and all charge the K and V
projections d x d, grouped-query attention or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.conventions.convention import Convention
from costmodel.conventions.decoder import check_batch, check_tokens, layer_groups, text_shape
from costmodel.conventions.result import (
    TOTAL_KEYS,
    ConventionOp,
    ConventionResult,
    add_defined,
    empty_stages,
)
from costmodel.quantities import MEMORY_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from costmodel.conventions.result import Num


def mac2(n: Num, d: int, f: int) -> Num:
    """Return the MACs of one layer with a two-matrix FFN: 4 n d^2 + 2 n^2 d + 2 n d f.

    Source: FastV (arXiv 2403.06764), section on the computing budget.

    >>> mac2(3, 4, 8)  # 4*3*16 + 2*9*4 + 2*3*4*8 = 192 + 72 + 192
    456
    """
    return 4 * n * d * d + 2 * n * n * d + 2 * n * d * f


def mac3(n: Num, d: int, f: int) -> Num:
    """Return the MACs of one layer with a three-matrix FFN: 4 n d^2 + 2 n^2 d + 3 n d f.

    Source: PyramidDrop (arXiv 2410.17247), efficiency analysis.

    >>> mac3(3, 4, 8)  # 192 + 72 + 288
    552
    """
    return 4 * n * d * d + 2 * n * n * d + 3 * n * d * f


@dataclass(frozen=True, slots=True)
class FormulaRule:
    """Which closed form a paper uses, on which tokens.

    Attributes:
        ffn_matrices: 2 or 3, the FFN matrices counted.
        operations_per_mac: 1 prints MACs as FLOPs, 2 counts multiply and add.
        text_lengths: the authors' text lengths; the count is the mean over them; () counts visual
            tokens only, whatever the text.
        encoder: counts vision tower and projector of a model config as (vision, projector), or
            None where the paper leaves them out.
    """

    ffn_matrices: int
    operations_per_mac: int
    text_lengths: tuple[int, ...]
    encoder: Callable[[Any, Num], tuple[Num, Num] | None] | None = None

    @property
    def formula(self) -> str:
        """The formula in plain text."""
        factor = "2 x " if self.operations_per_mac == 2 else ""
        return f"{factor}(4 n d^2 + 2 n^2 d + {self.ffn_matrices} n d f) per layer"


def layer_terms(rule: FormulaRule, n: Num, d: int, f: int) -> tuple[Num, Num, Num]:
    """Return one layer's counts as (projections, scores and values, FFN), in the rule's operations.

    >>> layer_terms(FormulaRule(3, 2, ()), 3, 4, 8)
    (384, 144, 576)
    """
    per = rule.operations_per_mac
    return per * 4 * n * d * d, per * 2 * n * n * d, per * rule.ffn_matrices * n * d * f


def evaluate_formula(
    name: str,
    rule: FormulaRule,
    assumptions: Mapping[str, str],
    model: Any,
    *,
    visual_tokens: Num,
    text_tokens: Num | None,
    batch_size: Num,
    llm_visual_tokens_per_layer: Sequence[Num] | None,
) -> ConventionResult:
    """Count a prefill by a closed form, layer by layer over the token schedule.

    Raises:
        InvalidInputError: a count out of range, or a schedule of the wrong length.
    """
    shape = text_shape(model)
    d, f = shape.hidden_size, shape.intermediate_size
    batch = check_batch(batch_size)
    groups = layer_groups(visual_tokens, llm_visual_tokens_per_layer, shape.num_layers)
    lengths: tuple[Num, ...] = (0,)
    if rule.text_lengths:
        lengths = rule.text_lengths
        if text_tokens is not None:
            lengths = (check_tokens("text_tokens", text_tokens),)
    terms: list[Num] = [0, 0, 0]
    for tokens, layers in groups:
        for length in lengths:
            for i, term in enumerate(layer_terms(rule, tokens + length, d, f)):
                terms[i] = terms[i] + layers * batch * term
    if len(lengths) > 1:
        terms = [term / len(lengths) for term in terms]
    stages = empty_stages()
    ops = tuple(
        ConventionOp("prefill", op, shape.num_layers, term)
        for op, term in zip(
            ("attention projections", "attention scores and values", "ffn"), terms, strict=True
        )
    )
    stages["prefill"]["flops"] = terms[0] + terms[1] + terms[2]
    encoder = rule.encoder(model, batch) if rule.encoder else None
    if encoder is not None:
        stages["vision"]["flops"], stages["projector"]["flops"] = encoder
        ops = (
            ConventionOp("vision", "vision tower", 1, encoder[0]),
            ConventionOp("projector", "projector", 1, encoder[1]),
            *ops,
        )
    totals: dict[str, Any] = dict.fromkeys(TOTAL_KEYS)
    totals["flops"] = add_defined(*(stage["flops"] for stage in stages.values()))
    return ConventionResult(name, stages, totals, dict.fromkeys(MEMORY_KEYS), ops, assumptions)


def formula_convention(
    name: str, title: str, source: str, rule: FormulaRule, **assumptions: str
) -> Convention:
    """Build a convention from a closed form.

    Args:
        name: its registered name.
        title: what it is.
        source: where the formula was read.
        rule: the closed form.
        **assumptions: further assumptions in words.
    """
    words = {
        "formula": rule.formula,
        "counted_as_flop": (
            "multiply-accumulates printed as FLOPs"
            if rule.operations_per_mac == 1
            else "a multiply-accumulate is 2 FLOPs"
        ),
        "ffn_matrices": str(rule.ffn_matrices),
        "attention": "full n x n, no softmax",
        "grouped_query_attention": "not modelled: K and V projections are charged d x d",
        "lm_head": "not counted",
        "vision": "not counted" if rule.encoder is None else "counted",
        "decode": "not defined",
        "bytes_and_time": "not defined",
        "source": source,
    } | assumptions

    def evaluator(
        model: Any,
        *,
        hardware: Any,  # noqa: ARG001  a count of operations asks for no device
        visual_tokens: Num,
        text_tokens: Num | None,
        batch_size: Num,
        precision: Any,  # noqa: ARG001  nor for a bit width
        attention: str | None,  # noqa: ARG001  nor for a kernel
        output_tokens: int,  # noqa: ARG001  and these papers define no decode
        llm_visual_tokens_per_layer: Sequence[Num] | None,
    ) -> ConventionResult:
        return evaluate_formula(
            name,
            rule,
            words,
            model,
            visual_tokens=visual_tokens,
            text_tokens=text_tokens,
            batch_size=batch_size,
            llm_visual_tokens_per_layer=llm_visual_tokens_per_layer,
        )

    default = rule.text_lengths[0] if len(rule.text_lengths) == 1 else None
    return Convention(
        name,
        title,
        source,
        default_text_tokens=default,
        operations_per_mac=rule.operations_per_mac,
        ffn_matrices=rule.ffn_matrices,
        counts_text=bool(rule.text_lengths),
        counts_head=False,
        assumptions=words,
        evaluator=evaluator,
    )
