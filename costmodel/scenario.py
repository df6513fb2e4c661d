"""From a request to its numbers: visual tokens, tokens through the projector and crops, per sample."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.request import OUR_DEFAULTS, names_of
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.models import ModelConfig, VisualInput
    from costmodel.quantities import Num
    from costmodel.request import Request


#: The arguments whose values are a scenario, or make one.
_VARYING = names_of("number", "shape")


class Scenario(NamedTuple):
    """The numbers that vary: per sample but for the batch; integers, or arrays of one shape.

    The last are the visual tokens of one whole image or clip, 0 where that is not known.
    """

    visual_tokens: Num
    projected_tokens: Num
    crops: Num
    text_tokens: Num
    batch_size: Num
    output_tokens: Num
    unit_tokens: Num = 0


def visual_units(
    model: ModelConfig, image_size: tuple[int, int] | None, frames: int | None
) -> tuple[VisualInput, VisualInput]:
    """Return what one image or clip gives as papers count it, and as `transformers` runs it.

    The second has a few tokens more where newline or class tokens are carried along; only beyond it
    does a count stand for several images.

    Args:
        model: a model with a vision tower.
        image_size: (height, width) in pixels, or None.
        frames: frames of a video, or None.
    """
    if image_size is None and frames is None:
        return _default_units(model)
    return (
        model.visual_input(image_size=image_size, frames=frames),
        model.visual_input(image_size=image_size, frames=frames, count="transformers"),
    )


@lru_cache(maxsize=256)
def _default_units(model: ModelConfig) -> tuple[VisualInput, VisualInput]:
    """Any-resolution models try dozens of grids to find their largest."""
    return model.visual_input(), model.visual_input(count="transformers")


def scenario_of(request: Request, model: ModelConfig, warnings: list[str]) -> Scenario:
    """Return the numbers of a request.

    A count of visual tokens above what one image (or clip) gives stands for several of them.

    Args:
        request: the request; without a text length it has the project's own.
        model: its model.
        warnings: receives what the caller should know.

    Raises:
        InvalidInputError: a picture for a model without a tower, or a prompt without a token.

    >>> from costmodel.models import load_model
    >>> from costmodel.request import Request
    >>> two_images = Request("llava-1.5-7b", "nvidia-l4", visual_tokens=1152)
    >>> scenario_of(two_images, load_model("llava-1.5-7b"), [])[:4]
    (1152, 1152, 2, 40)
    """
    asked, image_size, frames = request.visual_tokens, request.image_size, request.frames
    text = request.text_tokens
    if text is None:
        text = OUR_DEFAULTS["text_tokens"]
    if model.vision is None:
        if image_size is not None or frames is not None:
            raise InvalidInputError(
                f"{model.name} has no vision tower: image_size and frames mean nothing to it"
            )
        tokens, projected, crops, each = asked or 0, 0, 0, 0
    else:
        counted, executed = visual_units(model, image_size, frames)
        tokens = counted.tokens if asked is None else asked
        unit = counted if tokens <= counted.tokens else executed
        each = unit.tokens
        images = -(-tokens // each)
        projected, crops = images * unit.projected_tokens, images * unit.crops
    if tokens + text == 0:
        raise InvalidInputError("visual_tokens and text_tokens are both 0: there is no prompt")
    length = tokens + text + request.output_tokens
    most = model.text.max_positions
    if most and length > most:
        warnings.append(
            f"{length} positions are beyond the {most} that {model.name} was trained for; the cost "
            "holds, the answer may not"
        )
    return Scenario(tokens, projected, crops, text, request.batch_size, request.output_tokens, each)


def scenario_inputs(request: Request, scenario: Scenario) -> dict[str, Any]:
    """Return the arguments behind a scenario as resolved, with the crops they come to."""
    return {
        **request.inputs(_VARYING),
        "visual_tokens": scenario.visual_tokens,
        "text_tokens": scenario.text_tokens,
        "crops": scenario.crops,
    }
