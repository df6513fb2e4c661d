"""What a method is: every fact about it, written once in the method's own module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.methods.keep import Rounding
    from costmodel.methods.options import Option
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num, OpCost

Place = Literal[
    "before-vision", "vision-layers", "after-vision", "after-projector", "llm-layer", "decode"
]

#: What `keep` counts unless a method counts something else.
VISUAL = "visual tokens kept"


@dataclass(frozen=True, slots=True, eq=False)
class MethodInfo:
    """Everything that is known of a method before anything is asked of it.

    Attributes:
        name: the method's name.
        place: where it acts.
        second_place: where it acts once more, so that nothing stacks on it; None where it acts once.
        source: paper and program.
        summary: what it does, in one line.
        formula: tokens left and the method's own FLOPs, in plain text.
        complexity: the same as an order of growth.
        schedule: from a checked input to the token schedule and the method's own ops.
        needs: what its function takes beside the tokens, e.g. {"clip_qk"}.
        needs_text: the same in words.
        keep_meaning: what `keep` counts.
        default_keep: the keep used for keep=None; None where the data decide.
        expected_keep: the keep that keep=None is priced at, where it is not `default_keep`.
        default_text: what keep=None comes to, in words.
        rounding: how a ratio becomes a count; None where keep does not count tokens.
        keep_kind: "any", "ratio" (no count) or "none".
        keep_choices: the only values there are, when not empty.
        default_layer: the language-model layer that layer=None means, for methods that have one.
        takes_layer: whether `layer` may be given.
        variants: "program" first.
        forms: the facts of a variant, or of an option's value ("cut=0"), that acts elsewhere or needs other
            things, each by `replace`.
        options: the method's own options.
        trained: whether the published results need weights trained for it.
        published: settings that its papers report.
        by_crop: whether it takes crops one by one although it acts after the projector.
        needs_class_token: whether it looks at the vision tower's class token.
        samples: whether it draws samples, so that asking for all tokens still runs it.
        counts: mean token counts that a paper reports for an adaptive method, by data set.
        program_flops: counted FLOPs of the authors' program, where it computes more than needed.
        released: the own ops of the authors' program as released, counted from its steps; None where they
            were not counted. With it the method has the variant "released", which is priced and not run.
        asks_question: whether the selection depends on the question, so that the cached image of one
            question cannot serve the next.
        count_known: whether the number of tokens left is known before the vision tower runs, which serving
            engines need to lay out a prompt.
        fused_attention: whether every attention kernel stays fused; else some layers write their scores out.
        recomputes: what is computed a second time beside the model's own kernels, in words.
        together: whether it takes visual tokens that stand together alone, with no text between them.
        clips: whether it compares the frames of a clip, and leaves images as they are.
        stages: the requests (`Method`) that a stack is made of, first to last; empty for a method by itself.
    """

    name: str
    place: Place
    source: str
    summary: str
    formula: str
    complexity: str
    schedule: Callable[[MethodInput], MethodPlan]
    needs: frozenset[str] = frozenset()
    needs_text: str = "nothing beside the tokens"
    keep_meaning: str = VISUAL
    default_keep: int | float | None = None
    expected_keep: float | None = None
    default_text: str = "the data decide"
    rounding: Rounding | None = "nearest"
    keep_kind: Literal["any", "ratio", "none"] = "any"
    keep_choices: tuple[float, ...] = ()
    default_layer: int | None = None
    takes_layer: bool = False
    variants: tuple[str, ...] = ("program",)
    forms: Mapping[str, MethodInfo] = field(default_factory=dict)
    options: tuple[Option[Any], ...] = ()
    trained: bool = False
    published: tuple[str, ...] = ()
    by_crop: bool = False
    on_merged: bool = False
    needs_class_token: bool = False
    samples: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    program_flops: Callable[[MethodInput], Num] | None = None
    released: Callable[[MethodInput], list[OpCost]] | None = None
    asks_question: bool = False
    count_known: bool = True
    fused_attention: bool = True
    recomputes: str = "nothing"
    together: bool = False
    clips: bool = False
    stages: tuple[Any, ...] = ()
    second_place: Place | None = None

    __repr__ = brief

    @property
    def where(self) -> str:
        """Where it acts, in words."""
        return (
            self.place if self.second_place is None else f"{self.place}, then {self.second_place}"
        )

    @property
    def adaptive(self) -> bool:
        """Whether the data decide how many tokens are left, so that a cost is an expected one."""
        return bool(self.counts) or self.samples
