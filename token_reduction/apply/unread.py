"""Entries of the KV cache that decode steps do not read.

A prompt is cached whole. At a step of one token, the layers from one on read the entries of the text and of
the visual tokens that a method chooses by the attention of the layer before; what is not chosen stays in the
cache for later steps. The entries read are copied together for the layer's own attention (sdpa or eager).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hardware_specs.errors import UnsupportedError
from token_reduction.apply.calls import bind_call
from token_reduction.apply.llm_attention import AttentionProbe
from token_reduction.caches import cache_in, cache_of
from token_reduction.tokens.selection import complement

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.before_llm import PromptReduction
    from token_reduction.apply.patching import Patches

_NOTE = "_unread_entries"


@dataclass(frozen=True, slots=True)
class Held:
    """What a cache holds of a prompt with visual tokens.

    Attributes:
        visual: [b, n] places of their entries.
        others: [b, s - n] places of the other entries of the prompt.
        length: s, entries of the prompt and what was cached before it.
        last: of the last step, what the method keeps to compare the next one with.
    """

    visual: Tensor
    others: Tensor
    length: int
    last: Any = None


class UnreadEntries:
    """Lets decode steps read a part of the cache.

    Args:
        parts: the model.
        name: the method's name, for messages.
        layer: from which layer on.
        before: what shortens the prompt, which knows where its visual tokens are.
        choose: from attention to the visual entries, [b, h, n], and what it gave at the last step (None at
            the first) to what it keeps for the next and the chosen entries, [b, m].
    """

    def __init__(
        self,
        parts: Parts,
        name: str,
        layer: int,
        before: PromptReduction,
        choose: Callable[[Tensor, Any], tuple[Any, Tensor]],
    ) -> None:
        self._parts, self._name, self._layer = parts, name, layer
        self._before, self._choose = before, choose
        self._probe = AttentionProbe(parts, layer - 1)
        #: Whether the running forward brings a clip.
        self.active = False
        self._held: Held | None = None
        self._cache: Any = None
        self._read: Tensor | None = None

    def attach(self, patches: Patches) -> None:
        """Put the hooks on the model."""
        patches.before(self._parts.base, self._before_model)
        patches.after(self._parts.base, self._after_model)
        patches.always_after(self._parts.base, self._forget)
        self._probe.attach(patches)
        for number, layer in enumerate(self._parts.layers[self._layer :], self._layer):
            patches.before(layer, self._before_layer(number))
            patches.always_after(layer, self._behind_layer(number))

    def _before_model(self, module: Any, args: Any, kwargs: Any) -> None:
        call = bind_call(module, args, kwargs)
        given = call["inputs_embeds"] if call.get("input_ids") is None else call["input_ids"]
        cache = cache_in(call)
        held: Held | None = getattr(cache, _NOTE, None)
        if held is None:
            return
        if held.length > cache.get_seq_length():
            # It was cut, or emptied: other tokens may come where those were.
            setattr(cache, _NOTE, None)
            return
        if self._before.plan is not None or given.shape[1] != 1:
            return
        self._held, self._cache = held, cache
        self._probe.active, self._probe.wanted = True, None

    def _after_model(self, _module: Any, _args: Any, output: Any) -> None:
        plan, cache = self._before.plan, cache_of(output)
        if plan is None or cache is None or not self.active:
            return
        if any(getattr(layer, "is_sliding", False) for layer in cache.layers):
            raise UnsupportedError(
                f"{self._name} reads entries of the whole prompt at every step, and this model has "
                "layers whose cache slides; leave variant= out"
            )
        visual = [np.flatnonzero(row >= 0) for row in plan.visual]
        if len({len(row) for row in visual}) != 1:
            raise UnsupportedError(
                f"{self._name} reads as many entries of every sequence, and these have "
                f"{', '.join(str(len(row)) for row in visual)} visual tokens; run them one by one"
            )
        length, device = int(cache.get_seq_length()), output[0].device
        first = length - plan.visual.shape[1]
        places = torch.from_numpy(np.stack(visual) + first).to(device)
        setattr(cache, _NOTE, Held(places, complement(places, length), length))

    def _forget(self) -> None:
        self._held = self._cache = self._read = None
        self.active = False
        self._probe.forget()

    def _before_layer(self, number: int) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> Any:
            held, cache = self._held, self._cache
            if held is None:
                return None
            if number == self._layer:
                self._read = self._entries(held, cache.layers[number - 1].keys)
            read = self._read
            assert read is not None  # noqa: S101  (the first of these layers ran)
            layer, rows = cache.layers[number], torch.arange(len(read), device=read.device)[:, None]

            def update(*given: Any, **more: Any) -> tuple[Tensor, Tensor]:
                both = type(layer).update(layer, *given, **more)
                # [b, m, k, e], as rows are copied whole.
                return tuple(part.transpose(1, 2)[rows, read].transpose(1, 2) for part in both)

            vars(layer)["update"] = update
            mask = kwargs.get("attention_mask")
            if mask is None:
                return None
            narrow = mask.expand(len(read), *mask.shape[1:])
            narrow = narrow.take_along_dim(read[:, None, None, :], dim=3)
            return args, {**kwargs, "attention_mask": narrow}

        return hook

    def _behind_layer(self, number: int) -> Callable[[], None]:
        def hook() -> None:
            if self._cache is not None:
                vars(self._cache.layers[number]).pop("update", None)

        return hook

    def _entries(self, held: Held, keys: Tensor) -> Tensor:
        """Places of the entries that this step reads, [b, m]: text, what was chosen, and what came since."""
        row = self._probe.row_over(keys)
        looked = row.take_along_dim(held.visual[:, None, :], dim=-1)
        last, chosen = self._choose(looked, held.last)
        # A note of its own, so that copies of a cache do not compare with each other's steps.
        setattr(self._cache, _NOTE, replace(held, last=last))
        since = torch.arange(held.length, keys.shape[-2], device=keys.device)
        since = since.expand(len(keys), -1)
        return torch.cat((held.others, held.visual.gather(1, chosen), since), dim=1)
