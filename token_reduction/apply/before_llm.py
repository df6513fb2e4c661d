"""Reduction before the language model: the prompt becomes shorter, and so does everything after it.

One hook on the model without its head. Where a forward brings pixels, it encodes them with the model's
own code (under the hooks of `crops`), reduces, sets the visual tokens among the text and hands the
language model embeddings; where a forward continues a reduced prompt, it mends mask and positions. The
language model itself is left alone: any attention implementation serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.apply.calls import (
    PIXELS,
    bind_call,
    cached_tokens,
    encode,
    image_sizes_of,
    pixels_of,
    plain_mask,
    require_plain_cache,
    split_items,
)
from token_reduction.apply.continuation import Prefix, continue_from, note_prefix, prefix_of
from token_reduction.apply.crops import Item
from token_reduction.apply.splice import Placed, assign_places, plan_splice, read_prompt, splice
from token_reduction.caches import cache_in, cache_keyword
from token_reduction.tokens.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.crops import Crops
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord
    from token_reduction.tokens.reduced import Reduced


@dataclass(slots=True)
class PromptReduction:
    """Shortens prompts.

    Args:
        parts: the model.
        record: what the reduction did.
        crops: reduces crop by crop; None for methods that take whole images and videos.
        reduce_item: reduces one image or video; None for crop methods.
    """

    parts: Parts
    record: ReductionRecord
    crops: Crops | None
    reduce_item: Callable[[Item], Reduced] | None

    def attach(self, patches: Patches) -> None:
        """Put the hooks on the model."""
        if self.crops is not None:
            self.crops.attach(patches)
        patches.before(self.parts.base, self._before)
        # From 5.23 on `generate` would encode the pixels by itself, before any forward.
        if hasattr(self.parts.model, "_supports_mm_encoder_outputs"):
            patches.replace(self.parts.model, "_supports_mm_encoder_outputs", lambda: False)

    def _before(self, module: Any, args: Any, kwargs: Any) -> Any:
        call = bind_call(module, args, kwargs)
        pixels = pixels_of(call, self.record.method.name)
        cache = cache_in(call)
        cached = cached_tokens(cache)
        known = prefix_of(cache) if cached else None
        if not cached:
            note_prefix(cache, None)
        if not pixels and known is None:
            return None
        require_plain_cache(cache, self.record.method.name)
        mask = plain_mask(call)
        ids, positions = call.get("input_ids"), call.get("position_ids")
        embeds = call.get("inputs_embeds")
        if ids is None and pixels:
            raise InvalidInputError(
                "reduce_tokens finds the visual tokens' places by their ids; give input_ids "
                "with the pixels, not inputs_embeds"
            )
        given = ids if ids is not None else embeds
        assert given is not None  # noqa: S101  (the model demands one of the two)
        if known is None:
            if cached and mask is not None:
                known = Prefix(mask[:, :cached], cached, cached, _zeros(given))
            elif cached:
                known = Prefix(None, cached, cached, _zeros(given))
        if known is not None:
            step = continue_from(known, cached, given.shape[1], mask, positions)
            ids = None if ids is None else ids[:, -step.count :]
            embeds = None if embeds is None else embeds[:, -step.count :]
            mask, positions = step.mask, step.positions
            if not pixels:
                return (), {
                    **call,
                    "input_ids": ids,
                    "inputs_embeds": embeds,
                    "attention_mask": mask,
                    "position_ids": positions,
                }
        assert ids is not None  # noqa: S101  (pixels come with ids, checked above)
        return (), self._shortened(call, pixels, ids, mask, positions, known, cached)

    def _shortened(
        self,
        call: dict[str, Any],
        pixels: dict[str, Tensor],
        ids: Tensor,
        mask: Tensor | None,
        positions: Tensor | None,
        known: Prefix | None,
        cached: int,
    ) -> dict[str, Any]:
        """Arguments of the forward with the prompt shortened."""
        count = ids.shape[1]
        part = None if mask is None else mask[:, -count:]
        # Read before the tower is launched, when there is nothing yet to wait for.
        prompt = read_prompt(ids, part)
        self.record.begin()
        tokens: list[Tensor] = []
        places: list[Placed] = []
        for modality, values in pixels.items():
            found, before = self._encode(modality, values, call)
            tokens += found
            places += assign_places(
                prompt, self.parts.placeholders[modality], before, [len(t) for t in found], modality
            )
            self.record.items += [modality] * len(found)
            self.record.tokens_before += before
            self.record.tokens_after += [len(one) for one in found]
        plan = plan_splice(prompt, places)
        shorter = splice(
            plan,
            ids,
            torch.cat(tokens),
            self.parts.language.get_input_embeddings(),  # type: ignore[operator]
            mask=part,
            positions=None if positions is None else positions[..., -count:],
        )
        width = shorter.embeddings.shape[1]
        self.record.sequence_lengths = [width] * (len(self.parts.layers) + 1)
        out_mask = _behind(known, mask, shorter.mask, cached, count, width)
        dropped = torch.from_numpy(np.asarray(plan.dropped)).to(ids.device)
        if known is not None:
            dropped = dropped + known.dropped
        note = Prefix(
            mask=out_mask,
            length=cached + width,
            given=count + (0 if known is None else known.given + cached - known.length),
            dropped=dropped,
        )
        changed = {name: None for names in PIXELS.values() for name in names if name in call}
        self._remember(call, note)
        return {
            **call,
            **changed,
            "input_ids": None,
            "inputs_embeds": shorter.embeddings,
            "attention_mask": out_mask,
            "position_ids": shorter.positions,
        }

    def _remember(self, call: dict[str, Any], note: Prefix) -> None:
        """Note what the cache will hold; without one given, the forward's own cache is noted."""
        cache = cache_in(call)
        config: Any = self.parts.language.config
        wanted = call.get("use_cache")
        if cache is None and (config.use_cache if wanted is None else wanted):
            from transformers import DynamicCache

            cache = DynamicCache(config=config)
            call[cache_keyword()] = cache
        note_prefix(cache, note)

    def _encode(
        self, modality: str, pixels: Tensor, call: dict[str, Any]
    ) -> tuple[list[Tensor], list[int]]:
        """Tokens of each image or video after the reduction, and how many there were."""
        count = pixels.shape[0]
        record = self.record
        if modality == "image":
            record.image_sizes = image_sizes_of(call)
            count = len(record.image_sizes) or count
        if self.crops is not None:
            self.crops.begin(modality, has_class=_class_goes_along(self.parts, modality, call))
        features = encode(self.parts, modality, pixels, call)
        if self.crops is not None:
            return self.crops.items(features, count)
        found = split_items(self.parts, modality, features, pixels)
        assert self.reduce_item is not None  # noqa: S101  (a method is one or the other)
        record.unit = "item"
        reduced = []
        sizes = record.image_sizes if modality == "image" else []
        for number, tokens in enumerate(found):
            size = sizes[number] if sizes else None
            with observed("reduction"):
                result = self.reduce_item(Item(tokens, modality, number, size))
            record.add(result, batched=False)
            reduced.append(result.tokens)
        return reduced, [len(tokens) for tokens in found]


def _behind(
    known: Prefix | None,
    mask: Tensor | None,
    new: Tensor | None,
    cached: int,
    count: int,
    width: int,
) -> Tensor | None:
    """The shortened prompt's mask with that of what the cache holds in front of it."""
    if known is None or not cached:
        return new
    held = None if mask is None else mask[:, :-count]
    if held is None and new is None:
        return None
    if held is None:
        assert new is not None  # noqa: S101
        held = torch.ones(new.shape[0], cached, dtype=new.dtype, device=new.device)
    if new is None:
        new = torch.ones(held.shape[0], width, dtype=held.dtype, device=held.device)
    return torch.cat((held, new.to(held)), dim=1)


def _zeros(given: Tensor) -> Tensor:
    return torch.zeros(given.shape[0], dtype=torch.long, device=given.device)


def _class_goes_along(parts: Parts, modality: str, call: dict[str, Any]) -> bool:
    """Whether the projector gets each crop's class token."""
    if not all(tower.has_class for tower in parts.towers):
        return False
    if parts.family.class_token_in_clips and modality == "video":
        return True
    config: Any = parts.model.config
    chosen = call.get("vision_feature_select_strategy") or config.vision_feature_select_strategy
    return bool(chosen == "full")
