"""What ToMe, EViT, ATS and CrossGET do in a vision layer.

method     attention                                extra matrix products per layer
tome       the layer's own, log(size) as a bias     t^2 c / 4 similarities
evit       the layer's own                          t c for the class token's row; fused token
ats        written out; rows gathered, then values  none (the rows of tokens that go are dropped)
crossget   written out, log(size) as a bias         t^2 c similarities (c = head dim)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidFileError, InvalidInputError
from token_reduction.apply.anatomy import feature_depth
from token_reduction.apply.inside_tower import Stream, attend
from token_reduction.apply.llm_attention import split_heads
from token_reduction.ats import ats
from token_reduction.crossget import crossget
from token_reduction.evit import evit
from token_reduction.observation import observed
from token_reduction.selection import take_tokens
from token_reduction.tome import merges_for_keep, parse_r, proportional_bias, tome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord
    from token_reduction.reduced import Reduced
    from token_reduction.registry import Method


class _Step:
    """What the methods share: settings, and which layers act."""

    needs_class_token = True

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        self.method = method
        self.record = record
        self.trace = trace
        self.layers: Sequence[int] = ()

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
        return hidden

    def run(
        self, layer: Any, number: int, hidden: Tensor, stream: Stream, call: dict[str, Any]
    ) -> Tensor:
        """Attend as the layer does; the methods differ from here on."""
        del number, stream
        return hidden + attend(layer, hidden, call.get("attention_mask"), call)


class _Merging(_Step):
    """Methods that merge a number of tokens in every layer."""

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        self.merges: list[int] = []

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Fix how many pairs each layer merges."""
        tower = parts.towers[0]
        self.merges = merges_per_layer(self.method, parts, tower)
        self.layers = range(len(self.merges))
        super().attach(parts, patches)


class TokenMerging(_Merging):
    """ToMe."""

    needs_class_token = False

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        self._keys: Tensor | None = None
        self._has_class = True

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the keys of every layer."""
        super().attach(parts, patches)
        self._has_class = all(tower.has_class for tower in parts.towers)

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self._keys = output

        for tower in parts.towers:
            for layer in tower.layers:
                attention: Any = layer.self_attn
                patches.after(attention.k_proj, saw_keys)

    def run(
        self, layer: Any, number: int, hidden: Tensor, stream: Stream, call: dict[str, Any]
    ) -> Tensor:
        """Attend in proportion to size, then merge the most similar pairs."""
        bias = None
        if self.method.options["proportional"] and stream.size is not None:
            with observed("reduction"):
                bias = proportional_bias(stream.size).to(hidden.dtype)
        hidden = hidden + attend(layer, hidden, bias, call)
        with observed("reduction"):
            keys, self._keys = self._keys, None
            assert keys is not None  # noqa: S101  (the attention just ran)
            metric = split_heads(keys, layer.self_attn.head_dim).mean(dim=1)
            merged = tome(
                hidden,
                metric,
                self.merges[number],
                size=stream.size,
                class_token=self._has_class,
                trace=self.trace,
            )
            stream.size = merged.sizes
            stream.follow(merged.sources)
        return merged.tokens


class Reorganise(_Step):
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


class Sample(_Step):
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
            kept, counts = self._sample(hidden, weights[:, :, 0], values, stream)
            rows = weights.take_along_dim(kept[:, None, :, None], dim=2)
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


class CrossGuided(_Merging):
    """CrossGET."""

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        self._cross: Tensor | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Load the cross tokens, or make random ones and say so."""
        super().attach(parts, patches)
        config: Any = parts.towers[0].module.config
        path: Any = self.method.options["weights"]
        shape = (len(parts.towers[0].layers), int(config.hidden_size))
        if path is None:
            generator = torch.Generator().manual_seed(0)
            self._cross = 0.02 * torch.randn(shape, generator=generator)
            self.record.notes.append(
                "crossget runs with random cross tokens: its published results need learned ones, "
                "from a safetensors file given as weights=..."
            )
        else:
            self._cross = load_cross_tokens(Path(path), shape)

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Append the cross token, which starts as a copy of the class token."""
        assert self._cross is not None  # noqa: S101  (attached before it ran)
        self._cross = self._cross.to(hidden)
        hidden = torch.cat((hidden, hidden[:, :1]), dim=1)
        return super().begin(hidden, stream)

    def run(
        self,
        layer: Any,
        number: int,
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],  # noqa: ARG002
    ) -> Tensor:
        """Add the layer's cross token, attend in proportion to size, merge on the graph."""
        assert self._cross is not None  # noqa: S101
        with observed("reduction"):
            guide = hidden[:, -1:].detach() + self._cross[number]
            hidden = torch.cat((hidden[:, :-1], guide), dim=1)
            bias = None if stream.size is None else proportional_bias(stream.size).to(hidden.dtype)
        queries, keys, values = project(layer, hidden)
        weights = scores(layer, queries, keys, bias)
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        hidden = hidden + layer.self_attn.out_proj(mixed)
        with observed("reduction"):
            merged = crossget(
                hidden, keys.mean(dim=1), weights.mean(dim=1), self.merges[number],
                size=stream.size, trace=self.trace,
            )  # fmt: skip
            stream.size = merged.sizes
            stream.follow(merged.sources)
        return merged.tokens


