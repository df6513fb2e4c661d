"""What Qwen's families share: images of their own resolution, and a merger of 2 x 2 patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import Activate, Block, Norm, dense
from costmodel.models.native import NativeGeometry

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: What the config classes of these families assume.
DEFAULTS: dict[str, Any] = {"tie_word_embeddings": False}


def native_geometry(
    vision: VisionConfig,
    tokens: tuple[int, int],
    video_tokens: tuple[int, int],
    *,
    clip_budget: bool = False,
) -> NativeGeometry:
    """Return the geometry of a tower whose budgets are given in tokens.

    Args:
        vision: the tower.
        tokens: fewest and most of an image.
        video_tokens: fewest and most of a clip's pair of frames; of a clip's pixels, where `clip_budget`.
        clip_budget: whether a clip has one budget for all frames.
    """
    each = (vision.patch_size * vision.merge) ** 2
    return NativeGeometry(
        vision.patch_size, vision.merge, vision.window, tokens[0] * each, tokens[1] * each,
        vision.tubelet, video_tokens[0] * each, video_tokens[1] * each, clip_budget,
    )  # fmt: skip


def merger(
    vision: VisionConfig,
    d: int,
    norm: str,
    name: str = "merger",
    *,
    behind: bool = False,
    rows: str = "projected",
) -> tuple[Block, ...]:
    """Return the blocks of a merger: a norm, then two linear layers over merge x merge patches at once.

    Args:
        vision: the tower, whose patches are merged.
        d: width of the tokens.
        norm: kind of the norm.
        name: what the names of its ops start with.
        behind: whether the norm runs over merged rows, not over patches.
        rows: which rows it runs over.

    >>> from costmodel.blocks import parameters
    >>> from costmodel.models import load_model
    >>> parameters(merger(load_model("qwen2.5-vl-7b").vision, 3584, "rms"))  # 1280, 5120 x 5121, 5121 x 3584
    44574464
    """
    c, many = vision.hidden_size, vision.merge**2
    k = many * c
    return (
        Norm(f"{name}_norm", k if behind else c, rows, norm, per_row=1 if behind else many),
        dense(f"{name}_fc1", k, k, rows, bias=True),
        Activate(f"{name}_gelu", k, rows, "gelu"),
        dense(f"{name}_fc2", k, d, rows, bias=True),
    )


def check_width(outer: Section, text: TextConfig) -> None:
    """Raise unless the tower's output is as wide as the language model.

    Raises:
        InvalidFileError: it is not.
    """
    seen = outer.values["vision_config"]
    d = seen.get("out_hidden_size", text.hidden_size)
    if d != text.hidden_size:
        raise outer.fail(
            "vision_config.out_hidden_size",
            f"({d!r}) must be the language model's width {text.hidden_size}",
        )
