"""Smaller images for a tower of native resolution, as if the processor had been given them.

The prompt becomes that of the smaller images: as many placeholders as they have tokens, at the places that
the model counts for their grids. In a clip with text between its frames every frame loses its share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import UnsupportedError
from token_reduction.apply.before_llm import PromptReduction, on_three_axes
from token_reduction.apply.calls import encode, split_items
from token_reduction.tokens.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.splice import Plan, Prompt


def _same(patches: Tensor, grids: Tensor) -> tuple[Tensor, Tensor]:
    return patches, grids


@dataclass(slots=True)
class SmallerImages(PromptReduction):
    """Shortens prompts by smaller images.

    Args:
        smaller: from the patches of all images, as a processor lays them out, and their grids
            [images, (pairs of frames, rows, columns)] to those of smaller ones.
    """

    smaller: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = _same
    _grids: dict[str, Tensor] = field(default_factory=dict)

    def _shortened(self, *given: Any) -> dict[str, Any]:
        call, *_, known, _cached = given
        if call.get("mm_token_type_ids") is None:
            raise UnsupportedError(
                f"{self.record.method.name} counts the places of a shorter prompt by mm_token_type_ids, and "
                "the call has none; give what the processor returns, or 1 at image and 2 at video tokens"
            )
        if known is not None:
            raise UnsupportedError(
                f"{self.record.method.name} counts the places of a whole prompt anew, and this one "
                "continues a cache; start with a new cache"
            )
        self._grids = {}
        return PromptReduction._shortened(self, *given)

    def _encode(
        self,
        modality: str,
        pixels: Tensor,
        call: dict[str, Any],
        prompt: Prompt,  # noqa: ARG002
    ) -> tuple[list[Tensor], list[int]]:
        tower: Any = self.parts.towers[0].module
        name, merge = f"{modality}_grid_thw", int(tower.spatial_merge_size)
        before = [t * (h // merge) * (w // merge) for t, h, w in call[name].tolist()]
        with observed("reduction"):
            pixels, self._grids[name] = self.smaller(pixels, call[name])
        output = encode(self.parts, modality, pixels, {**call, **self._grids})
        found = split_items(self.parts, modality, output.pooler_output, pixels)
        self.record.unit = "item"
        frames = self._grids[name][:, 0].tolist()
        for number, (tokens, whole, t) in enumerate(zip(found, before, frames, strict=True)):
            first = torch.arange(0, whole, whole // t).unsqueeze(-1)
            self._kept.append((first + torch.arange(len(tokens) // t)).flatten())
            deep = getattr(output, "deepstack_features", None) or ()
            self._deep.append([_rows(layer, found, number) for layer in deep])
        return found, before

    def _placed(
        self,
        call: dict[str, Any],
        ids: Tensor,
        given: Tensor | None,
        new: tuple[Tensor | None, Tensor | None],
        plan: Plan,
    ) -> tuple[Tensor | None, Tensor]:
        base: Any = self.parts.base
        source = torch.from_numpy(plan.source).to(ids.device)
        kinds = call["mm_token_type_ids"].gather(1, source)
        # `generate` counts on from the whole prompt's.
        delta = base.rope_deltas
        asked = {**call, **self._grids, "mm_token_type_ids": kinds}
        places = on_three_axes(base, asked, ids.gather(1, source), new[1])
        base.rope_deltas = delta
        assert given is not None  # noqa: S101  (the model counted them, or the caller)
        return places, given[-3:].amax(dim=(0, 2)) - places.amax(dim=(0, 2))


def _rows(layer: Any, found: list[Tensor], number: int) -> Tensor:
    """An image's rows of a layer, which up to transformers 5.17 are not split into images."""
    if isinstance(layer, torch.Tensor):
        layer = torch.split(layer, [len(tokens) for tokens in found])
    rows: Tensor = layer[number]
    return rows
