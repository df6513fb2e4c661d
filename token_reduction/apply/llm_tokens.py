"""Which tokens a layer of the language model sees, and the masks that go with them.

Two coordinates: the place of a token in the whole sequence, as the first layer sees it, and its place
among the tokens the current layer sees. Lengths are known on the host without asking the device, since
every method drops a number of tokens that its arguments fix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from token_reduction.tokens.selection import complement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a batch with the same number of visual tokens.

    Attributes:
        rows: the rows.
        places: [r, n] places of their visual tokens in the whole sequence, ascending.
        origin: [r, n] which of the row's visual tokens each of them was, -1 for one made later.
    """

    rows: tuple[int, ...]
    places: Tensor
    origin: Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of every row that a layer sees.

    Attributes:
        index: [b, s] places in the whole sequence, ascending in every row; 0 in padding made here.
        counts: tokens of each row without padding.
        on_right: whether padding is behind the tokens; else it is in front.
        groups: rows by number of visual tokens.
    """

    index: Tensor
    counts: tuple[int, ...]
    on_right: bool
    groups: tuple[Group, ...]

    @property
    def width(self) -> int:
        """Tokens of a row, padding included."""
        return self.index.shape[1]

    @property
    def is_full(self) -> bool:
        """Whether no row has padding."""
        return all(count == self.width for count in self.counts)

    def span(self, row: int) -> slice:
        """Where the tokens of a row are that are not padding."""
        count = self.counts[row]
        return slice(0, count) if self.on_right else slice(self.width - count, self.width)

    def visual_counts(self) -> list[int]:
        """Visual tokens of each row."""
        counts = [0] * len(self.counts)
        for group in self.groups:
            for row in group.rows:
                counts[row] = group.places.shape[1]
        return counts

    def valid(self) -> Tensor | None:
        """Return [b, s], False for padding, or None when there is none."""
        if self.is_full:
            return None
        places = torch.arange(self.width, device=self.index.device)
        counts = torch.tensor(self.counts, device=self.index.device).unsqueeze(-1)
        return places < counts if self.on_right else places >= self.width - counts

    def local(self, group: Group) -> Tensor:
        """Return where the visual tokens of a group are among the tokens here, [r, n]."""
        index, valid = self.index, self.valid()
        if valid is not None:
            # Padding repeats place 0; pushed outside, every row is ascending.
            outside = torch.iinfo(index.dtype).max if self.on_right else -1
            index = index.masked_fill(~valid, outside)
        if len(group.rows) != len(self.counts):
            index = index[list(group.rows)]
        return torch.searchsorted(index.contiguous(), group.places.contiguous())


def whole_sequence(columns: Sequence[np.ndarray], real: np.ndarray, device: torch.device) -> Tokens:
    """The tokens of the first layer: places of each row's visual tokens, and [b, s], False for padding."""
    batch, width = real.shape
    by_count: dict[int, list[int]] = {}
    for row, places in enumerate(columns):
        by_count.setdefault(len(places), []).append(row)
    groups = []
    for count, rows in by_count.items():
        table = torch.tensor([columns[row].tolist() for row in rows], dtype=torch.long)
        origin = torch.arange(count, device=device).expand(len(rows), count)
        groups.append(Group(tuple(rows), table.to(device, non_blocking=True), origin))
    spans = [row.nonzero()[0] for row in real]
    on_right = bool((~real[:, -1]).any())
    counts = []
    for span in spans:
        first, last = (int(span[0]), int(span[-1]) + 1) if len(span) else (0, 0)
        counts.append(last if on_right else width - first)
    index = torch.arange(width, device=device).expand(batch, width)
    return Tokens(index, tuple(counts), on_right, tuple(groups))


def cut(tokens: Tokens, chosen: Sequence[Tensor]) -> tuple[Tensor, Tokens]:
    """Drop the visual tokens that were not chosen.

    Args:
        tokens: what there is.
        chosen: for each group, [r, m] which of its visual tokens stay, ascending.

    Returns:
        [b, s'] where the tokens that stay are now, and what there is afterwards. Padding that no
        row needs any more is gone too.
    """
    drops = []
    groups = []
    for group, stay in zip(tokens.groups, chosen, strict=True):
        gone = complement(stay, group.places.shape[1])
        drops.append(tokens.local(group).gather(1, gone))
        groups.append(Group(group.rows, group.places.gather(1, stay), group.origin.gather(1, stay)))
    if len(drops) == 1 and tokens.is_full:
        local = complement(drops[0], tokens.width)
        counts = (local.shape[1],) * len(tokens.counts)
    else:
        rows: list[Tensor] = [tokens.index[0, :0]] * len(tokens.counts)
        for group, drop in zip(tokens.groups, drops, strict=True):
            for place, row in enumerate(group.rows):
                start = tokens.span(row).start
                rows[row] = complement(drop[place] - start, tokens.counts[row]) + start
        counts = tuple(len(row) for row in rows)
        width = max(counts)
        local = tokens.index.new_zeros(len(rows), width)
        for row, places in enumerate(rows):
            block = slice(0, counts[row]) if tokens.on_right else slice(width - counts[row], width)
            local[row, block] = places
    index = tokens.index.gather(1, local)
    return local, Tokens(index, counts, tokens.on_right, tuple(groups))


