"""Estimates under another tool's or paper's way of counting, in the shape of our own.

The counting itself lives in `costmodel.conventions`; here its answer becomes an `Estimate`, so that
both can be read and compared by the same names. What a convention does not define is None.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from costmodel.conventions import get_convention
from costmodel.estimates import DEFAULT_TEXT_TOKENS
from costmodel.inputs import check_count, resolve_visual
from costmodel.methods import Method, chosen_method
from costmodel.methods.bare_schedule import bare_plan, check_schedule
from costmodel.methods.keep import check_keep
from costmodel.models import load_model
from costmodel.precision import parse_precision
from costmodel.result import Estimate, Stages
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.models import ModelConfig


#: Arguments of `estimate` that no convention defines, with their defaults.
_OWN_DEFAULTS = {"execution": "fused", "logits": "last", "vision_layers": "executed"}


class CountedCost(SimpleNamespace):
    """One stage, or the totals, as a convention counts them: attributes named as in the JSON."""

    def __getitem__(self, name: str) -> Any:
        """Return a quantity by name."""
        return getattr(self, name)


def refuse_own_settings(convention: str, **given: Any) -> None:
    """Raise for an argument that steers our own formulas and no convention's.

    Args:
        convention: the convention's name.
        given: `execution`, `calibration`, `logits` and `vision_layers` as passed to `estimate`.

    Raises:
        InvalidInputError: one of them is not its default.

    >>> refuse_own_settings("fastv", logits="all")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: logits='all' means nothing to the convention 'fastv', \
which counts by its own rules; leave it out, or use convention='torch'
    """
    for name, value in given.items():
        if value is not None and value != _OWN_DEFAULTS.get(name):
            raise InvalidInputError(
                f"{name}={value!r} means nothing to the convention {convention!r}, which counts by "
                "its own rules; leave it out, or use convention='torch'"
            )


def convention_estimate(
    convention: str,
    model: Any,
    hardware: Any,
    *,
    visual_tokens: int | None,
    text_tokens: int | None,
    batch_size: int,
    output_tokens: int,
    precision: Any,
    method: str | Method | None,
    keep: int | float | None,
    layer: int | None,
    attention: str | None,
    tokens_per_layer: Sequence[int] | None = None,
    image_size: tuple[int, int] | None = None,
    frames: int | None = None,
) -> Estimate:
    """Count one scenario under a convention.

    Args:
        convention: the convention's name.
        model: as `estimate`.
        hardware: a device of the convention's own table where it has one; else as `estimate`.
        visual_tokens: visual tokens per sample before any reduction.
        text_tokens: text tokens per sample; None is the length the convention's authors used.
        batch_size: samples.
        output_tokens: decode steps.
        precision: a precision's name.
        method: a token-reduction method, whose schedule the convention counts.
        keep: what the method keeps.
        layer: the layer of methods that have one.
        attention: `eager` or `flash`; None is the convention's own.
        tokens_per_layer: visual tokens of every language-model layer, in place of a method.
        image_size: (height, width) in pixels, for models whose token count depends on it.
        frames: frames, for video models.

    Raises:
        UnknownConventionError: no such convention.
        VlmRooflineError: a bad argument, or one the convention does not define.

    >>> cost = convention_estimate("llmviewer-2024-02", "llama-2-7b", "nvidia_V100",
    ...     visual_tokens=700, text_tokens=0, batch_size=1, output_tokens=0, precision="fp16",
    ...     method=None, keep=None, layer=None, attention=None)
    >>> round(cost.totals.time_s * 1e3, 1)  # Table 2 of the PruMerge paper prints 88.6 ms
    88.6
    """
    chosen = get_convention(convention)
    config = load_model(model)
    if text_tokens is None and chosen.name.startswith("llmviewer"):
        # A tool for any sequence length fixes no prompt: it gets ours.
        text_tokens = DEFAULT_TEXT_TOKENS
    own_text = chosen.default_text_tokens or 0
    if text_tokens is not None:
        check_count("text_tokens", text_tokens, 0)
        own_text = text_tokens
    check_count("batch_size", batch_size, 1)
    check_count("output_tokens", output_tokens, 0)
    own_text, batch_size, output_tokens = int(own_text), int(batch_size), int(output_tokens)
    text_tokens = None if text_tokens is None else own_text
    warnings: list[str] = []
    tokens, projected, crops = resolve_visual(
        config, visual_tokens, image_size, frames, own_text, output_tokens, warnings
    )
    keep = None if keep is None else check_keep(keep, least=0)
    reduction, keep, layer = chosen_method(method, keep, layer)
    per_layer = None
    if reduction is not None:
        per_layer = _schedule(
            config, reduction, keep, layer, tokens, projected, crops, own_text, batch_size
        )
    if tokens_per_layer is not None:
        if reduction is not None:
            raise InvalidInputError(
                f"{reduction.name} makes its own schedule; give method or tokens_per_layer, not both"
            )
        schedule = check_schedule(tokens_per_layer)
        bare_plan(schedule, config.text.num_layers, tokens, projected)
        per_layer = list(schedule)
    result = chosen.evaluate(
        config,
        hardware=hardware,
        visual_tokens=tokens,
        text_tokens=text_tokens,
        batch_size=batch_size,
        precision=precision,
        attention=attention,
        output_tokens=output_tokens,
        llm_visual_tokens_per_layer=per_layer,
    )
    inputs = {
        "visual_tokens": tokens,
        "text_tokens": chosen.default_text_tokens if text_tokens is None else text_tokens,
        "batch_size": batch_size,
        "output_tokens": output_tokens,
        "image_size": None if image_size is None else [int(side) for side in image_size],
        "frames": None if frames is None else int(frames),
        "crops": crops,
        "model": config.name,
        "hardware": str(getattr(hardware, "id", hardware)),
        "precision": str(getattr(precision, "name", precision)),
        "method": "none" if reduction is None else reduction.name,
        "keep": keep,
        "layer": layer,
        "convention": chosen.name,
        "attention": attention,
        # A convention has none of these.
        **dict.fromkeys(("execution", "calibration", "logits", "vision_layers")),
        **({} if reduction is None else reduction.changes),
        "tokens_per_layer": None if tokens_per_layer is None else per_layer,
    }
    return Estimate(
        inputs,
        Stages({name: CountedCost(**cost) for name, cost in result.stages.items()}),
        CountedCost(**result.totals),
        CountedCost(**result.memory),
        tuple(warnings),
        lambda: tuple(result.ops),
        lambda: dict(result.assumptions),
    )


def _schedule(
    config: ModelConfig,
    method: Method,
    keep: int | float | None,
    layer: int | None,
    tokens: int,
    projected: int,
    crops: int,
    text_tokens: int,
    batch_size: int,
) -> list[Any]:
    """Visual tokens seen by each layer of the language model under a method."""
    spans = method.plan(
        config, parse_precision("fp16"), tokens, projected, crops, text_tokens, batch_size,
        config.vision.num_layers if config.vision else 0, keep=keep, layer=layer,
    ).llm_spans  # fmt: skip
    return [span.tokens for span in spans for _ in range(span.layers)]
