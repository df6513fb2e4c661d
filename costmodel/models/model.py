"""A model as the cost model sees it: vision tower, projector, language model, and its visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from costmodel.models import geometry as pictures
from costmodel.models.geometry import Geometry, VideoRule, VisualInput
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.models.anyres import AnyRes
    from costmodel.models.projector import ProjectorConfig
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: (height, width) in pixels of every image, or of each.
ImageSize = tuple[int, int] | tuple[tuple[int, int], ...]
#: Above this a side of an image, or a number of frames, is taken for a slip.
MOST_PIXELS = 1_000_000
#: More tiles than any model cuts an image into.
MOST_TILES = 1000


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
        source: where the config comes from.
        geometry: from an image or a clip to tokens and crops.
        from_defaults: keys that the config leaves to the defaults of `transformers`' classes.
        config_json: the Hugging Face config as JSON.
        is_checkpoint: whether weights lie beside the config, whose precision it then says; a shipped
            shape has none.
        budget_from: where limits of images were read, by `image`, `video` or a limit's name.
    """

    name: str
    model_type: str
    family: str
    text: TextConfig
    vision: VisionConfig | None
    projector: ProjectorConfig | None
    extra_parameters: int
    source: str
    geometry: Geometry
    from_defaults: tuple[str, ...] = field(default=(), compare=False)
    config_json: str = field(default="{}", compare=False, repr=False)
    is_checkpoint: bool = False
    budget_from: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """Name the model and its size; its config would fill a page."""
        return f"<ModelConfig {self.name}: {self.family}, {self.parameters:,} parameters>"

    def __hash__(self) -> int:
        """Hash the name alone: equal models have equal names, and caches ask a million times."""
        return hash(self.name)

    @property
    def anyres(self) -> AnyRes | None:
        """How an image is cut into tiles, or None where it is one crop."""
        return self.geometry.anyres

    @property
    def video(self) -> VideoRule | None:
        """How frames become tokens, or None where there are none."""
        return self.geometry.video

    @property
    def tokens_per_crop(self) -> int:
        """Visual tokens per crop of an image before any merging."""
        return self.geometry.tokens_per_crop

    @property
    def patches_per_token(self) -> int:
        """Patches of the tower that the bridge makes one token of; 1 where it keeps each.

        >>> from costmodel import load_model
        >>> load_model("llava-1.5-7b").patches_per_token, load_model("internvl3-8b").patches_per_token
        (1, 4)
        """
        if self.vision is None or self.anyres is not None:
            return 1
        if self.vision.native:
            return self.vision.merge**2
        return max(self.vision.patches // self.tokens_per_crop, 1)

    @property
    def default_visual_tokens(self) -> int:
        """Visual tokens of the default image or clip, as papers count them."""
        return self.visual_input().tokens

    @property
    def default_crops(self) -> int:
        """Crops or frames of the default image or clip."""
        return self.visual_input().crops

    @property
    def takes_clips(self) -> bool:
        """Whether a clip is the input when nothing is said."""
        return bool(self.video and self.video.default_frames)

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
            "layers": self.text.stack.layer_parameters,
            "final_norm": self.text.stack.parameters - self.text.stack.layer_parameters,
            "lm_head": self.text.head_parameters,
        }

    def limited(
        self,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_tiles: int | None = None,
    ) -> ModelConfig:
        """Return the same model with another budget for images; None leaves the checkpoints' own.

        Args:
            min_pixels: fewest pixels of an image that keeps its resolution.
            max_pixels: most pixels of one.
            max_tiles: tiles of an image that is cut into them: all of them, or along its longer edge.

        Raises:
            InvalidInputError: a budget that this model's images do not have, or that is none. Fewest
                pixels beyond the most are refused where an image is counted.

        >>> from costmodel import load_model
        >>> load_model("qwen2.5-vl-7b").limited(max_pixels=1003520).visual_input(image_size="1080p").tokens
        1222
        """
        asked = {"min_pixels": min_pixels, "max_pixels": max_pixels, "max_tiles": max_tiles}
        given = {name: value for name, value in asked.items() if value is not None}
        known = self.geometry.budget(clip=False)
        for name, value in given.items():
            if name not in known:
                there = f"; it has {' and '.join(known)}" if known else ""
                raise InvalidInputError(
                    f"{name} means nothing to {self.name} ({self.family}), whose images have no "
                    f"such budget{there}"
                )
            most = MOST_TILES if name == "max_tiles" else MOST_PIXELS**2
            if type(value) is not int or not 1 <= value <= most:
                raise InvalidInputError(
                    f"{name} must be a whole number from 1 to {most}, not {value!r}"
                )
        if not given:
            return self
        told = {**self.budget_from, **dict.fromkeys(given, "given")}
        return replace(self, geometry=self.geometry.limited(given), budget_from=told)

    def budget_told(self, *, clip: bool) -> dict[str, str]:
        """Say of every limit of an image, or of a clip, where it was read; empty where there is none.

        >>> from costmodel import load_model
        >>> load_model("internvl3-8b").limited(max_tiles=12).budget_told(clip=False)
        {'max_tiles': 'given'}
        >>> load_model("internvl3-8b").budget_told(clip=False)
        {'max_tiles': "the family's default"}
        """
        told = self.budget_from
        whole = told.get("video" if clip else "image", "the family's default")
        return {name: told.get(name, whole) for name in self.geometry.budget(clip=clip)}

    def visual_input(
        self,
        *,
        image_size: ImageSize | str | None = None,
        frames: int | None = None,
        images: int | None = None,
        count: str = "paper",
    ) -> VisualInput:
        """Return the visual tokens of one image or one clip, or of several images in one prompt.

        Without an image size, any-resolution models take their largest grid (LLaVA-NeXT: 2 x 2 tiles and
        the whole image, 5 x 576 = 2880) and video models their usual clip (Video-LLaVA: 8 frames of
        256). That is how papers count; `transformers` adds a newline token per row of tiles (2928) and,
        in a Video-LLaVA clip, the class token of every frame (8 x 257 = 2056). With an image size both
        ways of counting agree.

        Args:
            image_size: (height, width) in pixels of every image, or a tuple of one for each.
            frames: frames of a clip; they are resized to the tower's size, or keep `image_size`
                where images keep theirs.
            images: images in one prompt; None is one (or as many as there are sizes), or a clip where
                the model takes clips.
            count: `paper` or `transformers`.

        Raises:
            InvalidInputError: a size or a number of frames that is none, or one the model cannot see.

        >>> from costmodel import load_model
        >>> load_model("llava-next-vicuna-7b").visual_input(image_size=(480, 640))
        VisualInput(tokens=2340, crops=5, projected_tokens=2880)
        >>> load_model("video-llava-7b").visual_input(frames=8, count="transformers").tokens
        2056
        >>> load_model("llava-onevision-7b").visual_input(images=2)
        VisualInput(tokens=1460, crops=2, projected_tokens=1458)
        """
        if count not in ("paper", "transformers"):
            raise InvalidInputError(f"count must be 'paper' or 'transformers', not {count!r}")
        if self.vision is None:
            if image_size is None and frames is None and not images:
                return VisualInput(0, 0, 0)
            raise InvalidInputError(
                f"{self.name} has no vision tower: images, image_size and frames mean nothing to it"
            )
        keeps_size = self.geometry.keeps_size
        if frames is not None and not (images is None and (image_size is None or keeps_size)):
            raise InvalidInputError(
                "images and their sizes belong to images and frames to a clip: give one"
            )
        exact = count == "transformers"
        if frames is not None or (image_size is None and images is None and self.takes_clips):
            return self._clip(frames, image_sizes(image_size, None)[0], exact)
        return pictures.images(self.geometry, image_sizes(image_size, images), exact=exact)

    def _clip(self, frames: int | None, size: tuple[int, int] | None, exact: bool) -> VisualInput:
        rule = self.video
        if rule is None:
            raise InvalidInputError(
                f"{self.name} ({self.family}) takes images, not frames; give image_size, or count "
                "each frame as an image with visual_tokens"
            )
        if frames is None:
            frames = rule.default_frames
        _check_whole("frames", frames)
        return self.geometry.clip(frames, size, exact=exact)


