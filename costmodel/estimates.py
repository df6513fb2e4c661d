"""`estimate`: one scenario in, its cost out.

>>> from costmodel import estimate
>>> cost = estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=576, text_tokens=40)
>>> cost.totals.flops
8583722926080
"""

from __future__ import annotations

from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any

from costmodel.evaluate import Context
from costmodel.memory import kv_by_layer
from costmodel.prefix import cache_told
from costmodel.quantities import MEMORY_MARGIN_BYTES, whole
from costmodel.request import AUTO, Request, names_of
from costmodel.result import Estimate, Stages, op_rows, total_cost
from costmodel.scenario import scenario_inputs, scenario_of, within_budget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from costmodel.methods import Method, MethodPlan
    from costmodel.models import ModelConfig
    from costmodel.models.model import ImageSize
    from costmodel.precision import Precision
    from costmodel.scenario import Scenario
    from hardware_specs import HardwareSpec


def assemble(
    context: Context, request: Request, scenario: Scenario, warnings: list[str]
) -> Estimate:
    """Price a scenario and put its estimate together.

    Args:
        context: what stays fixed.
        request: the call, for the arguments that a context does not fix.
        scenario: the numbers.
        warnings: what is known so far; a footprint over capacity is added.
    """
    stages, memory, plan = context.evaluate(scenario, vector=False)
    warnings += plan.warnings
    if memory.fits is False and memory.capacity_bytes is not None:
        warnings.append(
            f"peak memory {memory.peak_memory_bytes / 1e9:.2f} GB and "
            f"{context.margin_bytes / 1e9:.2f} GB for context and driver are over the "
            f"{memory.capacity_bytes / 1e9:.2f} GB of {context.hardware.name}; lower the batch, "
            "the tokens or the precision, or take a larger device"
        )
    return Estimate(
        Stages(stages),
        total_cost(stages, scenario.output_tokens),
        memory,
        tuple(warnings),
        lambda: {**scenario_inputs(request, scenario, context.model), **context.inputs},
        lambda: op_rows(context.stage_ops(scenario, plan), context.roofline),
        lambda: {**assumptions(context, scenario, plan), **_budget(context, request)},
        lambda: tuple(
            whole(size)
            for size in kv_by_layer(
                context.rank_model.text,
                context.precision.text,
                context.parallel.local_batch(scenario.batch_size),
                scenario.text_tokens,
                plan.llm_spans,
                scenario.output_tokens,
            )
        ),
        context.roofline,
        plan.llm_spans,
    )


def assumptions(context: Context, scenario: Scenario, plan: MethodPlan) -> dict[str, Any]:
    """Say what an estimate rests on."""
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
        "time": _time(context),
        "precision": context.precision_origin,
        "linear_arithmetic": precision.text.linear_dtype,
        "weight_group_size": group if group > 0 else None,
        "unquantised_modules": [name for name, num in modules.items() if num.weight_bytes >= 2],
        "memory_capacity": (
            "nominal less a sixteenth: no public figure of what the driver shows"
            if context.hardware.memory_is_assumed
            else "as the driver shows it or the device's file states it"
        ),
        "memory_margin_bytes": context.margin_bytes,
        "decode_steps": "output_tokens steps, after the token that prefill yields",
        **_windows(context),
        **_devices(context),
        **cache_told(scenario),
        **plan.notes,
    }


def _budget(context: Context, request: Request) -> dict[str, Any]:
    """Say where the limits of images or clips were read; nothing where there are none."""
    limited = within_budget(context.model, request)
    told = limited.budget_told(clip=request.frames is not None)
    return {"visual_budget": told} if told else {}


def _time(context: Context) -> str:
    """Say what the times and their ends are."""
    if context.calibration is not None:
        return (
            f"calibrated law ({context.calibration.name}), 90 % interval; ideal is the roofline's "
            "max(T_math, T_mem)"
        )
    bound = "" if context.plan.runs_pytorch else ", a lower bound"
    return f"ideal roofline max(T_math, T_mem){bound}; high is T_math + T_mem"


def _windows(context: Context) -> dict[str, Any]:
    """Say which layers slide, and whose rule that is; nothing where none does."""
    text = context.model.text
    if text.sliding_window is None:
        return {}
    rule = (
        "of transformers: a prompt that fills the window runs over the full square"
        if context.plan.runs_pytorch
        else "of serving engines: keys outside the window are skipped"
    )
    which = f"{text.sliding_layers} of {text.num_layers} layers see {text.sliding_window} tokens"
    return {
        "sliding_window": f"{which} and cache one less, as in transformers; executed_flops by the rule {rule}"
    }


