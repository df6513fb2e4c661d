"""EViT: at three vision layers keep the patches the class token attends to, fuse the rest into one.

Source: "Not All Patches are What You Need: Expediting Vision Transformers via Token
Reorganizations" (Liang et al., ICLR 2022) and its program youweiliang/evit.
Place: vision layers 4, 7 and 10 (indices 3, 6, 9), after attention and its residual, before the MLP.

Complexity, n patches: h*n additions, a sort, and (n-k)*d for the fused token.

Tokens come out in descending attention. The fused token is a sum weighted by attention that is not
normalised; the paper writes it likewise. PruMerge took its complement and extra token from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.evit import FUSE, LAYERS, RATIO
from costmodel.methods.keep import resolve_keep
from token_reduction.apply.class_attention import QueryKeyProbe, weights_of
from token_reduction.apply.inside_tower import Stream, attend
from token_reduction.apply.places import Host, reduce_in_tower
from token_reduction.apply.tower_layer import LayerStep
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import complement, output_places, take_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches


def evit(
    tokens: Tensor,
    cls_attention: Tensor,
    keep: float = RATIO,
    *,
    fuse: bool = True,
    trace: bool = False,
) -> Reduced:
    """Reorganise the patches of one layer.

    Formula: a = mean over heads of the class token's row; kept = the ceil(keep * n) largest;
    out = [class, kept, sum over the others of a_j x_j].

    Args:
        tokens: [..., n+1, d], class token first.
        cls_attention: [..., h, n+1] the class token's row of the layer's attention.
        keep: patches kept: a count, or a ratio of n rounded up. Default 0.7.
        fuse: append the fused token.
        trace: also return sources (-1 for a patch that is dropped, when nothing is fused).

    Returns:
        Reduced with tokens [..., k+2, d] (k+1 unfused), kept_indices [..., k+1] into the tokens
        given (0 first) and cls_attention [..., n]. When every patch is kept the tokens come back
        as they were, as in the program.

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, a keep out of range.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> a = torch.tensor([[0.25, 0.125, 0.5, 0.125]])
    >>> evit(x, a, 1).tokens.flatten().tolist()  # class, the best patch, (1 + 3) / 8
    [0.0, 2.0, 0.5]
    """
    n = tokens.shape[-2] - 1
    if n < 1 or cls_attention.ndim != tokens.ndim or cls_attention.shape[-1] != n + 1:
        takes = "tokens [..., n+1, d] and the class token's attention [..., h, n+1]"
        raise misfit("evit", takes, tokens, cls_attention)
    row = cls_attention.mean(dim=-2)
    require_finite("evit", cls_attention=row, tokens=tokens)
    attention = row[..., 1:]
    count = resolve_keep(keep, n, rounding="up")
    lead = tokens.shape[:-2]
    if count == n:
        everything = torch.arange(n + 1, device=tokens.device).expand(*lead, n + 1)
        return Reduced(
            tokens=tokens,
            kept_indices=everything,
            selection_order=everything,
            cls_attention=attention,
            sources=everything if trace else None,
        )
    kept = top_indices(attention, count)
    first = torch.zeros(*lead, 1, dtype=kept.dtype, device=kept.device)
    indices = torch.cat((first, kept + 1), dim=-1)
    parts = [take_tokens(tokens, indices)]
    if fuse:
        rest = complement(kept, n)
        weights = attention.gather(-1, rest).unsqueeze(-2).to(tokens.dtype)
        parts.append(weights @ take_tokens(tokens, rest + 1))
    return Reduced(
        tokens=torch.cat(parts, dim=-2),
        kept_indices=indices,
        selection_order=indices,
        cls_attention=attention,
        sources=output_places(indices, n + 1, others=count + 1 if fuse else -1) if trace else None,
    )


def plug(host: Host) -> None:
    """Reorganise the patches at some layers of the vision tower."""
    reduce_in_tower(host, Reorganise(host))


class Reorganise(LayerStep):
    """EViT: the attention runs as the model is set, and the class token's row is recomputed."""

    keeps_patches = True
    _probe: QueryKeyProbe

    def __init__(self, host: Host) -> None:
        super().__init__(host, LAYERS.of(host.method))
        self._host = host

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the class token's query and the keys of the layers that act."""
        super().attach(parts, patches)
        self._probe = QueryKeyProbe(self._host, *self.layers)

    def run(
        self,
        layer: Any,
        number: int,
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],
    ) -> Tensor:
        """Attend, then keep what the class token looks at and fuse the rest."""
        hidden = hidden + attend(layer, hidden, None, call)
        with observed("reduction"):
            row = weights_of(layer.self_attn, *self._probe.take()).to(hidden.dtype)[:, :, 0]
            keep = self.method.settled_keep
            # What an earlier layer left may be fewer than the count.
            if isinstance(keep, int) and number != min(self.layers):
                keep = min(keep, hidden.shape[1] - 1)
            kept = evit(hidden, row, keep, fuse=FUSE.of(self.method), trace=self.trace)
            stream.follow(kept.sources)
            stream.origin = _origin(stream.origin, kept)
        return kept.tokens


def _origin(origin: Tensor | None, kept: Reduced) -> Tensor | None:
    """First-layer indices of what is kept, -1 for the fused token."""
    if origin is None or kept.kept_indices is None:
        return None
    held = origin.gather(1, kept.kept_indices)
    fused = kept.tokens.shape[1] - held.shape[1]
    return torch.nn.functional.pad(held, (0, fused), value=-1)
