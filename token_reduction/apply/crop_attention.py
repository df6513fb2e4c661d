"""VisionZip, FasterVLM and VisPruner: methods that read the class token's attention per head.

The tower runs as the model is set; the class token's row of one layer is recomputed from its own
queries and keys. Own matrix products per crop, in FLOPs (n patches, w width, e head dim):

    visionzip   2 (n+1) w            the row
                2 r m e + 2 r m w    r tokens that join m contextual ones: similarity, and means
    fastervlm   2 (n+1) w            the row
    vispruner   2 (n+1) w            the row
                2 ceil(l/2) floor(l/2) w   per round with l tokens left

VisionZip's output holds the class token itself, whose feature the projector is not given: it is taken
from the tower.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import UnsupportedError
from token_reduction.apply.anatomy import feature_depth
from token_reduction.apply.crop_methods import QueryKeyProbe
from token_reduction.apply.llm_attention import split_heads
from token_reduction.fastervlm import fastervlm
from token_reduction.visionzip import split_keep, visionzip
from token_reduction.vispruner import vispruner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.tokens.reduced import Reduced

BEFORE_PROJECTOR = ("visionzip",)
AFTER_PROJECTOR = ("fastervlm", "vispruner")
#: Methods whose output holds the class token already.
WITH_CLASS_TOKEN = ("visionzip",)


class ClassAttention:
    """The class token's attention in one layer of whichever tower ran last.

    Args:
        parts: the model.
        method: the method's name, for messages.
        depth: the layer: -2 is the one whose output the projector gets.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
    """

    def __init__(self, parts: Parts, method: str, depth: int = -2) -> None:
        parts.require_vision_layers(method)
        parts.require_class_token(method)
        self._probe = QueryKeyProbe(depth)
        self._tower = parts.towers[0]
        self._depth = depth

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the layer."""
        self._probe.attach(parts, patches)

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the class token's row, [c, h, n+1], and the mean-head keys, [c, n+1, e]."""
        queries, keys = self._probe.take()
        attention: Any = self._tower.layers[self._depth].self_attn
        heads = split_heads(keys, attention.head_dim)
        logits = split_heads(queries, attention.head_dim) @ heads.transpose(-1, -2)
        row = (logits * attention.scale).softmax(dim=-1, dtype=torch.float32).to(keys.dtype)
        return row[:, :, 0], heads.mean(dim=1)


def attention_function(
    parts: Parts, method: Method, patches: Patches
) -> Callable[[Tensor, Tower], Reduced]:
    """Return what reduces the patches of all crops, with its probes attached.

    Args:
        parts: the model.
        method: one of `BEFORE_PROJECTOR` or `AFTER_PROJECTOR`.
        patches: takes the hooks.

    Raises:
        UnsupportedError: the tower has no class token or other layers, or its hidden states are
            concatenated.
    """
    name = method.name
    attention = ClassAttention(parts, name)
    attention.attach(parts, patches)
    keep: Any = method.keep
    if name == "fastervlm":

        def attended(tokens: Tensor, tower: Tower) -> Reduced:
            row, _ = _of_patches(name, attention, tokens, tower)
            return fastervlm(tokens, row[..., 1:], keep)

        return attended

    if name == "vispruner":
        seen: list[Tensor] = []
        important: Any = method.options["important"]

        def saw_features(_module: Any, args: Any, _kwargs: Any) -> None:
            seen[:] = [args[0]]

        patches.before(parts.projector, saw_features)

        def pruned(tokens: Tensor, tower: Tower) -> Reduced:
            row, _ = _of_patches(name, attention, tokens, tower)
            features = seen.pop()[:, -tower.patches :]
            return vispruner(tokens, row[..., 1:], keep, important=important, features=features)

        return pruned

    if not isinstance(parts.feature_layer, int):
        raise UnsupportedError(
            f"{name} takes the class token's feature from one layer, and this model concatenates "
            f"those of layers {parts.feature_layer}"
        )
    classes: list[Tensor] = []

    def saw_states(_module: Any, _args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        classes[:] = [states[:, :1].clone()]

    for tower in parts.towers:
        patches.after(tower.layers[feature_depth(parts, tower) - 1], saw_states)

    def zipped(features: Tensor, tower: Tower) -> Reduced:
        row, metric = _of_patches(name, attention, features, tower)
        dominant, contextual = split_keep(keep, features.shape[1])
        whole = torch.cat((classes.pop(), features), dim=1)
        result = visionzip(whole, row, metric, dominant=dominant, contextual=contextual)
        assert result.kept_indices is not None  # noqa: S101  (the dominant ones)
        # Records count patches: the class token, always first, is left out.
        return replace(result, kept_indices=result.kept_indices[:, 1:] - 1)

    return zipped


def _of_patches(
    name: str, attention: ClassAttention, tokens: Tensor, tower: Tower
) -> tuple[Tensor, Tensor]:
    found = attention.take()
    if tokens.shape[1] != tower.patches:
        raise UnsupportedError(
            f"{name} weighs a crop's {tower.patches} patches by the tower's attention, but gets "
            f"{tokens.shape[1]} tokens per crop here (this model pools them first)"
        )
    return found
