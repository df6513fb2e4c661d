"""`solve_schedule`: the setting of a method that leaves a given mean number of visual tokens per layer.

A method's setting gives a schedule, and papers name settings by the schedule's mean ("64 tokens"). Here the
mean is given: a count is found by pricing all of them, a ratio by bisection, since the mean grows with both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.kinds import Amount
from costmodel.methods import Method, get_method
from costmodel.precision import parse_precision
from costmodel.quantities import MOST_TOKENS
from costmodel.schedule import tokens_by_layer
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import brief, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from costmodel.methods import MethodPlan
    from costmodel.models import ModelConfig

#: Halvings of the interval of ratios: two to the power of minus forty is below one token of any prompt.
HALVINGS = 40
#: A ratio that keeps all tokens but one and is no request to leave the model alone, as 1.0 is.
ALMOST = 1.0 - 2**-20
#: Text tokens that the plans are made for; no schedule depends on them.
TEXT_TOKENS = 40


@dataclass(frozen=True, slots=True)
class SolvedSchedule:
    """The setting of a method that gives a mean; iterating over it gives the ratios.

    Attributes:
        method: the method with its setting, as `estimate(method=...)` takes it.
        ratios: visual tokens left after each cut, over those there are before any. PyramidDrop's program
            calls it `image_token_ratio_list`.
        visual_tokens_by_layer: (layers, visual tokens that enter each of them), first layer to last.
        mean_visual_tokens: their mean, the nearest to what was asked for that whole tokens give.
    """

    method: Method
    ratios: tuple[float, ...]
    visual_tokens_by_layer: tuple[tuple[int, int], ...]
    mean_visual_tokens: float

    __repr__ = brief

    def __iter__(self) -> Iterator[float]:
        """Walk over the ratios."""
        return iter(self.ratios)

    def __len__(self) -> int:
        """Count the cuts."""
        return len(self.ratios)

    def __getitem__(self, place: int) -> float:
        """Return the ratio after one of the cuts."""
        return self.ratios[place]

    @property
    def keep(self) -> int | float | None:
        """The method's `keep`."""
        return self.method.given_keep

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `methods solve --json`."""
        return {
            "schema_version": 1,
            "method": str(self.method),
            "name": self.method.name,
            "keep": self.keep,
            "ratios": list(self.ratios),
            "visual_tokens_by_layer": [list(span) for span in self.visual_tokens_by_layer],
            "mean_visual_tokens": self.mean_visual_tokens,
        }


def solve_schedule(
    model: str | ModelConfig,
    method: str | Method,
    *,
    mean_tokens: float,
    layers: int | Sequence[int] | None = None,
    frames: int | None = None,
) -> SolvedSchedule:
    """Return the setting of a method whose schedule has a given mean over the language model's layers.

    Args:
        model: a model, as `estimate` takes it, with one image of its default size, or one clip.
        method: a method, as `estimate` takes it; a keep in it is ignored.
        mean_tokens: visual tokens per layer, on average.
        layers: the layers that the method cuts at, for methods that take some: one, or several for
            PyramidDrop and its like; None are the method's own.
        frames: frames of a clip in the image's place; methods that compare frames need it.

    Returns:
        The setting, its ratios and the schedule. Its mean differs from what was asked for by what rounding to
        whole tokens leaves.

    Raises:
        InvalidInputError: no setting with these layers comes to the mean; says what they can. A method whose
            keep has no part in its schedule.
        UnsupportedError: a model that the method does not fit.

    >>> solved = solve_schedule("llava-1.5-7b", "pyramiddrop", mean_tokens=192)
    >>> solved.keep, solved.visual_tokens_by_layer
    (0.2535, ((8, 576), (8, 146), (8, 37), (8, 9)))
    >>> solve_schedule("llava-1.5-7b", "pyramiddrop", mean_tokens=64)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: pyramiddrop's first 8 of 32 layers see all 576 visual tokens: \
no less than 144 on average, and 64 was asked for; cut at earlier layers
    """
    from costmodel.models import load_model

    mean_tokens = Amount(MOST_TOKENS, "").check("mean_tokens", mean_tokens)
    config = load_model(model)
    chosen = _with_layers(method if isinstance(method, Method) else get_method(method), layers)
    info = chosen.info
    if info.keep_kind == "none":
        raise InvalidInputError(
            f"{info.name} takes no keep, so no mean can be solved for; its schedule follows from "
            f"{'layer=' if info.takes_layer else 'its options'}"
        )
    if chosen.said_by_options:
        raise InvalidInputError(
            f"{chosen} says itself how many tokens are left, so no mean can be solved for; leave that "
            "option out"
        )
    if info.clips and (frames is None or frames < 2):
        raise InvalidInputError(
            f"{info.name} compares the frames of a clip and leaves images alone; give frames="
        )
    given = config.visual_input(frames=frames)
    n = given.tokens
    if not 0 < mean_tokens <= n:
        raise InvalidInputError(
            f"mean_tokens={mean_tokens:g} must lie above 0 and at most at the {n} visual tokens of "
            f"{config.name}"
        )

    def plan(keep: Any) -> MethodPlan:
        return chosen.plan(
            config, parse_precision("fp16"), n, given.projected_tokens, given.crops, TEXT_TOKENS, 1,
            config.vision.num_layers if config.vision else 0, keep=keep, unit_tokens=n, images=1,
            framed=frames is not None, seen=config.geometry.seen([None], frames),
        )  # fmt: skip

    keep: int | float
    if info.keep_choices:
        keep = _choice(info.name, lambda one: _mean(plan(one)), info.keep_choices, mean_tokens)
    else:
        alone = info.keep_kind == "ratio" or _refuses_counts(plan, (1, n // given.crops))
        several = alone or _layers_option(chosen)
        if info.place == "llm-layer":
            _refuse_below(
                info.name, tokens_by_layer(plan(ALMOST if several else 1).llm_spans), n, mean_tokens
            )
        shared = _ratio(lambda ratio: _mean(plan(ratio)), mean_tokens) if several else None
        if shared is not None and (alone or _near(plan(shared), mean_tokens)):
            keep = shared
        else:  # One count for all cuts reaches what no share of a share of a share does.
            keep = _count(lambda counts: _mean(plan(counts)), n, mean_tokens)
    found = plan(keep)
    mean, spans = float(_mean(found)), tokens_by_layer(found.llm_spans)
    if not _near(found, mean_tokens):
        raise InvalidInputError(
            f"{info.name} comes no nearer to {mean_tokens:g} visual tokens on average than {mean:g} "
            "with these settings"
        )
    settled = get_method(
        info.name, keep=keep, layer=chosen.given_layer, variant=chosen.variant, **chosen.options
    )
    left = [tokens for _, tokens in spans]
    ratios = tuple(tokens / n for tokens in (left[1:] if left[0] == n and len(left) > 1 else left))
    return SolvedSchedule(settled, ratios, spans, mean)


def _refuses_counts(plan: Callable[[Any], MethodPlan], counts: Sequence[int]) -> bool:
    """Whether a method takes none of these counts of this model's tokens: ratios alone."""
    for count in counts:
        try:
            plan(count)
        except InvalidInputError:
            continue
        return False
    return True


