"""Where the parts of a Hugging Face LLaVA-like model are, and which models are known.

The families are those of `costmodel.models.families`; images are one crop or tiles, videos are frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.models.families import family_of, get_family, list_families
from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import nn

    from costmodel.models import Family

_TOWERS = ("vision_tower", "image_tower", "video_tower", "visual", "vision_model")
_PROJECTORS = ("multi_modal_projector", "connector")
_LANGUAGES = ("language_model", "text_model")
#: A vision layer as CLIP and SigLIP have it, and a decoder layer as Llama has it and those after it.
_VISION_LAYER = ("layer_norm1", "self_attn", "layer_norm2", "mlp")
#: What their attentions call the products that queries and keys come from.
_PROJECTIONS = (("q_proj", "k_proj"), ("qkv_proj",))
_DECODER_LAYER = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


@dataclass(frozen=True, slots=True)
class Tower:
    """One vision tower whose layers can be reached.

    Attributes:
        module: the tower.
        layers: its transformer layers, first to last.
        patches: patch tokens of one crop.
        side: patches along one side of a crop.
        has_class: whether a class token stands first.
    """

    module: nn.Module
    layers: tuple[nn.Module, ...]
    patches: int
    side: int
    has_class: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one model.

    Attributes:
        model: the model for conditional generation.
        base: the same without its head.
        family: what the cost model knows of its kind.
        towers: its vision towers.
        projector: from vision to language width.
        language: the language model without head.
        layers: the language model's layers.
        placeholders: "image" and "video" -> the token id standing for one visual token.
        feature_layer: hidden states of the tower that the projector gets; -2 is the input of the
            last layer. A tuple when several are concatenated.
    """

    model: nn.Module
    base: nn.Module
    family: Family
    towers: tuple[Tower, ...]
    projector: nn.Module
    language: nn.Module
    layers: tuple[nn.Module, ...]
    placeholders: dict[str, int]
    feature_layer: int | tuple[int, ...]

    @property
    def three_axes(self) -> bool:
        """Whether a token's position has three axes (time, height, width), its own and no other's."""
        return hasattr(type(self.base), "get_rope_index")

    @property
    def is_tiled(self) -> bool:
        """Whether images come as an overview and tiles that are joined afterwards."""
        return hasattr(type(self.base), "pack_image_features")

    def require_a_token_per_patch(self, method: str) -> None:
        """Raise where the bridge makes one token of several patches.

        Raises:
            UnsupportedError: patches are merged, by their places on a grid.
        """
        if self.family.merges:
            raise UnsupportedError(
                f"{method} chooses among the patches of the tower, and {self.family.label} merges "
                "patches of a grid into one token behind it, which a choice leaves none of; divprune "
                "acts on the merged tokens, fastv, pyramiddrop, dart, sparsevlm and vtw in the "
                "language model"
            )

    def require_crops(self, method: str) -> None:
        """Raise where images keep their own resolution.

        Raises:
            UnsupportedError: the tower's tokens are those of images of several sizes, in one row.
        """
        if self.three_axes:
            raise UnsupportedError(
                f"{method} takes crops of one size, and images of {self.family.label} keep their own; "
                "divprune acts on the tokens of each image, fastv, pyramiddrop, dart, sparsevlm and vtw "
                "in the language model"
            )

    def require_one_layer(self, method: str) -> None:
        """Raise where the features of several of the tower's layers are concatenated.

        Raises:
            UnsupportedError: they are, and the method needs those of one.
        """
        if not isinstance(self.feature_layer, int):
            raise UnsupportedError(
                f"{method} needs the features of one layer of the tower, and this model concatenates "
                f"those of layers {', '.join(map(str, self.feature_layer))}; divprune, fastv and vtw take "
                "them as they are"
            )

    def require_vision_layers(self, method: str) -> None:
        """Raise unless every tower's layers are ones a method can act in.

        Raises:
            UnsupportedError: the tower is of another kind; says which kinds work.
        """
        self.require_a_token_per_patch(method)
        for tower in self.towers:
            missing = [
                name for layer in tower.layers for name in _VISION_LAYER if not hasattr(layer, name)
            ]
            if not tower.layers or missing:
                raise UnsupportedError(
                    f"{method} acts inside the vision tower and knows CLIP's and SigLIP's layers; "
                    f"{type(tower.module).__name__} has others"
                )

    def require_class_token(self, method: str) -> None:
        """Raise unless every tower has a class token.

        Raises:
            UnsupportedError: a tower without one, such as SigLIP.
        """
        self.require_a_token_per_patch(method)
        for tower in self.towers:
            if not tower.has_class:
                raise UnsupportedError(
                    f"{method} ranks patches by the class token's attention, and "
                    f"{type(tower.module).__name__} has no class token; "
                    "divprune, spatial, fastv or vtw need none"
                )

    def require_decoder_layers(self, method: str) -> None:
        """Raise unless the language model is one that can lose tokens between its layers.

        Raises:
            UnsupportedError: other layers than Llama's, or an attention implementation whose cache
                cannot have another length in each layer.
        """
        for layer in self.layers:
            attention = getattr(layer, "self_attn", None)
            parts = all(hasattr(layer, name) for name in _DECODER_LAYER)
            if not parts or not any(
                all(hasattr(attention, name) for name in names) for names in _PROJECTIONS
            ):
                raise UnsupportedError(
                    f"{method} acts between the layers of language models of Llama's kind; "
                    f"{type(self.language).__name__} has other layers"
                )
        config: Any = self.language.config
        chosen = getattr(config, "_attn_implementation", "sdpa")
        if chosen not in ("sdpa", "eager"):
            raise UnsupportedError(
                f"{method} runs with the attention implementations sdpa and eager, not {chosen!r}; "
                "call model.set_attn_implementation('sdpa') first"
            )


