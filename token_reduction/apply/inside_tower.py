"""Reduction inside the vision tower: its layers get their forward replaced for the length of the block.

A vision layer is attention with a residual, then an MLP with a residual. The methods act between the
two (ToMe, EViT, CrossGET) or inside the attention (ATS), which no hook reaches, so the layer's forward
is written out here, on the layer's own modules. Where a method needs no scores, or one row of them, the
layer's attention runs as the model is set, SDPA by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from token_reduction.apply.anatomy import feature_depth
from token_reduction.tokens.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord


@dataclass(slots=True)
class Stream:
    """The tokens of all crops on their way through a tower.

    Attributes:
        size: [c, t, 1] patches each token stands for, or None for one each.
        counts: tokens of each crop without padding, or None when they are the same.
        origin: [c, t] which token of the first layer each one is; -1 for fused ones. Traced only.
        sources: [c, n+1] which token here each of the first layer went into, -1 for gone. Traced only.
        lengths: tokens entering each layer, and at the end those leaving the last.
    """

    size: Tensor | None = None
    counts: list[int] | None = None
    origin: Tensor | None = None
    sources: Tensor | None = None
    lengths: list[int] = field(default_factory=list)

    def follow(self, sources: Tensor | None) -> None:
        """Carry the trace through a merge, from each token to its place afterwards, [c, t], -1 for gone."""
        if sources is None:
            return
        if self.sources is None:
            self.sources = sources
            return
        moved = sources.gather(1, self.sources.clamp_min(0))
        self.sources = torch.where(self.sources >= 0, moved, -1)


class Step(Protocol):
    """What a method does in one vision layer."""

    #: Whether the method can start without a class token.
    needs_class_token: bool

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Put hooks of its own on the model, or refuse it."""

    def acts_in(self, number: int) -> bool:
        """Whether the layer of that number is not left alone."""

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Prepare the tokens that enter the first layer."""

    def run(
        self, layer: Any, number: int, hidden: Tensor, stream: Stream, call: dict[str, Any]
    ) -> Tensor:
        """From what enters a layer to what enters its MLP, residual included."""


@dataclass(slots=True)
class TowerReduction:
    """Shrinks the tokens layer by layer."""

    parts: Parts
    record: ReductionRecord
    step: Step
    trace: bool
    _stream: Stream | None = None
    #: The stream as it was when the features were read.
    _read: Stream | None = None

    def attach(self, patches: Patches) -> None:
        """Replace the layers' forwards.

        Raises:
            UnsupportedError: another kind of tower, none of the tokens the method needs, or a model
                that concatenates hidden states, whose lengths differ here.
        """
        name = self.record.method.name
        self.parts.require_vision_layers(name)
        if self.step.needs_class_token:
            self.parts.require_class_token(name)
        self.parts.require_one_layer(name)
        self.step.attach(self.parts, patches)
        for tower in self.parts.towers:
            last = len(tower.layers) - 1
            for number, layer in enumerate(tower.layers):
                patches.replace(layer, "forward", self._forward(tower, layer, number, last))

    def counts(self, has_class: bool) -> list[int] | None:
        """Tokens of each crop for the projector, the class token counted or not; None where all are equal."""
        read = self._read
        if read is None or read.counts is None:
            return None
        return [count - (not has_class) for count in read.counts]

    def _forward(
        self, tower: Tower, layer: nn.Module, number: int, last: int
    ) -> Callable[..., Tensor]:
        depth = feature_depth(self.parts, tower)
        original = layer.forward
        parts: Any = layer

        def forward(hidden_states: Tensor, *args: Any, **call: Any) -> Tensor:
            stream = self._stream
            if number == 0 or stream is None:
                stream = self._stream = Stream()
                with observed("reduction"):
                    hidden_states = self.step.begin(hidden_states, stream)
            stream.lengths.append(hidden_states.shape[1])
            if args:
                call["attention_mask"] = args[0]
            if self.step.acts_in(number):
                hidden = self.step.run(parts, number, hidden_states, stream, call)
                output: Tensor = hidden + parts.mlp(parts.layer_norm2(hidden))
            else:
                call.setdefault("attention_mask", None)
                output = original(hidden_states, **call)
            if number + 1 == depth:
                self._read = Stream(
                    counts=stream.counts, origin=stream.origin, sources=stream.sources
                )
            if number == last:
                stream.lengths.append(output.shape[1])
                self.record.vision_lengths = stream.lengths
                self._stream = None
                self._note()
            return output

        return forward

    def _note(self) -> None:
        """Write the trace down, in patches: the class token, first everywhere, is not counted."""
        read, record = self._read, self.record
        record.unit = "crop"
        if read is None or not self.trace:
            return
        patches = self.parts.towers[0].patches
        first = int(self.parts.towers[0].has_class)
        if read.sources is not None:
            sources = (read.sources[:, first : first + patches] - first).clamp_min(-1)
            record.sources = [*(record.sources or []), *sources.unbind(0)]
        if read.origin is not None:
            kept = [crop[crop >= first] - first for crop in read.origin]
            record.add_kept(kept)


def attend(layer: Any, hidden: Tensor, bias: Tensor | None, call: dict[str, Any]) -> Tensor:
    """Run a vision layer's own attention on what enters it, [c, t, d], with a bias [c, 1, 1, t] on logits.

    Returns the attention's output, [c, t, d], without residual.
    """
    arguments = {**call, "attention_mask": bias}
    output: Tensor = layer.self_attn(hidden_states=layer.layer_norm1(hidden), **arguments)[0]
    return output
