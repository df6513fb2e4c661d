"""Memory: a timeline of what is resident, and its peak.

A sum of everything ever written is no footprint. Weights stay; the KV cache grows layer by layer;
each phase adds what is alive at its worst moment: the residual stream and the largest transient.
The yardstick is `torch.cuda.max_memory_allocated`. Sizes are bytes, batch included.

The plans that run PyTorch hold what `transformers` holds while its language model is handed embeddings,
to the percent. A call with `pixel_values` keeps besides, through the prefill, two copies of the image
features and the tower's output and selected states.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from costmodel.ops.linear import stored_weight_bytes
from costmodel.plans.attention_block import SOFTMAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from costmodel.models import ModelConfig, ProjectorConfig, TextConfig, VisionConfig
    from costmodel.precision import Numerics, Precision
    from costmodel.quantities import Num
    from costmodel.schedule import LayerSpan

#: cuBLAS takes its workspace from PyTorch's allocator: `:4096:2:16:8` KiB, on Hopper `:4096:8`.
CUBLAS_WORKSPACE_BYTES = (2 * 4096 + 8 * 16) * 1024
CUBLAS_WORKSPACE_HOPPER_BYTES = 8 * 4096 * 1024


#: Bytes of the memory a driver shows that no tensor gets: what CUDA leaves of NVML's total (0.25 to
#: 0.75 GiB on T4, 4090, A100 and H100, by print-outs of both), and the CUDA context with cuBLAS
#: and cuDNN (0.4 to 0.6 GB). Fragments of the allocator are not in it.
MEMORY_MARGIN_BYTES = 2**30


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
    eager = execution != "fused"
    # Who calls PyTorch keeps the pixels and the embedded prompt while the layers run.
    held: Num = workspace_bytes
    phases: list[Phase] = []
    if model.vision is not None and model.projector is not None:
        vision, size = model.vision, precision.vision.activation_bytes
        images = b * crops
        pixels = images * vision.num_channels * vision.image_size**2 * size
        tower = _tower_bytes(vision, precision.vision, images, eager, attention, maximum)
        projector = _projector_bytes(model.projector, b * projected_tokens, size, maximum)
        if eager:
            held = held + pixels
            # The tower's output is kept beside the features that are read.
            projector = projector + images * vision.tokens * vision.hidden_size * size
        phases += [
            Phase("vision", weights, 0, workspace_bytes + pixels + tower),
            Phase("projector", weights, 0, held + projector),
        ]
    resident = held
    size = num.activation_bytes
    d = text.hidden_size
    angles: Num = 0
    if eager:
        s = text_tokens + spans[0].tokens
        held = held + b * s * d * size
        # Cosine and sine of the rotary embedding, which the samples share.
        angles = 2 * s * text.head_dim * size
    kv: Num = 0
    first = 0
    each = b * kv_bytes_per_token(text, num)
    rows: Num = 0
    longest: Num = 0
    for span in spans:
        if span.layers == 0:
            continue
        s = text_tokens + span.tokens
        kv = kv + span.layers * each * s
        rows, longest = b * s, maximum(longest, s)
        last = first + span.layers - 1
        layer = _decoder_bytes(
            text, num, b, s, eager, attention == "eager", span.materialised, maximum
        )
        name = f"prefill layers {first}-{last}"
        phases.append(Phase(name, weights, kv, held + angles + layer))
        first = last + 1
    logit_rows = rows if logits == "all" else b
    out = logit_rows * text.vocab_size * precision.lm_head.activation_bytes
    # Under PyTorch the normed stream alone is left; a fused norm has the stream beside it.
    streams = 1 if eager else 2
    phases.append(Phase("logits", weights, kv, held + rows * streams * d * size + out))
    grown = each * output_tokens * text.num_layers
    step = b * (2 * d + 3 * text.intermediate_size) * size
    step = step + b * text.vocab_size * precision.lm_head.activation_bytes
    if eager:
        # Concatenation holds a layer's old keys beside the new ones, then its values.
        step = step + each * (longest + output_tokens) / 2
    decoding = (output_tokens > 0) * 1
    phases.append(Phase("decode", weights, kv + grown, (resident + step) * decoding))
    return phases


def _decoder_bytes(
    text: TextConfig,
    num: Numerics,
    b: Num,
    s: Num,
    eager: bool,
    masked: bool,
    materialised: bool,
    maximum: Callable[[Any, Any], Any],
) -> Num:
    """Activations alive at a decoder layer's worst moment, apart from the embedded prompt.

    The MLP's worst moment has the stream, the normed input, gate, value and their product. PyTorch
    holds the layer's input as well, and after an eager attention its probabilities.
    """
    d, f, size = text.hidden_size, text.intermediate_size, num.activation_bytes
    rows = b * s
    mlp = rows * ((3 if eager else 2) * d + 3 * f) * size
    if not (masked or materialised):
        return mlp
    scores = b * text.num_heads * s * s
    if not eager:
        return maximum(mlp, rows * 5 * d * size + scores * 2 * size)
    queries = text.num_heads * text.head_dim
    # Grouped keys and values are repeated for every query head.
    heads = queries * (3 if text.num_heads > text.num_kv_heads else 1)
    attended = rows * (2 * d + heads) * size + scores * eager_score_bytes(num)
    mask = b * s * s * size if masked else 0
    return maximum(mlp + scores * size, attended) + mask


def eager_score_bytes(num: Numerics) -> Num:
    """Bytes per score at the worst moment of an eager softmax, which runs in float32.

    FP32 holds scores and probabilities. Narrower formats add the cast result to them, but bfloat16,
    which CUDA's softmax does not read, holds the scores in both formats beside the probabilities.

    >>> from costmodel.precision import parse_precision
    >>> [eager_score_bytes(parse_precision(p).text) for p in ("fp32", "fp16", "bf16")]
    [8, 8, 10]
    """
    size = num.activation_bytes
    if size >= SOFTMAX_BYTES:
        return 2 * size
    copy = SOFTMAX_BYTES if num.attention_dtype == "bf16" else size
    return size + SOFTMAX_BYTES + copy


def _projector_bytes(
    projector: ProjectorConfig, rows: Num, size: float, maximum: Callable[[Any, Any], Any]
) -> Num:
    """The features, the first product, and its activation or the second product beside it."""
    hidden = projector.hidden_features
    return rows * size * (projector.in_features + hidden + maximum(hidden, projector.out_features))


def _tower_bytes(
    vision: VisionConfig,
    num: Numerics,
    images: Num,
    eager: bool,
    attention: str,
    maximum: Callable[[Any, Any], Any],
) -> Num:
    """Activations alive at the tower's worst moment, pixels apart.

    One layer's MLP beside the stream, its normed input and the features that are read. PyTorch holds
    the tower's and the layer's inputs besides; the features that `vision_feature_layer=-2` reads are
    the last layer's input.
    """
    c, f, size = vision.hidden_size, vision.intermediate_size, num.activation_bytes
    rows = images * vision.tokens
    if not eager:
        transient = rows * (2 * c + 2 * f) * size
        if attention == "eager":
            scores = images * vision.num_heads * vision.tokens**2
            transient = maximum(transient, rows * 5 * c * size + scores * 2 * size)
        return rows * c * size + transient
    deep = [i if i >= 0 else vision.num_layers + 1 + i for i in vision.feature_layers]
    kept = sum(index < vision.num_layers - 1 for index in deep)
    # Quick-GELU holds its input, the sigmoid's argument and the sigmoid; other activations two.
    wide = 3 if vision.activation == "quick_gelu" else 2
    peak = rows * (4 * c + wide * f) * size
    if attention == "eager":
        scores = images * vision.num_heads * vision.tokens**2
        attended = rows * 6 * c * size + scores * eager_score_bytes(num)
        peak = maximum(peak + scores * size, attended)
    return peak + kept * rows * c * size


def memory_cost(
    phases: list[Phase],
    capacity_bytes: int | None,
    activation_bytes_written: Num,
    maximum: Callable[[Any, Any], Any],
    margin_bytes: float = MEMORY_MARGIN_BYTES,
) -> MemoryCost:
    """Find the peak of a timeline; it fits where peak + margin <= capacity.

    Args:
        phases: the timeline.
        capacity_bytes: what the device offers; None where the host decides.
        activation_bytes_written: activation writes of one prefill.
        maximum: `max`, or `numpy.maximum` for arrays.
        margin_bytes: what the context and the driver take of the capacity.
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
        None if capacity_bytes is None else peak + margin_bytes <= capacity_bytes,
        activation_bytes_written, tuple(phases),
    )  # fmt: skip
