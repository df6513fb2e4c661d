"""`--image`: size and number of images from picture files, and what they make of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costmodel.quantities import MOST_TOKENS
from costmodel.request import BUDGET
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import one_line
from vlm_roofline.cli.console import remark
from vlm_roofline.cli.paths import typed_path

if TYPE_CHECKING:
    from collections.abc import Mapping

Pictures = Annotated[
    list[Path] | None,
    typer.Option(
        "--image",
        metavar="FILE",
        parser=typed_path,
        help="A picture, or a folder of them, whose sizes to take; repeatable.",
    ),
]
Fps = Annotated[
    float | None, typer.Option(help="Frames taken of a second of video, with --seconds.")
]
Seconds = Annotated[float | None, typer.Option(help="Length of the video.")]
#: Options that say an image's size or a clip's frames in other words.
PICTURE_OPTIONS: dict[str, Any] = {"image": Pictures, "fps": Fps, "seconds": Seconds}
#: Pictures beyond these are summed up.
_SHOWN = 20


def sampled(fps: float | None, seconds: float | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the frames that a rate and a length of a video make, as an argument.

    Raises:
        InvalidInputError: one without the other, either beside frames, or no frame at all.

    >>> sampled(2.0, 8.0, {}), sampled(None, None, {})
    ({'frames': 16}, {})
    """
    if fps is None and seconds is None:
        return {}
    if fps is None or seconds is None or given.get("frames") is not None:
        raise InvalidInputError("--fps and --seconds go together, in place of --frames")
    frames = fps * seconds
    if not 0.5 <= frames < MOST_TOKENS:
        raise InvalidInputError(f"--fps {fps:g} over --seconds {seconds:g} makes no frame")
    return {"frames": max(round(frames), 1)}


def pictured(files: list[Path] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image sizes of pictures as arguments, and say what each picture makes.

    Args:
        files: pictures and folders; None or empty for none.
        given: the other arguments.

    Raises:
        InvalidInputError: images or their sizes were given as well.
        InvalidFileError: a file that is no picture.
    """
    if not files:
        return {}
    from costmodel.models import load_model
    from costmodel.models.pictures import picture_files, picture_size

    if held := [name for name in ("images", "image_size", "frames") if given.get(name) is not None]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in held)
        raise InvalidInputError(
            f"--image says how many images there are, and their size; leave out {options}"
        )
    paths = picture_files(files)
    sizes = tuple(picture_size(path) for path in paths)
    budgets = {name: _listed(given.get(name)) for name in BUDGET}
    if any(len(values) > 1 for values in budgets.values()):
        return {"image_size": sizes}  # a table's rows say what each budget makes
    for name in _listed(given["model"]):
        model = load_model(name).limited(**{key: each for key, (each,) in budgets.items()})
        together = model.visual_input(image_size=sizes)
        for path, (height, width) in list(zip(paths, sizes, strict=True))[:_SHOWN]:
            each = model.geometry.among_others if len(sizes) > 1 else None
            each = each or model.visual_input(image_size=(height, width))
            remark(
                one_line(
                    f"{path.name}: {height}x{width} pixels, {each.tokens} visual tokens, "
                    f"{each.crops} crops on {model.name}"
                )
            )
        if len(sizes) > 1:
            remark(
                f"{len(sizes)} pictures: {together.tokens} visual tokens, {together.crops} crops on "
                f"{model.name}"
            )
    return {"image_size": sizes}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