def dissect(model: Any) -> Parts:
    """Find the parts of a model.

    Raises:
        UnsupportedError: another model; names those that work.
    """
    family = family_of(model)
    if family is None:
        known = [name for kind in list_families() for name in get_family(kind).classes]
        raise UnsupportedError(
            f"reduce_tokens does not know {type(model).__name__}; it works on {', '.join(known)}"
        )
    base = model.model
    config = model.config
    placeholders = {"image": int(config.image_token_id)}
    video_id = getattr(config, "video_token_id", None)
    if video_id is not None and hasattr(base, "get_video_features"):
        placeholders["video"] = int(video_id)
    layers = getattr(config, "vision_feature_layer", -1)
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    projectors = [getattr(base, name) for name in _PROJECTORS if hasattr(base, name)]
    language = next(getattr(base, name) for name in _LANGUAGES if hasattr(base, name))
    return Parts(
        model=model,
        base=base,
        family=family,
        towers=tuple(_tower(getattr(base, name)) for name in _TOWERS if hasattr(base, name)),
        projector=projectors[0] if projectors else base.visual.merger,
        language=language,
        layers=tuple(language.layers),
        placeholders=placeholders,
        feature_layer=layers if len(layers) > 1 else layers[0],
    )


def _tower(module: Any) -> Tower:
    encoder = getattr(module, "encoder", None)
    embeddings = getattr(module, "embeddings", None)
    size = getattr(module.config, "image_size", 0)
    patch = getattr(module.config, "patch_size", 0)
    side = size // patch if isinstance(size, int) and isinstance(patch, int) and patch else 0
    return Tower(
        module=module,
        layers=tuple(getattr(encoder, "layers", getattr(module, "blocks", ()))),
        patches=side * side,
        side=side,
        has_class=hasattr(embeddings, "class_embedding"),
    )


def feature_depth(parts: Parts, tower: Tower) -> int:
    """Layers of a tower that run before its features are read.

    Returns:
        The largest depth, when several hidden states are concatenated.
    """
    wanted = parts.feature_layer
    depths = (wanted,) if isinstance(wanted, int) else wanted
    count = len(tower.layers)
    return max(count + 1 + depth if depth < 0 else depth for depth in depths)