def _layers_option(method: Method) -> bool:
    """Whether the method cuts at several layers, each by the same share of what is left."""
    return any(option.name == "layers" for option in method.info.options)


def _with_layers(method: Method, layers: int | Sequence[int] | None) -> Method:
    """Return the method without its keep, at the layers asked for."""
    asked: dict[str, Any] = dict(method.options)
    layer = method.given_layer
    if layers is not None:
        several = tuple(layers) if isinstance(layers, (list, tuple, range)) else (layers,)
        if _layers_option(method):
            asked["layers"] = several
        elif method.info.takes_layer and len(several) == 1:
            (layer,) = several
        else:
            takes = "one layer" if method.info.takes_layer else "no layers"
            raise InvalidInputError(
                f"{method.name} takes {takes}, and layers={shown(layers)} was given; pyramiddrop cuts at "
                "several"
            )
    return get_method(method.name, layer=layer, variant=method.variant, **asked)


def _mean(plan: MethodPlan) -> Any:
    """Return the mean of a plan's visual tokens over the layers: a number, or one for each keep."""
    layers = sum(span.layers for span in plan.llm_spans)
    return sum(span.layers * span.tokens for span in plan.llm_spans) / layers


def _choice(
    name: str, mean: Callable[[float], float], choices: Sequence[float], wanted: float
) -> float:
    """Return the published setting with the mean asked for."""
    means = {choice: float(mean(choice)) for choice in choices}
    best = min(means, key=lambda choice: abs(means[choice] - wanted))
    if abs(means[best] - wanted) > 1:
        there = ", ".join(f"{means[choice]:.5g} (keep {choice})" for choice in sorted(choices))
        raise InvalidInputError(
            f"{name} has published settings only, whose means are {there}; none is {wanted:g}"
        )
    return best


def _count(means: Callable[[Any], Any], most: int, wanted: float) -> int:
    """Return the count whose mean is nearest, the smaller of equals; counts that are refused are left out."""
    counts = np.arange(1, most + 1)
    while True:
        try:
            found = np.broadcast_to(means(counts), counts.shape)
            break
        except InvalidInputError as error:
            if error.rows is None or not error.rows.any():
                raise
            counts = counts[~error.rows]
    return int(counts[np.argmin(abs(found - wanted))])


def _ratio(mean: Callable[[float], float], wanted: float) -> float:
    """Return the shortest decimal ratio whose mean is the nearest there is."""

    def reached(ratio: float) -> float:
        try:
            return float(mean(ratio))
        except InvalidInputError:
            return 0.0  # a share of some tokens that rounds to none

    low, high = 0.0, ALMOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < wanted else (low, middle)
    best = min((low, high), key=lambda ratio: abs(reached(ratio) - wanted))
    near = reached(best)
    rounded = (round(best, digits) for digits in range(1, 12))
    return next((ratio for ratio in rounded if ratio > 0 and reached(ratio) == near), best)


def _near(plan: MethodPlan, wanted: float) -> bool:
    """Whether a plan's mean is what was asked for but for the rounding to whole tokens."""
    return bool(abs(_mean(plan) - wanted) <= max(1.0, 0.02 * wanted))


def _refuse_below(name: str, spans: tuple[tuple[int, int], ...], n: int, wanted: float) -> None:
    """Raise where the layers before the first cut alone hold the mean above what was asked for."""
    depth = sum(layers for layers, _ in spans)
    before, tokens = spans[0]
    least = before * n / depth
    if tokens == n and before < depth and wanted < least:
        raise InvalidInputError(
            f"{name}'s first {before} of {depth} layers see all {n} visual tokens: no less than "
            f"{least:g} on average, and {wanted:g} was asked for; cut at earlier layers"
        )
