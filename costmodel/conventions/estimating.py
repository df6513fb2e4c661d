"""Estimates under another tool's or paper's way of counting, from a request.

The counting itself lives in the conventions. This module checks a request against what they define, and
turns the token schedule of a method into their input.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.conventions.registry import get_convention
from costmodel.methods import chosen_method
from costmodel.methods.bare_schedule import bare_plan
from costmodel.models import load_model
from costmodel.precision import parse_precision
from costmodel.request import ARGUMENTS, DEFAULTS, OUR_DEFAULTS
from costmodel.scenario import scenario_inputs, scenario_of
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from costmodel.request import Request
    from costmodel.result import Estimate

#: Arguments that steer our own formulas and no convention's.
_OURS = tuple(name for name, known in ARGUMENTS.items() if known.ours)


def refuse_own_settings(request: Request) -> None:
    """Raise for an argument that means nothing to the request's convention.

    Raises:
        InvalidInputError: one of them is not its default.

    >>> from costmodel.request import Request
    >>> refuse_own_settings(Request("llava-1.5-7b", "nvidia-l4", convention="fastv", logits="all"))
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: logits='all' means nothing to the convention 'fastv', \
which counts by its own rules; leave it out, or use convention='torch'
    """
    for name in _OURS:
        value = getattr(request, name)
        if value is not None and value != DEFAULTS[name]:
            raise InvalidInputError(
                f"{name}={shown(value)} means nothing to the convention {request.convention!r}, "
                "which counts by its own rules; leave it out, or use convention='torch'"
            )


def convention_estimate(request: Request) -> Estimate:
    """Count one request under its convention.

    The device is one of the convention's own table where it has one. Without a text length the
    request has that of the convention's authors.

    Raises:
        UnknownConventionError: no such convention.
        VlmRooflineError: a bad argument, or one the convention does not define.

    >>> from costmodel.request import Request
    >>> cost = convention_estimate(Request("llama-2-7b", "nvidia_V100", visual_tokens=700,
    ...     text_tokens=0, convention="llmviewer-2024-02"))
    >>> round(cost.totals.time_s * 1e3, 1)  # Table 2 of the PruMerge paper prints 88.6 ms
    88.6
    """
    refuse_own_settings(request)
    if request.precision == DEFAULTS["precision"]:
        # A convention counts shapes, not checkpoints, and what they all start from is FP16.
        request = replace(request, precision="fp16")
    chosen = get_convention(request.convention)
    config = load_model(request.model)
    text_tokens = request.text_tokens
    if text_tokens is None and chosen.devices:
        # A tool for any sequence length fixes no prompt: it gets ours.
        text_tokens = OUR_DEFAULTS["text_tokens"]
    own_text = chosen.default_text_tokens if text_tokens is None else text_tokens
    warnings: list[str] = []
    scenario = scenario_of(replace(request, text_tokens=own_text or 0), config, warnings)
    method, keep, layer = chosen_method(request.method, request.keep, request.layer)
    schedule = request.tokens_per_layer
    if method is not None and schedule is not None:
        raise InvalidInputError(
            f"{method.name} makes its own schedule; give method or tokens_per_layer, not both"
        )
    per_layer = None
    if method is not None:
        spans = method.plan(
            config, parse_precision("fp16"), *scenario[:5],
            config.vision.num_layers if config.vision else 0, images=scenario.images, keep=keep,
            layer=layer, unit_tokens=scenario.unit_tokens, framed=scenario.framed, seen=scenario.seen,
            parts=scenario.parts,
        ).llm_spans  # fmt: skip
        per_layer = [span.tokens for span in spans for _ in range(span.layers)]
    elif schedule is not None:
        bare_plan(tuple(schedule), config.text.num_layers, *scenario[:2])
        per_layer = list(schedule)
    cost = chosen.evaluate(
        config,
        visual_tokens=scenario.visual_tokens,
        text_tokens=text_tokens,
        batch_size=request.batch_size,
        output_tokens=request.output_tokens,
        hardware=request.hardware,
        precision=request.precision,
        attention=request.attention,
        llm_visual_tokens_per_layer=per_layer,
    )
    inputs = {
        **request.inputs(),
        **scenario_inputs(request, scenario, config),
        "model": config.name,
        "text_tokens": own_text,
        "method": "none" if method is None else method.name,
        "keep": keep,
        "layer": layer,
        **({} if method is None else method.changes),
        **dict.fromkeys(_OURS),
    }
    return replace(cost, _inputs=lambda: inputs, warnings=tuple(warnings))