STEPS: dict[str, type[_Step]] = {
    "tome": TokenMerging,
    "evit": Reorganise,
    "ats": Sample,
    "crossget": CrossGuided,
}


def merges_per_layer(method: Method, parts: Parts, tower: Tower) -> list[int]:
    """Pairs that ToMe or CrossGET merges in each layer of a tower.

    `keep` spreads the merges over the layers that run before the features are read and leaves the
    others alone; without it every layer merges r, as in the authors' programs.

    Args:
        method: the request.
        parts: the model.
        tower: its tower.

    Raises:
        InvalidInputError: a keep out of reach, or a list of r that does not fit.
    """
    layers = len(tower.layers)
    if method.keep is None:
        r: Any = method.options["r"]
        inflect: Any = method.options.get("inflect", 0.0)
        return parse_r(layers, r, inflect)
    depth = feature_depth(parts, tower)
    merges = merges_for_keep(method.keep, patches=tower.patches, num_layers=depth)
    return merges + [0] * (layers - depth)


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
    """Softmaxed attention of a vision layer, [c, h, t, t]."""
    logits = (queries @ keys.transpose(-1, -2)) * layer.self_attn.scale
    if bias is not None:
        logits = logits + bias
    weights: Tensor = logits.softmax(dim=-1, dtype=torch.float32)
    return weights.to(queries.dtype)


def load_cross_tokens(path: Path, shape: tuple[int, int]) -> Tensor:
    """Read CrossGET's learned tokens, [layers, width], from a safetensors file.

    Args:
        path: the file; the tensor's name ends in `cross_image`, its shape is [1, layers, width] or
            [layers, width].
        shape: what this tower needs.

    Raises:
        InvalidFileError: no file, no such tensor, or another shape.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            found = [name for name in names if name.endswith("cross_image")]
            if len(found) != 1:
                raise InvalidFileError(
                    f"{path} holds {len(found)} tensors named ...cross_image, and crossget needs "
                    f"one; it holds: {', '.join(names[:8])}"
                )
            tokens: Tensor = file.get_tensor(found[0])
    except (OSError, SafetensorError) as error:
        raise InvalidFileError(f"{path} is no readable safetensors file: {error}") from error
    if tokens.ndim == 3 and tokens.shape[0] == 1:
        tokens = tokens[0]
    if tuple(tokens.shape) != shape:
        raise InvalidFileError(
            f"{path} holds cross tokens {tuple(tokens.shape)}, this tower needs {shape}"
        )
    return tokens


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
