"""A model as the cost model sees it: vision tower, projector, language model, and its visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.models.anyres import AnyRes
    from costmodel.models.projector import ProjectorConfig
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: Above this a side of an image, or a number of frames, is taken for a slip.
MOST_PIXELS = 1_000_000


class VisualInput(NamedTuple):
    """What one image or clip gives.

    Attributes:
        tokens: visual tokens that reach the language model.
        crops: crops or frames through the vision tower.
        projected_tokens: tokens through the projector.
    """

    tokens: int
    crops: int
    projected_tokens: int


class VideoRule(NamedTuple):
    """How a model turns frames into tokens.

    Attributes:
        default_frames: frames of a clip when nothing is said, or 0 where an image is the default.
        tokens_per_frame: tokens per frame that reach the language model, as papers count.
        exact_tokens_per_frame: the same as `transformers` runs it.
        projected_per_frame: tokens per frame through the projector, as papers count; `transformers`
            sends those plus what `exact_tokens_per_frame` has more.
        tail_tokens: tokens after the last frame.
    """

    default_frames: int
    tokens_per_frame: int
    exact_tokens_per_frame: int
    projected_per_frame: int
    tail_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model, by the numbers that its cost depends on.

    Attributes:
        name: the shipped name, the file or the hub id, with the scale if one was asked for.
        model_type: as in the Hugging Face config, such as `llava_next`.
        family: what people call it, such as `LLaVA-NeXT`.
        text: the language model.
        vision: the vision tower, or None.
        projector: the projector, or None.
        extra_parameters: parameters of none of those: the newline token's embedding, a pooling layer.
        tokens_per_crop: visual tokens per crop of an image before any merging.
        default_visual_tokens: visual tokens of the default image or clip, as papers count them.
        default_crops: crops of that image or clip.
        source: where the config comes from.
        anyres: how an image is cut into tiles, or None where it is one crop.
        video: how frames become tokens, or None where there are none.
        from_defaults: keys that the config leaves to the defaults of `transformers`' classes.
        config_json: the Hugging Face config as JSON.
    """

    name: str
    model_type: str
    family: str
    text: TextConfig
    vision: VisionConfig | None
    projector: ProjectorConfig | None
    extra_parameters: int
    tokens_per_crop: int
    default_visual_tokens: int
    default_crops: int
    source: str
    anyres: AnyRes | None = None
    video: VideoRule | None = None
    from_defaults: tuple[str, ...] = field(default=(), compare=False)
    config_json: str = field(default="{}", compare=False, repr=False)

    def __hash__(self) -> int:
        """Hash the name alone: equal models have equal names, and caches ask a million times."""
        return hash(self.name)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(self.parameter_parts.values())

    @property
    def parameter_parts(self) -> dict[str, int]:
        """Parameters by part; the sum is the model.

        >>> from costmodel import load_model
        >>> load_model("llava-1.5-7b").parameter_parts["vision"]
        303507456
        """
        return {
            "vision": 0 if self.vision is None else self.vision.parameters,
            "projector": 0 if self.projector is None else self.projector.parameters,
            "extra": self.extra_parameters,
            "embedding": self.text.embedding_parameters,
            "layers": self.text.num_layers * self.text.layer_parameters,
            "final_norm": self.text.hidden_size,
            "lm_head": self.text.head_parameters,
        }

    def visual_input(
        self,
        *,
        image_size: tuple[int, int] | None = None,
        frames: int | None = None,
        count: str = "paper",
    ) -> VisualInput:
        """Return the visual tokens of one image or one clip.

        Without an image size, any-resolution models take their largest grid (LLaVA-NeXT: 2 x 2 tiles and
        the whole image, 5 x 576 = 2880) and video models their usual clip (Video-LLaVA: 8 frames of
        256). That is how papers count; `transformers` adds a newline token per row of tiles (2928) and,
        in a Video-LLaVA clip, the class token of every frame (8 x 257 = 2056). With an image size both
        ways of counting agree.

        Args:
            image_size: (height, width) in pixels.
            frames: frames of a clip; they are resized to the tower's size whatever theirs is.
            count: `paper` or `transformers`.

        Raises:
            InvalidInputError: a size or a number of frames that is none, or one the model cannot see.

        >>> from costmodel import load_model
        >>> load_model("llava-next-vicuna-7b").visual_input(image_size=(480, 640))
        VisualInput(tokens=2340, crops=5, projected_tokens=2880)
        >>> load_model("video-llava-7b").visual_input(frames=8, count="transformers").tokens
        2056
        """
        if count not in ("paper", "transformers"):
            raise InvalidInputError(f"count must be 'paper' or 'transformers', not {count!r}")
        if self.vision is None:
            if image_size is None and frames is None:
                return VisualInput(0, 0, 0)
            raise InvalidInputError(
                f"{self.name} has no vision tower: image_size and frames mean nothing to it"
            )
        if image_size is not None and frames is not None:
            raise InvalidInputError("image_size belongs to an image and frames to a clip: give one")
        if frames is not None or (image_size is None and self.video and self.video.default_frames):
            return self._clip(frames, count == "transformers")
        if image_size is not None:
            height, width = _checked_size(image_size)
        elif self.anyres is not None and count == "transformers":
            height, width = self.anyres.largest
        else:
            return self._default_image()
        if self.anyres is None:
            return self._default_image()
        crops = self.anyres.crops(height, width)
        return VisualInput(
            self.anyres.tokens(height, width), crops, crops * self.vision.selected_tokens
        )

    def _default_image(self) -> VisualInput:
        crops = 1 if self.anyres is None else 1 + self.anyres.tiles(self.anyres.largest)
        tokens = crops * self.tokens_per_crop
        return VisualInput(tokens, crops, tokens)

    def _clip(self, frames: int | None, exact: bool) -> VisualInput:
        rule = self.video
        if rule is None:
            raise InvalidInputError(
                f"{self.name} ({self.family}) takes images, not frames; give image_size, or count "
                "each frame as an image with visual_tokens"
            )
        if frames is None:
            frames = rule.default_frames
        _check_whole("frames", frames)
        each = rule.exact_tokens_per_frame if exact else rule.tokens_per_frame
        projected = rule.projected_per_frame + each - rule.tokens_per_frame
        return VisualInput(frames * each + rule.tail_tokens, frames, frames * projected)


def _checked_size(image_size: object) -> tuple[int, int]:
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise InvalidInputError(
            f"image_size must be (height, width) in pixels, such as (480, 640), not {image_size!r}"
        )
    _check_whole("image height", image_size[0])
    _check_whole("image width", image_size[1])
    return int(image_size[0]), int(image_size[1])


def _check_whole(name: str, value: object) -> None:
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if whole and 1 <= value.__index__() <= MOST_PIXELS:  # type: ignore[attr-defined]
        return
    raise InvalidInputError(f"{name} must be a whole number from 1 to {MOST_PIXELS}, not {value!r}")
