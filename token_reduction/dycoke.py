"""DyCoke: of most frames of a clip, the places least like a frame before.

Source: "DyCoke: Dynamic Compression of Tokens for Fast Video Large Language Models" (Tao et al., CVPR 2025,
arXiv 2411.15024) and its program KD-TAO/DyCoke.
Place: after the projector, on clips; images and clips of one frame are left alone. Needs nothing beside the
tokens. Tokens that stay keep their places on three axes; elsewhere they count on. variant="both" adds the
second stage: at every decode step, layers 3 and on read those visual entries of the cache that the step's
token looks at most in layer 2, recomputed beside its fused kernel.

Complexity, n tokens of p per frame, d width: n*d and sorts of p. The length depends on the frames alone. As
in the program, frame i + 2 is compared with i for i = 0, 4, 8, ... below T - 4, so two of the last four
frames stay whole. Unlike there, the last of an odd number of frames is kept (the program loses it), and
what stays of a frame is in spatial order, not by similarity. Where a step's attention is like the last one's
(cosine from 0.9 on), the paper goes on with the entries it has; the program has forgotten them by then and
reads all. Here the paper's way is run and priced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.dycoke import ALIKE, AT, PARK, RATIO, compared_frames, entries_read
from costmodel.methods.keep import resolve_keep
from costmodel.methods.llm_ranking import cut_layers
from token_reduction.apply.places import Host, reduce_clips
from token_reduction.apply.unread import UnreadEntries
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import bottom_indices, frame_cosines, top_indices

if TYPE_CHECKING:
    from torch import Tensor


def dycoke(frames: Tensor, keep: float = RATIO) -> Reduced:
    """Thin out the frames that resemble one before.

    Formula: frames 1, 3, 5, ... against the frame before, and frames 2, 6, 10, ... below T - 2 against the
    second frame before; int(keep * p) places with the smallest cosine stay of each.

    Args:
        frames: [t, p, d] tokens of t frames.
        keep: share of a frame's tokens, rounded down, or a count.

    Returns:
        Reduced of the t * p tokens; kept_indices ascending.

    Raises:
        InvalidInputError: no clip, NaN or infinity, a keep out of range.

    >>> clip = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]])
    >>> dycoke(clip, 1).kept_indices.tolist()
    [0, 1, 3]
    """
    if frames.ndim != 3 or not frames.shape[0] * frames.shape[1]:
        raise misfit("dycoke", "the tokens of frames [t, p, d]", frames)
    count, each, width = frames.shape
    kept = resolve_keep(keep, each, rounding="down")
    # Of each four frames 1 and 3 against the one before, and 2 against the first: slices, so no copies.
    steps = [(slice(1, None, 2), slice(0, count - 1, 2))]
    if count > 4:
        steps.append((slice(2, count - 2, 4), slice(0, count - 4, 4)))
    with torch.no_grad():
        norms = frames.norm(dim=-1, keepdim=True)
        require_finite("dycoke", frames=norms)
        lengths = norms.clamp_min(torch.finfo(frames.dtype).tiny)
        stay = torch.ones(count, each, dtype=torch.uint8, device=frames.device)
        for later, earlier in steps:
            cosine = frame_cosines(frames, lengths, later, earlier)
            stay[later] = torch.zeros_like(stay[later]).scatter(-1, bottom_indices(cosine, kept), 1)
        total = count * each - int(compared_frames(count)) * (each - kept)
        order = stay.flatten().argsort(descending=True, stable=True)[:total]
    return Reduced(frames.reshape(-1, width)[order], kept_indices=order, selection_order=order)


def entries_to_read(
    attention: Tensor,
    last: tuple[Tensor, Tensor] | None = None,
    *,
    park: float = PARK.default,
    alike: float = ALIKE.default,
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Choose the visual entries of the cache that a decode step reads.

    Formula: the int(n (1 - park)) entries with the largest mean attention over the heads; where the cosine of
    this attention to the last step's is at least `alike`, the last step's choice.

    Args:
        attention: [..., h, n] the step's token to the visual entries.
        last: what the last step gave; None at the first.
        park: share of entries left unread.
        alike: cosine from which on the last choice stays.

    Returns:
        What the next step is given, and the entries, [..., m], ascending.

    >>> row = torch.tensor([[0.1, 0.6, 0.3]])
    >>> kept, entries = entries_to_read(row, park=0.5)
    >>> entries.tolist(), entries_to_read(row.flip(-1), kept, park=0.5, alike=1.0)[1].tolist()
    ([1], [1])
    >>> entries_to_read(torch.tensor([[0.9, 0.0, 0.0]]), kept, park=0.5)[1].tolist()
    [0]
    """
    if attention.ndim < 2:
        raise misfit("dycoke", "attention [..., h, n] to the visual entries", attention)
    row = attention.mean(dim=-2)
    require_finite("dycoke", attention=row)
    count = int(entries_read(row.shape[-1], park))
    chosen = top_indices(row, count).sort(dim=-1).values
    if last is not None:
        before, held = last
        cosine = torch.nn.functional.cosine_similarity(row, before, dim=-1)
        chosen = torch.where((cosine >= alike).unsqueeze(-1), held, chosen)
    return (row, chosen), chosen


def plug(host: Host) -> None:
    """Thin out the frames of each clip behind the projector; leave cached entries unread where asked for."""
    method, keep = host.method, host.method.settled_keep
    if method.info.second_place is None:
        reduce_clips(host, lambda frames: dycoke(frames, keep))
        return
    host.parts.require_decoder_layers(method.name)
    cut_layers("dycoke", (AT.of(method),), len(host.parts.layers), option="at")
    settings = {"park": PARK.of(method), "alike": ALIKE.of(method)}

    def reduced(frames: Tensor) -> Reduced:
        entries.active = True
        return dycoke(frames, keep)

    reduce_clips(host, reduced)
    entries = UnreadEntries(
        host.parts, method.name, AT.of(method), host.shortened[-1],
        lambda attention, last: entries_to_read(attention, last, **settings),
    )  # fmt: skip
    entries.attach(host.patches)
