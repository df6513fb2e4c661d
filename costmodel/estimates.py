"""`estimate`: one scenario in, its cost out.

>>> from costmodel import estimate
>>> cost = estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=576, text_tokens=40)
>>> cost.totals.flops
8583722926080
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.evaluate import Context, Scenario
from costmodel.inputs import check_count, resolve_visual
from costmodel.memory import kv_by_layer
from costmodel.methods import Method
from costmodel.methods.bare_schedule import check_schedule
from costmodel.methods.keep import check_keep
from costmodel.precision import parse_precision
from costmodel.quantities import whole
from costmodel.result import Estimate, Stages, total_cost
from costmodel.table import op_rows
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from costmodel.methods import MethodPlan
    from costmodel.models import ModelConfig
    from costmodel.precision import Precision
    from hardware_specs import HardwareSpec

#: The text of a prompt when nothing is said: what the PruMerge paper and its successors assume.
DEFAULT_TEXT_TOKENS = 40


def assemble(
    context: Context, scenario: Scenario, inputs: dict[str, Any], warnings: list[str]
) -> Estimate:
    """Price a scenario and put its estimate together.

    Args:
        context: what stays fixed.
        scenario: the numbers.
        inputs: every argument as resolved.
        warnings: what is known so far; a footprint over capacity is added.
    """
    stages, memory, plan = context.evaluate(scenario, vector=False)
    if memory.fits is False and memory.capacity_bytes is not None:
        warnings.append(
            f"peak memory {memory.peak_memory_bytes / 1e9:.2f} GB is over the "
            f"{memory.capacity_bytes / 1e9:.2f} GB of {context.hardware.name}; lower the batch, "
            "the tokens or the precision, or take a larger device"
        )
    return Estimate(
        inputs,
        Stages(stages),
        total_cost(stages, scenario.output_tokens),
        memory,
        tuple(warnings),
        lambda: op_rows(context.stage_ops(scenario, plan), context.roofline),
        lambda: assumptions(context, plan),
        lambda: tuple(
            whole(size)
            for size in kv_by_layer(
                context.model.text,
                context.precision.text,
                scenario.batch_size,
                scenario.text_tokens,
                plan.llm_spans,
                scenario.output_tokens,
            )
        ),
    )


def assumptions(context: Context, plan: MethodPlan) -> dict[str, Any]:
    """Say what an estimate rests on.

    Args:
        context: what stays fixed.
        plan: the method's plan, for its notes.
    """
    model, precision = context.model, context.precision
    modules = {
        "vision": precision.vision,
        "projector": precision.projector,
        "lm_head": precision.lm_head,
    }
    group = precision.text.group_size
    return {
        "flops": "1 multiply-add = 2; matrix products, convolutions, attention over s x t",
        "attention": "full square in flops, causal triangle in executed_flops",
        "attention_kernel": context.attention,
        "logits_rows": context.logits,
        "vision_tower": "none" if model.vision is None else context.vision_layers,
        "vision_layers": context.tower_layers,
        "text_layers": model.text.num_layers,
        "ffn_matrices": 3,
        "execution": context.plan.name,
        "time": (
            "ideal roofline max(T_math, T_mem), a lower bound; high is T_math + T_mem"
            if context.calibration is None
            else f"calibrated law ({context.calibration.name}), 90 % interval"
        ),
        "linear_arithmetic": precision.text.linear_dtype,
        "weight_group_size": group if group > 0 else None,
        "unquantised_modules": [name for name, num in modules.items() if num.weight_bytes >= 2],
        "decode_steps": "output_tokens steps, after the token that prefill yields",
        **plan.notes,
    }


_CONTEXTS: dict[Any, tuple[Context, dict[str, Any]]] = {}
_MOST_CONTEXTS = 512


def context_for(
    model: str | Path | ModelConfig,
    hardware: str | Path | HardwareSpec,
    precision: str | Mapping[str, str] | Precision,
    calibration: Calibration | str | Path | None,
    **fixed: Any,
) -> tuple[Context, dict[str, Any]]:
    """Build the context of a call, or find it again when all its arguments are shipped names.

    Args:
        model: as `estimate`.
        hardware: as `estimate`.
        precision: as `estimate`.
        calibration: as `estimate`.
        fixed: the arguments of `Context` that are names or single numbers.

    Returns:
        The context, and the arguments as resolved.
    """
    if fixed["attention"] is None:
        fixed["attention"] = "flash"
    if fixed.get("tokens_per_layer") is not None:
        fixed["tokens_per_layer"] = check_schedule(fixed["tokens_per_layer"])
    for name, value in fixed.items():
        if name == "tokens_per_layer":
            continue
        if isinstance(value, np.generic):
            fixed[name] = value.item()
        elif not isinstance(value, (str, int, float, NoneType, Method)):
            raise InvalidInputError(f"{name} takes one value, not {value!r}; sweep takes lists")
    named = (
        isinstance(model, str)
        and isinstance(hardware, str)
        and isinstance(precision, str)
        and (calibration is None or isinstance(calibration, str))
    )
    key = None
    if named:
        # As keys 1, 1.0 and True are one; as what to keep they are a token, all tokens, a mistake.
        kinds: tuple[Any, ...] = (type(fixed["keep"]), type(fixed["layer"]))
        if isinstance(fixed["method"], Method):
            kinds += (type(fixed["method"].given_keep), *fixed["method"].options.values())
        key = (model, hardware, precision, calibration, *fixed.values(), *kinds)
        found = _CONTEXTS.get(key)
        if found is not None:
            return found
    from costmodel.models import list_models, load_model
    from hardware_specs import get_hardware, list_hardware

    config = load_model(model)
    device = get_hardware(hardware)
    if fixed["keep"] is not None:
        fixed["keep"] = check_keep(fixed["keep"], least=0)
    context = Context(
        config,
        device,
        parse_precision(precision),
        calibration=_calibration(calibration, device),
        **fixed,
    )
    method = context.method
    inputs = {
        "model": config.name,
        "hardware": device.id,
        "precision": context.precision.name,
        "method": "none" if method is None else method.name,
        "keep": context.keep,
        "layer": context.layer,
        "execution": fixed["execution"],
        "calibration": None if context.calibration is None else str(context.calibration.name),
        "convention": "torch",
        "attention": fixed["attention"],
        "logits": fixed["logits"],
        "vision_layers": fixed["vision_layers"],
        **({} if method is None else method.changes),
        **_given_schedule(context),
    }
    # A file may change between calls; what ships with the package does not.
    shipped = str(model).partition("@")[0] in list_models() and hardware in list_hardware()
    if key is not None and shipped and _ships(calibration):
        if len(_CONTEXTS) >= _MOST_CONTEXTS:
            _CONTEXTS.clear()
        _CONTEXTS[key] = context, inputs
    return context, inputs


def _given_schedule(context: Context) -> dict[str, Any]:
    schedule = context.tokens_per_layer
    return {"tokens_per_layer": None if schedule is None else list(schedule)}


def _ships(calibration: Any) -> bool:
    """Whether a calibration, named or None, cannot change between calls."""
    if calibration is None:
        return True
    from costmodel.calibration import list_calibrations

    return calibration in list_calibrations()


def _calibration(
    calibration: Calibration | str | Path | None, hardware: HardwareSpec
) -> Calibration | None:
    if calibration is None:
        return None
    from costmodel.calibration import Calibration

    if not isinstance(calibration, Calibration):
        calibration = Calibration.load(calibration, hardware)
    calibration.check_hardware(hardware)
    return calibration


def estimate(
    model: str | Path | ModelConfig,
    hardware: str | Path | HardwareSpec,
    *,
    visual_tokens: int | None = None,
    text_tokens: int | None = None,
    batch_size: int = 1,
    output_tokens: int = 0,
    precision: str | Mapping[str, str] | Precision = "fp16",
    method: str | Method | None = None,
    keep: int | float | None = None,
    tokens_per_layer: Sequence[int] | None = None,
    execution: str = "fused",
    calibration: Calibration | str | Path | None = None,
    convention: str = "torch",
    attention: str | None = None,
    logits: str = "last",
    layer: int | None = None,
    image_size: tuple[int, int] | None = None,
    frames: int | None = None,
    vision_layers: str = "executed",
) -> Estimate:
    """Predict what one request costs: FLOPs, traffic, time and memory, stage by stage.

    Args:
        model: a shipped name (`llava-1.5-7b`), a Hugging Face config.json or its folder, a hub id,
            or a `ModelConfig`.
        hardware: a device id (`nvidia-a100-sxm4-80gb`), a YAML file, or a `HardwareSpec`.
        visual_tokens: visual tokens per sample handed to the language model (with a method: before
            it reduces them); None is the model's own count, 0 is a prompt without an image.
        text_tokens: text tokens per sample; None is 40, or under another convention the length its
            authors used.
        batch_size: samples.
        output_tokens: decode steps after the token that prefill yields.
        precision: a name such as `fp16`, `w4a16` (`int4`), `w8a8` (`int8`), `fp8`, or
            `module=name` pairs.
        method: a token-reduction method: a name, or what `get_method` gave, with its options.
        keep: what it keeps: a count (int), a ratio (float in (0, 1]), None for its default.
        tokens_per_layer: visual tokens of every language-model layer, in place of a method: a schedule
            of your own, whose choosing costs nothing.
        execution: `fused`, `hf-eager` or `cuda-graph`.
        calibration: measured efficiencies of this device, or a file of them; None gives the ideal
            roofline, a lower bound, with its bracket.
        convention: `torch`, or the name of another tool's or paper's way of counting.
        attention: `flash`, or `eager` for the kernel that writes its scores out; None is `flash`,
            or the convention's own.
        logits: `last` computes one row of logits per sample, `all` every row.
        layer: the layer K of methods that reduce inside the language model.
        image_size: (height, width) in pixels, for models whose token count depends on it.
        frames: frames, for video models.
        vision_layers: `executed` runs every layer of the tower as `transformers` does, `useful`
            stops at the one whose features are read.

    Raises:
        VlmRooflineError: a bad argument; the message says which, and what there is.

    >>> cost = estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=64)
    >>> cost.stages["prefill"].flops
    1352942485504
    """
    if not isinstance(convention, str):
        raise InvalidInputError(f"convention must be a name, not {convention!r}")
    if convention != "torch":
        from costmodel.counted import convention_estimate, refuse_own_settings

        refuse_own_settings(
            convention, execution=execution, calibration=calibration, logits=logits,
            vision_layers=vision_layers,
        )  # fmt: skip
        return convention_estimate(
            convention,
            model,
            hardware,
            visual_tokens=visual_tokens,
            text_tokens=text_tokens,
            batch_size=batch_size,
            output_tokens=output_tokens,
            precision=precision,
            method=method,
            keep=keep,
            layer=layer,
            tokens_per_layer=tokens_per_layer,
            attention=attention,
            image_size=image_size,
            frames=frames,
        )
    text_tokens = DEFAULT_TEXT_TOKENS if text_tokens is None else text_tokens
    context, fixed = context_for(
        model,
        hardware,
        precision,
        calibration,
        method=method,
        keep=keep,
        layer=layer,
        tokens_per_layer=tokens_per_layer,
        execution=execution,
        attention=attention,
        logits=logits,
        vision_layers=vision_layers,
    )
    check_count("text_tokens", text_tokens, 0)
    check_count("batch_size", batch_size, 1)
    check_count("output_tokens", output_tokens, 0)
    # numpy's integers overflow; Python's do not.
    text_tokens, batch_size, output_tokens = int(text_tokens), int(batch_size), int(output_tokens)
    warnings: list[str] = []
    tokens, projected, crops = resolve_visual(
        context.model, visual_tokens, image_size, frames, text_tokens, output_tokens, warnings
    )
    scenario = Scenario(tokens, projected, crops, text_tokens, batch_size, output_tokens)
    inputs = {
        "visual_tokens": tokens,
        "text_tokens": text_tokens,
        "batch_size": batch_size,
        "output_tokens": output_tokens,
        "image_size": None if image_size is None else [int(side) for side in image_size],
        "frames": None if frames is None else int(frames),
        "crops": crops,
        **fixed,
    }
    return assemble(context, scenario, inputs, warnings)
