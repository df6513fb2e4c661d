"""PyramidDrop: after some language-model layers, half of the image tokens that are left.

Source: "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction" (Xing et al., CVPR 2025) and its program Cooperx521/PyramidDrop.
Place: after language-model layers 8, 16 and 24 (of 32), at prefill. The score is the attention of
the LAST instruction token as the NEXT layer would compute it (its layer norm, its query and key
projections), so any attention kernel serves. Positions are renumbered.

Complexity, n image tokens, d width: one more key projection over the sequence (s*d*d_kv), one query,
n*d for the scores and a sort, per stage. Program and paper agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.pyramiddrop import LAYERS, RATIO, stage_layers
from token_reduction.apply.inside_llm import Policy
from token_reduction.apply.llm_attention import heads_of, project, rotate, split_heads
from token_reduction.apply.llm_policy import by_sequence
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.fastv import select_image_tokens
from token_reduction.tokens.checks import misfit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.tokens.reduced import Selection


def pyramiddrop(
    query: Tensor, keys: Tensor, keep: float = RATIO, *, start: int | Tensor, image_tokens: int
) -> Selection:
    """Keep the image tokens the last instruction token looks at.

    Formula: score = mean over heads of softmax(q k^T / sqrt(e)) at the image tokens;
    int(keep * n) of them stay.

    Args:
        query: [..., h, e] of the last instruction token, in the next layer, position applied.
        keys: [..., h, s, e] likewise (grouped keys repeated to h heads).
        keep: image tokens kept at this stage: a ratio of those left, rounded down, or a count.
        start: sequence position of the first image token; a tensor [...] for one per sequence.
        image_tokens: image tokens the sequence still has.

    Returns:
        Selection over the whole sequence, ascending, all text kept.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> keys = torch.tensor([[[0.0], [1.0], [3.0], [2.0], [0.0]]])
    >>> pyramiddrop(torch.ones(1, 1), keys, start=1, image_tokens=3).kept_indices.tolist()
    [0, 2, 4]
    """
    if query.shape != (*keys.shape[:-2], keys.shape[-1]):
        raise misfit("pyramiddrop", "a query [..., h, e] and keys [..., h, s, e]", query, keys)
    logits = (keys @ query.unsqueeze(-1)).squeeze(-1) * keys.shape[-1] ** -0.5
    wide = torch.promote_types(logits.dtype, torch.float32)
    row = logits.softmax(dim=-1, dtype=wide).mean(dim=-2)
    count = resolve_keep(keep, image_tokens, rounding="down")
    return select_image_tokens(
        row, count, start=start, image_tokens=image_tokens, method="pyramiddrop"
    )


def plug(host: Host) -> None:
    """Cut before some layers of the language model."""
    layers = stage_layers(len(host.parts.layers), LAYERS.of(host.method))
    stages = dict.fromkeys(layers, host.method.settled_keep)
    reduce_between_layers(host, lambda *_: PyramidStages(host.method.name, host.parts, stages))


class PyramidStages(Policy):
    """PyramidDrop: each stage keeps the tokens that the last token would attend to in the next layer.

    Args:
        name: the method's name, for messages.
        parts: the model.
        stages: at which layers, and what each keeps of what there is.
        one_stays: whether a share that comes to none leaves one token.
    """

    renumbers = True

    def __init__(
        self, name: str, parts: Parts, stages: Mapping[int, float], *, one_stays: bool = False
    ) -> None:
        self._one_stays = one_stays
        self._name = name
        self._parts = parts
        self._stages = stages

    def cuts_at(self, layer: int) -> bool:
        """Say whether a layer is one of its stages."""
        return layer in self._stages

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor]:
        """Project with the layer to come, and rank each sequence."""
        module: Any = self._parts.layers[layer]
        attention = module.self_attn
        heads = heads_of(attention, self._parts.language.config)
        rope = now.rope or now.full_rope
        assert rope is not None  # noqa: S101  (the first layer has run)
        batch = hidden.shape[0]
        cos, sin = (part.expand(batch, -1, -1) for part in rope)
        normed = module.input_layernorm(hidden)
        keys = rotate(split_heads(project(attention, "k", normed), heads.dim), cos, sin)
        keys = keys.repeat_interleave(heads.query // heads.kv, dim=1)
        last = torch.tensor([now.tokens.span(row).stop - 1 for row in range(batch)])
        last = last.to(hidden.device, non_blocking=True).view(-1, 1, 1)
        asked = project(attention, "q", normed.take_along_dim(last, 1))
        turns = (part.take_along_dim(last, 1) for part in (cos, sin))
        queries = rotate(split_heads(asked, heads.dim), *turns)[:, :, 0]
        keep = self._stages[layer]

        def ranked(row: int, span: slice, start: int, count: int) -> Selection:
            kept = max(1, int(keep * count)) if self._one_stays else keep
            return pyramiddrop(
                queries[row], keys[row, :, span], kept, start=start, image_tokens=count
            )

        return by_sequence(now, self._name, ranked)
