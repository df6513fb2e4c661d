"""PixelPrune: cells of a picture that their neighbours foretell never reach the vision tower.

Source: PixelPrune (Wang et al., 2026) and its program OPPO-Mente-Lab/PixelPrune, at threshold 0: exact and
without a loop. Above 0 it compares with what it has put together so far, cell by cell; that is not here.
Place: before the vision tower, on images and clips of models that keep an image's own resolution (Qwen's
families). Only the patches of the cells that are left are embedded, run through the tower and merged; they
keep their places in the tower, on three axes in the language model, and in the layers that read features of
the tower (deepstack).

Complexity: two comparisons of every pixel. How many cells are left is the picture's, so it is read back,
once per forward. Pixels are compared in the tower's dtype, as the model hands them on. Of a clip, every
pair of frames is a picture of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.pixelprune import refused
from hardware_specs.errors import UnsupportedError
from token_reduction.apply.places import Host, reduce_items
from token_reduction.tokens.checks import misfit
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Reduced

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.crops import Item
    from token_reduction.apply.patching import Patches


def pixelprune(cells: Tensor) -> Tensor:
    """Say which cells of a picture are not foretold by those beside and above them.

    Formula: with A left, B above and C above left of a cell, its prediction is B where C = A and C != B, else
    A; in the first row A, in the first column B. A cell stays where any pixel differs from its prediction,
    and the first one always.

    Args:
        cells: [..., h, w, c] pixels of the cells of pictures.

    Returns:
        [..., h, w], True for those that stay.

    Raises:
        InvalidInputError: no grid of cells.

    >>> picture = torch.tensor([[0, 0, 7], [0, 0, 7], [5, 5, 7]]).unsqueeze(-1)
    >>> pixelprune(picture).int().tolist()  # the first, what is new beside it, and below it
    [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    """
    if cells.ndim < 3 or not cells.shape[-3] * cells.shape[-2]:
        raise misfit("pixelprune", "the pixels of cells [..., h, w, c]", cells)
    as_left = torch.ones(cells.shape[:-1], dtype=torch.bool, device=cells.device)
    as_above = as_left.clone()
    as_left[..., 1:] = (cells[..., 1:, :] == cells[..., :-1, :]).all(dim=-1)
    as_above[..., 1:, :] = (cells[..., 1:, :, :] == cells[..., :-1, :, :]).all(dim=-1)
    # C = A: the left column does not change downwards; C = B: the row above not to the right.
    foretold = as_left.clone()
    below = as_above[..., 1:, :-1] & ~as_left[..., :-1, 1:]
    foretold[..., 1:, 1:] = torch.where(below, as_above[..., 1:, 1:], as_left[..., 1:, 1:])
    foretold[..., 1:, 0] = as_above[..., 1:, 0]
    foretold[..., 0, 0] = False
    return ~foretold


@dataclass(slots=True)
class _Tower:
    """Lets only some cells through a tower of native resolution.

    Args:
        parts: the model.
    """

    parts: Parts
    #: Of each image or clip, the cells that stay, counted from its first.
    kept: list[Tensor] = field(init=False)
    #: Those of all of them, in raster order and as the layers have them; and of patches.
    _cells: Tensor = field(init=False)
    _order: Tensor = field(init=False)
    _patches: Tensor = field(init=False)
    _stay: Tensor = field(init=False)
    _each: int = field(init=False)

    def attach(self, patches: Patches) -> None:
        """Put the hooks on the tower and its parts."""
        module: Any = self.parts.towers[0].module
        patches.before(module, self._saw_pixels)
        patches.before(module.patch_embed, self._embed_some)
        patches.after(module.patch_embed, self._spread_patches)
        for number, block in enumerate(module.blocks):
            patches.before(block, self._narrowed(first=not number))
        for merger in (module.merger, *getattr(module, "deepstack_merger_list", ())):
            patches.after(merger, self._spread_cells)

    def _saw_pixels(self, module: Any, args: Any, kwargs: Any) -> None:
        pixels = args[0] if args else kwargs["hidden_states"]
        grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        side = int(module.spatial_merge_size)
        self._each = side * side
        with observed("reduction"):
            rows = pixels.reshape(len(pixels) // self._each, -1)
            sizes = [(t, h // side, w // side) for t, h, w in grid.tolist()]
            counts = [t * h * w for t, h, w in sizes]
            stay = [
                pixelprune(part.view(*size, -1)).flatten()
                for part, size in zip(torch.split(rows, counts), sizes, strict=True)
            ]
            self.kept = [one.nonzero().flatten() for one in stay]
            mask = torch.cat(stay)
            order = self._as_laid_out(module, grid)
            self._cells = mask.nonzero().flatten()
            laid = mask if order is None else mask[order]
            self._order = laid.nonzero().flatten()
            self._stay = laid.repeat_interleave(self._each)
            self._patches = self._of_patches(self._order)

    def _of_patches(self, cells: Tensor) -> Tensor:
        inside = torch.arange(self._each, device=cells.device)
        return (cells.unsqueeze(-1) * self._each + inside).flatten()

    def _as_laid_out(self, module: Any, grid: Tensor) -> Tensor | None:
        """Cells in the order of the layers' windows; None where they lie as given."""
        window = getattr(module, "window_size", None)
        if window is None:
            return None
        from transformers.vision_utils import get_vision_window_index

        index, _ = get_vision_window_index(
            grid, module.spatial_merge_size, window, module.patch_size
        )
        laid: Tensor = index.to(grid.device)
        return laid

    def _embed_some(self, _module: Any, args: Any, kwargs: Any) -> Any:
        with observed("reduction"):
            some = args[0][self._of_patches(self._cells)]
        return (some, *args[1:]), kwargs

    def _spread_patches(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        with observed("reduction"):
            whole = output.new_zeros(len(self._stay), output.shape[-1])
            return whole.index_copy(0, self._of_patches(self._cells), output)

    def _spread_cells(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        with observed("reduction"):
            whole = output.new_zeros(len(self._stay) // self._each, output.shape[-1])
            return whole.index_copy(0, self._order, output)

    def _narrowed(self, *, first: bool) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> Any:
            with observed("reduction"):
                changed = dict(kwargs)
                ends = torch.nn.functional.pad(self._stay.cumsum(0), (1, 0))
                # A window that lost all of its cells is none.
                bounds = torch.unique_consecutive(ends[kwargs["cu_seqlens"].long()])
                changed["cu_seqlens"] = bounds.to(kwargs["cu_seqlens"].dtype)
                if kwargs.get("max_seqlen") is not None:
                    changed["max_seqlen"] = int(bounds.diff().max())
                changed["position_embeddings"] = tuple(
                    part[self._patches] for part in kwargs["position_embeddings"]
                )
                if first:
                    args = (args[0][self._patches], *args[1:])
            return args, changed

        return hook


def plug(host: Host) -> None:
    """Leave cells out before the tower.

    Raises:
        UnsupportedError: a tower that takes whole crops.
    """
    if not host.parts.three_axes:
        raise UnsupportedError(refused(host.parts.family.label))
    if host.method.keep is not None:
        host.record.notes.append(
            "how many cells are left is the picture's; keep is for pricing alone"
        )
    tower = _Tower(host.parts)
    tower.attach(host.patches)

    def left(item: Item) -> Reduced:
        host.method.count(len(item.tokens))  # refuses what is priced as more than there is
        kept = tower.kept[item.number]
        return Reduced(item.tokens[kept], kept_indices=kept)

    reduce_items(host, left)
