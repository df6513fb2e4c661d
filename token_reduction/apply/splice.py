"""Visual tokens set among the text: the plan on the host, the tensors on the device.

A prompt holds one placeholder id for every visual token there would be without a reduction. The plan
says, for every place of the shorter sequence, which old place or which visual token it takes. It
needs the ids on the host, which are read once, before the vision tower is launched; the tensors are
then built by gathering, with no further wait.

Padding is rebuilt, on the side it was on: rows that shrink by different amounts get what they need,
and padding that no row needs any more is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids and mask of a batch, on the host.

    Attributes:
        ids: [b, s].
        real: [b, s], False for padding.
    """

    ids: np.ndarray
    real: np.ndarray


def read_prompt(ids: Tensor, mask: Tensor | None) -> Prompt:
    """Copy ids and mask to the host, in one transfer.

    Args:
        ids: [b, s].
        mask: [b, s] with 0 for padding, or None for no padding.

    Raises:
        InvalidInputError: a mask of another shape.
    """
    if mask is None:
        host = ids.cpu().numpy()
        return Prompt(host, np.ones(host.shape, dtype=bool))
    if mask.shape != ids.shape:
        raise InvalidInputError(
            f"the attention mask has shape {tuple(mask.shape)} and the ids {tuple(ids.shape)}; "
            "give a mask [batch, tokens] over the tokens given"
        )
    both = torch.stack((ids, mask.to(ids))).cpu().numpy()
    return Prompt(both[0], both[1] != 0)


@dataclass(frozen=True, slots=True)
class Placed:
    """One image or video: the placeholders it had and the tokens it has now.

    Attributes:
        row: its sequence.
        columns: [n] places of its placeholders.
        tokens: visual tokens it has now.
        kept: which of its placeholders they were, where each stands in its own; None where they count on
            from the first.
        stays: whether each keeps its position too, whatever is lost before it; only with `kept`.
    """

    row: int
    columns: np.ndarray
    tokens: int
    kept: np.ndarray | None = None
    stays: bool = False

    @property
    def apart(self) -> bool:
        """Whether text stands between its placeholders: around tiles, or frames of a clip."""
        return bool((np.diff(self.columns) > 1).any())


