"""Reduction before the language model: the prompt becomes shorter, and so does everything after it.

One hook on the model without its head. Where a forward brings pixels, it encodes them with the model's
own code (under the hooks of `crops`), reduces, sets the visual tokens among the text and hands the
language model embeddings; where a forward continues a reduced prompt, it mends mask and positions. The
language model itself is left alone: any attention implementation serves.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.calls import (
    PIXELS,
    bind_call,
    cached_tokens,
    encode,
    encode_in_forwards,
    frames_of,
    image_sizes_of,
    pixels_of,
    plain_mask,
    require_plain_cache,
)
from token_reduction.apply.continuation import (
    Prefix,
    continue_from,
    joined,
    note_prefix,
    prefix_of,
)
from token_reduction.apply.crops import Item
from token_reduction.apply.grouping import Grouping
from token_reduction.apply.splice import Placed, assign_places, plan_splice, read_prompt, splice
from token_reduction.caches import CACHE_NAMES, cache_in, cache_keyword
from token_reduction.tokens.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.crops import Crops
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord
    from token_reduction.apply.splice import Plan, Prompt
    from token_reduction.tokens.reduced import Reduced


@dataclass(slots=True)
class PromptReduction:
    """Shortens prompts.

    Args:
        parts: the model.
        record: what the reduction did.
        crops: reduces crop by crop; None for methods that take whole images and videos.
        reduce_item: reduces one image or video; None for crop methods.
        grouping: which crops make one image or clip.
    """

    parts: Parts
    record: ReductionRecord
    crops: Crops | None
    reduce_item: Callable[[Item], Reduced] | None
    grouping: Grouping = field(default_factory=Grouping)
    #: How the running forward's prompt was shortened; None where it brought no pixels.
    plan: Plan | None = None
    #: Of each item, the kept tokens' numbers where the method selects and is given whole items.
    _kept: list[Tensor | None] = field(default_factory=list)
    #: Of each item, the features for the first layers of the rows it keeps (deepstack).
    _deep: list[list[Tensor]] = field(default_factory=list)
    #: What the language model's next call gets beside the embeddings.
    _beside: dict[str, Any] = field(default_factory=dict)

    def attach(self, patches: Patches) -> None:
        """Put the hooks on the model."""
        if self.crops is not None:
            self.crops.attach(patches)
        patches.before(self.parts.base, self._before)
        patches.before(self.parts.language, self._add_features)
        encode_in_forwards(self.parts, patches)

    def _add_features(self, _module: Any, args: Any, kwargs: Any) -> Any:
        beside, self._beside = self._beside, {}
        return (args, {**kwargs, **beside}) if beside else None

    def _before(self, module: Any, args: Any, kwargs: Any) -> Any:
        call = bind_call(module, args, kwargs)
        self.plan = None
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
        if known is None and cached:
            held = None if mask is None else mask[:, :cached]
            none = torch.zeros(given.shape[0], dtype=torch.long, device=given.device)
            known = Prefix(held, cached, cached, none)
        if known is not None:
            count, longer, moved = continue_from(known, cached, given.shape[1], mask, positions)
            ids = None if ids is None else ids[:, -count:]
            embeds = None if embeds is None else embeds[:, -count:]
            if positions is None and self.parts.three_axes:
                moved = _counted_on(self.parts.base, known, cached, count, mask, given)
            mask, positions = longer, moved
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
        self._kept, self._deep = [], []
        if positions is None and self.parts.three_axes:
            positions = on_three_axes(self.parts.base, call, ids, mask)
        self.record.begin()
        tokens: list[Tensor] = []
        places: list[Placed] = []
        for modality, values in pixels.items():
            found, before = self._encode(modality, values, call, prompt)
            tokens += found
            here = assign_places(
                prompt, self.parts.placeholders[modality], before, [len(t) for t in found], modality
            )
            kept = self._kept or [None] * len(here)
            places += [self._in_place(*pair) for pair in zip(here, kept, strict=True)]
            self._kept = []
            clips = self.grouping.frames and self.crops is None
            self.record.items += ["video" if clips else modality] * len(found)
            self.record.tokens_before += before
            self.record.tokens_after += [len(one) for one in found]
        self.plan = plan = plan_splice(prompt, places)
        embeddings, new_mask, new_positions = splice(
            plan,
            ids,
            torch.cat(tokens),
            self.parts.language.get_input_embeddings(),  # type: ignore[operator]
            mask=part,
            positions=None if positions is None else positions[..., -count:],
        )
        deep = [torch.cat(layer) for layer in zip(*self._deep, strict=True)]
        if deep:
            marks = torch.from_numpy(plan.visual >= 0).to(ids.device)
            order = torch.from_numpy(plan.visual[plan.visual >= 0]).to(ids.device)
            self._beside = {
                "visual_pos_masks": marks,
                "deepstack_visual_embeds": [layer[order] for layer in deep],
            }
        width = embeddings.shape[1]
        self.record.sequence_lengths = [width] * (len(self.parts.layers) + 1)
        out_mask = new_mask
        if cached:
            held = None if mask is None else mask[:, :-count]
            out_mask = joined(held, new_mask, (cached, width))
        new_positions, dropped = self._placed(call, ids, positions, (new_positions, new_mask), plan)
        if known is not None:
            dropped = dropped + known.dropped
        note = Prefix(
            mask=out_mask,
            length=cached + width,
            given=count + (0 if known is None else known.given + cached - known.length),
            dropped=dropped,
        )
        changed: dict[str, Any] = {
            name: None for names in PIXELS.values() for name in names if name in call
        }
        # One kind for each token given, of which fewer are left; three axes were made of them.
        kinds = call.get("token_type_ids")
        if kinds is not None:
            source = torch.from_numpy(plan.source).to(kinds.device)
            changed["token_type_ids"] = kinds.gather(1, source)
        if "mm_token_type_ids" in call:
            changed["mm_token_type_ids"] = None
        self._remember(call, note)
        return {
            **call,
            **changed,
            "input_ids": None,
            "inputs_embeds": embeddings,
            "attention_mask": out_mask,
            "position_ids": new_positions,
        }

    def _placed(
        self,
        call: dict[str, Any],  # noqa: ARG002
        ids: Tensor,
        given: Tensor | None,  # noqa: ARG002
        new: tuple[Tensor | None, Tensor | None],
        plan: Plan,
    ) -> tuple[Tensor | None, Tensor]:
        """Return the positions of the shorter prompt, and by how much all that follows moves up, [b].

        Args:
            call: the forward's arguments.
            ids: [b, s] of the whole prompt.
            given: its positions.
            new: positions and mask of what was spliced.
            plan: how.
        """
        # On three axes nothing moves up: what is left keeps its place.
        lost = np.zeros_like(plan.dropped) if self.parts.three_axes else np.asarray(plan.dropped)
        return new[0], torch.from_numpy(lost).to(ids.device)

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
        self, modality: str, pixels: Tensor, call: dict[str, Any], prompt: Prompt
    ) -> tuple[list[Tensor], list[int]]:
        """Tokens of each image or video after the reduction, and how many there were."""
        count = pixels.shape[0]
        record = self.record
        if modality == "image":
            record.image_sizes = image_sizes_of(call)
            count = len(record.image_sizes) or count
        if self.crops is not None:
            self.crops.begin(modality, has_class=_class_goes_along(self.parts, modality, call))
        output = encode(self.parts, modality, pixels, call)
        if self.crops is not None:
            return self.crops.items(output.pooler_output, count)
        found = self.grouping.items(self.parts, modality, output, pixels, prompt)
        lengths = [len(tokens) for tokens in found]
        # Up to transformers 5.17 a layer's rows are not split into items.
        deep = [
            torch.split(layer, lengths) if isinstance(layer, torch.Tensor) else layer
            for layer in getattr(output, "deepstack_features", None) or ()
        ]
        assert self.reduce_item is not None  # noqa: S101  (a method is one or the other)
        record.unit = "item"
        reduced = []
        sizes = record.image_sizes if modality == "image" else []
        frames = frames_of(modality, pixels, call) or [self.grouping.frames or 1] * len(found)
        tail = int(modality == "video" and self.parts.family.newline_ends_clips)
        for number, tokens in enumerate(found):
            size = sizes[number] if sizes else None
            with observed("reduction"):
                result = self.reduce_item(
                    Item(tokens, modality, number, size, frames[number], tail)
                )
            record.add(result, batched=False)
            reduced.append(result.tokens)
            self._note_kept(result, number, deep)
        return reduced, lengths

    def _note_kept(self, result: Reduced, number: int, deep: Sequence[Any]) -> None:
        """Note which tokens of an item stay, for their places and their rows for deepstack."""
        kept = result.kept_indices
        self._kept.append(kept)
        if not self.parts.three_axes:
            return
        if kept is None:
            raise UnsupportedError(
                f"{self.record.method.name} makes new tokens, which have no place on the three axes of "
                f"{self.parts.family.label}; divprune keeps some of the old ones"
            )
        rows = [layer[number][kept] for layer in deep]
        if result.valid is not None:
            rows = [row * result.valid.unsqueeze(-1).to(row.dtype) for row in rows]
        self._deep.append(rows)

    def _in_place(self, item: Placed, kept: Tensor | None) -> Placed:
        """Leave tokens where they stood if text stands between them, or positions have three axes."""
        if kept is None or not (self.parts.three_axes or item.apart):
            return item
        self.record.in_place = True
        return replace(item, kept=kept.cpu().numpy(), stays=self.parts.three_axes)


def on_three_axes(base: Any, call: dict[str, Any], ids: Tensor, mask: Tensor | None) -> Any:
    """Return positions of a whole prompt, [3, b, s], as the model counts them; None where it cannot."""
    names = ("image_grid_thw", "video_grid_thw", "mm_token_type_ids", "second_per_grid_ts")
    known = inspect.signature(base.compute_3d_position_ids).parameters
    nothing_cached = {name: None for name in CACHE_NAMES if name in known}
    return base.compute_3d_position_ids(
        input_ids=ids, inputs_embeds=ids, attention_mask=mask, **nothing_cached,
        **{name: call.get(name) for name in names if name in known},
    )  # fmt: skip


def _counted_on(
    base: Any, known: Prefix, cached: int, count: int, mask: Tensor | None, given: Tensor
) -> Tensor:
    """Positions of tokens that continue a prompt, [3, b, s], as if none of it were gone but what moved up."""
    if mask is not None:
        places = (mask.long().cumsum(-1) - 1)[:, -count:]
    else:
        start = known.given + cached - known.length
        places = torch.arange(start, start + count, device=given.device).unsqueeze(0)
    delta = base.rope_deltas
    places = places if delta is None else places + delta.to(places)
    places = places - known.dropped.unsqueeze(-1)
    return places.expand(3, given.shape[0], -1)


def _class_goes_along(parts: Parts, modality: str, call: dict[str, Any]) -> bool:
    """Whether the projector gets each crop's class token."""
    if not all(tower.has_class for tower in parts.towers):
        return False
    if parts.family.class_token_in_clips and modality == "video":
        return True
    config: Any = parts.model.config
    chosen = call.get("vision_feature_select_strategy") or config.vision_feature_select_strategy
    return bool(chosen == "full")
