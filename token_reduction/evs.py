"""EVS: of a clip, the tokens that differ most from the same place a frame before.

Source: "Efficient Video Sampling: Pruning Temporally Redundant Tokens for Faster VLM Inference" (Bagrov et
al., 2025, arXiv 2510.14624), as serving engines run it.
Place: after the projector (behind the merger), on clips; images and clips of one frame are left alone. Needs
nothing beside the tokens. Tokens that stay keep their places on three axes; elsewhere they count on.

Complexity, n tokens, d width: one pass over n*d and one sort of n. The number of tokens is known before the
tower runs: max(tokens of a frame, int(keep * n)). Engines are given the share q that goes and compute 1 - q:
at q = 0.8 rounding makes that a token fewer than keep=0.2 where 0.2 n is whole; keep=1 - 0.8 equals it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.evs import RATIO
from costmodel.methods.keep import resolve_keep
from token_reduction.apply.places import Host, reduce_clips
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.selection import frame_cosines, picked_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.tokens.reduced import Reduced

#: Score of the first frame, above any 1 - cos.
FIRST = 255.0


def evs(frames: Tensor, keep: float = RATIO) -> Reduced:
    """Keep the tokens of a clip that changed most.

    Formula: s[t, p] = 1 - cos(x[t, p], x[t-1, p]), s[0, p] = 255; the max(p, int(keep * t * p)) largest
    of the whole clip stay, in raster order.

    Args:
        frames: [t, p, d] tokens of t frames.
        keep: a count, or a ratio of all tokens rounded down; no fewer than a frame's stay.

    Returns:
        Reduced of the t * p tokens; kept_indices ascending, scores [t * p]. Equal scores: the earlier token.

    Raises:
        InvalidInputError: no clip, NaN or infinity, a keep out of range.

    >>> clip = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]])
    >>> evs(clip, 3).kept_indices.tolist()  # the first frame, and what turned
    [0, 1, 3]
    """
    if frames.ndim != 3 or not frames.shape[0] * frames.shape[1]:
        raise misfit("evs", "the tokens of frames [t, p, d]", frames)
    count, each, width = frames.shape
    kept = max(each, resolve_keep(keep, count * each, rounding="down"))
    with torch.no_grad():
        norms = frames.norm(dim=-1, keepdim=True)
        require_finite("evs", frames=norms)
        lengths = norms.clamp_min(torch.finfo(frames.dtype).tiny)
        change = 1.0 - frame_cosines(frames, lengths, slice(1, None), slice(count - 1))
        scores = torch.nn.functional.pad(change, (0, 0, 1, 0), value=FIRST).flatten()
    return picked_tokens(frames.reshape(-1, width), top_indices(scores, kept), scores=scores)


def plug(host: Host) -> None:
    """Prune each clip behind the projector."""
    keep = host.method.settled_keep
    reduce_clips(host, lambda frames: evs(frames, keep))
