"""What of a prompt the KV cache holds before the prefill: a shared prefix, or an earlier turn.

Cached tokens are counted in the prompt as it is before any reduction. As many as there are visual tokens
or more are all the images and some text: no image is encoded again, and a method that reduced them did
so when they were. Fewer are text before the images. The prefill computes the remaining rows, each of
which attends to all; where a method shortened the images, so are their keys in every layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods import MethodPlan
    from costmodel.quantities import Num
    from costmodel.scenario import Scenario


class Prefix(NamedTuple):
    """What is cached and what is left, per sample; numbers or arrays over scenarios.

    Attributes:
        images: 1 where the cache holds every visual token, else 0.
        text: text tokens of the prompt.
        fresh_text: rows that are computed beside the visual tokens that are not cached.
    """

    images: Num
    text: Num
    fresh_text: Num

    def fresh(self, visual: Num) -> Num:
        """Rows that a layer computes which sees so many visual tokens."""
        return visual * (1 - self.images) + self.fresh_text

    def fresh_visual(self, visual: Num) -> Num:
        """Rows of these that are visual tokens: the cache takes the text before the images first."""
        return visual * (1 - self.images) + self.fresh_text * (self.fresh_text < 0)

    def held(self, visual: Num) -> Num:
        """Tokens of the prompt that such a layer has in its cache before."""
        return self.text + visual - self.fresh(visual)


def prefix_of(scenario: Scenario) -> Prefix | None:
    """Return what the cache holds of a scenario's prompt, or None where it is empty.

    >>> from costmodel.scenario import Scenario
    >>> prefix = prefix_of(Scenario(576, 576, 1, 80, 1, 0, cached_tokens=616))
    >>> prefix.images, prefix.fresh(576), prefix.held(576), prefix.held(64)
    (1, 40, 616, 104)
    """
    cached, visual, text = scenario.cached_tokens, scenario.visual_tokens, scenario.text_tokens
    if not (cached.any() if isinstance(cached, np.ndarray) else cached):
        return None
    images: Any = (cached > 0) * (cached >= visual) * 1
    return Prefix(images, text, text - cached + visual * images)


def continued(plan: MethodPlan, scenario: Scenario, prefix: Prefix, name: str | None) -> MethodPlan:
    """Return a schedule of which the cache holds the beginning: what is cached is not worked at again.

    Args:
        plan: the schedule of the whole prompt.
        scenario: the numbers.
        prefix: what the cache holds.
        name: what reduces the visual tokens, or None.

    Raises:
        InvalidInputError: the whole prompt is cached, or a part of images that are reduced as a whole.
    """
    length: Any = scenario.visual_tokens + scenario.text_tokens
    cached: Any = scenario.cached_tokens
    if np.any((cached > 0) & (cached >= length)):
        raise InvalidInputError(
            f"cached_tokens must be fewer than the {np.min(length):.0f} tokens of the prompt, not "
            f"{np.max(cached):.0f}: the last one is always computed"
        )
    part: Any = (prefix.images == 0) & (scenario.cached_tokens > scenario.text_tokens)
    if name is not None and np.any(part):
        raise InvalidInputError(
            f"{name} reduces images as a whole, and cached_tokens={np.max(scenario.cached_tokens):.0f} "
            f"are a part of {np.max(scenario.visual_tokens):.0f} visual tokens; give at most the text's "
            f"{np.max(scenario.text_tokens):.0f}, or at least all visual tokens"
        )
    works = 1 - prefix.images
    spans = tuple(
        span._replace(materialised=span.materialised & (works > 0)) for span in plan.llm_spans
    )
    return plan._replace(
        llm_spans=spans,
        projected_tokens=plan.projected_tokens * works,
        ops=tuple(op._replace(count=op.count * works) for op in plan.ops),
    )


def cache_told(scenario: Scenario) -> dict[str, Any]:
    """Say what the cache is taken to hold, for the assumptions; nothing where it is empty."""
    prefix = prefix_of(scenario)
    if prefix is None:
        return {}
    cached = scenario.cached_tokens
    if not prefix.images:
        return {"cached_prefix": f"{cached} tokens before the images, which are encoded"}
    text = cached - scenario.visual_tokens
    return {"cached_prefix": f"all visual tokens, not encoded again, and {text} text tokens"}