def _devices(context: Context) -> dict[str, Any]:
    """Say how several devices share the work; nothing of one."""
    network, parallel = context.roofline.network, context.parallel
    if parallel.devices == 1:
        return {}
    apart = " + 1 for the tower" if parallel.apart else ""
    told: dict[str, Any] = {
        "devices": f"{parallel.devices} = (tp {parallel.tp} x pp {parallel.pp}{apart}) x dp "
        f"{parallel.dp}; counts and times of one rank, memory of the fullest",
        "vision_tower_on_ranks": context.inputs["tower"],
        "replicated": "bridge, reduction and norms, by every tensor-parallel rank"
        if context.inputs["norms"] == "replicated"
        else "bridge and reduction, by every tensor-parallel rank; norms by its share of the rows",
    }
    if network is not None:
        told |= {"node": network.node.name, "overlap": "none between collectives and computing"}
    return told


_CONTEXTS: dict[Any, Context] = {}
_MOST_CONTEXTS = 512
#: The values of a request that a context fixes, beside its method.
_fixed = attrgetter(*(name for name in names_of("subject", "setting") if name != "method"))
_PLAIN = {str, int, float, NoneType, tuple}


def context_for(request: Request) -> Context:
    """Build the context of a request, or find it again when all it names ships with the package."""
    # As keys 1 and 1.0 are one; as what to keep, beside a method or in it, they are a token and all.
    fixed = _fixed(request)
    key = (*fixed, request.method, type(request.keep), str(request.method))
    named = _PLAIN.issuperset(map(type, fixed))
    if named:
        found = _CONTEXTS.get(key)
        if found is not None:
            return found
    context = Context(request)
    # A file may change between calls; what ships with the package does not.
    if named and _ships(request):
        if len(_CONTEXTS) >= _MOST_CONTEXTS:
            _CONTEXTS.clear()
        _CONTEXTS[key] = context
    return context


def _ships(request: Request) -> bool:
    """Whether model, device and calibration, all names or None, cannot change between calls."""
    from costmodel.calibration import list_calibrations
    from costmodel.models.registry import is_shipped

    # A device is an id or an alias of one, but for a file's path.
    return (
        is_shipped(str(request.model).partition("@")[0])
        and not str(request.hardware).endswith((".yaml", ".yml"))
        and request.calibration in (None, AUTO, *list_calibrations())
    )


