"""V2Drop: image tokens that a layer hardly changed are dropped at the next.

Source: "Variation-aware Vision Token Dropping for Faster Large Vision-Language Models" (CVPR 2026) and its
program xuyang-liu16/V2Drop.
Place: at the entry of language-model layers 3, 17 and 22, at prefill, from hidden states alone: any attention
kernel serves. An image in front of the question does not see it, so the question has no part in the choice.
Positions stay the original ones.

Complexity, n image tokens, d width: n*d per cut and a sort. The program keeps max(1, int(n * share)) at
shares 0.5, 0.5 and 0: its "0" leaves one token. The paper's text speaks of 50, 70 and 100 % dropped;
`shares` takes them. The program's own places (35 tokens before the image, 576 of it) are not assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.v2drop import left_of, stages_of
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.inside_llm import Policy
from token_reduction.apply.llm_policy import visual_states
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.selection import picked_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import LayerReduction, Prefill
    from token_reduction.apply.llm_tokens import Group
    from token_reduction.tokens.reduced import Reduced


def v2drop(states: Tensor, before: Tensor, keep: float) -> Reduced:
    """Keep the tokens that changed most.

    Formula: score = L2 norm of states - before; the max(1, int(keep * n)) largest stay, in order.

    Args:
        states: [..., n, d] what enters a layer.
        before: [..., n, d] what entered the layer before, of the same tokens.
        keep: a ratio rounded down, 0.0 for one token; or a count.

    Raises:
        InvalidInputError: shapes that differ, NaN or infinity.

    >>> now, then = torch.tensor([[1.0], [5.0], [2.0]]), torch.tensor([[1.0], [2.0], [1.0]])
    >>> v2drop(now, then, 0.67).kept_indices.tolist(), v2drop(now, then, 0.0).kept_indices.tolist()
    ([1, 2], [1])
    """
    if states.shape != before.shape or states.ndim < 2:
        raise misfit("v2drop", "states [..., n, d] at two layers", states, before)
    with torch.no_grad():
        change = (states - before).norm(dim=-1)
        require_finite("v2drop", states=change)
        picks = top_indices(change, int(left_of(keep, states.shape[-2])))
    return picked_tokens(states, picks, scores=change)


def plug(host: Host) -> None:
    """Cut before some layers of the language model."""
    reduce_between_layers(host, Changed)


class Changed(Policy):
    """V2Drop: what the layer before changed most stays.

    Raises:
        InvalidInputError: a layer the model does not have, or the first, before which there is none.
    """

    def __init__(self, method: Method, parts: Parts) -> None:
        self._stages = dict(stages_of(method, len(parts.layers), method.keep))
        if 0 in self._stages:
            raise InvalidInputError(
                f"{method.name} compares with the layer before; give layers of at least 1"
            )
        self._before: Tensor | None = None

    def cuts_at(self, layer: int) -> bool:
        """At its stages."""
        return layer in self._stages

    def forget(self) -> None:
        """Forget the states."""
        self._before = None

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """Cut, and remember what enters a layer before a cut."""
        hidden = super().enter(layer, now, hidden, cutter)
        self._before = hidden if layer + 1 in self._stages else None
        return hidden

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:
        """Keep the tokens that changed most."""
        assert self._before is not None  # noqa: S101  (the layer before ran)
        states, before = (visual_states(each, group, now.tokens) for each in (hidden, self._before))
        kept = v2drop(states, before, self._stages[layer]).kept_indices  # type: ignore[arg-type]
        assert kept is not None  # noqa: S101  (it selects)
        return kept
