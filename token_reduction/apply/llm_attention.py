"""Attention weights of one language-model layer, recomputed from its own queries and keys.

The layer itself runs whatever attention the model is set to. Hooks on its projections keep what it
computed; norms of heads, rotary embedding, scaling, mask and softmax (in float32, as `transformers`' eager
attention) are applied to the rows that a method needs, and to no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches


@dataclass(frozen=True, slots=True)
class Heads:
    """Shape of an attention: query heads, KV heads, head dim, scaling of the logits."""

    query: int
    kv: int
    dim: int
    scaling: float


def heads_of(attention: Any, config: Any) -> Heads:
    """Read the shape of a decoder layer's attention."""
    return Heads(
        query=int(config.num_attention_heads),
        kv=int(config.num_key_value_heads),
        dim=int(attention.head_dim),
        scaling=float(attention.scaling),
    )


def split_heads(values: Tensor, dim: int) -> Tensor:
    """Give every head its own axis: [b, s, h * e] to [b, h, s, e]."""
    return values.reshape(*values.shape[:-1], -1, dim).transpose(1, 2)


def rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding: x cos + (-x2, x1) sin, halves of the head dim.

    `values` are [b, h, s, e], `cos` and `sin` [b or 1, s, e].

    Raises:
        UnsupportedError: the model rotates a part of the head dim only.
    """
    if cos.shape[-1] != values.shape[-1]:
        raise UnsupportedError(
            f"attention rows are recomputed for rotary embeddings over the whole head dim of "
            f"{values.shape[-1]}; this model rotates {cos.shape[-1]} of it"
        )
    half = values.shape[-1] // 2
    turned = torch.cat((-values[..., half:], values[..., :half]), dim=-1)
    return values * cos.unsqueeze(1) + turned * sin.unsqueeze(1)


def attention_weights(queries: Tensor, keys: Tensor, heads: Heads, mask: Tensor | None) -> Tensor:
    """Softmaxed attention, [b, h, q, t], in the queries' dtype.

    Args:
        queries: [b, h, q, e], rotated.
        keys: [b, k, t, e], rotated.
        heads: shape of the attention.
        mask: [b or 1, 1, q, t], boolean or additive, or None for everything.
    """
    shape = (*queries.shape[:-1], keys.shape[-2])
    # Query heads of one KV head stand together: no copy of the keys for each of them.
    grouped = queries.reshape(queries.shape[0], heads.kv, -1, heads.dim)
    logits = (grouped @ keys.transpose(-1, -2)).view(shape) * heads.scaling
    if mask is not None:
        if mask.dtype == torch.bool:
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        else:
            logits = logits + mask
    return logits.softmax(dim=-1, dtype=torch.float32).to(queries.dtype)


def causal_mask(width: int, device: torch.device) -> Tensor:
    """Lower triangle, [1, 1, width, width]."""
    ones = torch.ones(width, width, dtype=torch.bool, device=device)
    return ones.tril()[None, None]


def _pick(values: Tensor, places: Sequence[int]) -> Tensor:
    """One row of each sequence: [b, s, w] gives [b, 1, w]."""
    if len(set(places)) == 1:
        return values[:, places[0] : places[0] + 1]
    where = torch.tensor(places, device=values.device).view(-1, 1, 1)
    return values.take_along_dim(where, 1)


def project(attention: Any, which: str, states: Tensor) -> Tensor:
    """Return a decoder layer's queries, keys or values (`q`, `k`, `v`) of normed states [b, s, d], unrotated.

    They are [b, s, h e], with heads normed where the layer does that.
    """
    if not hasattr(attention, "qkv_proj"):
        return normed(attention, which, getattr(attention, f"{which}_proj")(states))
    one, rows = attention.qkv_proj, _rows_of(attention, which)
    bias = None if one.bias is None else one.bias[rows]
    return normed(attention, which, torch.nn.functional.linear(states, one.weight[rows], bias))


def normed(attention: Any, which: str, projected: Tensor) -> Tensor:
    """Return projected queries or keys, [b, s, h e], with each head normed where the layer does that."""
    norm = getattr(attention, f"{which}_norm", None)
    if norm is None:
        return projected
    heads: Tensor = norm(projected.view(*projected.shape[:-1], -1, attention.head_dim))
    return heads.flatten(2)


def behind_attention(layer: Any, stream: Tensor, mixed: Tensor) -> Tensor:
    """Return what a decoder layer makes of its stream and of the heads' output, both [b, s, ...].

    Norms stand before attention and MLP, and in Gemma's layers behind them too.
    """
    attended = layer.self_attn.o_proj(mixed)
    if hasattr(layer, "pre_feedforward_layernorm"):
        stream = stream + layer.post_attention_layernorm(attended)
        added = layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(stream)))
    else:
        stream = stream + attended
        added = layer.mlp(layer.post_attention_layernorm(stream))
    result: Tensor = stream + added
    return result


def _rows_of(attention: Any, which: str) -> slice:
    """Where queries, keys or values are in the one product of all three."""
    config: Any = attention.config
    h, k, e = config.num_attention_heads, config.num_key_value_heads, attention.head_dim
    start, count = {"q": (0, h), "k": (h, k), "v": (h + k, k)}[which]
    return slice(start * e, (start + count) * e)


class AttentionProbe:
    """Queries and keys of one language-model layer in the prefill that is running."""

    def __init__(self, parts: Parts, layer: int) -> None:
        self._layer: Any = parts.layers[layer]
        self.heads = heads_of(self._layer.self_attn, parts.language.config)
        self.active = False
        #: The one row per sequence that will be asked for, so that no other is kept; None for all.
        self.wanted: Sequence[int] | None = None
        self._queries: Tensor | None = None
        self._keys: Tensor | None = None
        self._rope: tuple[Tensor, Tensor] | None = None
        self._mask: Tensor | None = None
        self._width = 0

    def attach(self, patches: Patches) -> None:
        """Watch the layer's arguments and its two projections."""
        attention = self._layer.self_attn
        patches.before(self._layer, self._saw_layer)
        if hasattr(attention, "qkv_proj"):
            patches.after(attention.qkv_proj, self._saw_all)
        else:
            patches.after(attention.q_proj, self._saw_queries)
            patches.after(attention.k_proj, self._saw_keys)

    def forget(self) -> None:
        """Drop what was kept."""
        self.active = False
        self._queries = self._keys = self._rope = self._mask = None

    def _saw_layer(self, _module: Any, _args: Any, kwargs: Any) -> None:
        if self.active:
            self._rope = kwargs["position_embeddings"]
            self._mask = kwargs.get("attention_mask")

    def _saw_queries(self, _module: Any, _args: Any, output: Tensor) -> None:
        if not self.active:
            return
        self._width = output.shape[1]
        kept = output if self.wanted is None else _pick(output, self.wanted).clone()
        self._queries = normed(self._layer.self_attn, "q", kept)

    def _saw_keys(self, _module: Any, _args: Any, output: Tensor) -> None:
        if self.active:
            self._keys = normed(self._layer.self_attn, "k", output)

    def _saw_all(self, module: Any, args: Any, output: Tensor) -> None:
        attention = self._layer.self_attn
        self._saw_queries(module, args, output[..., _rows_of(attention, "q")])
        self._saw_keys(module, args, output[..., _rows_of(attention, "k")])

    def _seen(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Queries, keys and rotary embeddings that were kept."""
        assert self._queries is not None  # noqa: S101  (the layer ran, active)
        assert self._keys is not None  # noqa: S101
        assert self._rope is not None  # noqa: S101
        return self._queries, self._keys, self._rope

    def keys(self) -> Tensor:
        """Rotated keys of all tokens, [b, k, s, e]."""
        _, keys, rope = self._seen()
        return rotate(split_heads(keys, self.heads.dim), *rope)

    def rows(self) -> Tensor:
        """The wanted row of attention of each sequence, [b, h, s]."""
        assert self.wanted is not None  # noqa: S101  (set before the layer ran)
        places, width = self.wanted, self._width
        asked, _, rope = self._seen()
        batch, device = asked.shape[0], asked.device
        cos, sin = (_pick(part.expand(batch, -1, -1), places) for part in rope)
        mask = self._mask
        if mask is not None:
            mask = mask.expand(batch, -1, -1, -1)[:, 0]
            mask = _pick(mask, places).unsqueeze(1)
        elif any(place != width - 1 for place in places):
            last = torch.tensor(places, device=device).view(batch, 1, 1, 1)
            mask = torch.arange(width, device=device) <= last
        queries = rotate(split_heads(asked, self.heads.dim), cos, sin)
        return attention_weights(queries, self.keys(), self.heads, mask)[:, :, 0]

    def row_over(self, keys: Tensor) -> Tensor:
        """A decode step's row of attention over cached keys [b, k, t, e], its own among them: [b, h, t]."""
        asked, _, rope = self._seen()
        queries = rotate(split_heads(asked, self.heads.dim), *rope)
        return attention_weights(queries, keys, self.heads, self._mask)[:, :, 0]

    def block(self, row: int, span: slice, rows: slice) -> Tensor:
        """Some rows of attention of one sequence, without its padding: [h, rows, tokens].

        Args:
            row: the sequence.
            span: where its tokens are that are not padding.
            rows: which of those tokens' rows are wanted, counted from the first of them.
        """
        asked, keys, rope = self._seen()
        batch = len(asked)
        cos, sin = (part.expand(batch, -1, -1)[row : row + 1, span] for part in rope)
        asked = split_heads(asked[row : row + 1, span][:, rows], self.heads.dim)
        queries = rotate(asked, cos[:, rows], sin[:, rows])
        keys = rotate(split_heads(keys[row : row + 1, span], self.heads.dim), cos, sin)
        mask = causal_mask(keys.shape[2], keys.device)[:, :, rows]
        return attention_weights(queries, keys, self.heads, mask)[0]

    def full(self) -> Tensor:
        """All rows of attention, [b, h, s, s]."""
        asked, _, rope = self._seen()
        queries = rotate(split_heads(asked, self.heads.dim), *rope)
        mask = self._mask
        if mask is None:
            mask = causal_mask(queries.shape[2], queries.device)
        return attention_weights(queries, self.keys(), self.heads, mask)