def estimate(
    model: str | Path | ModelConfig,
    hardware: str | Path | HardwareSpec,
    *,
    visual_tokens: int | None = None,
    text_tokens: int | None = None,
    cached_tokens: int = 0,
    batch_size: int = 1,
    output_tokens: int = 0,
    precision: str | Mapping[str, str] | Precision = "auto",
    method: str | Method | None = None,
    keep: int | float | None = None,
    layer: int | None = None,
    tokens_per_layer: Sequence[int] | None = None,
    execution: str = "fused",
    calibration: Calibration | str | Path | None = AUTO,
    convention: str = "torch",
    attention: str | None = None,
    logits: str = "last",
    vision_layers: str = "executed",
    images: int | None = None,
    image_size: ImageSize | str | None = None,
    frames: int | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_tiles: int | None = None,
    memory_margin_bytes: int = MEMORY_MARGIN_BYTES,
    host_s: float | None = None,
    power_limit_w: float | None = None,
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    tower: str = "replicated",
    norms: str = "replicated",
    request_s: float = 0.0,
) -> Estimate:
    """Predict what one request costs: FLOPs, traffic, time and memory, stage by stage.

    Args:
        model: a shipped name (`llava-1.5-7b`), a Hugging Face config.json or its folder, a hub id,
            a config of transformers, a model that has one, a config as a dictionary, or a `ModelConfig`.
        hardware: a device id (`nvidia-a100-sxm4-80gb`), a YAML file, or a `HardwareSpec`.
        visual_tokens: visual tokens per sample handed to the language model (with a method: before
            it reduces them); None is the model's own count, 0 is a prompt without an image.
        text_tokens: text tokens per sample; None is 40, with the timestamps that a model's processor puts
            among the frames of a clip (Qwen3-VL), or under another convention the length its
            authors used.
        cached_tokens: tokens of the prompt whose keys and values are in the cache already (a shared
            prefix, an image of an earlier turn), counted before any reduction. Prefill computes the
            rest, which attends to all. As many as there are visual tokens or more are the images and
            text, and no image is encoded; fewer are text before the images.
        batch_size: samples.
        output_tokens: decode steps after the token that prefill yields.
        precision: `auto` is the checkpoint's own (`quantization_config`, `dtype` of its config), else
            FP16 where the device has it, else what it has; or a name such as `fp16`, `w4a16`
            (`int4`), `w8a8` (`int8`), `fp8`, `awq`, `nf4`, or `module=name` pairs.
        method: a token-reduction method: a name, or what `get_method` gave, with its options.
        keep: what it keeps: a count (int), a ratio (float in (0, 1]), None for its default.
        layer: the layer K of methods that reduce inside the language model.
        tokens_per_layer: visual tokens of every language-model layer, in place of a method: a schedule
            of your own, whose choosing costs nothing.
        execution: `fused`, `hf-eager`, `cuda-graph` or `static-graph`.
        calibration: what times rest on. `auto` is the shipped calibration of the device, else the
            generic law, else the ideal roofline; or a name, a file, a `Calibration`. `none` or None is
            the ideal roofline with its bracket. The ideal is in every answer as `ideal_time_s`.
        convention: `torch`, or the name of another tool's or paper's way of counting.
        attention: `flash`, or `eager` for the kernel that writes its scores out; None is `flash`,
            or the convention's own.
        logits: `last` computes one row of logits per sample, `all` every row.
        vision_layers: `executed` runs every layer of the tower as `transformers` does, `useful`
            stops at the one whose features are read.
        images: images per sample; None is one, or as many as `visual_tokens` say. With both, the count
            is what is left of the images' tokens.
        image_size: (height, width) in pixels of every image, or a list of one for each, for models
            whose token count depends on it; or a text such as `1344x1344` or `1080p`.
        frames: frames, for video models.
        min_pixels: fewest pixels of an image that keeps its resolution, or of a clip's frames as the
            model's processor counts them; None is the checkpoint's own.
        max_pixels: most pixels, likewise.
        max_tiles: tiles of an image that is cut into them: all of them, or those along its longer
            edge (Idefics3, SmolVLM); None is the checkpoint's own.
        memory_margin_bytes: bytes of the memory that the driver shows and no tensor gets, for the
            context, the driver and the allocator's fragments: a request fits where its peak and this
            margin do. 1 GiB unless given.
        host_s: host seconds per kernel under plans that launch kernels one by one; None is the
            calibration's measured value, else a prior with its spread
            (`costmodel.calibration.host`).
        power_limit_w: the board's power limit under sustained load, W (`costmodel.power_roof`); None is
            the device's own. For a burst from idle give more than the device can draw.
        tp: devices that share every layer. With several devices, counts, times and memory are those of
            the rank with most to do (`costmodel.parallel`); collectives are ops of their own, and
            nothing overlaps with them.
        pp: stages that the layers are cut into. A batch passes them one after the other: counts and
            times are those of all stages, memory is that of the fullest.
        dp: replicas that share the batch; the cost is that of the fullest one.
        tower: `replicated` runs the whole vision tower on every tensor-parallel rank, `sharded` divides its
            layers like the language model's, `apart` runs it with the bridge on a device more, which sends
            the visual tokens to each rank.
        norms: `replicated` norms all rows of the language model on every tensor-parallel rank, `sequence`
            leaves each its share: a reduce-scatter and an all-gather in the place of every all-reduce.
        request_s: host seconds per request before anything is launched (tokenising, preprocessing, Python),
            a stage `request` of its own in the time to the first token.

    Raises:
        VlmRooflineError: a bad argument; the message says which, and what there is.

    >>> cost = estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=64)
    >>> cost.stages["prefill"].flops
    1352942485504
    """
    # The arguments are the fields of a request, all of them and by the same names.
    return answer(Request(**locals()))


def answer(request: Request, context: Context | None = None) -> Estimate:
    """Predict what a request costs, as `estimate` does for its arguments.

    Args:
        request: the call.
        context: what stays fixed, where the caller holds it already.

    >>> answer(Request("llama-2-7b", "nvidia-l4", text_tokens=8)).inputs["text_tokens"]
    8
    """
    if request.convention != "torch":
        from costmodel.conventions.estimating import convention_estimate

        return convention_estimate(request)
    context = context or context_for(request)
    warnings = list(context.warnings)
    scenario = scenario_of(request, context.model, warnings)
    return assemble(context, request, scenario, warnings)
