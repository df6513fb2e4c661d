"""What the class token of the vision tower looks at: its query and the keys of one layer.

The tower runs as the model is set; the class token's row of one layer is recomputed from the layer's own
queries and keys. Methods take the patches of all crops of a forward as one batch, [c, n, w], which is what
the authors' programs see as their batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.llm_attention import split_heads

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches

#: Crops whose whole attention is held at a time.
CROPS = 8


@dataclass(slots=True)
class QueryKeyProbe:
    """Raw queries and keys of one layer of whichever tower ran last.

    Args:
        depth: the layer; counted from the end where negative: -1 is the last.
        whole: whether all queries are wanted; else the class token's.
    """

    depth: int
    whole: bool = False
    queries: Tensor | None = None
    keys: Tensor | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch q_proj and k_proj of that layer in every tower."""

        def saw_queries(_module: Any, _args: Any, output: Tensor) -> None:
            # The class token's row is all that is needed; a view would keep the rest alive.
            self.queries = output if self.whole else output[:, :1].clone()

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self.keys = output

        for tower in parts.towers:
            attention: Any = tower.layers[self.depth].self_attn
            patches.after(attention.q_proj, saw_queries)
            patches.after(attention.k_proj, saw_keys)

    def take(self) -> tuple[Tensor, Tensor]:
        """Return queries [c, 1 or n+1, w] and keys [c, n+1, w], and forget them."""
        queries, keys = self.queries, self.keys
        self.queries = self.keys = None
        assert queries is not None  # noqa: S101  (the tower ran, or there were no features)
        assert keys is not None  # noqa: S101
        return queries, keys


class ClassAttention:
    """The class token's attention in one layer of whichever tower ran last.

    Args:
        parts: the model.
        method: the method's name, for messages.
        depth: the layer: -2 is the one whose output the projector gets.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
        InvalidInputError: a layer that the tower does not have.
    """

    def __init__(self, parts: Parts, method: str, depth: int = -2) -> None:
        parts.require_vision_layers(method)
        parts.require_class_token(method)
        if depth >= len(parts.towers[0].layers):
            raise InvalidInputError(
                f"{method} looks at vision layer {depth}, and this tower has layers 0 to "
                f"{len(parts.towers[0].layers) - 1}; give shallow="
            )
        self._method = method
        self._probe = QueryKeyProbe(depth)
        self._tower = parts.towers[0]
        self._depth = depth

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the layer."""
        self._probe.attach(parts, patches)

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the class token's row, [c, h, n+1], and the mean-head keys, [c, n+1, e], once."""
        queries, keys = self._probe.take()
        attention: Any = self._tower.layers[self._depth].self_attn
        heads = split_heads(keys, attention.head_dim)
        logits = split_heads(queries, attention.head_dim) @ heads.transpose(-1, -2)
        row = (logits * attention.scale).softmax(dim=-1, dtype=torch.float32).to(keys.dtype)
        return row[:, :, 0], heads.mean(dim=1)

    def of_patches(self, tokens: Tensor, tower: Tower) -> tuple[Tensor, Tensor]:
        """Return the same as `take` for the tokens [c, n, w] of a tower's patches.

        Raises:
            UnsupportedError: tokens that are no patches of the tower.
        """
        found = self.take()
        require_patches(self._method, tokens, tower)
        return found


class MeanAttention:
    """What each token of a layer is looked at by all, of whichever tower ran last.

    Args:
        parts: the model.
        method: the method's name, for messages.
        depth: the layer, from 0, or from the end where negative.
        class_token: whether the tower must have one.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
        InvalidInputError: a layer that the tower does not have.
    """

    def __init__(self, parts: Parts, method: str, depth: int, *, class_token: bool = True) -> None:
        parts.require_vision_layers(method)
        if class_token:
            parts.require_class_token(method)
        count = len(parts.towers[0].layers)
        if not -count <= depth < count:
            raise InvalidInputError(
                f"{method} looks at vision layer {depth + 1}, counted from 1, and this tower has {count}"
            )
        self._probe = QueryKeyProbe(depth, whole=True)
        self._attention: Any = parts.towers[0].layers[depth].self_attn

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the layer."""
        self._probe.attach(parts, patches)

    def take(self) -> Tensor:
        """Return the mean over heads and queries of attention to each token, [c, n], once."""
        queries, keys = (split_heads(part, self._attention.head_dim) for part in self._probe.take())
        looked_at = []
        for some, their in zip(torch.split(queries, CROPS), torch.split(keys, CROPS), strict=True):
            logits = (some @ their.transpose(-1, -2)) * self._attention.scale
            looked_at.append(logits.softmax(dim=-1, dtype=torch.float32).mean(dim=(1, 2)))
        return torch.cat(looked_at)


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


def watch_features(parts: Parts, patches: Patches) -> list[Tensor]:
    """Return a list that holds what the projector gets, [c, n, w], whenever it runs."""
    seen: list[Tensor] = []

    def saw_features(_module: Any, args: Any, _kwargs: Any) -> None:
        seen[:] = [args[0]]

    patches.before(parts.projector, saw_features)
    return seen


def pooled_frames(rows: Tensor, side: int) -> Tensor:
    """Return what is known of each patch of frames, [t, side * side], on the grid of half the side.

    Model and method pool alike: bilinear, to the next larger half.
    """
    grid = rows.view(len(rows), 1, side, side)
    half = [-(-side // 2)] * 2
    small = torch.nn.functional.interpolate(grid, size=half, mode="bilinear")
    return small.view(len(rows), -1)
