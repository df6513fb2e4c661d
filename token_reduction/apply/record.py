"""What a reduction did in the last forward that saw an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.llm_tokens import Tokens
    from token_reduction.tokens.reduced import Reduced

Unit = Literal["crop", "item", "sequence"]


@dataclass(slots=True)
class ReductionRecord:
    """The last reduction, filled in by the running model; `reduce_tokens` hands it out.

    Every forward with an image or video starts it anew; decode steps leave it alone. Tensors stay on
    the model's device, so reading the record synchronises only when a value is looked at.

    Attributes:
        method: what was asked for.
        tokens_before: visual tokens that the language model would see of each image or video; of each
            sequence, for methods inside the language model.
        tokens_after: how many of them are left (after the last layer that drops any).
        unit: what the lists that follow have one entry per: "crop" (one run of the vision tower: an
            image of LLaVA-1.5, a tile of LLaVA-NeXT, a frame of a video), "item" (one image or
            video, tiles and newline tokens joined), or "sequence".
        sources: for each unit, [before] index of the output token that each token went into, -1 for a
            dropped one, or None.
        scores: for each unit, the importance each token was ranked by, or None.
        sequence_lengths: tokens (text and padding included) entering each layer of the language
            model in the prefill, and at the end those leaving the last.
        vision_lengths: tokens entering each layer of the vision tower, and those leaving the last;
            empty for methods that leave the tower alone.
        items: "image" or "video", in order.
        image_sizes: (height, width) of each image as given to a tiled model, or empty.
        notes: what a reader of the result should know, such as random cross tokens.
        in_place: whether what is kept stands where it stood, whatever the order in which it was chosen.
        stages: of two methods that are stacked, the record of each; what was kept stands there.
    """

    method: Method
    unit: Unit = "item"
    tokens_before: list[int] = field(default_factory=list)
    tokens_after: list[int] = field(default_factory=list)
    sources: list[Tensor] | None = None
    scores: list[Tensor] | None = None
    sequence_lengths: list[int] = field(default_factory=list)
    vision_lengths: list[int] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    in_place: bool = False
    stages: tuple[ReductionRecord, ...] = ()
    _kept: list[Tensor] | None = None
    _weights: list[Callable[[], list[Tensor]]] = field(default_factory=list)
    _cuts: dict[int, Tokens] = field(default_factory=dict)

    @property
    def visual_tokens(self) -> tuple[int, int]:
        """Visual tokens before and after, over the whole batch."""
        return sum(self.tokens_before), sum(self.tokens_after)

    @property
    def kept_indices(self) -> list[Tensor] | None:
        """For each unit, indices of the tokens kept, in the order they have afterwards.

        None for methods that only merge. A class token that goes along is not counted, nor padding.
        """
        if self._cuts:
            return self._kept_in(self._cuts[max(self._cuts)])
        return None if self._kept is None else [kept[kept >= 0] for kept in self._kept]

    @property
    def kept_order(self) -> np.ndarray:
        """The kept tokens of all units, numbered through, in the order the language model sees them.

        Units have as many tokens each; -1 is padding.
        """
        assert self._kept is not None  # noqa: S101  (the callers looked)
        each = self.tokens_before[0] // len(self._kept)
        rows = [kept.cpu().numpy() for kept in self._kept]
        rows = [np.where(row >= 0, row + number * each, -1) for number, row in enumerate(rows)]
        order = np.concatenate(rows)
        if not self.in_place:
            return order
        # Padding has the last place.
        return np.append(np.sort(order[order >= 0]), order[order < 0])

    @property
    def kept_by_layer(self) -> dict[int, list[Tensor]]:
        """For methods inside the language model: from each layer that cut, what is kept from there on.

        The key is the first layer that the shorter sequence enters; the lists have one entry per
        sequence.
        """
        return {layer: self._kept_in(tokens) for layer, tokens in self._cuts.items() if layer >= 0}

    @property
    def merge_weights(self) -> list[Tensor] | None:
        """For each unit, [after, before] with output = weights @ input; built when asked for.

        None for methods that merge by other means, or not at all.
        """
        if not self._weights:
            return None
        return [weights for build in self._weights for weights in build()]

    def add_kept(self, units: list[Tensor]) -> None:
        """Append kept indices of several units."""
        self._kept = [*(self._kept or []), *units]

    def note_cut(self, layer: int, tokens: Tokens) -> None:
        """Note what there is from a language-model layer on; -1 is the whole sequence."""
        self._cuts[layer] = tokens
        self.tokens_after = tokens.visual_counts()

    def _kept_in(self, tokens: Tokens) -> list[Tensor]:
        """Which of its visual tokens each sequence still has."""
        rows: list[Tensor] = [tokens.index[0, :0]] * len(tokens.counts)
        for group in tokens.groups:
            for place, row in enumerate(group.rows):
                origin = group.origin[place]
                rows[row] = origin[origin >= 0]
        return rows

    def add(self, result: Reduced, *, batched: bool) -> None:
        """Append what a function gave: of one unit, or of several along a leading axis of units."""

        def rows(values: Tensor) -> list[Tensor]:
            return list(values.unbind(0)) if batched else [values]

        scores = result.cls_attention if result.scores is None else result.scores
        if result.kept_indices is not None:
            self.add_kept(rows(result.kept_indices))
        if result.sources is not None:
            self.sources = [*(self.sources or []), *rows(result.sources)]
        if scores is not None:
            self.scores = [*(self.scores or []), *rows(scores)]
        build = result.build_merge_weights
        if build is not None:
            self._weights.append(lambda: rows(build()))

    def gather_stages(self) -> None:
        """Bring up to date what the records of two stacked methods say together."""
        first, last = self.stages
        self.unit = "sequence"
        self.items, self.image_sizes = first.items, first.image_sizes
        self.tokens_before, self.vision_lengths = first.tokens_before, first.vision_lengths
        self.tokens_after, self.sequence_lengths = last.tokens_after, last.sequence_lengths
        self.notes = [*first.notes, *last.notes]

    def begin(self) -> None:
        """Forget the previous forward; notes about the method itself stay."""
        blank = ReductionRecord(self.method)
        for name in self.__slots__:
            if name not in ("method", "notes", "stages"):
                setattr(self, name, getattr(blank, name))

    def to_dict(self) -> dict[str, Any]:
        """Counts and settings as plain values; indices as lists, tensors that are large left out."""
        method = self.method
        kept = self.kept_indices
        return {
            "method": method.name,
            "keep": method.keep,
            "layer": method.layer,
            "variant": method.variant,
            "place": method.place,
            "unit": self.unit,
            "tokens_before": list(self.tokens_before),
            "tokens_after": list(self.tokens_after),
            "kept_indices": None if kept is None else [indices.tolist() for indices in kept],
            "sequence_lengths": list(self.sequence_lengths),
            "vision_lengths": list(self.vision_lengths),
            "notes": list(self.notes),
        }
