"""Video-LLaVA: one tower for images, one for frames; modeling_video_llava.py of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.families.family import DEFAULT_FRAMES, Family
from costmodel.models.geometry import CropGeometry, VideoRule

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.vision import VisionConfig


def _geometry(_outer: Section, vision: VisionConfig) -> CropGeometry:
    """The video path keeps the class token whatever the strategy says; papers do not count it."""
    rule = VideoRule(DEFAULT_FRAMES, vision.patches, vision.tokens, vision.patches)
    return CropGeometry(vision.selected_tokens, video=rule)


FAMILY = Family(
    model_type="video_llava",
    label="Video-LLaVA",
    classes=("VideoLlavaForConditionalGeneration",),
    copies=2,
    geometry=_geometry,
    class_token_in_clips=True,
    pixels="pixel_values_images",
)
