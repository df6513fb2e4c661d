"""A counting convention: a name, a source, its assumptions in words, and a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costmodel.conventions.result import ConventionResult, Num


class Evaluator(Protocol):
    """The pure function behind a convention; see `Convention.evaluate` for its arguments."""

    def __call__(
        self,
        model: Any,
        *,
        hardware: Any,
        visual_tokens: Num,
        text_tokens: Num | None,
        batch_size: Num,
        precision: Any,
        attention: str | None,
        output_tokens: int,
        llm_visual_tokens_per_layer: Sequence[Num] | None,
    ) -> ConventionResult:
        """Count."""


@dataclass(frozen=True, slots=True)
class Convention:
    """One published way of counting, kept apart from the project's own formulas.

    Attributes:
        name: the name it is registered under.
        title: what it is, in a few words.
        source: the paper or program it was read from.
        default_text_tokens: the text length its authors used; None where they fix none.
        operations_per_mac: 1 where multiply-accumulates are printed as FLOPs, else 2.
        ffn_matrices: FFN matrices counted.
        counts_text: whether text tokens count at all.
        counts_head: whether the output head counts.
        assumptions: what it counts and how, in words.
        evaluator: the counting function.
    """

    name: str
    title: str
    source: str
    default_text_tokens: int | None
    operations_per_mac: int
    ffn_matrices: int
    counts_text: bool
    counts_head: bool
    assumptions: Mapping[str, str]
    evaluator: Evaluator

    def evaluate(
        self,
        model: Any,
        *,
        visual_tokens: Num,
        hardware: Any = None,
        text_tokens: Num | None = None,
        batch_size: Num = 1,
        precision: Any = "fp16",
        attention: str | None = None,
        output_tokens: int = 0,
        llm_visual_tokens_per_layer: Sequence[Num] | None = None,
    ) -> ConventionResult:
        """Count a model's work the way this convention does.

        Every count may be a number or a numpy array over scenarios; arrays broadcast.

        Args:
            model: a `ModelConfig`, a `TextConfig`, or anything with a text config's numbers.
            visual_tokens: visual tokens entering the language model.
            hardware: the device; ignored where no time is defined, LLM-Viewer takes its own names.
            text_tokens: text tokens; None takes the length the authors used.
            batch_size: sequences.
            precision: a precision's name; conventions that count operations alone ignore it.
            attention: `eager`, `flash` or None for the convention's own.
            output_tokens: decode steps after the prefill.
            llm_visual_tokens_per_layer: visual tokens seen by each layer of the language model,
                which is how a method that prunes inside the model is counted; None is
                `visual_tokens` in every layer.

        Raises:
            InvalidInputError: a count out of range, or a schedule of the wrong length.
            UnknownHardwareError: the convention has its own device table, without this name.
            UnsupportedError: the convention does not define what was asked for.
        """
        return self.evaluator(
            model,
            hardware=hardware,
            visual_tokens=visual_tokens,
            text_tokens=text_tokens,
            batch_size=batch_size,
            precision=precision,
            attention=attention,
            output_tokens=output_tokens,
            llm_visual_tokens_per_layer=llm_visual_tokens_per_layer,
        )
