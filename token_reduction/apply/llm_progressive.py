"""PyramidDrop, DART and SparseVLM inside the language model, one sequence of a batch at a time.

Their scores are softmaxed over, or normalised by, all tokens of a sequence, so each sequence is cut out
of its padding first. SparseVLM also puts new tokens in, made of the better part of what it drops; they
stand behind the visual tokens that are left.

Own matrix products per stage (s tokens of the sequence, d width, k KV heads of e, n visual tokens there):

    pyramiddrop  2 s d k e + 2 d h e   keys of all tokens, query of the last, of the layer to come
                 2 s h e               its row
    dart         2 p n d               p pivots against the visual tokens
    sparsevlm    2 n t d               once: visual tokens against the t text tokens behind them
                 2 t s h e             rows of those text tokens
                 2 c p d               means of p recycled tokens in c clusters; their distances, p^2 d
                                       multiply-adds in torch.cdist, are not counted by flop_counter
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.pyramiddrop import stage_layers
from costmodel.methods.sparsevlm import KEEP_LISTS
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.llm_attention import AttentionProbe, heads_of, rotate, split_heads
from token_reduction.apply.llm_methods import KeepEverything, OneCut, contiguous_start
from token_reduction.apply.llm_tokens import lay_out
from token_reduction.dart import dart
from token_reduction.pyramiddrop import pyramiddrop
from token_reduction.sparsevlm import recycle, sparsevlm, text_raters

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import LayerReduction, Prefill
    from token_reduction.apply.patching import Patches
    from token_reduction.registry import Method


class PyramidStages(KeepEverything):
    """PyramidDrop: at each stage, what the last token would look at in the layer to come.

    Args:
        method: what is asked for.
        parts: the model.

    Raises:
        InvalidInputError: a stage at a layer the model does not have.
    """

    renumbers = True

    def __init__(self, method: Method, parts: Parts) -> None:
        self._method = method
        self._parts = parts
        self._stages = (
            stage_layers(len(parts.layers))
            if method.options["layers"] is None
            else existing_layers(method, parts)
        )

    def cuts_at(self, layer: int) -> bool:
        """At its stages."""
        return layer in self._stages

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor] | None:
        """Project with the layer to come, and rank each sequence."""
        if layer not in self._stages:
            return None
        module: Any = self._parts.layers[layer]
        attention = module.self_attn
        heads = heads_of(attention, self._parts.language.config)
        rope = now.rope or now.full_rope
        assert rope is not None  # noqa: S101  (the first layer has run)
        batch = hidden.shape[0]
        cos, sin = (part.expand(batch, -1, -1) for part in rope)
        normed = module.input_layernorm(hidden)
        keys = rotate(split_heads(attention.k_proj(normed), heads.dim), cos, sin)
        keys = keys.repeat_interleave(heads.query // heads.kv, dim=1)
        last = torch.tensor([now.tokens.span(row).stop - 1 for row in range(batch)])
        last = last.to(hidden.device, non_blocking=True).view(-1, 1, 1)
        asked = attention.q_proj(normed.take_along_dim(last, 1))
        turns = (part.take_along_dim(last, 1) for part in (cos, sin))
        queries = rotate(split_heads(asked, heads.dim), *turns)[:, :, 0]
        keep: Any = self._method.keep
        chosen = []
        for group in now.tokens.groups:
            count = group.places.shape[1]
            if not count:
                chosen.append(group.places)
                continue
            contiguous_start(group, now, self._method.name)
            kept = []
            for row in group.rows:
                found = pyramiddrop(
                    queries[row],
                    keys[row, :, now.tokens.span(row)],
                    keep,
                    start=text_before(now, row),
                    image_tokens=count,
                )
                kept.append(found.image_indices)
            chosen.append(torch.stack(kept))
        return chosen


class Pivots(OneCut):
    """DART: a few pivots, and the visual tokens that resemble them least.

    Args:
        method: what is asked for.
        parts: the model.

    Raises:
        InvalidInputError: a layer the model does not have, or layer 0, before which no key is.
    """

    def __init__(self, method: Method, parts: Parts) -> None:
        super().__init__(method, parts)
        if self.layer < 1:
            raise InvalidInputError(
                f"{method.name} looks at the keys of the layer before; give a layer of at least 1"
            )
        self._norm: Any = parts.language.norm
        self._probe = AttentionProbe(parts.layers[self.layer - 1], parts.language.config)

    def attach(self, parts: Parts, patches: Patches) -> None:  # noqa: ARG002
        """Watch the layer before the cut."""
        self._probe.attach(patches)

    def begin(self, now: Prefill) -> None:
        """Watch this forward; no query is needed beyond what keeps the probe simple."""
        self._probe.active = True
        self._probe.wanted = now.last_places

    def forget(self) -> None:
        """Let the keys go."""
        self._probe.forget()

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor] | None:
        """Take turns in each sequence; the program compares states behind the model's last norm."""
        if layer != self.layer:
            return None
        keys, states = self._probe.keys(), self._norm(hidden)
        self._probe.forget()
        options: dict[str, Any] = dict(self.method.options)
        keep: Any = self.method.keep
        chosen = []
        for group in now.tokens.groups:
            count = group.places.shape[1]
            if not count:
                chosen.append(group.places)
                continue
            contiguous_start(group, now, self.method.name)
            kept = []
            for row in group.rows:
                span = now.tokens.span(row)
                found = dart(
                    keys[row, :, span],
                    states[row, span],
                    keep,
                    start=text_before(now, row),
                    image_tokens=count,
                    **options,
                )
                kept.append(found.image_indices)
            chosen.append(torch.stack(kept))
        return chosen


