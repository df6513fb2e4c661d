"""What the class token of the vision tower looks at: its query and the keys of one layer.

The tower runs as the model is set; the class token's row of one layer is recomputed from the layer's own
queries and keys. Methods take the patches of all crops of a forward as one batch, [c, n, w], which is what
the authors' programs see as their batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.llm_attention import split_heads

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.apply.places import Host

#: Crops whose whole attention is held at a time.
CROPS = 8


class QueryKeyProbe:
    """Raw queries and keys of the layer that ran last, of some layers of every tower.

    Args:
        host: the model.
        depths: the layers; counted from the end where negative: -1 is the last.
        whole: whether all queries are wanted; else the class token's.
    """

    def __init__(self, host: Host, *depths: int, whole: bool = False) -> None:
        self._queries: Tensor | None = None
        self._keys: Tensor | None = None

        def saw_queries(_module: Any, _args: Any, output: Tensor) -> None:
            # The class token's row is all that is needed; a view would keep the rest alive.
            self._queries = output if whole else output[:, :1].clone()

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self._keys = output

        for tower in host.parts.towers:
            for depth in depths:
                attention: Any = tower.layers[depth].self_attn
                host.patches.after(attention.q_proj, saw_queries)
                host.patches.after(attention.k_proj, saw_keys)

    def take(self) -> tuple[Tensor, Tensor]:
        """Return queries [c, 1 or n+1, w] and keys [c, n+1, w], and forget them."""
        queries, keys = self._queries, self._keys
        self._queries = self._keys = None
        assert queries is not None  # noqa: S101  (the tower ran, or there were no features)
        assert keys is not None  # noqa: S101
        return queries, keys


def weights_of(attention: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """Softmaxed attention of a vision layer in float32, [c, h, q, n+1], from raw queries and keys."""
    logits = split_heads(queries, attention.head_dim) @ split_heads(
        keys, attention.head_dim
    ).transpose(-1, -2)
    weights: Tensor = (logits * attention.scale).softmax(dim=-1, dtype=torch.float32)
    return weights


class ClassAttention:
    """The class token's attention in one layer of whichever tower ran last.

    Args:
        host: the model.
        depth: the layer: -2 is the one whose output the projector gets.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
        InvalidInputError: a layer that the tower does not have.
    """

    def __init__(self, host: Host, depth: int = -2) -> None:
        parts, self._method = host.parts, host.method.name
        parts.require_vision_layers(self._method)
        parts.require_class_token(self._method)
        layers = parts.towers[0].layers
        if depth >= len(layers):
            raise InvalidInputError(
                f"{self._method} looks at vision layer {depth}, and this tower has layers 0 to "
                f"{len(layers) - 1}; give shallow="
            )
        self._probe = QueryKeyProbe(host, depth)
        self._attention: Any = layers[depth].self_attn

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the class token's row, [c, h, n+1], and the mean-head keys, [c, n+1, e], once."""
        queries, keys = self._probe.take()
        row = weights_of(self._attention, queries, keys).to(keys.dtype)[:, :, 0]
        return row, split_heads(keys, self._attention.head_dim).mean(dim=1)

    def of_patches(self, tokens: Tensor, tower: Tower) -> Tensor:
        """Return the class token's attention, [c, h, n], to the tokens [c, n, w] of a tower's patches.

        Raises:
            UnsupportedError: tokens that are no patches of the tower.
        """
        row, _ = self.take()
        require_patches(self._method, tokens, tower)
        return row[..., 1:]


class MeanAttention:
    """What each token of a layer is looked at by all, of whichever tower ran last.

    Args:
        host: the model.
        depth: the layer, from 0, or from the end where negative.
        class_token: whether the tower must have one.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
        InvalidInputError: a layer that the tower does not have.
    """

    def __init__(self, host: Host, depth: int, *, class_token: bool = True) -> None:
        parts, method = host.parts, host.method.name
        parts.require_vision_layers(method)
        if class_token:
            parts.require_class_token(method)
        layers = parts.towers[0].layers
        if not -len(layers) <= depth < len(layers):
            raise InvalidInputError(
                f"{method} looks at vision layer {depth + 1}, counted from 1, and this tower has "
                f"{len(layers)}"
            )
        self._probe = QueryKeyProbe(host, depth, whole=True)
        self._attention: Any = layers[depth].self_attn

    def take(self) -> Tensor:
        """Return the mean over heads and queries of attention to each token, [c, n], once."""
        parts = (torch.split(part, CROPS) for part in self._probe.take())
        return torch.cat(
            [
                weights_of(self._attention, *some).mean(dim=(1, 2))
                for some in zip(*parts, strict=True)
            ]
        )


def require_patches(method: str, tokens: Tensor, tower: Tower) -> None:
    """Raise unless there is a token for each patch of a crop.

    Raises:
        UnsupportedError: the model pools the patches before they reach the method.
    """
    if tokens.shape[1] != tower.patches:
        raise UnsupportedError(
            f"{method} weighs a crop's {tower.patches} patches by the tower's attention, but gets "
            f"{tokens.shape[1]} tokens per crop here (this model pools them first); divprune, "
            "spatial, fastv or vtw work on those"
        )


def watch_features(host: Host) -> list[Tensor]:
    """Return a list that holds what the projector gets, [c, n, w], whenever it runs."""
    seen: list[Tensor] = []

    def saw_features(_module: Any, args: Any, _kwargs: Any) -> None:
        seen[:] = [args[0]]

    host.patches.before(host.parts.projector, saw_features)
    return seen


def pooled_frames(rows: Tensor, side: int) -> Tensor:
    """Return what is known of each patch of frames, [t, side * side], on the grid of half the side.

    Model and method pool alike: bilinear, to the next larger half.
    """
    grid = rows.view(len(rows), 1, side, side)
    half = [-(-side // 2)] * 2
    small = torch.nn.functional.interpolate(grid, size=half, mode="bilinear")
    return small.view(len(rows), -1)
