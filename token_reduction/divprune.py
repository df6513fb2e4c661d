"""DivPrune: keep the tokens that are farthest from each other.

Source: "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models" (Alvar et al.,
CVPR 2025) and its program vbdi/divprune, `llava_arch.py`.
Place: after the projector (and after LLaVA-NeXT's tiles and newline tokens are joined), before layer
0 of the language model; the paper also prunes the hidden states at a later layer, which the program
does not release. The function is the same there: give it the image slice of the hidden states.
The language model sees a plain shorter sequence with new contiguous positions.

Complexity, n tokens, k kept, d width: n^2*d for the distances, k*n for a running minimum. The
program recomputes the minimum over all picks each time, k^2*n/2; the picks are the same. The k picks
depend on each other: that many dependent steps on any device.

Program and paper agree but for the layer. Two deviations here, neither visible on ordinary input:
a token is never picked twice (with duplicate tokens the program's argmax may return one that is
already taken), and a token of length zero is at distance 1 from all others (there it is NaN).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from costmodel.methods.divprune import COMPUTE_DTYPE, RATIO
from costmodel.methods.keep import resolve_keep
from token_reduction.apply.llm_policy import OneCut, visual_states
from token_reduction.apply.places import Host, reduce_between_layers, reduce_items
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.selection import picked_tokens, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.apply.llm_tokens import Group
    from token_reduction.tokens.reduced import Reduced


def divprune(
    tokens: Tensor, keep: float = RATIO, *, compute_dtype: torch.dtype | None = None
) -> Reduced:
    """Keep a max-min diverse subset of tokens.

    Formula: D = 1 - cos(v_i, v_j). First pick: the token farthest from its nearest neighbour.
    Then again and again argmax over j of min over picked i of D[i, j].

    Args:
        tokens: [..., n, d] projected visual tokens.
        keep: a count, or a ratio with round(ratio * n), ties to even. Default 0.098, the program's.
        compute_dtype: precision of the distances; None is the tokens' own, as in the program.
            Distances near 1 have a step of 5e-4 in float16 and 4e-3 in bfloat16, so many tie.

    Returns:
        Reduced with tokens [..., k, d] in spatial order and untouched, kept_indices ascending and
        selection_order as picked. Equal distances: lowest index first on a CPU, open on CUDA.

    Raises:
        InvalidInputError: not a token list, NaN or infinity (also a norm beyond the range of
            the precision), a keep out of range.

    >>> divprune(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 2).selection_order.tolist()
    [2, 0]
    """
    if tokens.ndim < 2 or tokens.shape[-2] < 1:
        raise misfit("divprune", "tokens [..., n, d]", tokens)
    n = tokens.shape[-2]
    k = resolve_keep(keep, n, rounding="nearest")
    with torch.no_grad():
        picks = farthest_points(cosine_distance(tokens, compute_dtype=compute_dtype), k)
    return picked_tokens(tokens, picks)


def cosine_distance(tokens: Tensor, *, compute_dtype: torch.dtype | None = None) -> Tensor:
    """Pairwise 1 - cos of tokens [..., n, d], as [..., n, n].

    Raises:
        InvalidInputError: NaN or infinity in the tokens or their norms.

    >>> cosine_distance(torch.tensor([[2.0, 0.0], [0.0, 3.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    values = tokens if compute_dtype is None else tokens.to(compute_dtype)
    norms = values.norm(dim=-1, keepdim=True)
    # NaN or infinity anywhere in a token is in its norm too, which is d times shorter to look at.
    require_finite("divprune", tokens=norms)
    unit = unit_rows(values, norms)
    distance: Tensor = unit @ unit.transpose(-1, -2)
    if distance.requires_grad:
        return 1.0 - distance
    # In place: the matrix is the largest thing here, 33 MB for 2880 tokens.
    return torch.sub(
        torch.ones((), dtype=distance.dtype, device=distance.device), distance, out=distance
    )


def farthest_points(distance: Tensor, k: int) -> Tensor:
    """Greedy max-min picks [..., k] from distances [..., n, n], whose diagonal is overwritten.

    The running minimum: closest[j] = min over picks i of distance[i, j], updated by one row per
    pick. The diagonal set to -inf makes a picked token its own nearest neighbour for good.

    >>> d = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 3.0], [4.0, 3.0, 0.0]])
    >>> farthest_points(d, 3).tolist()  # nearest neighbours at 1, 1, 3
    [2, 0, 1]
    """
    n = distance.shape[-1]
    diagonal = distance.diagonal(dim1=-2, dim2=-1)
    diagonal.fill_(float("inf"))
    first = distance.amin(dim=-2).argmax(dim=-1)
    diagonal.fill_(float("-inf"))
    stacked = distance.reshape(-1, n, n)
    starts = first.reshape(-1)
    if distance.device.type == "cpu":
        picks = torch.stack(
            [_pick_on_cpu(d, int(s), k) for d, s in zip(stacked, starts, strict=True)]
        )
    else:
        picks = _pick_on_device(stacked, starts, k)
    return picks.reshape(*distance.shape[:-2], k)


def _pick_on_cpu(distance: Tensor, first: int, k: int) -> Tensor:
    """The loop in NumPy: a step costs two short calls, several times less than through torch."""
    # NumPy has no bfloat16; float32 holds both half formats exactly, so the picks do not move.
    wide = distance.dtype if distance.dtype == torch.float64 else torch.float32
    rows = distance.to(wide).numpy()
    picks = np.empty(k, dtype=np.int64)
    picks[0] = pick = first
    closest = rows[pick].copy()
    for step in range(1, k):
        picks[step] = pick = int(closest.argmax())
        np.minimum(closest, rows[pick], out=closest)
    return torch.from_numpy(picks)


def _pick_on_device(distance: Tensor, first: Tensor, k: int) -> Tensor:
    """The loop on an accelerator: three kernels a step, the pick never leaves the device."""
    batch, n, _ = distance.shape
    picks = torch.empty(k, batch, 1, dtype=torch.long, device=distance.device)
    picks[0] = first.unsqueeze(-1)
    closest = _rows(distance, picks[0], n).clone()
    for step in range(1, k):
        torch.argmax(closest, dim=-1, keepdim=True, out=picks[step])
        torch.minimum(closest, _rows(distance, picks[step], n), out=closest)
    return picks.squeeze(-1).T.contiguous()


def _rows(distance: Tensor, pick: Tensor, n: int) -> Tensor:
    """One row of each matrix: [b, n, n] and [b, 1] give [b, n]."""
    return distance.gather(1, pick.unsqueeze(-1).expand(-1, 1, n)).squeeze(1)


def plug(host: Host) -> None:
    """Prune each whole image or video; with a layer beyond 0, the hidden states that enter it."""
    if host.method.layer:
        reduce_between_layers(host, Diverse)
    else:
        reduce_items(host, lambda item: _picked(host.method, item.tokens))


def _picked(method: Method, tokens: Tensor) -> Reduced:
    name = COMPUTE_DTYPE.of(method)
    dtype = None if name is None else getattr(torch, name)
    return divprune(tokens, method.settled_keep, compute_dtype=dtype)


class Diverse(OneCut):
    """DivPrune on the hidden states that enter a layer."""

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Keep the tokens farthest from each other."""
        found = _picked(self.method, visual_states(hidden, group, now.tokens)).kept_indices
        assert found is not None  # noqa: S101  (divprune selects)
        return found
