"""What the files of a checkpoint's processor say of its images, beside config.json.

| file | holds |
|---|---|
| processor_config.json | the processor; in newer checkpoints the image and the video processor as well |
| preprocessor_config.json | the image processor, where it is not in there |
| video_preprocessor_config.json | the video processor, where it is not in there |

A family says by `Family.processed` what it reads of them; `transformers` looks in the same order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.models.model import MOST_PIXELS, ModelConfig
from costmodel.models.reading import Section, read_document
from hardware_specs.files.reading import look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from costmodel.models.geometry import Geometry

_WHOLE = "processor_config.json"
_PARTS = {
    "image_processor": "preprocessor_config.json",
    "video_processor": "video_preprocessor_config.json",
}


class Processor(NamedTuple):
    """The objects of a checkpoint's processor files, each None where there is none.

    Attributes:
        whole: of the processor.
        image: of the image processor.
        clip: of the video processor.
    """

    whole: Section | None
    image: Section | None
    clip: Section | None


def with_processor(
    model: ModelConfig, processed: Callable[[Any, Processor], Geometry] | None, config: Path
) -> ModelConfig:
    """Return a model whose images are limited as the processor's files beside its config say.

    `processed` is its family's reader; a config of another name than config.json has nothing beside it.

    Raises:
        InvalidFileError: a file that is broken, or that does not fit the tower.
    """
    if processed is None or config.name != "config.json":
        return model
    whole = _read(config.with_name(_WHOLE))
    found = Processor(whole, *(_part(config, whole, key) for key in _PARTS))
    if found.image is not None and found.image.values.get("do_resize") is False:
        raise found.image.fail("do_resize", "is false; there are tokens of resized images alone")
    # Pixels that depend on the number of frames are no limit of a clip's: the family's stays.
    if found.clip is not None and found.clip.values.get("cap_pixels_per_frame") is True:
        found = found._replace(clip=None)
    geometry = processed(model.geometry, found)
    told = {"image": found.image, "video": found.clip}
    origin = {of: section.file for of, section in told.items() if section is not None}
    return replace(model, geometry=geometry, budget_from=origin)


def _read(path: Path) -> Section | None:
    return None if look(path) is None else Section(_told(read_document(path)), str(path))


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a file writes down as not said."""
    return {key: value for key, value in values.items() if value is not None}


def _part(config: Path, whole: Section | None, key: str) -> Section | None:
    if whole is None or key not in whole:
        return _read(config.with_name(_PARTS[key]))
    part = whole.section(key)
    part.values = _told(part.values)
    return part


def check(section: Section | None, key: str, wanted: int, whose: str) -> None:
    """Raise where an object has another number than the model.

    Raises:
        InvalidFileError: it has.

    >>> check(Section({"patch_size": 14}, "f.json"), "patch_size", 14, "the tower's")
    >>> check(Section({"patch_size": 14}, "f.json"), "patch_size", 16, "the tower's")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidFileError: f.json: patch_size (14) must be the tower's, 16
    """
    if section is not None and key in section and (said := section.whole(key)) != wanted:
        raise section.fail(key, f"({said}) must be {whose}, {wanted}")


def pixels(section: Section, least: int, most: int) -> tuple[int, int]:
    """Return the fewest and most pixels of an image or a frame, as Qwen's processors take them.

    `min_pixels` and `max_pixels`, else the edges of `size`, else what the processor's class assumes: `least`
    and `most`.

    Raises:
        InvalidFileError: pixels that are none, or more at least than at most.

    >>> pixels(Section({"max_pixels": 1003520}, "f.json"), 3136, 12845056)
    (3136, 1003520)
    >>> pixels(Section({"size": {"shortest_edge": 65536, "longest_edge": 16777216}}, "f.json"), 1, 2)
    (65536, 16777216)
    """
    size = section.section("size") if "size" in section else Section({}, section.file)
    found = []
    for key, edge, assumed in (
        ("min_pixels", "shortest_edge", least),
        ("max_pixels", "longest_edge", most),
    ):
        places = [(section, key), (size, edge), (size, key)]
        said = [(part, name) for part, name in places if part.values.get(name) is not None]
        if not said and size.values:
            raise size.fail(edge, "is missing")
        found.append(said[0][0].whole(said[0][1], most=MOST_PIXELS**2) if said else assumed)
    if found[0] > found[1]:
        raise section.fail(
            "size", f"has more pixels at least ({found[0]}) than at most ({found[1]})"
        )
    return found[0], found[1]
