"""What the methods inside the vision tower share: settings, traces, and a layer's attention in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.tome import merges_per_layer
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.anatomy import feature_depth
from token_reduction.apply.inside_tower import Stream, attend
from token_reduction.apply.llm_attention import split_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.places import Host


class LayerStep:
    """What the methods share: settings, and which layers act."""

    needs_class_token = True
    #: Whether tokens that stay are patches as they were, so that the trace can say which.
    keeps_patches = False

    def __init__(self, host: Host, layers: Sequence[int] = ()) -> None:
        self.method = host.method
        self.record = host.record
        self.trace = host.trace
        self.layers = layers

    def attach(self, parts: Parts, patches: Patches) -> None:  # noqa: ARG002
        """Check that the layers exist."""
        depth = min(len(tower.layers) for tower in parts.towers)
        beyond = [layer for layer in self.layers if layer >= depth]
        if beyond:
            raise InvalidInputError(
                f"{self.method.name} acts in vision layers {list(self.layers)}, but this tower has "
                f"layers 0 to {depth - 1}; give layers=..."
            )

    def acts_in(self, number: int) -> bool:
        """Where it was told to."""
        return number in self.layers

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Start the trace."""
        if self.trace:
            start = torch.arange(hidden.shape[1], device=hidden.device)
            stream.sources = start.expand(hidden.shape[0], -1)
            stream.origin = stream.sources if self.keeps_patches else None
        return hidden

    def run(
        self, layer: Any, number: int, hidden: Tensor, stream: Stream, call: dict[str, Any]
    ) -> Tensor:
        """Attend as the layer does; the methods differ from here on."""
        del number, stream
        return hidden + attend(layer, hidden, call.get("attention_mask"), call)


class MergingStep(LayerStep):
    """What the methods that merge a number of tokens in every layer share."""

    def __init__(self, host: Host, r: int | Sequence[int], inflect: float = 0.0) -> None:
        super().__init__(host)
        self._r, self._inflect = r, inflect
        self.merges: list[int] = []

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Fix how many pairs each layer merges."""
        tower = parts.towers[0]
        merges = merges_per_layer(
            self.method.name,
            self.method.keep,
            patches=tower.patches,
            layers=len(tower.layers),
            depth=feature_depth(parts, tower),
            r=self._r,
            inflect=self._inflect,
        )
        self.merges = [int(pairs) for pairs in merges]
        self.layers = range(len(self.merges))
        super().attach(parts, patches)


def project(layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a vision layer, [c, h, t, e] each."""
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    queries, keys, values = (
        split_heads(projection(normed), attention.head_dim)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return queries, keys, values


def scores(layer: Any, queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """Softmaxed attention of a vision layer in float32, [c, h, t, t]."""
    logits = (queries @ keys.transpose(-1, -2)) * layer.self_attn.scale
    if bias is not None:
        logits = logits + bias
    weights: Tensor = logits.softmax(dim=-1, dtype=torch.float32)
    return weights
