"""Methods that look at one crop of the vision tower at a time, at the projector's door.

Each takes the patches of all crops of a forward as one batch, [c, n, w], which is what the authors'
programs see as their batch: PruMerge's adaptive threshold is taken over all of it, and every crop then
keeps the same number. PruMerge+ adds a different number of grid tokens to each crop, so it is called
crop by crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import UnsupportedError
from token_reduction.m3 import m3
from token_reduction.prumerge import prumerge
from token_reduction.sampling import sequential, spatial

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.reduced import Reduced
    from token_reduction.registry import Method

#: Methods that reduce before the projector, and those that do after it.
BEFORE_PROJECTOR = ("prumerge", "prumerge+", "sequential", "spatial")
AFTER_PROJECTOR = ("m3",)
_LOOK_AT_CLASS_TOKEN = ("prumerge", "prumerge+")


@dataclass(slots=True)
class QueryKeyProbe:
    """Raw queries of the class token and keys of one layer of whichever tower ran last.

    Args:
        depth: the layer, counted from the end: -1 is the last.
    """

    depth: int
    queries: Tensor | None = None
    keys: Tensor | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch q_proj and k_proj of that layer in every tower.

        Args:
            parts: the model.
            patches: takes the hooks.
        """

        def saw_queries(_module: Any, _args: Any, output: Tensor) -> None:
            # The class token's row is all that is needed; a view would keep the rest alive.
            self.queries = output[:, :1].clone()

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self.keys = output

        for tower in parts.towers:
            attention: Any = tower.layers[self.depth].self_attn
            patches.after(attention.q_proj, saw_queries)
            patches.after(attention.k_proj, saw_keys)

    def take(self) -> tuple[Tensor, Tensor]:
        """Return queries [c, 1, w] and keys [c, n+1, w], and forget them."""
        queries, keys = self.queries, self.keys
        self.queries = self.keys = None
        assert queries is not None  # noqa: S101  (the tower ran, or there were no features)
        assert keys is not None  # noqa: S101
        return queries, keys


def crop_function(
    parts: Parts, method: Method, patches: Patches
) -> Callable[[Tensor, Tower], Reduced | list[Reduced]]:
    """Return what reduces the patches of all crops, with its probes attached.

    It takes patches [c, n, w] and their tower, and gives one result for all crops or one for each.

    Args:
        parts: the model.
        method: one of `BEFORE_PROJECTOR` or `AFTER_PROJECTOR`.
        patches: takes the hooks.

    Raises:
        UnsupportedError: the tower has no class token or other layers, and the method needs them.
    """
    name, options = method.name, method.options
    if name in _LOOK_AT_CLASS_TOKEN:
        parts.require_vision_layers(name)
        parts.require_class_token(name)
        # The paper reads the layer whose output the projector gets, the program the last one.
        probe = QueryKeyProbe(-2 if method.variant == "paper" else -1)
        probe.attach(parts, patches)

        def merge(features: Tensor, tower: Tower) -> Reduced | list[Reduced]:
            _require_patches(name, features, tower)
            queries, keys = probe.take()
            settings: dict[str, Any] = {
                "neighbours": options["neighbours"],
                "keep": method.keep,
                "spatial": name == "prumerge+",
                "variant": method.variant,
            }
            if name == "prumerge" or method.variant == "paper":
                return prumerge(features, queries, keys, **settings)
            return [
                prumerge(*crop, **settings) for crop in zip(features, queries, keys, strict=True)
            ]

        return merge
    if name == "sequential":
        return lambda features, _tower: sequential(features, _keep(method))
    if name == "spatial":
        grid: Any = options["grid"]
        keep = None if grid is not None else method.keep
        return lambda features, _tower: spatial(features, keep, grid=grid, variant=method.variant)
    return lambda features, _tower: m3(features, _keep(method))


def _keep(method: Method) -> float:
    assert method.keep is not None  # noqa: S101  (these methods have a default)
    return method.keep


def _require_patches(name: str, features: Tensor, tower: Tower) -> None:
    if features.shape[1] != tower.patches:
        raise UnsupportedError(
            f"{name} weighs a crop's {tower.patches} patches by the tower's attention, but the "
            f"projector gets {features.shape[1]} tokens per crop here (this model pools them "
            "first); divprune, spatial, fastv or vtw work on those"
        )
