"""From a request to its numbers: images, crops, projected and visual tokens, per sample."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from costmodel.models.geometry import Part
from costmodel.models.model import image_sizes
from costmodel.request import BUDGET, OUR_DEFAULTS, names_of
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.models import ModelConfig
    from costmodel.models.geometry import Geometry, Seen, VisualInput
    from costmodel.models.model import ImageSize
    from costmodel.quantities import Num
    from costmodel.request import Request


#: The arguments whose values are a scenario, or make one.
_VARYING = names_of("number", "shape")


class Scenario(NamedTuple):
    """The numbers that vary: per sample but for the batch; integers, or arrays of one shape.

    Visual tokens come from `images` images or clips, which are `crops` crops or frames. `unit_tokens`
    are the visual tokens of one whole image or clip, 0 where that is not known. `seen` is what a tower
    sees that takes images at their own resolution. `framed` says that they are frames of a clip, where that
    was said. `parts` are the images size by size, where their sizes give different numbers of tokens.
    `cached_tokens` of the prompt have their keys and values in the cache already (`costmodel.prefix`).
    """

    visual_tokens: Num
    projected_tokens: Num
    crops: Num
    text_tokens: Num
    batch_size: Num
    output_tokens: Num
    unit_tokens: Num = 0
    images: Num = 1
    cached_tokens: Num = 0
    seen: Seen | None = None
    framed: bool = False
    parts: tuple[Part, ...] = ()


class Units(NamedTuple):
    """What visual tokens are counted in.

    Attributes:
        counted: what one image or clip gives as papers count it; all of them, where their number is
            known.
        executed: the same as `transformers` runs it: a few tokens more where newline or class tokens
            are carried along. Only beyond it does a count stand for several images.
        images: how many there are, or None where the count of visual tokens says it.
        among_others: what each of several images in one prompt gives, where that is not what one
            alone does and a count may stand for several.
        default: whether nothing was said of the image.
        seen: what a tower that takes images at their own resolution sees of `counted`.
        text: text tokens that the model's processor puts among the frames of a clip.
        by_count: the geometry of such a tower where no size was said: then a count of visual tokens is
            that of an image of as many.
        framed: whether frames were said.
        parts: the images size by size, where their sizes give different numbers of tokens.
    """

    counted: VisualInput
    executed: VisualInput
    images: int | None = None
    among_others: VisualInput | None = None
    default: bool = False
    seen: Seen | None = None
    by_count: Geometry | None = None
    text: int = 0
    framed: bool = False
    parts: tuple[Part, ...] = ()

    def parts_of(self, tokens: Any) -> tuple[Part, ...]:
        """Return the images size by size, if a count of visual tokens is that of all of them."""
        return self.parts if self.parts and np.all(tokens == self.counted.tokens) else ()

    def tower(self, tokens: Any, images: Any, *, asked: bool) -> Seen | None:
        """Return what a tower sees that takes images at their own resolution, None for others.

        Args:
            tokens: visual tokens per sample.
            images: that they come from.
            asked: whether the tokens were asked for, and not counted from the images.
        """
        if self.seen is None:
            return None
        if self.by_count is None:
            return self.seen.times(images // max(self.images or 1, 1))
        if asked:
            return self.by_count.seen_of(tokens, images)
        return self.seen.times((tokens > 0) * 1)

    def read(self, tokens: Any) -> tuple[Any, ...]:
        """Return images, crops, projected tokens, and the tokens of one whole image, of a count.

        Raises:
            InvalidInputError: more tokens than the images that were asked for give.

        >>> from costmodel.models import VisualInput
        >>> unit = VisualInput(576, 1, 576)
        >>> Units(unit, unit).read(1000), Units(unit, unit, images=1).read(64)
        ((2, 2, 1152, 576), (1, 1, 576, 576))
        """
        counted, executed, known, each, default, *_ = self
        if self.by_count is not None:
            images = (1 if known is None else known) * ((tokens > 0) * 1)
            return images, images, tokens, tokens // (images + (images == 0))
        unit, crops, projected = _either(tokens > counted.tokens, executed, counted)
        if known is not None:
            most = max(counted.tokens, executed.tokens)
            if np.any(tokens > most):
                raise InvalidInputError(
                    f"{_noun(known)} of this size give {most} visual tokens, not "
                    f"{np.max(tokens):.0f}; give more images, or leave images out"
                )
            some = (tokens > 0) * 1
            return known * some, crops * some, projected * some, unit // max(known, 1)
        images = -(-tokens // unit)
        crops, projected = images * crops, images * projected
        if each is None:
            return images, crops, projected, unit
        several = images > 1
        if default:
            whole = (tokens % each.tokens == 0) & (tokens >= 2 * each.tokens)
            several |= whole & (tokens != counted.tokens) & (tokens != executed.tokens)
        many = -(-tokens // each.tokens)
        return _either(
            several,
            (many, many * each.crops, many * each.projected_tokens, each.tokens),
            (images, crops, projected, unit),
        )


def _either(condition: Any, these: tuple[Any, ...], those: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the ones or the others, for each row of an array by itself."""
    if isinstance(condition, np.ndarray):
        return tuple(map(partial(np.where, condition), these, those))
    return these if condition else those


