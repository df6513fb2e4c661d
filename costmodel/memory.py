"""Memory: a timeline of what is resident, and its peak.

A sum of everything ever written is no footprint. Weights stay; the KV cache grows layer by layer;
each phase adds what is alive at its worst moment: the residual stream and the largest transient.
The yardstick is `torch.cuda.max_memory_allocated`. Sizes are bytes, batch included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from costmodel.ops.linear import stored_weight_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from costmodel.models import ModelConfig, TextConfig, VisionConfig
    from costmodel.precision import Numerics, Precision
    from costmodel.quantities import Num
    from costmodel.schedule import LayerSpan

#: cuBLAS takes its workspace from PyTorch's allocator: `:4096:2:16:8` KiB, on Hopper `:4096:8`.
CUBLAS_WORKSPACE_BYTES = (2 * 4096 + 8 * 16) * 1024
CUBLAS_WORKSPACE_HOPPER_BYTES = 8 * 4096 * 1024


class Phase(NamedTuple):
    """What is resident during one phase.

    Attributes:
        name: `vision`, `projector`, `prefill layers a-b`, `logits` or `decode`.
        weight_bytes: weights.
        kv_cache_bytes: KV cache filled by the end of the phase.
        activation_bytes: everything else alive at the phase's worst moment.
    """

    name: str
    weight_bytes: Num
    kv_cache_bytes: Num
    activation_bytes: Num

    @property
    def total_bytes(self) -> Num:
        """All that is resident, in bytes."""
        return self.weight_bytes + self.kv_cache_bytes + self.activation_bytes


class MemoryCost(NamedTuple):
    """The memory of one scenario, or of arrays of them, in bytes.

    `timeline` lists the phases in their order; `peak_activation_bytes` is the part of the peak that
    is neither weights nor KV cache; `activation_bytes_written` is traffic, the sum of all
    activation writes of one prefill, which some papers call storing activation.
    """

    weight_bytes: Num
    kv_cache_bytes: Num
    peak_activation_bytes: Num
    peak_memory_bytes: Num
    capacity_bytes: Num
    fits: Num
    activation_bytes_written: Num
    timeline: tuple[Phase, ...] = ()


@lru_cache(maxsize=256)
def model_weight_bytes(model: ModelConfig, precision: Precision) -> Num:
    """Bytes of all weights as stored, scales included.

    Norms, biases, embeddings and what else is not a linear layer keep 16 bits.

    Args:
        model: the model.
        precision: the numerics of every module.

    >>> from costmodel import load_model
    >>> from costmodel.precision import parse_precision
    >>> model_weight_bytes(load_model("llava-1.5-7b"), parse_precision("fp16"))  # 2 B x 7,063,427,072
    14126854144
    """
    text, vision, projector = model.text, model.vision, model.projector
    size = _text_bytes(text, precision.text, precision.lm_head)
    if not text.tie_embeddings:
        size += stored_weight_bytes(text.hidden_size, text.vocab_size, precision.lm_head)
    if vision is not None:
        size += _vision_bytes(vision, precision.vision)
    if projector is not None:
        num = precision.projector
        linear = stored_weight_bytes(
            projector.in_features, projector.hidden_features, num
        ) + stored_weight_bytes(projector.hidden_features, projector.out_features, num)
        products = projector.hidden_features * (projector.in_features + projector.out_features)
        size += linear + (projector.parameters - products) * num.activation_bytes
    return size + model.extra_parameters * precision.lm_head.activation_bytes


def _text_bytes(text: TextConfig, num: Numerics, wide: Numerics) -> Num:
    d, f, e = text.hidden_size, text.intermediate_size, text.head_dim
    q, kv = text.num_heads * e, text.num_kv_heads * e
    shapes = [(d, q), (d, kv), (d, kv), (q, d), (d, f), (d, f), (f, d)]
    products = text.num_layers * sum(k * n for k, n in shapes)
    stored = text.num_layers * sum(stored_weight_bytes(k, n, num) for k, n in shapes)
    return stored + (text.body_parameters - products) * wide.activation_bytes


def _vision_bytes(vision: VisionConfig, num: Numerics) -> Num:
    c, f = vision.hidden_size, vision.intermediate_size
    shapes = [(c, c)] * 4 + [(c, f), (f, c)]
    layers = vision.num_layers * vision.copies
    stored = layers * sum(stored_weight_bytes(k, n, num) for k, n in shapes)
    products = layers * sum(k * n for k, n in shapes)
    return stored + (vision.parameters - products) * num.activation_bytes


def kv_bytes_per_token(text: TextConfig, num: Numerics) -> Num:
    """Bytes of K and V of one token in one layer: 2 k e x bytes per element.

    >>> from costmodel import load_model
    >>> from costmodel.precision import parse_precision
    >>> text = load_model("llava-1.5-7b").text
    >>> 616 * text.num_layers * kv_bytes_per_token(text, parse_precision("fp16").text)
    322961408
    """
    return 2 * text.num_kv_heads * text.head_dim * num.kv_bytes


def kv_by_layer(
    text: TextConfig,
    num: Numerics,
    b: Num,
    text_tokens: Num,
    spans: tuple[LayerSpan, ...],
    output_tokens: Num = 0,
) -> list[Num]:
    """Bytes of the KV cache of every layer, in the order of the layers.

    Args:
        text: the language model.
        num: its numerics.
        b: batch.
        text_tokens: text tokens per sample.
        spans: visual tokens kept by each layer's cache.
        output_tokens: decoded tokens.
    """
    each = b * kv_bytes_per_token(text, num)
    sizes: list[Num] = []
    for span in spans:
        sizes += [each * (text_tokens + span.tokens + output_tokens)] * span.layers
    return sizes


def timeline(
    model: ModelConfig,
    precision: Precision,
    b: Num,
    crops: Num,
    projected_tokens: Num,
    text_tokens: Num,
    spans: tuple[LayerSpan, ...],
    output_tokens: Num,
    *,
    execution: str,
    attention: str,
    logits: str,
    workspace_bytes: int,
    maximum: Callable[[Any, Any], Any],
) -> list[Phase]:
    """Return the phases of one request with what is resident in each.

    Args:
        model: the model.
        precision: the numerics of every module.
        b: batch.
        crops: crops or frames per sample through the vision tower.
        projected_tokens: visual tokens per sample through the projector.
        text_tokens: text tokens per sample.
        spans: visual tokens per layer of the language model.
        output_tokens: decode steps.
        execution: a plan's name.
        attention: `flash` or `eager`.
        logits: `last` or `all`.
        workspace_bytes: the libraries' workspace.
        maximum: `max`, or `numpy.maximum` for arrays.
    """
    weights = model_weight_bytes(model, precision)
    text, num = model.text, precision.text
    phases: list[Phase] = []
    if model.vision is not None and model.projector is not None:
        size = precision.vision.activation_bytes
        phases += [
            Phase("vision", weights, 0, workspace_bytes + _vision_peak(
                model.vision, b * crops, size, execution, attention, maximum)),
            Phase("projector", weights, 0, workspace_bytes + b * projected_tokens * size * (
                model.projector.in_features + model.projector.hidden_features
                + maximum(model.projector.hidden_features, model.projector.out_features))),
        ]  # fmt: skip
    kv = 0
    first = 0
    size = num.activation_bytes
    d, f = text.hidden_size, text.intermediate_size
    # The caller keeps the embedded prompt while the layers run.
    held = b * (text_tokens + spans[0].tokens) * d * size if execution != "fused" else 0
    each = b * kv_bytes_per_token(text, num)
    rows: Num = 0
    for span in spans:
        if span.layers == 0:
            continue
        s = text_tokens + span.tokens
        kv = kv + span.layers * each * s
        rows = b * s
        # Stream and normed input, then gate, value and their product: the MLP's worst moment.
        transient = rows * (2 * d + 3 * f) * size
        if attention == "eager" or span.materialised:
            scores = b * text.num_heads * s * s
            # Scores, their float32 softmax and the cast result; fused kernels skip the upcast.
            per_score = 2 * size + 4 if execution != "fused" else 2 * size
            transient = maximum(transient, rows * 5 * d * size + scores * per_score)
        last = first + span.layers - 1
        name = f"prefill layers {first}-{last}"
        phases.append(Phase(name, weights, kv, workspace_bytes + held + transient))
        first = last + 1
    logit_rows = rows if logits == "all" else b
    out = logit_rows * text.vocab_size * precision.lm_head.activation_bytes
    phases.append(Phase("logits", weights, kv, workspace_bytes + held + rows * 2 * d * size + out))
    grown = each * output_tokens * text.num_layers
    step = b * (2 * d + 3 * f) * size + b * text.vocab_size * precision.lm_head.activation_bytes
    if execution != "fused":
        # Concatenation holds one layer's old cache beside its new one.
        step = step + maximum(each * (text_tokens + spans[0].tokens + output_tokens), 0)
    decoding = (output_tokens > 0) * 1
    phases.append(Phase("decode", weights, kv + grown, (workspace_bytes + step) * decoding))
    return phases


def _vision_peak(
    vision: VisionConfig,
    images: Num,
    size: float,
    execution: str,
    attention: str,
    maximum: Callable[[Any, Any], Any],
) -> Num:
    """Activations alive at the tower's worst moment: pixels, selected features, one layer's MLP."""
    c, f = vision.hidden_size, vision.intermediate_size
    rows = images * vision.tokens
    pixels = images * vision.num_channels * vision.image_size**2 * size
    # Quick-GELU holds its input, the sigmoid and their product; other activations two of them.
    wide = 3 if execution != "fused" and vision.activation == "quick_gelu" else 2
    transient = rows * (2 * c + wide * f) * size
    if attention == "eager":
        scores = images * vision.num_heads * vision.tokens**2
        per_score = 2 * size + 4 if execution != "fused" else 2 * size
        transient = maximum(transient, rows * 5 * c * size + scores * per_score)
    return pixels + rows * c * size + transient


def memory_cost(
    phases: list[Phase],
    capacity_bytes: int | None,
    activation_bytes_written: Num,
    maximum: Callable[[Any, Any], Any],
) -> MemoryCost:
    """Find the peak of a timeline.

    Args:
        phases: the timeline.
        capacity_bytes: what the device offers; None where the host decides.
        activation_bytes_written: activation writes of one prefill.
        maximum: `max`, or `numpy.maximum` for arrays.
    """
    peak: Num = 0
    resident: Num = 0
    kv: Num = 0
    for phase in phases:
        kv = maximum(kv, phase.kv_cache_bytes)
        total = phase.total_bytes
        # At the peak, what is neither weights nor KV; the flag picks it without branching.
        higher = total > peak
        resident = resident * (1 - higher) + phase.activation_bytes * higher
        peak = maximum(peak, total)
    return MemoryCost(
        phases[0].weight_bytes, kv, resident, peak, capacity_bytes,
        None if capacity_bytes is None else peak <= capacity_bytes,
        activation_bytes_written, tuple(phases),
    )  # fmt: skip