class RatedByText(KeepEverything):
    """SparseVLM: behind each of its layers, what the raters look at, and a few recycled tokens.

    Args:
        method: what is asked for; `keep` is a published setting, or the option `counts` gives the
            visual tokens kept behind each layer.
        parts: the model.

    Raises:
        InvalidInputError: a layer the model does not have, or no counts for this keep.
    """

    renumbers = True

    def __init__(self, method: Method, parts: Parts) -> None:
        layers = existing_layers(method, parts, behind=True)
        given: Any = method.options["counts"]
        if given is None and method.keep not in KEEP_LISTS:
            raise InvalidInputError(
                f"sparsevlm has counts for keep in {', '.join(map(str, KEEP_LISTS))}; "
                f"for keep={method.keep} give counts=..., one per layer"
            )
        counts: Any = given if given is not None else KEEP_LISTS[int(method.keep or 0)]
        if len(counts) != len(layers):
            raise InvalidInputError(
                f"sparsevlm acts behind layers {list(layers)} and was given the counts {list(counts)}; "
                "give one count per layer"
            )
        self._method = method
        self._counts = dict(zip(layers, counts, strict=True))
        config: Any = parts.language.config
        self._probes = {layer: AttentionProbe(parts.layers[layer - 1], config) for layer in layers}
        self._raters: list[Tensor | None] = []

    def attach(self, parts: Parts, patches: Patches) -> None:  # noqa: ARG002
        """Watch its layers."""
        for probe in self._probes.values():
            probe.attach(patches)

    def begin(self, now: Prefill) -> None:  # noqa: ARG002
        """Watch this forward."""
        for probe in self._probes.values():
            probe.active = True

    def forget(self) -> None:
        """Let queries, keys and raters go."""
        self._raters = []
        for probe in self._probes.values():
            probe.forget()

    def cuts_at(self, layer: int) -> bool:
        """Behind its layers; the raters are found at the entry."""
        return layer == 0 or layer in self._counts

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """Find the raters at the entry; behind its layers, drop and recycle."""
        if layer == 0:
            self._raters = [self._rate(now, hidden, row) for row in range(hidden.shape[0])]
        if layer not in self._counts:
            return hidden
        probe = self._probes[layer]
        wanted = self._counts[layer]
        old, counts = now.tokens, now.tokens.visual_counts()
        known = {
            row: group.origin[place] for group in old.groups for place, row in enumerate(group.rows)
        }
        states, index, starts, made = [], [], [], []
        for row, count in enumerate(counts):
            span = old.span(row)
            x, places, origin = hidden[row, span], old.index[row, span], known[row]
            start = text_before(now, row) if count else 0
            if count > wanted:
                text = slice(start + count, len(x))
                raters = self._raters[row]
                assert raters is not None  # noqa: S101  (a row with visual tokens was rated)
                kept = sparsevlm(
                    probe.block(row, span, text), raters, wanted, start=start, image_tokens=count
                )
                image = x[start : start + count]
                new = recycle(image, kept)
                x = torch.cat((x[:start], image[kept.image_indices], new, x[text]))
                # What is made anew takes the places of what went: places only order and mask.
                left = wanted + len(new)
                places = torch.cat((places[: start + left], places[text]))
                origin = torch.nn.functional.pad(
                    origin[kept.image_indices], (0, len(new)), value=-1
                )
            states.append(x)
            index.append(places)
            starts.append(start)
            made.append(origin)
        probe.forget()
        tokens = lay_out(index, starts, made, old.on_right)
        cutter.settle(now, tokens)
        out = hidden.new_zeros(len(states), tokens.width, hidden.shape[2])
        for row, x in enumerate(states):
            out[row, tokens.span(row)] = x
        return out

    def _rate(self, now: Prefill, hidden: Tensor, row: int) -> Tensor | None:
        count = now.tokens.visual_counts()[row]
        if not count:
            return None
        for group in now.tokens.groups:
            if row in group.rows:
                contiguous_start(group, now, self._method.name)
        states = hidden[row, now.tokens.span(row)]
        start = text_before(now, row)
        return text_raters(states[start : start + count], states[start + count :])


def existing_layers(method: Method, parts: Parts, *, behind: bool = False) -> tuple[int, ...]:
    """Return the layers a method cuts at the entry of.

    Args:
        method: with an option `layers`.
        parts: the model.
        behind: whether `layers` names the layers before the cuts.

    Raises:
        InvalidInputError: a layer the model does not have, or behind which there is none.
    """
    layers: Any = method.options["layers"]
    last = len(parts.layers) - 1 - behind
    beyond = [layer for layer in layers if layer > last]
    if beyond:
        raise InvalidInputError(
            f"{method.name} acts at layers {list(layers)} of the language model, and with "
            f"{len(parts.layers)} layers the last that can be is {last}; give layers=..."
        )
    return tuple(layer + behind for layer in layers)


def text_before(now: Prefill, row: int) -> int:
    """Tokens of a row in front of its visual tokens, padding not counted."""
    return int(now.visual_places[row][0]) - int(now.whole.span(row).start)
