"""VTW: from layer K of the language model on, no image token at all.

Source: "Boosting Multimodal Large Language Models with Visual Tokens Withdrawal for Rapid Inference"
(Lin et al., 2024) and its program lzhxmu/VTW.
Place: before language-model layer K (counted from 0), at prefill only. Hidden states and position
ids (the originals) lose the image slice; layers below K cache every token, the others text only.
It reads no score, so any attention kernel serves.

Complexity: one copy of the text tokens. Finding K: one full and T-5 withdrawn runs per sample.

The program's K is 15 in the cache code, 16 in its 7B command and 20 for the 13B model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.vtw import published_layer
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.llm_policy import OneCut
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.reduced import Selection
from token_reduction.tokens.selection import check_image_span, complement, image_positions

if TYPE_CHECKING:
    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.apply.llm_tokens import Group

# Largest mean divergence (nats) the program accepts, by model.
ETA = {"llava-1.5-7b": 0.003, "llava-1.5-13b": 0.0005, "llava-next-7b": 0.0001}
FIRST_LAYER = 5


def vtw(
    length: int, *, start: int | Tensor, image_tokens: int, device: torch.device | str = "cpu"
) -> Selection:
    """Withdraw every image token from a sequence of `length` tokens, as indices on `device`.

    The image tokens begin at `start`, or at one place per sequence (a tensor [...]). What stays is all text,
    [..., length - image_tokens].

    Raises:
        InvalidInputError: image slice outside the sequence, or nothing but image tokens.

    >>> vtw(6, start=1, image_tokens=3).kept_indices.tolist()
    [0, 4, 5]
    """
    check_image_span(start, image_tokens, length)
    if image_tokens == length:
        raise InvalidInputError(
            f"all {length} tokens are image tokens: withdrawing them leaves an empty sequence"
        )
    positions = image_positions(start, image_tokens, torch.device(device))
    return Selection(kept_indices=complement(positions, length), image_indices=positions[..., :0])


def withdrawal_divergence(full_logits: Tensor, withdrawn_logits: Tensor) -> Tensor:
    """How far withdrawing moved the distribution of the next token, in nats: [...], in float32 or wider.

    Formula: KL(p_withdrawn || p_full) = sum over v of p_w (log p_w - log p_full), the argument
    order of the program's kl_div(log_softmax(full), softmax(withdrawn)), from the last token's logits
    [..., v] with and without withdrawal, which broadcast.

    Raises:
        InvalidInputError: NaN or infinity in the logits.

    >>> withdrawal_divergence(torch.zeros(2), torch.zeros(2)).item()
    0.0
    """
    require_finite("vtw", full_logits=full_logits, withdrawn_logits=withdrawn_logits)
    wide = torch.promote_types(full_logits.dtype, torch.float32)
    full = full_logits.to(wide).log_softmax(dim=-1)
    withdrawn = withdrawn_logits.to(wide).log_softmax(dim=-1)
    return (withdrawn.exp() * (withdrawn - full)).sum(dim=-1)


def search_layer(divergence: Tensor, eta: float, *, first_layer: int = FIRST_LAYER) -> int:
    """The first layer from which the image tokens can be withdrawn.

    Formula: K = first_layer + min{i : mean over samples of divergence[:, i] <= eta}, for divergences
    [samples, layers] in nats, column i for withdrawal at layer first_layer + i. `ETA` has the program's eta.

    Raises:
        InvalidInputError: no layer is good enough (says which comes closest), NaN, or an empty
            table.

    >>> search_layer(torch.tensor([[0.5, 0.002, 0.001], [0.1, 0.003, 0.001]]), 0.003)
    6
    """
    if divergence.ndim != 2 or 0 in divergence.shape:
        raise misfit("the layer search", "divergences [samples, layers]", divergence)
    means = divergence.detach().double().mean(dim=0).tolist()
    if any(mean != mean for mean in means):
        raise InvalidInputError("NaN in the divergences: a run of the search gave no distribution")
    for layer, mean in enumerate(means, start=first_layer):
        if mean <= eta:
            return layer
    best = min(range(len(means)), key=means.__getitem__)
    raise InvalidInputError(
        f"no layer from {first_layer} to {first_layer + len(means) - 1} has a mean divergence of "
        f"at most {eta:g}; the closest is layer {first_layer + best} with {means[best]:.3g}, "
        "so give a larger eta"
    )


def plug(host: Host) -> None:
    """Withdraw at one layer of the language model."""
    reduce_between_layers(host, Withdraw)


class Withdraw(OneCut):
    """VTW: no visual token stays."""

    def __init__(self, method: Method, parts: Parts) -> None:
        layer = published_layer(len(parts.layers)) if method.layer is None else method.layer
        super().__init__(method, parts, layer)

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Keep none of them."""
        return group.places[:, :0]