#: What people call screens and films, as (height, width) in pixels.
NAMED_SIZES = {
    "480p": (480, 854), "720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560),
    "2160p": (2160, 3840), "4k": (2160, 3840),
}  # fmt: skip


def read_size(text: str) -> ImageSize:
    """Return (height, width) of `HEIGHTxWIDTH` or a name, or one for each image, joined by `+`.

    Raises:
        InvalidInputError: a text of another form.

    >>> read_size("480x640"), read_size("1080p"), read_size("480x640+720p")
    ((480, 640), (1080, 1920), ((480, 640), (720, 1280)))
    """
    sizes = []
    for part in text.lower().split("+"):
        height, _, width = (side.strip() for side in part.partition("x"))
        named = NAMED_SIZES.get(part.strip())
        if named is None and not (height.isdecimal() and width.isdecimal()):
            raise InvalidInputError(
                f"image_size {shown(text)} is not HEIGHTxWIDTH, such as 480x640, one of "
                f"{', '.join(NAMED_SIZES)}, or one for each image, such as 480x640+1080p"
            )
        sizes.append(named or (int(height), int(width)))
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


def write_size(size: ImageSize | str) -> str:
    """Return a size, or one for each image, as `read_size` takes it.

    >>> write_size((480, 640)), write_size("1080p"), write_size([(480, 640), (720, 1280)])
    ('480x640', '1080p', '480x640+720x1280')
    """
    if isinstance(size, str):
        return size
    sizes = size if isinstance(size[0], (tuple, list)) else (size,)
    return "+".join("{}x{}".format(*each) for each in sizes)