def assign_places(
    prompt: Prompt, placeholder: int, before: Sequence[int], after: Sequence[int], kind: str
) -> list[Placed]:
    """Give each image or video its placeholders, in order.

    Args:
        prompt: the ids.
        placeholder: the id that stands for a visual token.
        before: placeholders of each item.
        after: tokens each item has now.
        kind: "image" or "video", for messages.

    Raises:
        InvalidInputError: not as many placeholders as visual tokens, or an item over two rows.
    """
    rows, columns = np.nonzero(prompt.ids == placeholder)  # row by row, as the model fills them
    if len(rows) != sum(before):
        raise InvalidInputError(
            f"the prompt holds {len(rows)} {kind} placeholders (id {placeholder}), but the "
            f"{len(before)} {kind}s given make {sum(before)} visual tokens; "
            "build ids and pixels with the model's own processor"
        )
    items, start = [], 0
    for count, left in zip(before, after, strict=True):
        block = slice(start, start + count)
        start += count
        owners = set(rows[block].tolist())
        if len(owners) != 1:
            raise InvalidInputError(
                f"the {count} visual tokens of one {kind} are spread over {len(owners)} sequences; "
                "build ids and pixels with the model's own processor"
            )
        items.append(Placed(owners.pop(), columns[block], left))
    return items


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every token of the shorter sequence comes from.

    Attributes:
        source: [b, s'] old column whose id (text), mask and position are taken.
        shift: [b, s'] what is added to that position.
        visual: [b, s'] index into all visual tokens, -1 for text and padding.
        real: [b, s'] False for padding.
        dropped: [b] placeholders each row lost.
    """

    source: np.ndarray
    shift: np.ndarray
    visual: np.ndarray
    real: np.ndarray
    dropped: np.ndarray


def plan_splice(prompt: Prompt, items: Sequence[Placed]) -> Plan:
    """Plan the shorter sequence.

    Args:
        prompt: ids and padding.
        items: images and videos; visual tokens are counted through them in this order.
    """
    batch, length = prompt.ids.shape
    first = np.cumsum([0, *(item.tokens for item in items)])
    by_row: list[list[int]] = [[] for _ in range(batch)]
    for number, item in enumerate(items):
        by_row[item.row].append(number)

    rows = []
    for row in range(batch):
        is_text = np.ones(length, dtype=bool)
        sources, shifts, visuals = [], [], []
        for number in by_row[row]:
            item = items[number]
            is_text[item.columns] = False
            # All tokens of an item stand where its first placeholder stood, and count on from it.
            start = item.columns[0] if len(item.columns) else 0
            if item.kept is None:
                sources.append(np.full(item.tokens, start))
                shifts.append(np.arange(item.tokens))
            else:
                sources.append(item.columns[item.kept])
                shifts.append(np.zeros(item.tokens, dtype=np.int64))
            visuals.append(np.arange(first[number], first[number + 1]))
        inside = np.flatnonzero(prompt.real[row])
        # Padding at the ends goes; a hole in the mask between real tokens stays where it is.
        span = slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)
        text = np.arange(length)[span][is_text[span]]
        source = np.concatenate([*sources, text]).astype(np.int64)
        shift = np.concatenate([*shifts, np.zeros(len(text))]).astype(np.int64)
        visual = np.concatenate([*visuals, np.full(len(text), -1)]).astype(np.int64)
        order = np.argsort(source, kind="stable")
        rows.append((source[order], shift[order], visual[order]))

    lost = np.zeros((batch, length + 1), dtype=np.int64)
    dropped = np.zeros(batch, dtype=np.int64)
    for item in items:
        # Everything behind the last placeholder moves up by what the item lost.
        gone = len(item.columns) - item.tokens
        dropped[item.row] += gone
        if item.kept is not None and not item.stays:
            away = np.delete(item.columns, item.kept)
            lost[item.row] += np.searchsorted(away, np.arange(length + 1))
        elif len(item.columns) and item.kept is None:
            lost[item.row, item.columns[-1] + 1 :] += gone

    width = max((len(source) for source, _, _ in rows), default=0)
    on_right = bool((~prompt.real[:, -1]).any())
    plan = Plan(
        source=np.zeros((batch, width), dtype=np.int64),
        shift=np.zeros((batch, width), dtype=np.int64),
        visual=np.full((batch, width), -1, dtype=np.int64),
        real=np.zeros((batch, width), dtype=bool),
        dropped=dropped,
    )
    for row, (source, shift, visual) in enumerate(rows):
        block = slice(0, len(source)) if on_right else slice(width - len(source), width)
        plan.source[row, block] = source
        plan.shift[row, block] = shift - lost[row, source]
        plan.visual[row, block] = visual
        plan.real[row, block] = prompt.real[row, source] | (visual >= 0)
    return plan


def splice(
    plan: Plan,
    ids: Tensor,
    visual: Tensor,
    embed: torch.nn.Module,
    *,
    mask: Tensor | None,
    positions: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Build the language model's input.

    Args:
        plan: where everything comes from.
        ids: [b, s] as given.
        visual: [v, d] all visual tokens, in the order of the plan's items.
        embed: the model's embedding.
        mask: [b, s] as given; its dtype is kept.
        positions: [b or 1, s] as given, or [axes, b, s].

    Returns:
        Embeddings [b, s', d]; a mask [b, s'] with 1 for real tokens, or None when all are; and positions
        [b, s'], or [axes, b, s'], or None when none were given.
    """
    batch, width = plan.source.shape
    host = np.stack((plan.source, plan.shift, plan.real.astype(np.int64)))
    source, shift, real = torch.from_numpy(host).to(ids.device, non_blocking=True)
    is_visual = plan.visual.reshape(-1) >= 0
    places = np.flatnonzero(is_visual)
    where = torch.from_numpy(np.stack((places, plan.visual.reshape(-1)[places])))
    slots, tokens = where.to(ids.device, non_blocking=True)

    # A placeholder's id need not be in the vocabulary: look another one up in its stead.
    texts = torch.where(real.bool(), ids.gather(1, source), 0).view(-1)
    texts = texts.index_fill(0, slots, 0)
    embeddings = embed(texts)
    embeddings = embeddings.index_copy(0, slots, visual.to(embeddings).index_select(0, tokens))
    out_mask = None
    if not plan.real.all():
        out_mask = real.to(mask.dtype if mask is not None else torch.long)
    out_positions = None
    if positions is not None:
        whole = positions.expand(*positions.shape[:-2], batch, -1)
        moved = whole.gather(-1, source.expand(*whole.shape[:-1], -1)) + shift
        out_positions = torch.where(real.bool(), moved, 0)
    return embeddings.view(batch, width, -1), out_mask, out_positions
