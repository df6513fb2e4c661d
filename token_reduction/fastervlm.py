"""FasterVLM: after the projector, keep the patches that the class token attends to most.

Source: "[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference
Faster" (Zhang et al., 2024) and its program Theia-4869/FasterVLM.
Place: after the projector, which sees all tokens; attention of the CLIP layer whose output is the
feature (-2). The language model sees a plain shorter sequence in spatial order.
Complexity: h*n additions and a sort. Program and paper agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.keep import resolve_keep
from token_reduction.apply.class_attention import ClassAttention
from token_reduction.apply.places import Host, reduce_crops
from token_reduction.tokens.checks import require_finite
from token_reduction.tokens.selection import check_row, picked_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.tokens.reduced import Reduced


def fastervlm(tokens: Tensor, cls_attention: Tensor, keep: float) -> Reduced:
    """Keep the tokens with the largest class attention.

    Formula: score = mean over heads of the class token's row.

    Args:
        tokens: [..., n, d].
        cls_attention: [..., h, n] the class token's row without its own column.
        keep: a count, or a ratio rounded to nearest.

    Returns:
        Reduced in spatial order; selection_order has descending attention.

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, a keep out of range.

    >>> import torch
    >>> row = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    >>> fastervlm(torch.arange(4.0).unsqueeze(-1), row, 2).tokens.flatten().tolist()
    [1.0, 3.0]
    """
    check_row("fastervlm", tokens, cls_attention)
    attention = cls_attention.mean(dim=-2)
    require_finite("fastervlm", cls_attention=attention)
    order = top_indices(attention, resolve_keep(keep, tokens.shape[-2]))
    return picked_tokens(tokens, order, cls_attention=attention)


def plug(host: Host) -> None:
    """Rank the projected patches of every crop by the class token's attention."""
    attention = ClassAttention(host)
    keep = host.method.settled_keep

    def attended(tokens: Tensor, tower: Tower) -> Reduced:
        return fastervlm(tokens, attention.of_patches(tokens, tower), keep)

    reduce_crops(host, attended, before_projector=False)