def _noun(number: int, what: str = "image") -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _priced(model: ModelConfig, images: int, crops: int) -> str:
    what, parts = ("video", "frame") if model.takes_clips else ("image", "crop")
    return f"{_noun(images, what)} ({_noun(crops, parts)})"


@lru_cache(maxsize=256)
def _limited(model: ModelConfig, *budget: int | None) -> ModelConfig:
    return model.limited(**dict(zip(BUDGET, budget, strict=True)))


def within_budget(model: ModelConfig, request: Request) -> ModelConfig:
    """Return a request's model with the request's budget for images.

    Raises:
        InvalidInputError: a budget that this model's images do not have.
    """
    least, most, tiles = request.min_pixels, request.max_pixels, request.max_tiles
    if least is None and most is None and tiles is None:
        return model
    return _limited(model, least, most, tiles)


def units_of(model: ModelConfig, request: Request) -> Units | None:
    """Return what a request's visual tokens are counted in; None for a model of text.

    Raises:
        InvalidInputError: a picture for a model without a tower.
    """
    # A text has become a size when the request was checked.
    size = cast("ImageSize | None", request.image_size)
    if model.vision is None:
        model.visual_input(image_size=size, frames=request.frames, images=request.images)
        return None
    return visual_units(model, request.images, size, request.frames)


def visual_units(
    model: ModelConfig,
    images: int | None = None,
    size: ImageSize | None = None,
    frames: int | None = None,
) -> Units:
    """Return what visual tokens are counted in.

    Args:
        model: a model with a vision tower.
        images: in one prompt, or None where the count says it.
        size: (height, width) of every image, or one for each, or None.
        frames: of a clip, or None.
    """
    if size is None and frames is None:
        return _default_units(model, images)
    if images is None and size is not None and isinstance(size[0], (tuple, list)):
        images = len(size)
    counted = model.visual_input(image_size=size, frames=frames, images=images)
    executed = model.visual_input(
        image_size=size, frames=frames, images=images, count="transformers"
    )
    geometry = model.geometry
    each = None if frames is not None else geometry.among_others
    seen = geometry.seen(image_sizes(size, images), frames)
    text = 0 if frames is None else geometry.text_of(frames)
    framed = frames is not None
    parts = () if framed or each is not None else _parts(model, image_sizes(size, images))
    return Units(counted, executed, images, each, seen=seen, text=text, framed=framed, parts=parts)


def _parts(model: ModelConfig, sizes: tuple[tuple[int, int] | None, ...]) -> tuple[Part, ...]:
    """Return images size by size, nothing where all give as many tokens."""
    numbers = Counter(sizes)
    if len(numbers) == 1:
        return ()
    parts = []
    for size, number in numbers.items():
        counted = model.visual_input(image_size=size, images=number)
        parts.append(Part(number, *counted, model.geometry.seen([size] * number)))
    return tuple(parts) if len({part.tokens / part.images for part in parts}) > 1 else ()


