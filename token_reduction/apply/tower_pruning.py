"""EViT and ATS in a vision layer: tokens the class token does not look at go.

EViT lets the layer's attention run as the model is set and recomputes the class token's row of it. ATS
gathers rows of the attention before they meet the values, so its attention is written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from token_reduction.apply.inside_tower import Stream, attend
from token_reduction.apply.llm_attention import split_heads
from token_reduction.apply.tower_layer import LayerStep, project, scores
from token_reduction.ats import ats
from token_reduction.evit import evit
from token_reduction.observation import observed
from token_reduction.selection import take_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord
    from token_reduction.reduced import Reduced
    from token_reduction.registry import Method


class Reorganise(LayerStep):
    """EViT."""

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        layers: Any = method.options["layers"]
        self.layers = layers
        self._queries: Tensor | None = None
        self._keys: Tensor | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the class token's query and the keys of the layers that act."""
        super().attach(parts, patches)

        def saw_queries(_module: Any, _args: Any, output: Tensor) -> None:
            self._queries = output[:, :1]

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self._keys = output

        for tower in parts.towers:
            for number in self.layers:
                attention: Any = tower.layers[number].self_attn
                patches.after(attention.q_proj, saw_queries)
                patches.after(attention.k_proj, saw_keys)

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Start the trace of patches that are kept as they are, too."""
        hidden = super().begin(hidden, stream)
        stream.origin = stream.sources
        return hidden

    def run(
        self,
        layer: Any,
        number: int,  # noqa: ARG002
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],
    ) -> Tensor:
        """Attend, then keep what the class token looks at and fuse the rest."""
        hidden = hidden + attend(layer, hidden, None, call)
        with observed("reduction"):
            queries, keys = self._queries, self._keys
            self._queries = self._keys = None
            assert queries is not None  # noqa: S101  (the attention just ran)
            assert keys is not None  # noqa: S101
            dim, scale = layer.self_attn.head_dim, layer.self_attn.scale
            logits = split_heads(queries, dim) @ split_heads(keys, dim).transpose(-1, -2)
            row = (logits * scale).softmax(dim=-1, dtype=torch.float32).to(hidden.dtype)[:, :, 0]
            keep: Any = self.method.keep
            if isinstance(keep, int):
                keep = min(keep, hidden.shape[1] - 1)
            fuse: Any = self.method.options["fuse"]
            kept = evit(hidden, row, keep, fuse=fuse, trace=self.trace)
            stream.follow(kept.sources)
            stream.origin = _origin(stream.origin, kept)
        return kept.tokens


class Sample(LayerStep):
    """ATS."""

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        layers: Any = method.options["layers"]
        self.layers = layers
        self._references = 0

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Fix how many reference samples there are, and start the trace."""
        hidden = super().begin(hidden, stream)
        stream.origin = stream.sources
        keep, minimum = self.method.keep, self.method.options["minimum"]
        whole = hidden.shape[1]
        asked = keep if isinstance(keep, int) else round((keep or 1.0) * whole)
        assert isinstance(minimum, int)  # noqa: S101  (its option's parser made it one)
        self._references = max(asked, minimum)
        return hidden

    def run(
        self,
        layer: Any,
        number: int,  # noqa: ARG002
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],  # noqa: ARG002
    ) -> Tensor:
        """Sample rows of the attention, and let only those meet the values."""
        queries, keys, values = project(layer, hidden)
        bias = _padding_bias(stream.counts, hidden)
        weights = scores(layer, queries, keys, bias)
        with observed("reduction"):
            # Half precision cannot cumulate hundreds of small scores: they are taken before rounding.
            kept, counts = self._sample(hidden, weights[:, :, 0], values.float(), stream)
            rows = weights.to(hidden.dtype).take_along_dim(kept[:, None, :, None], dim=2)
            residual = take_tokens(hidden, kept)
            stream.counts = None if len(set(counts)) == 1 else counts
            stream.origin = _gathered(stream.origin, kept, counts)
        mixed = (rows @ values).transpose(1, 2).flatten(2)
        output: Tensor = residual + layer.self_attn.out_proj(mixed)
        return output

    def _sample(
        self, hidden: Tensor, cls_attention: Tensor, values: Tensor, stream: Stream
    ) -> tuple[Tensor, list[int]]:
        """Indices of the tokens kept, [c, t'], and how many of each crop are not padding."""
        if stream.counts is None:
            result = ats(
                hidden, cls_attention, values, self._references,
                variant=self.method.variant, trace=self.trace,
            )  # fmt: skip
            assert result.kept_indices is not None  # noqa: S101  (ats samples)
            assert result.valid is not None  # noqa: S101
            # The number of tokens depends on the data: the one read-back that ATS is defined by.
            counts: list[int] = result.valid.sum(dim=-1).tolist()
            stream.follow(result.sources)
            return result.kept_indices[:, : max(counts)], counts
        # Crops of different lengths: each on its own, since padding would shift the scores.
        singles = []
        traces = []
        for crop, count in enumerate(stream.counts):
            result = ats(
                hidden[crop, :count], cls_attention[crop, :, :count], values[crop, :, :count],
                self._references, variant=self.method.variant, trace=self.trace,
            )  # fmt: skip
            assert result.kept_indices is not None  # noqa: S101
            assert result.valid is not None  # noqa: S101
            singles.append(result.kept_indices[: int(result.valid.sum())])
            if result.sources is not None:
                padding = hidden.shape[1] - count
                traces.append(torch.nn.functional.pad(result.sources, (0, padding), value=-1))
        if traces:
            stream.follow(torch.stack(traces))
        kept = torch.nn.utils.rnn.pad_sequence(singles, batch_first=True)
        return kept, [len(single) for single in singles]


def _padding_bias(counts: list[int] | None, hidden: Tensor) -> Tensor | None:
    """-inf on the logits of padding, [c, 1, 1, t]."""
    if counts is None:
        return None
    places = torch.arange(hidden.shape[1], device=hidden.device)
    outside = places >= torch.tensor(counts, device=hidden.device).unsqueeze(-1)
    bias = torch.zeros(outside.shape, dtype=hidden.dtype, device=hidden.device)
    return bias.masked_fill(outside, float("-inf"))[:, None, None, :]


def _origin(origin: Tensor | None, kept: Reduced) -> Tensor | None:
    """First-layer indices of what is kept, -1 for the fused token."""
    if origin is None or kept.kept_indices is None:
        return None
    held = origin.gather(1, kept.kept_indices)
    fused = kept.tokens.shape[1] - held.shape[1]
    return torch.nn.functional.pad(held, (0, fused), value=-1)


def _gathered(origin: Tensor | None, kept: Tensor, counts: list[int]) -> Tensor | None:
    """First-layer indices of what is kept, -1 in the padding."""
    if origin is None:
        return None
    held = origin.gather(1, kept)
    places = torch.arange(kept.shape[1], device=kept.device)
    inside = places < torch.tensor(counts, device=kept.device).unsqueeze(-1)
    return torch.where(inside, held, -1)
