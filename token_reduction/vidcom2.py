"""VidCom2: of a clip, the tokens least like their frame and their video.

Source: "Video Compression Commander: Plug-and-Play Inference Acceleration for Video Large Language Models"
(Liu et al., EMNLP 2025, arXiv 2505.14454), its program xuyang-liu16/VidCom2, and its port to vLLM.
Place: after the projector, on clips; images and clips of one frame are left alone. Needs nothing beside the
tokens. Tokens that stay keep their places on three axes; elsewhere they count on.

Complexity, n tokens, d width: passes over n*d, a few sorts of n. The authors' program stops at the frames'
own counts, whose sum is about keep * n; the port adds or takes the next tokens so that it is exactly
max(t, int(keep * n)), which is done here, since a known number is what a prompt can be laid out by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.vidcom2 import RATIO, TEMPERATURE, WIDTHS
from token_reduction.apply.places import Host, reduce_clips
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.selection import bottom_indices, picked_tokens, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.tokens.reduced import Reduced


def vidcom2(frames: Tensor, keep: float = RATIO) -> Reduced:
    """Keep the tokens of a clip that stand out from their frame and from the clip.

    Formula: on the half of the channels with the lowest variance, normalised, nearness to a centre c is
    the sum over a in {1/8, 1/4, 1/2, 1, 2} of exp(-|x - c|^2 / 2a); a score is that to the mean of the clip
    and to that of the frame together. A frame's weight w is the softmax over frames of minus its mean
    nearness to the clip, over 0.01. round(p min(1, keep (1 + w - mean w))) of its p tokens, 1 at least, come
    first, lowest scores before higher ones; then the others. The first max(t, int(keep t p)) stay.

    Args:
        frames: [t, p, d] tokens of t frames.
        keep: a count, or a ratio of all tokens rounded down; no fewer than t stay.

    Returns:
        Reduced of the t * p tokens; kept_indices ascending, scores [t * p], lowest kept.

    Raises:
        InvalidInputError: no clip, NaN or infinity, a keep out of range.

    >>> steady = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> restless = torch.tensor([[[5.0, 0.0], [0.0, 5.0]], [[5.0, 5.0], [0.0, 0.0]]])
    >>> clip = torch.cat((steady, restless), dim=-1)  # the latter's channels have no part in it
    >>> vidcom2(clip, 3).kept_indices.tolist()  # the unusual frame, and one of the other
    [0, 2, 3]
    """
    if frames.ndim != 3 or not frames.shape[0] * frames.shape[1]:
        raise misfit("vidcom2", "the tokens of frames [t, p, d]", frames)
    count, each, width = frames.shape
    total = count * each
    kept = max(count, resolve_keep(keep, total, rounding="down"))
    with torch.no_grad():
        wide = frames.to(torch.promote_types(frames.dtype, torch.float32))
        spread = wide.reshape(total, width).var(dim=0, correction=0)
        require_finite("vidcom2", frames=spread)
        quiet = wide[..., bottom_indices(spread, max(1, width // 2))]
        unit = unit_rows(quiet)
        to_clip = _nearness(unit, unit.mean(dim=(0, 1)))
        scores = to_clip + _nearness(unit, unit.mean(dim=1, keepdim=True))
        ratio = keep if isinstance(keep, float) else kept / total
        shares = _shares(to_clip.mean(dim=-1), ratio)
        quota = (shares * each).round().clamp(1, each)
        # Rank within the frame, then all tokens: those within their frame's quota first.
        places = scores.argsort(dim=-1, stable=True).argsort(dim=-1)
        beyond = (places >= quota.unsqueeze(-1)).flatten()
        order = scores.flatten().argsort(stable=True)
        picks = order[beyond[order].to(torch.uint8).argsort(stable=True)][:kept]
    return picked_tokens(frames.reshape(total, width), picks, scores=scores.flatten())


def _nearness(unit: Tensor, centre: Tensor) -> Tensor:
    distance = (unit - centre).square().sum(dim=-1)
    return torch.stack([(-distance / (2 * width)).exp() for width in WIDTHS]).sum(dim=0)


def _shares(nearness: Tensor, ratio: float) -> Tensor:
    """Share of each frame's tokens, [t], from its mean nearness to the clip."""
    weights = (-nearness / TEMPERATURE).softmax(dim=-1)
    return (ratio * (1 + weights - weights.mean())).clamp_max(1.0)


def plug(host: Host) -> None:
    """Prune each clip behind the projector."""
    keep = host.method.settled_keep
    reduce_clips(host, lambda frames: vidcom2(frames, keep))
