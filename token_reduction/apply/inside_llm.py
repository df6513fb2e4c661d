"""Reduction between the layers of the language model.

The prompt enters the language model whole. At a cut, the hidden states lose the visual tokens that a
method does not keep; from there on every layer gets the narrower mask and the rotary embeddings of the
tokens that are left (their old ones, or renumbered, as the method has it). The cache is ragged: layers
before the cut hold all tokens, those behind it fewer. The first layer's length is what the model counts
new positions by, so those come out right by themselves, but where the cut is before it; masks of later
calls are narrowed to what each layer's cache holds.

Works with the attention implementations sdpa and eager, with dynamic caches, and for decode steps of
one token or several.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.calls import (
    LAYERS_NOTE,
    bind_call,
    brings_visuals,
    cached_tokens,
    image_sizes_of,
    plain_mask,
    require_plain_cache,
)
from token_reduction.apply.grouping import EncodedPieces, Grouping
from token_reduction.apply.llm_tokens import Columns, Tokens, cut, narrow_mask, whole_sequence
from token_reduction.apply.splice import Prompt, read_prompt
from token_reduction.caches import cache_in
from token_reduction.tokens.observation import observed
from token_reduction.tokens.selection import take_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.before_llm import PromptReduction
    from token_reduction.apply.llm_attention import AttentionProbe
    from token_reduction.apply.llm_tokens import Group
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord


@dataclass(slots=True)
class Prefill:
    """The prefill that is running.

    Attributes:
        prompt: ids and padding on the host.
        visual_places: for each row, places of its visual tokens in the whole sequence.
        tokens: what the current layer sees.
        whole: the first layer's tokens.
        columns: what each layer's cache will hold; layers before the first cut are absent.
        lengths: tokens entering each layer so far.
        full_mask: the current layer's mask over the whole sequence.
        full_rope: its rotary embeddings.
        mask: its mask over the tokens that it sees; None before the first cut.
        rope: its rotary embeddings of them, likewise.
        places: where in the whole sequence the rotary embeddings of each token come from.
        narrowed: by kind of layer, mask and rotary embeddings of the tokens since the last cut.
        current: what the current layer's cache will hold; None before the first cut.
        pieces: for each row, which image, clip or lone tile each visual token is of, numbered through the
            batch; only for a policy that takes them apart.
    """

    prompt: Prompt
    visual_places: list[np.ndarray]
    tokens: Tokens
    whole: Tokens
    columns: dict[int, Columns] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    full_mask: Tensor | None = None
    full_rope: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None
    rope: tuple[Tensor, Tensor] | None = None
    places: Tensor | None = None
    narrowed: dict[str, tuple[Tensor | None, tuple[Tensor, Tensor]]] = field(default_factory=dict)
    current: Columns | None = None
    pieces: list[np.ndarray] = field(default_factory=list)

    @property
    def last_places(self) -> list[int]:
        """Where the last token of each row is, in the whole sequence."""
        return [int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in self.prompt.real]


class Policy:
    """Decides which visual tokens stay at which layer; by itself it keeps them all."""

    #: Whether tokens that stay get new positions, without gaps.
    renumbers = False
    #: Whether it takes images apart that stand next to each other.
    by_piece = False
    #: What keeps queries and keys of some layers during a prefill.
    probes: tuple[AttentionProbe, ...] = ()

    def attach(self, parts: Parts, patches: Patches) -> None:  # noqa: ARG002
        """Put hooks of its own on the model."""
        for probe in self.probes:
            probe.attach(patches)

    def begin(self, now: Prefill) -> None:  # noqa: ARG002
        """Prepare for a prefill."""
        for probe in self.probes:
            probe.active = True

    def forget(self) -> None:
        """Drop what a forward left behind."""
        for probe in self.probes:
            probe.forget()

    def cuts_at(self, layer: int) -> bool:  # noqa: ARG002
        """Whether tokens are dropped at the entry of a layer."""
        return False

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """From what would enter a layer to what enters it, by way of the cutter."""
        if not self.cuts_at(layer):
            return hidden
        (kept,) = cutter.narrow(now, self.choose(layer, now, hidden), hidden)
        return kept

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor]:
        """For each group of rows, which of its visual tokens stay, [r, m] ascending."""
        return [
            self.pick(group, layer, now, hidden) if group.places.shape[1] else group.places
            for group in now.tokens.groups
        ]

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:
        """Which visual tokens of a group that has any stay at a layer that cuts, [r, m] ascending."""
        raise NotImplementedError


@dataclass(slots=True)
class LayerReduction:
    """Cuts the sequence inside the language model.

    Args:
        parts: the model.
        record: what the reduction did.
        policy: which layers cut, and what they keep.
        before: what shortens the prompt before it gets here, of two methods that are stacked.
        grouping: which crops make one image or clip.
    """

    parts: Parts
    record: ReductionRecord
    policy: Policy
    before: PromptReduction | None = None
    grouping: InitVar[Grouping | None] = None
    _encoded: EncodedPieces = field(init=False)
    _now: Prefill | None = None

    def __post_init__(self, grouping: Grouping | None) -> None:
        """Make what watches the encoders."""
        self._encoded = EncodedPieces(self.parts, grouping or Grouping())

    def attach(self, patches: Patches) -> None:
        """Put the hooks on the model."""
        patches.before(self.parts.base, self._before_model)
        patches.always_after(self.parts.base, self._after_model)
        self.policy.attach(self.parts, patches)
        if self.policy.by_piece and self.before is None:
            self._encoded.attach(patches)
        language: Any = self.parts.language
        if hasattr(language, "_deepstack_process"):
            patches.replace(
                language, "_deepstack_process", self._inject(language._deepstack_process)
            )
        for number, layer in enumerate(self.parts.layers):
            patches.before(layer, self._before_layer(number))
        patches.after(self.parts.layers[-1], self._after_last)

    def _before_model(self, module: Any, args: Any, kwargs: Any) -> Any:
        call = bind_call(module, args, kwargs)
        self._now = None
        cache = cache_in(call)
        if not cached_tokens(cache) and getattr(cache, LAYERS_NOTE, None):
            setattr(cache, LAYERS_NOTE, {})
        name = self.record.method.name
        found = self._visual_tokens(call, name)
        if found is None:
            return self._counted_on(call, cache)
        if cached_tokens(cache):
            raise UnsupportedError(
                f"{name} looks at one prompt in one forward, and this cache holds "
                f"{cached_tokens(cache)} tokens already; start with a new cache"
            )
        require_plain_cache(cache, name)
        prompt, marks, device = found
        places = [np.flatnonzero(row) for row in marks]
        tokens = whole_sequence(places, prompt.real, device)
        self.record.begin()
        self.record.unit = "sequence"
        self.record.image_sizes = image_sizes_of(call)
        self.record.tokens_before = [len(row) for row in places]
        self.record.note_cut(-1, tokens)
        self._now = Prefill(prompt, places, tokens, tokens)
        self._encoded.prompt = prompt
        self.policy.begin(self._now)
        return None

    def _counted_on(self, call: dict[str, Any], cache: Any) -> Any:
        """Give new tokens their positions where the first layer's cache, which the model counts, was cut."""
        columns: dict[int, Columns] = getattr(cache, LAYERS_NOTE, {})
        base: Any = self.parts.base
        by_mask = self.parts.three_axes and plain_mask(call) is not None
        if 0 not in columns or call.get("position_ids") is not None or by_mask:
            return None
        ids = call.get("input_ids")
        given = call["inputs_embeds"] if ids is None else ids
        start = cached_tokens(cache)
        places = torch.arange(start, start + given.shape[1], device=given.device).unsqueeze(0)
        if self.parts.three_axes:
            places = (places + base.rope_deltas.to(places)).expand(3, given.shape[0], -1)
        return (), {**call, "position_ids": places}

    def _visual_tokens(
        self, call: dict[str, Any], name: str
    ) -> tuple[Prompt, np.ndarray, torch.device] | None:
        """Return a prompt, where its visual tokens are, [b, s], and where it lives; None without any."""
        if self.before is not None:
            plan = self.before.plan
            if plan is None:
                return None
            return Prompt(plan.source, plan.real), plan.visual >= 0, call["inputs_embeds"].device
        if not brings_visuals(call):
            return None
        ids = call.get("input_ids")
        if ids is None:
            raise InvalidInputError(
                f"{name} finds the visual tokens by their ids; give input_ids with the pixels, "
                "not inputs_embeds"
            )
        prompt = read_prompt(ids, plain_mask(call))
        marks = np.isin(prompt.ids, list(self.parts.placeholders.values())) & prompt.real
        return prompt, marks, ids.device

    def _pieces(self, now: Prefill) -> list[np.ndarray]:
        """For each row, which piece each of its visual tokens is of.

        What a first method left of an image or clip is one; else text ends a piece as well.
        """
        before = self.before
        if before is None or before.plan is None:
            which = self._encoded.numbered(now.prompt)
        else:
            ends = np.cumsum(before.record.tokens_after)
            which = np.searchsorted(ends, before.plan.visual, side="right")
        pieces = []
        for row, places in zip(which, now.visual_places, strict=True):
            ends_here = np.diff(row[places], prepend=row[places][:1]) != 0
            if before is None:
                ends_here |= np.diff(places, prepend=places[:1] - 1) != 1
            pieces.append(np.cumsum(ends_here))
        return pieces

    def _after_model(self) -> None:
        self._encoded.forget()
        self.policy.forget()
        self._now = None

    def _inject(self, add: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Add features of the tower to the visual rows that are left."""

        def narrowed(hidden: Tensor, marks: Tensor, features: Tensor) -> Tensor:
            now = self._now
            if now is None or now.current is None:
                return add(hidden, marks, features)
            index = now.tokens.index
            order = marks.flatten().cumsum(0).view_as(marks) - 1
            left = marks.gather(1, index)
            valid = now.tokens.valid()
            if valid is not None:
                left &= valid
            return add(hidden, left, features[order.gather(1, index)[left]])

        return narrowed

    def _before_layer(self, number: int) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> Any:
            if self._now is not None:
                return self._prefill(self._now, number, args, kwargs)
            return self._continue(number, args, kwargs)

        return hook

    def _prefill(self, now: Prefill, number: int, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        now.full_mask = kwargs.get("attention_mask")
        now.full_rope = kwargs["position_embeddings"]
        if now.current is not None:
            self._see(now, number)
        if self.policy.by_piece and not now.pieces:
            now.pieces = self._pieces(now)
        work = observed("reduction") if self.policy.cuts_at(number) else nullcontext()
        with work:
            hidden = self.policy.enter(number, now, hidden, self)
        now.lengths.append(hidden.shape[1])
        if now.current is None:
            return None
        self._see(now, number)
        now.columns[number] = now.current
        cache = cache_in(kwargs)
        if cache is not None and getattr(cache, LAYERS_NOTE, None) is not now.columns:
            # On the cache itself: a copied cache carries it along.
            setattr(cache, LAYERS_NOTE, now.columns)
        return _with_hidden(
            args,
            {
                **kwargs,
                "attention_mask": now.mask,
                "position_embeddings": now.rope,
                "position_ids": None,
            },
            hidden,
        )

    def narrow(self, now: Prefill, chosen: Sequence[Tensor], *hidden: Tensor) -> list[Tensor]:
        """Drop the visual tokens that no group chose, and return what is left of states [b, s, d]."""
        local, tokens = cut(now.tokens, chosen)
        self.settle(now, tokens)
        return [take_tokens(states, local) for states in hidden]

    def settle(self, now: Prefill, tokens: Tokens) -> None:
        """Bring places and notes of a prefill up to date with the tokens there are from here on."""
        now.tokens = tokens
        now.narrowed.clear()
        now.places, dropped = tokens.index, None
        # A token's place on three axes is its own: none counts on from another's.
        if self.policy.renumbers and not self.parts.three_axes:
            now.places, dropped = _renumbered(now.whole, tokens)
        self.record.note_cut(len(now.lengths), tokens)
        now.current = Columns(tokens.index, tokens.valid(), now.whole.width, dropped)

    def _see(self, now: Prefill, number: int) -> None:
        """Narrow mask and rotary embeddings of a layer to the tokens there are, once for every kind."""
        kind = self._kinds[number]
        if kind not in now.narrowed:
            assert now.full_rope is not None  # noqa: S101  (the layer was given them)
            assert now.places is not None  # noqa: S101  (there was a cut)
            config: Any = self.parts.language.config
            window = _window(config, kind)
            # Without a mask the attention is causal, which it must be over the whole sequence.
            plain = not self.parts.family.sees_whole_images and not 0 < window <= now.whole.width
            mask = narrow_mask(
                now.full_mask,
                now.tokens,
                whole=plain and _without_holes(now.prompt),
                fused=config._attn_implementation == "sdpa",
            )
            cos, sin = now.full_rope
            batch = len(now.tokens.counts)
            rope = (
                take_tokens(cos.expand(batch, -1, -1), now.places),
                take_tokens(sin.expand(batch, -1, -1), now.places),
            )
            now.narrowed[kind] = mask, rope
        now.mask, now.rope = now.narrowed[kind]

    @property
    def _kinds(self) -> list[str]:
        """The kind of every layer, as the model's config has it."""
        config: Any = self.parts.language.config
        return getattr(config, "layer_types", None) or [""] * len(self.parts.layers)

    def _after_last(self, _module: Any, _args: Any, output: Any) -> None:
        now = self._now
        if now is None:
            return
        hidden = output[0] if isinstance(output, tuple) else output
        self.record.sequence_lengths = [*now.lengths, hidden.shape[1]]

    def _continue(self, number: int, args: Any, kwargs: Any) -> Any:
        cache = cache_in(kwargs)
        columns: dict[int, Columns] = getattr(cache, LAYERS_NOTE, {})
        held = columns.get(number)
        if held is None:
            return None
        mask = kwargs.get("attention_mask")
        hidden = args[0] if args else kwargs["hidden_states"]
        changed: dict[str, Any] = {}
        cached, count = int(cache.get_seq_length(number)), hidden.shape[1]
        if 0 in columns or any(getattr(layer, "is_sliding", False) for layer in cache.layers):
            # The model sizes one mask for each kind of layer, by what the first of them holds.
            window = int(getattr(cache.layers[number], "sliding_window", 0) or 0)
            changed["attention_mask"] = held.mask_of_window(
                window, cached, cache.layers[number].keys.shape[-2], count, hidden.dtype
            )
        elif mask is not None or held.valid is not None:
            changed["attention_mask"] = held.mask(mask, cached, count)
        if held.dropped is not None:
            positions = kwargs["position_ids"] - held.dropped.unsqueeze(-1)
            rotary: Any = self.parts.language.rotary_emb
            # Where layers have rotary embeddings of several kinds, one is asked for.
            kind = {"layer_type": self._kinds[number]} if hasattr(rotary, "layer_types") else {}
            changed["position_embeddings"] = rotary(hidden, position_ids=positions, **kind)
        return (args, {**kwargs, **changed}) if changed else None


def _window(config: Any, kind: str) -> int:
    """Return the tokens that layers of a kind see at most; 0 for all."""
    sliding = kind == "sliding_attention" or not kind
    return int(getattr(config, "sliding_window", None) or 0) if sliding else 0


def _with_hidden(args: Any, kwargs: dict[str, Any], hidden: Tensor) -> Any:
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}


def _without_holes(prompt: Prompt) -> bool:
    """Whether padding is only at the ends of rows."""
    for row in prompt.real:
        inside = np.flatnonzero(row)
        if len(inside) and len(inside) != inside[-1] - inside[0] + 1:
            return False
    return True


def _renumbered(whole: Tokens, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Places whose positions count on without gaps, [b, s], and positions lost, [b]."""
    lost = [before - after for before, after in zip(whole.counts, tokens.counts, strict=True)]
    starts = [0 if whole.on_right else whole.width - count for count in whole.counts]
    offset = [
        start - (0 if tokens.on_right else tokens.width - count)
        for start, count in zip(starts, tokens.counts, strict=True)
    ]
    device = tokens.index.device
    shift = torch.tensor(offset, device=device).unsqueeze(-1)
    places = (torch.arange(tokens.width, device=device) + shift).clamp(0, whole.width - 1)
    return places, torch.tensor(lost, device=device)