def lay_out(
    index: Sequence[Tensor], starts: Sequence[int], origins: Sequence[Tensor], on_right: bool
) -> Tokens:
    """Make tokens of rows that were rebuilt one by one.

    Args:
        index: for each row, places in the whole sequence, ascending, without padding.
        starts: for each row, where its visual tokens begin.
        origins: for each row, which visual token each of them was.
        on_right: where padding goes.
    """
    counts = tuple(len(row) for row in index)
    table = index[0].new_zeros(len(index), max(counts))
    bare = Tokens(table, counts, on_right, ())
    members: dict[int, list[int]] = {}
    for row, places in enumerate(index):
        table[row, bare.span(row)] = places
        members.setdefault(len(origins[row]), []).append(row)
    groups = [
        Group(
            tuple(rows),
            torch.stack([index[row][starts[row] : starts[row] + count] for row in rows]),
            torch.stack([origins[row] for row in rows]),
        )
        for count, rows in members.items()
    ]
    return Tokens(table, counts, on_right, tuple(groups))


def narrow_mask(mask: Tensor | None, tokens: Tokens, *, whole: bool, fused: bool) -> Tensor | None:
    """Return the mask of the tokens that stay.

    Args:
        mask: [b or 1, 1, s, s] over the whole sequence, boolean or additive, or None for causal.
        tokens: what stays.
        whole: whether every real token of the whole sequence may be attended to (no holes).
        fused: whether no mask means causal to the attention implementation.
    """
    valid = tokens.valid()
    if valid is None and (mask is None or (fused and whole)):
        return None
    index = tokens.index
    if mask is None:
        causal = index.unsqueeze(1) <= index.unsqueeze(2)
        assert valid is not None  # noqa: S101  (without padding there is no mask to make)
        return (causal & valid.unsqueeze(1)).unsqueeze(1)
    batch = len(tokens.counts)
    full = mask.expand(batch, *mask.shape[1:])
    rows = full.take_along_dim(index[:, None, :, None], dim=2)
    both = rows.take_along_dim(index[:, None, None, :], dim=3)
    return both if valid is None else _shut(both, valid[:, None, None, :])


@dataclass(frozen=True, slots=True)
class Columns:
    """What one layer's cache holds of a reduced prompt.

    Attributes:
        index: [b, s] places in the whole prompt.
        valid: [b, s] False for padding, or None.
        prompt: tokens of the whole prompt.
        dropped: [b] positions fewer than in the whole sequence, for methods that renumber; None for
            those that keep positions.
    """

    index: Tensor
    valid: Tensor | None
    prompt: int
    dropped: Tensor | None

    def mask(self, mask: Tensor | None, cached: int, count: int) -> Tensor | None:
        """Return the mask of new tokens over what this layer's cache holds and themselves.

        Args:
            mask: [b or 1, 1, q, t] over the whole conversation, or None for everything.
            cached: tokens in this layer's cache before the new ones.
            count: new tokens q.
        """
        batch, held = self.index.shape
        since = cached + count - held
        seen = None
        if self.valid is not None:
            seen = torch.cat((self.valid, self.valid.new_ones(batch, since)), dim=1)[:, None, None]
        if mask is None:
            return None if seen is None else seen.expand(batch, 1, count, held + since)
        later = torch.arange(self.prompt, self.prompt + since, device=mask.device)
        columns = torch.cat((self.index, later.expand(batch, -1)), dim=1)
        full = mask.expand(batch, *mask.shape[1:])
        narrow = full.take_along_dim(columns[:, None, None, :], dim=3)
        return narrow if seen is None else _shut(narrow, seen)

    def mask_of_window(
        self, window: int, cached: int, kept: int, count: int, dtype: torch.dtype
    ) -> Tensor | None:
        """Return the mask of new tokens where layers have windows, which go by places in the whole prompt.

        Args:
            window: tokens that this layer sees at most; 0 for all.
            cached: tokens that this layer has seen before the new ones.
            kept: how many of them, the last, its cache still holds.
            count: new tokens q.
            dtype: of an additive mask.
        """
        batch, held = self.index.shape
        first = self.prompt + cached - held
        if self.valid is None and count == 1 and not 0 < window <= first:
            return None
        device = self.index.device
        later = torch.arange(self.prompt, first + count, device=device).expand(batch, -1)
        columns = torch.cat((self.index, later), dim=1)[:, None, cached - kept :]
        rows = torch.arange(first, first + count, device=device)[None, :, None]
        seen = columns <= rows
        if window:
            seen = seen & (rows - columns < window)
        if self.valid is not None:
            valid = torch.cat((self.valid, torch.ones_like(later, dtype=torch.bool)), dim=1)
            seen = seen & valid[:, None, cached - kept :]
        closed = torch.zeros(seen.shape, dtype=dtype, device=device)
        return closed.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _shut(mask: Tensor, valid: Tensor) -> Tensor:
    """Close a boolean or additive mask where tokens are padding."""
    if mask.dtype == torch.bool:
        return mask & valid
    return mask.masked_fill(~valid, torch.finfo(mask.dtype).min)
