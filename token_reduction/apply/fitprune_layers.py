"""FitPrune inside decoder layers: rows go between attention and FFN, so the layer is written out here.

In a layer that deletes tokens the attention needs its whole score map, which is therefore computed in
the open; queries, keys, values and the cache are those of all tokens that entered, and only the
attention's output and the residual lose the deleted rows before o_proj and the FFN. Layers that delete
nothing run as the model is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.apply.llm_attention import (
    attention_weights,
    causal_mask,
    heads_of,
    rotate,
    split_heads,
)
from token_reduction.apply.llm_methods import KeepEverything, contiguous_start, rows_of
from token_reduction.caches import cache_in
from token_reduction.fitprune import fitprune, scheme_for
from token_reduction.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import LayerReduction, Prefill
    from token_reduction.apply.patching import Patches
    from token_reduction.registry import Method


class FittedDeletion(KeepEverything):
    """FitPrune.

    Args:
        method: what is asked for.
        parts: the model.
    """

    def __init__(self, method: Method, parts: Parts) -> None:
        self.method = method
        self._layers = len(parts.layers)
        self._deletions: dict[int, tuple[int, ...]] = {}
        self._now: Prefill | None = None
        self._cutter: LayerReduction | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Replace the layers' forwards."""
        for number, layer in enumerate(parts.layers):
            patches.replace(layer, "forward", self._forward(parts, layer, number))

    def begin(self, now: Prefill) -> None:
        """Fix how many tokens each layer deletes from sequences of each visual token count."""
        counts = {len(places) for places in now.visual_places}
        self._deletions = {count: self._scheme(count) for count in counts}
        self._now = now

    def _scheme(self, count: int) -> tuple[int, ...]:
        layers = self._layers
        given: Any = self.method.options["scheme"]
        if count == 0:
            return (0,) * layers
        if given is None:
            keep: Any = self.method.keep
            return scheme_for(keep, num_layers=layers, image_tokens=count)
        if len(given) != layers or sum(given) > count:
            raise InvalidInputError(
                f"the scheme deletes {sum(given)} tokens in {len(given)} layers; this prompt has "
                f"{count} visual tokens and the language model {layers} layers"
            )
        return tuple(given)

    def forget(self) -> None:
        """Let the prefill go."""
        self._now = self._cutter = None

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:  # noqa: ARG002
        """Nothing goes before the attention."""
        self._cutter = cutter
        return hidden

    def _forward(self, parts: Parts, layer: Any, number: int) -> Callable[..., Any]:
        original = layer.forward
        heads = heads_of(layer.self_attn, parts.language.config)

        def forward(hidden_states: Tensor, **call: Any) -> Any:
            now = self._now
            if now is None or not any(scheme[number] for scheme in self._deletions.values()):
                return original(hidden_states, **call)
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden_states)
            queries, keys, values = (
                split_heads(projection(normed), heads.dim)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            queries, keys = (rotate(part, *call["position_embeddings"]) for part in (queries, keys))
            cache = cache_in(call)
            if cache is not None:
                keys, values = cache.update(keys, values, attention.layer_idx)
            mask = call.get("attention_mask")
            if mask is None:
                mask = causal_mask(queries.shape[2], queries.device)
            weights = attention_weights(queries, keys, heads, mask)
            grouped = weights.reshape(weights.shape[0], heads.kv, -1, weights.shape[-1])
            mixed = (grouped @ values).view(*queries.shape).transpose(1, 2).flatten(2)
            with observed("reduction"):
                mixed, residual = self._delete(now, number, weights, mixed, hidden_states)
            hidden = residual + attention.o_proj(mixed)
            return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

        return forward

    def _delete(self, now: Prefill, number: int, weights: Tensor, *states: Tensor) -> list[Tensor]:
        """Drop the rows of the tokens that neither image nor text looks at."""
        valid = now.tokens.valid()
        if not now.whole.is_full:
            real = torch.from_numpy(now.prompt.real).to(weights.device)
            here = real.take_along_dim(now.tokens.index, 1)
            here = here if valid is None else here & valid
            # Rows of padding look at tokens too; nobody asked them.
            weights = weights * here[:, None, :, None]
        chosen = []
        for group, whole in zip(now.tokens.groups, now.whole.groups, strict=True):
            count = group.places.shape[1]
            scheme = self._deletions[whole.places.shape[1]]
            if not count:
                chosen.append(group.places)
                continue
            kept = fitprune(
                rows_of(weights, group, now.tokens),
                scheme[number],
                start=contiguous_start(group, now, self.method.name),
                image_tokens=count,
            )
            chosen.append(kept.image_indices)
        assert self._cutter is not None  # noqa: S101  (the layer was entered)
        return self._cutter.narrow(now, chosen, *states)