def image_sizes(image_size: object, images: int | None) -> tuple[tuple[int, int] | None, ...]:
    """Return the size of every image of a prompt, None for the default one.

    Args:
        image_size: (height, width), one of them for each image, or None.
        images: how many there are; None is one, or as many as there are sizes.

    Raises:
        InvalidInputError: a size that is none, or not as many sizes as images.

    >>> image_sizes((480, 640), 2), image_sizes([(480, 640), (336, 336)], None)
    (((480, 640), (480, 640)), ((480, 640), (336, 336)))
    """
    if images is not None:
        _check_whole("images", images, 0)
    if isinstance(image_size, str):
        image_size = read_size(image_size)
    several = isinstance(image_size, (tuple, list)) and image_size
    if not (several and all(isinstance(size, (tuple, list)) for size in several)):
        several = (image_size,)
    sizes = tuple(None if size is None else _checked_size(size) for size in several)
    if images is None or images == len(sizes):
        return sizes
    if len(sizes) > 1:
        raise InvalidInputError(
            f"{len(sizes)} image sizes were given for {images} images; give one size, or one for "
            "each image"
        )
    return sizes * images


def _checked_size(image_size: object) -> tuple[int, int]:
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise InvalidInputError(
            f"image_size must be (height, width) in pixels, such as (480, 640), not {image_size!r}"
        )
    _check_whole("image height", image_size[0])
    _check_whole("image width", image_size[1])
    return int(image_size[0]), int(image_size[1])


def _check_whole(name: str, value: object, least: int = 1) -> None:
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if whole and least <= value.__index__() <= MOST_PIXELS:  # type: ignore[attr-defined]
        return
    raise InvalidInputError(
        f"{name} must be a whole number from {least} to {MOST_PIXELS}, not {value!r}"
    )
