"""What the patches of an image look at in a tower without a class token: attention received, and keys.

For towers of native resolution whose q, k and v are one product (Qwen's). A layer's attention is recomputed
from its own queries and keys, in the frames or windows that attend to themselves there, a block of queries
at a time, and averaged over the patches that the merger makes one token of.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.clips import not_weighed
from hardware_specs.errors import UnsupportedError
from token_reduction.apply.llm_attention import rotate
from token_reduction.apply.places import Host, reduce_clips_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.crops import Item
    from token_reduction.tokens.reduced import Reduced

#: Queries whose rows of attention are held at a time.
BLOCK = 1024


class ReceivedAttention:
    """Attention that the tokens of each image or clip receive in a layer of the tower.

    Args:
        host: the model.
        depth: one of the tower's layers, from 0, or from the end where negative; the last sees whole images.
    """

    #: Of the forward that is running.
    _grid: Tensor
    _rope: tuple[Tensor, Tensor]
    _bounds: Tensor
    _projected: Tensor

    def __init__(self, host: Host, depth: int = -1) -> None:
        (tower,), patches = host.parts.towers, host.patches
        module: Any = tower.module
        attention: Any = tower.layers[depth].attn
        self._tower, self._attention = module, attention

        def saw_tower(_module: Any, args: Any, kwargs: Any) -> None:
            self._grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]

        def saw_layer(_module: Any, _args: Any, kwargs: Any) -> None:
            self._rope, self._bounds = kwargs["position_embeddings"], kwargs["cu_seqlens"]

        def saw_projection(_module: Any, _args: Any, output: Tensor) -> None:
            self._projected = output

        patches.before(module, saw_tower)
        patches.before(attention, saw_layer)
        patches.after(attention.qkv, saw_projection)

    def columns(self, number: int) -> int:
        """Return the tokens in a row of an image."""
        return int(self._grid[number, 2]) // int(self._tower.spatial_merge_size)

    def of(self, number: int) -> tuple[Tensor, Tensor]:
        """Return what each token of an image receives on average, [n], and its mean key, [n, e].

        Args:
            number: of the image or clip in its forward.
        """
        module, attention = self._tower, self._attention
        sizes: list[int] = self._grid.prod(-1).tolist()
        first, size = sum(sizes[:number]), sizes[number]
        span = slice(first, first + size)
        queries, keys = self._projected[span].view(size, 3, attention.num_heads, -1).unbind(1)[:2]
        cos, sin = (part[span] for part in self._rope)
        received = queries.new_zeros(size, dtype=torch.float32)
        for places in self._pieces(first, size):
            # [pieces, h, patches of each, e]
            turned, asked = (
                rotate(part[places].transpose(1, 2), cos[places].to(part), sin[places].to(part))
                for part in (keys, queries)
            )
            looked = received.new_zeros(places.shape)
            for block in torch.split(asked, BLOCK, dim=2):
                weights = (block @ turned.transpose(-1, -2) * attention.scaling).softmax(
                    dim=-1, dtype=torch.float32
                )
                looked += weights.mean(dim=1).sum(dim=1)
            received = received.index_put((places,), looked / size)
        many = module.spatial_merge_size**2
        scores = received.view(-1, many).mean(-1)
        metric = keys.mean(dim=1).reshape(-1, many, keys.shape[-1]).mean(1)
        order = self._raster(module, number)
        return (scores, metric) if order is None else (scores[order], metric[order])

    def _pieces(self, first: int, size: int) -> list[Tensor]:
        """Patches [pieces, length] that attend to each other, those of one length together."""
        inside = [
            bound - first for bound in self._bounds.tolist() if first <= bound <= first + size
        ]
        by_length: dict[int, list[int]] = {}
        for start, end in pairwise(inside):
            by_length.setdefault(end - start, []).append(start)
        return [
            (torch.tensor(starts).unsqueeze(-1) + torch.arange(length)).to(self._grid.device)
            for length, starts in by_length.items()
        ]

    def _raster(self, module: Any, number: int) -> Tensor | None:
        """Where tokens laid out window by window are in raster order; None where they lie so."""
        window = getattr(module, "window_size", None)
        if window is None:
            return None
        from transformers.vision_utils import get_vision_window_index

        index, _ = get_vision_window_index(
            self._grid[number : number + 1], module.spatial_merge_size, window, module.patch_size
        )
        return torch.argsort(index).to(self._grid.device)


def reduce_weighed_clips(
    host: Host,
    native: Callable[[Item, Tensor], Reduced],
    pooled: Callable[[], Callable[[Item], Reduced]],
) -> None:
    """Reduce each clip by what its tower looks at; a tower that does not say refuses clips when they come.

    `native` is told how much each token is looked at, [t, p], by a tower of native resolution. `pooled` makes
    what reduces a clip of a tower without a class token whose frames are pooled behind the projector.
    """
    parts = host.parts
    received = ReceivedAttention(host) if parts.three_axes else None
    of_pooled = None
    if parts.family.pools_frames == "after projector" and not parts.towers[0].has_class:
        of_pooled = pooled()

    def weighed(item: Item) -> Reduced:
        if received is not None:
            looked, _ = received.of(item.number)
            return native(item, looked.view(item.frames, -1))
        if of_pooled is None:
            raise UnsupportedError(not_weighed(host.method.name, parts.family.label))
        return of_pooled(item)

    reduce_clips_of(host, weighed)
