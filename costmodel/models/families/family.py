"""What a family of multimodal models is: how its config reads, what an image gives, what is its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from costmodel.models.decoders import DECODERS
from costmodel.models.geometry import CropGeometry, Geometry
from costmodel.models.model import ModelConfig
from costmodel.models.projector import ProjectorConfig, two_layers
from costmodel.models.reading import Section
from costmodel.models.towers import TOWERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.models.processors import Processor
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: What LLaVA's config class assumes where a config is silent; its successors start from it.
LLAVA_DEFAULTS: dict[str, Any] = {
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
    "vision_feature_layer": -2,
    "multimodal_projector_bias": True,
    "tie_word_embeddings": False,
}

#: Frames of a clip as the models' papers and published evaluations take them.
DEFAULT_FRAMES = 8


def plain_geometry(_outer: Section, vision: VisionConfig) -> CropGeometry:
    """One crop per image, and all its selected features are tokens."""
    return CropGeometry(vision.selected_tokens)


def plain_bridge(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    """Return the two linear layers with an activation between features and language model.

    Raises:
        InvalidFileError: a value that is impossible.
    """
    return two_layers(
        vision.hidden_size * len(vision.feature_layers),
        text.hidden_size,
        bias=outer.flag("multimodal_projector_bias"),
        activation=outer.word("projector_hidden_act"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One family; its file is the only place that knows its name.

    Attributes:
        model_type: as the Hugging Face config says it.
        label: what people call it.
        classes: what `transformers` calls its models.
        defaults: what its config class assumes where a config is silent.
        decoder: model type of its language model where the config does not say.
        tower: model type of its vision tower where the config does not say.
        flat: whether configs of older checkpoints hold the language model's keys at the top.
        selects_features: whether the config says which layers and tokens of the tower are read.
        copies: towers of one shape: two where images and frames have one each.
        tied_by_text: whether `text_config` alone may tie head and embedding.
        joined: the language model as it is beside the tower.
        geometry: from the config and the tower to what images and clips give.
        processed: from that geometry and a checkpoint's processor files to what images and clips give;
            None where those files limit nothing.
        bridge: from the config, tower and language model to what stands between them.
        extra_parameters: parameters of no part: newline tokens, a pooling layer.
        rescale: brings a size-reduced config's own keys in line with its widths.
        merges: whether its bridge makes one token of several patches of a grid.
        sees_whole_images: whether the tokens of an image see each other whatever their order.
        reads_values: whether its forward reads numbers off its inputs, of which the meta device has none.
        pixels: the argument that takes an image's pixels.
        pixels_by_sample: whether it has an axis of samples before that of crops.
        tiles: how the tiles of an image that are handed over each by itself stand in a prompt: in one run;
            with text around each and the overview last; or with text around each, as images do. None
            where there are none, or the model joins them.
        frames_as_images: whether a forward gets a clip's frames as so many images.
        pools_frames: where every video frame is pooled on its grid, if it is.
        class_token_in_clips: whether the class token of every frame goes along, whatever the
            config selects of an image.
        newline_ends_clips: whether a newline token follows the last frame.
    """

    model_type: str
    label: str
    classes: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=lambda: LLAVA_DEFAULTS)
    decoder: str = "llama"
    tower: str = "clip_vision_model"
    flat: bool = False
    selects_features: bool = True
    copies: int = 1
    tied_by_text: bool = False
    joined: Callable[[Section, TextConfig, VisionConfig], TextConfig] = lambda _, text, __: text
    geometry: Callable[[Section, VisionConfig], Geometry] = plain_geometry
    processed: Callable[[Any, Processor], Geometry] | None = None
    bridge: Callable[[Section, VisionConfig, TextConfig], ProjectorConfig] = plain_bridge
    extra_parameters: Callable[[Section, VisionConfig, TextConfig], int] = lambda *_: 0
    rescale: Callable[[dict[str, Any]], None] = lambda _: None
    merges: bool = False
    sees_whole_images: bool = False
    reads_values: bool = False
    pixels: str = "pixel_values"
    pixels_by_sample: bool = False
    tiles: Literal["in a row", "overview last", "apart"] | None = None
    frames_as_images: bool = False
    pools_frames: Literal["before projector", "after projector"] | None = None
    class_token_in_clips: bool = False
    newline_ends_clips: bool = False

    @property
    def has_lone_tiles(self) -> bool:
        """Whether text stands around every tile of an image."""
        return self.tiles in ("overview last", "apart")

    def read(self, outer: Section, name: str, source: str) -> ModelConfig:
        """Return the model that a config of this family describes.

        Raises:
            InvalidFileError: a part the project does not know, a missing key, an impossible value.
        """
        outer.defaults = dict(self.defaults)
        inner = self._text(outer)
        decoder = inner.named("model_type", DECODERS)
        unsaid = None if self.tied_by_text else False
        text = decoder.read(inner, outer.flag("tie_word_embeddings") or unsaid)
        vision = self._tower(outer)
        text = self.joined(outer, text, vision)
        geometry = self.geometry(outer, vision)
        extra = self.extra_parameters(outer, vision, text)
        bridge = self.bridge(outer, vision, text)
        return ModelConfig(
            name, self.model_type, self.label, text, vision, bridge, extra, source, geometry,
            tuple(outer.used), json.dumps(outer.values),
        )  # fmt: skip

    def _text(self, outer: Section) -> Section:
        if self.flat and "text_config" not in outer:
            values = outer.values | {"model_type": self.decoder}
            return Section(values, outer.file, used=outer.used)
        return outer.section("text_config", defaults={"model_type": self.decoder})

    def _tower(self, outer: Section) -> VisionConfig:
        seen = outer.section("vision_config", defaults={"model_type": self.tower})
        tower = seen.named("model_type", TOWERS).read(seen)
        if not self.selects_features:
            return tower
        vision = replace(
            tower,
            copies=self.copies,
            feature_layers=_feature_layers(outer, tower.num_layers),
            feature_select=outer.word("vision_feature_select_strategy", ("default", "full")),
        )
        if vision.selected_tokens < 1:
            raise seen.fail("image_size", "leaves no token that the projector could read")
        return vision


def _feature_layers(outer: Section, layers: int) -> tuple[int, ...]:
    """The hidden states that are read: one index, or a list of them."""
    key = "vision_feature_layer"
    value = outer.raw(key)
    indices = value if isinstance(value, list) else [value]
    whole = all(type(index) is int for index in indices)
    if not indices or not whole or not all(-layers - 1 <= index <= layers for index in indices):
        raise outer.fail(
            key,
            f"must be a layer from {-layers - 1} to {layers} of the vision tower's {layers}, or a "
            f"list of them, not {value!r}",
        )
    return tuple(indices)
