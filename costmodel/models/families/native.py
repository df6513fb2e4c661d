"""What Qwen's families share: images of their own resolution, and a merger of 2 x 2 patches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from costmodel.blocks import Shuffle
from costmodel.models.families.family import Family
from costmodel.models.native import NativeGeometry
from costmodel.models.processors import Processor, check, pixels
from costmodel.models.projector import ProjectorConfig
from costmodel.models.towers.native import merger

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig


def native_geometry(
    vision: VisionConfig,
    tokens: tuple[int, int],
    video_tokens: tuple[int, int],
    *,
    clip_budget: bool = False,
    timestamps: bool = False,
) -> NativeGeometry:
    """Return the geometry of a tower whose budgets are given in tokens.

    Args:
        vision: the tower.
        tokens: fewest and most of an image.
        video_tokens: fewest and most of a clip's pair of frames; of a clip's pixels, where `clip_budget`.
        clip_budget: whether a clip has one budget for all frames.
        timestamps: whether the time of every pair of frames is written before it.
    """
    each = (vision.patch_size * vision.merge) ** 2
    return NativeGeometry(
        vision.patch_size, vision.merge, vision.window, tokens[0] * each, tokens[1] * each,
        vision.tubelet, video_tokens[0] * each, video_tokens[1] * each, clip_budget, timestamps,
    )  # fmt: skip


#: Fewest and most pixels that the image processor's class assumes (image_processing_qwen2_vl.py), and
#: fewest and most tokens' worth of them that those of clips do (video_processing_qwen2_vl.py, _qwen3_vl.py).
_CLASS, _VIDEO_CLASS = (56 * 56, 1280 * 28 * 28), (128, 768)


def processed(geometry: NativeGeometry, said: Processor) -> NativeGeometry:
    """Return the geometry with the budgets of a checkpoint's processor.

    Without a file of its own a clip keeps the family's default: qwen-vl-utils resizes its frames first.

    Raises:
        InvalidFileError: a budget that is none, or patches that are not the tower's.
    """
    for part in (said.image, said.clip):
        check(part, "patch_size", geometry.patch, "the tower's")
        check(part, "merge_size", geometry.merge, "the tower's")
        check(part, "temporal_patch_size", geometry.tubelet, "the tower's")
    if said.image is not None:
        least, most = pixels(said.image, *_CLASS)
        geometry = replace(geometry, least=least, most=most)
    if said.clip is not None:
        fewest, all_ = (tokens * geometry.unit**2 for tokens in _VIDEO_CLASS)
        least, most = pixels(said.clip, fewest, all_)
        geometry = replace(geometry, least_video=least, most_video=most)
    return geometry


def merged_bridge(
    outer: Section,
    vision: VisionConfig,
    text: TextConfig,
    norm: str,
    width: str = "out_hidden_size",
) -> ProjectorConfig:
    """Return the merger as the bridge to the language model, tokens in raster order again behind windows.

    Raises:
        InvalidFileError: the tower's output is not as wide as the language model.
    """
    d = text.hidden_size
    said = outer.values["vision_config"].get(width, d)
    if said != d:
        raise outer.fail(
            f"vision_config.{width}", f"({said!r}) must be the language model's width {d}"
        )
    many = vision.merge**2
    k = many * vision.hidden_size
    order = (Shuffle("raster_order", d, "projected"),) if vision.window else ()
    blocks = (*merger(vision.hidden_size, many, d, norm), *order)
    return ProjectorConfig(k, k, d, True, "gelu", blocks, by_plan=True)


#: What is common to these families, the rest to be said.
NativeFamily = partial(
    Family,
    defaults={"tie_word_embeddings": False},
    selects_features=False,
    merges=True,
    reads_values=True,
    processed=processed,
)
