"""What goes into the price of a method, and what comes out: a token schedule and the method's own ops."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from costmodel.schedule import LayerSpan
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from costmodel.models import ModelConfig, ProjectorConfig, VisionConfig
    from costmodel.models.geometry import Part, Seen
    from costmodel.precision import Precision
    from costmodel.quantities import Num, OpCost


class MethodInput(NamedTuple):
    """The request that a method's plan is made for; counts are per sample, numbers or arrays.

    Attributes:
        model: the model.
        precision: the numerics of every module.
        visual_tokens: visual tokens before the reduction.
        projected_tokens: tokens through the projector without a reduction.
        crops: crops or frames through the vision tower.
        text_tokens: text tokens.
        batch_size: samples.
        vision_layers: layers of the tower that run.
        keep: a count (int, or an array of counts over scenarios) or a ratio (float in (0, 1]); None where
            none is given and the method has no default.
        layer: the language-model layer of methods that have one; None likewise.
        variant: "program", "paper", or another that the method has.
        options: every option of the method by name; read one as `OPTION.of(given)`.
        unit_tokens: visual tokens of one whole image or clip; 0 where that is not known.
        images: images or clips of one sample.
        framed: whether the request says that its crops are frames.
        seen: what a tower sees that takes images at their own resolution; None for others.
        parts: the images size by size, where their sizes give different numbers of tokens.
    """

    model: ModelConfig
    precision: Precision
    visual_tokens: Num
    projected_tokens: Num
    crops: Num
    text_tokens: Num
    batch_size: Num
    vision_layers: int
    keep: Any
    layer: int | None
    variant: str
    options: Mapping[str, object]
    unit_tokens: Num = 0
    images: Num = 1
    framed: bool = False
    seen: Seen | None = None
    parts: tuple[Part, ...] = ()

    @property
    def tower(self) -> VisionConfig:
        """The vision tower; a model without one is refused before its plan is made."""
        return cast("VisionConfig", self.model.vision)

    @property
    def feature_width(self) -> int:
        """Width of the features that the projector reads."""
        return cast("ProjectorConfig", self.model.projector).in_features


class MethodPlan(NamedTuple):
    """What a method does to the lengths, and what it costs itself.

    Attributes:
        llm_spans: visual tokens per layer of the language model.
        projected_tokens: visual tokens through the projector.
        vision_spans: tokens per layer of the vision tower; None leaves the tower as it is.
        ops: the method's own ops, for the whole batch.
        notes: what was assumed, by name.
        warnings: what the caller should know, one sentence each.
        patches: patches of each crop that the tower embeds; None for all.
        seen: what a tower of native resolution sees under the method; None for what it sees without.
        decode_spans: visual tokens whose keys and values each layer reads at a decode step, where these are
            fewer than it has cached; None where it reads all.
        step_ops: the method's own ops in all decode steps, from the samples, `decode_spans`, the other tokens
            in the cache at the mean step, its own among them, and the number of steps; None for none. A sweep
            calls it with more rows than the plan was made for, so it holds no arrays.
        parts: what is left of the images size by size, where their sizes differ and the method acts before
            the language model.
    """

    llm_spans: tuple[LayerSpan, ...]
    projected_tokens: Num
    vision_spans: tuple[LayerSpan, ...] | None = None
    ops: tuple[OpCost, ...] = ()
    notes: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
    patches: Num | None = None
    seen: Seen | None = None
    decode_spans: tuple[LayerSpan, ...] | None = None
    step_ops: Callable[[Num, tuple[LayerSpan, ...], Num, Num], list[OpCost]] | None = None
    parts: tuple[Part, ...] = ()

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)

    def beside(self, other: MethodPlan) -> MethodPlan:
        """Return the plan of a prompt that has this plan's images and another's, of one method."""
        (span,), (more,) = self.llm_spans, other.llm_spans
        seen = None
        if self.seen is not None and other.seen is not None:
            seen = self.seen.beside(other.seen)
        return self._replace(
            llm_spans=(span._replace(tokens=span.tokens + more.tokens),),
            projected_tokens=self.projected_tokens + other.projected_tokens,
            ops=self.ops + other.ops,
            warnings=tuple(dict.fromkeys(self.warnings + other.warnings)),
            seen=seen,
        )


def before_layers(
    given: MethodInput,
    tokens: Num,
    ops: Iterable[OpCost],
    notes: Mapping[str, str],
    *,
    projected: Num | None = None,
) -> MethodPlan:
    """Return the plan of a method before the language model, all of whose layers see `tokens`.

    `projected` tokens go through the projector, by default as many as without a reduction.
    """
    span = LayerSpan(given.model.text.num_layers, tokens)
    if projected is None:
        projected = given.projected_tokens
    return MethodPlan((span,), projected, None, tuple(ops), notes)


def between_layers(
    given: MethodInput,
    cuts: Iterable[int],
    left: Iterable[Num],
    ops: Iterable[OpCost],
    notes: Mapping[str, str],
) -> MethodPlan:
    """Return the plan of a method that cuts at the entry of some layers of the language model.

    `left` are the visual tokens before the first cut and after each.
    """
    bounds = (0, *cuts, given.model.text.num_layers)
    depths = (after - before for before, after in pairwise(bounds))
    spans = tuple(LayerSpan(*pair) for pair in zip(depths, left, strict=True))
    return MethodPlan(spans, given.projected_tokens, None, tuple(ops), notes)
