"""What each method keeps at a layer of the language model, and what it looks at to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.item_methods import compute_dtype
from token_reduction.apply.llm_attention import AttentionProbe
from token_reduction.divprune import divprune
from token_reduction.fastv import fastv, fastv_random
from token_reduction.selection import take_tokens
from token_reduction.vtw import published_layer

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import LayerReduction, Prefill
    from token_reduction.apply.llm_tokens import Group, Tokens
    from token_reduction.apply.patching import Patches
    from token_reduction.registry import Method


class Policy(Protocol):
    """Decides which visual tokens stay at which layer."""

    #: Whether tokens that stay get new positions, without gaps.
    renumbers: bool

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Put hooks of its own on the model."""

    def begin(self, now: Prefill) -> None:
        """Prepare for a prefill."""

    def forget(self) -> None:
        """Drop what a forward left behind."""

    def cuts_at(self, layer: int) -> bool:
        """Whether tokens are dropped at the entry of a layer."""

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """From what would enter a layer to what enters it, by way of the cutter."""


class KeepEverything:
    """No cut at all: a prefill is only counted."""

    renumbers = False

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Do nothing."""

    def begin(self, now: Prefill) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""

    def cuts_at(self, layer: int) -> bool:  # noqa: ARG002
        """No layer cuts."""
        return False

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor] | None:  # noqa: ARG002
        """For each group of rows, which of its visual tokens stay; None for all."""
        return None

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """Drop what was not chosen."""
        chosen = self.choose(layer, now, hidden)
        if chosen is None:
            return hidden
        (kept,) = cutter.narrow(now, chosen, hidden)
        return kept


class OneCut(KeepEverything):
    """A method that cuts at one layer.

    Args:
        method: what is asked for.
        parts: the model.

    Raises:
        InvalidInputError: a layer the model does not have.
    """

    def __init__(self, method: Method, parts: Parts) -> None:
        layer = method.layer or 0
        if method.name == "vtw" and method.layer is None:
            layer = published_layer(len(parts.layers))
        if layer >= len(parts.layers):
            raise InvalidInputError(
                f"{method.name} at layer {layer}: this model's language model has layers 0 to "
                f"{len(parts.layers) - 1}"
            )
        self.method = method
        self.layer = layer

    def cuts_at(self, layer: int) -> bool:
        """At its one layer."""
        return layer == self.layer

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor] | None:
        """Ask for each group of rows at the layer of the cut."""
        if layer != self.layer:
            return None
        return [self.pick(group, now, hidden) for group in now.tokens.groups]

    def pick(self, group: Group, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Which visual tokens of a group stay, [r, m]: all, unless a method says otherwise."""
        count = group.places.shape[1]
        return torch.arange(count, device=group.places.device).expand(group.places.shape)


class Withdraw(OneCut):
    """VTW: no visual token stays."""

    def pick(self, group: Group, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """None of them."""
        return group.places[:, :0]


class Diverse(OneCut):
    """DivPrune on the hidden states that enter a layer."""

    def pick(self, group: Group, now: Prefill, hidden: Tensor) -> Tensor:
        """The tokens farthest from each other."""
        if not group.places.shape[1]:
            return group.places
        tokens = take_tokens(rows_of(hidden, group, now.tokens), now.tokens.local(group))
        keep: Any = self.method.keep
        found = divprune(tokens, keep, compute_dtype=compute_dtype(self.method)).kept_indices
        assert found is not None  # noqa: S101  (divprune selects)
        return found


class Attended(OneCut):
    """FastV: the tokens that the last token (or all of them) looks at one layer earlier."""

    def __init__(self, method: Method, parts: Parts) -> None:
        super().__init__(method, parts)
        self._probe: AttentionProbe | None = None
        if self.layer > 0:
            config: Any = parts.language.config
            self._probe = AttentionProbe(parts.layers[self.layer - 1], config)

    def attach(self, parts: Parts, patches: Patches) -> None:  # noqa: ARG002
        """Watch the layer before the cut."""
        if self._probe is not None:
            self._probe.attach(patches)

    def begin(self, now: Prefill) -> None:
        """Watch this forward."""
        if self._probe is not None:
            self._probe.active = True
            self._probe.wanted = now.last_places if self.method.variant == "program" else None

    def forget(self) -> None:
        """Let queries and keys go."""
        if self._probe is not None:
            self._probe.forget()

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor] | None:
        """Recompute the attention once for all groups."""
        if layer != self.layer:
            return None
        keep: Any = self.method.keep
        probe = self._probe
        if probe is None:
            return [self._random(group, keep, hidden.device) for group in now.tokens.groups]
        weights = probe.rows() if self.method.variant == "program" else probe.full()
        probe.forget()
        return [self._ranked(group, now, weights, keep) for group in now.tokens.groups]

    def _ranked(self, group: Group, now: Prefill, weights: Tensor, keep: float) -> Tensor:
        count = group.places.shape[1]
        if not count:
            return group.places
        local = now.tokens.local(group)
        weights = rows_of(weights, group, now.tokens)
        if self.method.variant == "program":
            # Only image columns count; taken out, they are a sequence of image tokens.
            row = weights.take_along_dim(local.unsqueeze(1), dim=-1)
            return fastv(row, keep, start=0, image_tokens=count).image_indices
        start = contiguous_start(group, now, self.method.name)
        if not now.whole.is_full:
            real = torch.from_numpy(now.prompt.real[list(group.rows)]).to(weights.device)
            weights = weights * real[:, None, :, None]
        return fastv(weights, keep, start=start, image_tokens=count, variant="paper").image_indices

    def _random(self, group: Group, keep: float, device: torch.device) -> Tensor:
        rows, count = group.places.shape
        if not count:
            return group.places
        seed: Any = self.method.options["seed"]
        generator = torch.Generator(device).manual_seed(seed)
        kept = fastv_random(
            keep, start=0, image_tokens=count, length=count, generator=generator, device=device
        )
        return kept.image_indices.expand(rows, -1)


def contiguous_start(group: Group, now: Prefill, name: str) -> Tensor:
    """Return where the visual tokens of each row of a group begin, [r].

    Args:
        group: rows with the same number of visual tokens.
        now: the prefill.
        name: the method's name, for the message.

    Raises:
        UnsupportedError: text stands between the visual tokens of a row.
    """
    for row in group.rows:
        marks = now.visual_places[row]
        if len(marks) and marks[-1] - marks[0] + 1 != len(marks):
            raise UnsupportedError(
                f"{name} takes the rows after the image, and sequence {row} has text between its "
                "visual tokens; give one image per sequence"
            )
    return now.tokens.local(group)[:, 0]


def rows_of(values: Tensor, group: Group, tokens: Tokens) -> Tensor:
    """Return the rows of a batch that belong to a group."""
    if len(group.rows) == len(tokens.counts):
        return values
    return values[list(group.rows)]