@lru_cache(maxsize=256)
def _default_units(model: ModelConfig, images: int | None) -> Units:
    """Any-resolution models try dozens of grids to find their largest."""
    counted = model.visual_input(images=images)
    executed = model.visual_input(images=images, count="transformers")
    geometry = model.geometry
    seen = geometry.seen(image_sizes(None, images))
    return Units(
        counted, executed, images, geometry.among_others, images is None, seen,
        geometry if geometry.keeps_size else None,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def other_readings(model: ModelConfig, tokens: int) -> tuple[str, ...]:
    """Return what else a bare count of visual tokens may be: all that gives it, with other crops.

    >>> from costmodel.models import load_model
    >>> other_readings(load_model("llava-onevision-7b"), 1460)
    ('one image (10 crops) of whose tokens 1460 are left',)
    """
    geometry = model.geometry
    units = _default_units(model, None)
    if geometry.keeps_size or tokens in (units.counted.tokens, units.executed.tokens):
        return ()
    anyres, video, one = geometry.anyres, geometry.video, _default_units(model, 1)
    each = geometry.among_others or one.executed
    if anyres is None and video is None and tokens < min(each.tokens, one.counted.tokens):
        return ()
    images, crops, *_ = units.read(tokens)
    found: dict[str, int] = {}
    if anyres is not None:
        for count, (height, width) in anyres.sizes_giving(tokens).items():
            found[f"one image of {height}x{width} or alike ({count} crops)"] = count
    for unit in dict.fromkeys((each, one.counted)):
        number, rest = divmod(tokens, unit.tokens)
        alone = number == 1 and unit is not geometry.among_others
        if not rest and (alone or (number > 1 and unit.crops <= each.crops)):
            found[f"{_noun(number)} ({_noun(number * unit.crops, 'crop')})"] = number * unit.crops
    if video is not None:
        number, rest = divmod(tokens - video.tail_tokens, video.tokens_per_frame)
        if not rest and number > 0:
            found[f"a video of {number} frames"] = number
    if images > 1 and tokens <= max(units.counted.tokens, units.executed.tokens):
        one_image = units.counted.crops
        found[f"one image ({one_image} crops) of whose tokens {tokens} are left"] = one_image
    if images > 1 and anyres is not None and geometry.among_others is None:
        found["images of other sizes"] = -1
    return tuple(reading for reading, number in found.items() if number != crops)


def scenario_of(request: Request, model: ModelConfig, warnings: list[str]) -> Scenario:
    """Return the numbers of a request.

    A count of visual tokens above what one image (or clip) gives stands for several of them, unless
    the request says how many there are.

    Raises:
        InvalidInputError: a picture for a model without a tower, more tokens than the pictures give,
            or a prompt without a token.

    >>> from costmodel.models import load_model
    >>> from costmodel.request import Request
    >>> two_images = Request("llava-1.5-7b", "nvidia-l4", visual_tokens=1152)
    >>> scenario_of(two_images, load_model("llava-1.5-7b"), [])[:4]
    (1152, 1152, 2, 40)
    """
    model = within_budget(model, request)
    asked, text = request.visual_tokens, request.text_tokens
    among = 0
    parts: tuple[Part, ...] = ()
    units = units_of(model, request)
    if units is None:
        tokens, projected, crops, images, unit, seen = asked or 0, 0, 0, 0, 0, None
        framed = False
    else:
        tokens = units.counted.tokens if asked is None else asked
        images, crops, projected, unit = units.read(tokens)
        seen = units.tower(tokens, images, asked=asked is not None)
        among, framed, parts = units.text, units.framed, units.parts_of(tokens)
        if asked and units.parts and not parts:
            warnings.append(
                f"{tokens} visual tokens are taken as equally many of each of {images} images, whose sizes "
                "give different numbers; leave visual_tokens out for theirs"
            )
        if asked and units.default and (others := other_readings(model, asked)):
            warnings.append(
                f"{asked} visual tokens are priced as {_priced(model, images, crops)}; they may as well "
                f"be {', or '.join(others)}: say images=, image_size= or frames="
            )
    if text is None:
        text = OUR_DEFAULTS["text_tokens"] + among
    if tokens + text == 0:
        raise InvalidInputError("visual_tokens and text_tokens are both 0: there is no prompt")
    length = tokens + text + request.output_tokens
    most = model.text.max_positions
    if most and length > most:
        warnings.append(
            f"{length} positions are beyond the {most} that {model.name} was trained for; the cost "
            "holds, the answer may not"
        )
    return Scenario(
        tokens, projected, crops, text, request.batch_size, request.output_tokens, unit, images,
        request.cached_tokens, seen, framed, parts,
    )  # fmt: skip


def scenario_inputs(request: Request, scenario: Scenario, model: ModelConfig) -> dict[str, Any]:
    """Return the arguments behind a scenario as resolved, with the crops they come to."""
    limited = within_budget(model, request)
    return {
        **request.inputs(_VARYING),
        **limited.geometry.budget(clip=request.frames is not None),
        "visual_tokens": scenario.visual_tokens,
        "text_tokens": scenario.text_tokens,
        "images": scenario.images,
        "crops": scenario.crops,
    }
