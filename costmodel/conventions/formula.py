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
from functools import partial
from typing import TYPE_CHECKING, Any

from costmodel.conventions.convention import Convention, counted
from costmodel.conventions.decoder import check_batch, check_tokens, layer_groups, text_shape
from costmodel.result import OpRow, defined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.conventions.decoder import DecoderInput
    from costmodel.quantities import Num
    from costmodel.result import Estimate


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
    rule: FormulaRule, assumptions: Mapping[str, str], given: DecoderInput
) -> Estimate:
    """Count a prefill by a closed form, layer by layer over the token schedule.

    A count of operations asks for no device, bit width or kernel, and these papers define no decode.

    Raises:
        InvalidInputError: a count out of range, or a schedule of the wrong length.
    """
    shape = text_shape(given.model)
    d, f = shape.hidden_size, shape.intermediate_size
    batch = check_batch(given.batch_size)
    groups = layer_groups(given.visual_tokens, given.llm_visual_tokens_per_layer, shape.num_layers)
    lengths: tuple[Num, ...] = (0,)
    if rule.text_lengths:
        lengths = rule.text_lengths
        if given.text_tokens is not None:
            lengths = (check_tokens("text_tokens", given.text_tokens),)
    terms: list[Num] = [0, 0, 0]
    for tokens, layers in groups:
        for length in lengths:
            for i, term in enumerate(layer_terms(rule, tokens + length, d, f)):
                terms[i] = terms[i] + layers * batch * term
    if len(lengths) > 1:
        terms = [term / len(lengths) for term in terms]
    names = ("attention projections", "attention scores and values", "ffn")
    ops = tuple(
        OpRow("prefill", name, count=shape.num_layers, flops=term)
        for name, term in zip(names, terms, strict=True)
    )
    stages = {"prefill": defined(flops=sum(terms))}
    encoder = rule.encoder(given.model, batch) if rule.encoder else None
    if encoder is not None:
        tower, projector = encoder
        stages |= {"vision": defined(flops=tower), "projector": defined(flops=projector)}
        ops = (
            OpRow("vision", "vision tower", count=1, flops=tower),
            OpRow("projector", "projector", count=1, flops=projector),
            *ops,
        )
    return counted(given, assumptions, ops, stages)


def formula_convention(
    name: str, title: str, source: str, rule: FormulaRule, **assumptions: str
) -> Convention:
    """Build a convention from a closed form; `assumptions` are further ones in words."""
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
        count=partial(evaluate_formula, rule, words),
    )
