"""Memory: a timeline of what is resident, and its peak.

A sum of everything ever written is no footprint. Weights stay; the KV cache grows layer by layer;
each phase adds what is alive at its worst moment: the residual stream and the largest transient.
The yardstick is `torch.cuda.max_memory_allocated`. Sizes are bytes, batch included.

The plans that run PyTorch hold what `transformers` holds while its language model is handed embeddings,
to the percent. A call with `pixel_values` keeps besides, through the prefill, two copies of the image
features and the tower's output and selected states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from costmodel.blocks import (
    Activate,
    Attend,
    Norm,
    Project,
    Residual,
    Shuffle,
)
from costmodel.plans.hf_eager import SOFTMAX_BYTES
from costmodel.windows import cached_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from costmodel.blocks import Block, Stack
    from costmodel.models import ModelConfig, ProjectorConfig, TextConfig, VisionConfig
    from costmodel.plans import Plan
    from costmodel.precision import Numerics, Precision
    from costmodel.quantities import Num
    from costmodel.schedule import LayerSpan

#: `max`, or `numpy.maximum` for arrays.
Maximum: TypeAlias = Callable[[Any, Any], Any]

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
    capacity_bytes: int | None
    fits: bool | NDArray[np.bool_] | None
    activation_bytes_written: Num
    timeline: tuple[Phase, ...] = ()


@lru_cache(maxsize=256)
def model_weight_bytes(model: ModelConfig, precision: Precision) -> Num:
    """Bytes of all weights as stored, with scales and zero points.

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
    wide = precision.lm_head.activation_bytes
    size = _stack_bytes(text.stack, precision.text, wide)
    size += _stored_bytes([text.head], precision.lm_head, wide)
    size += model.extra_parameters * wide
    table = text.embedding
    if precision.embedding is None:
        size += table.parameters * wide
    else:
        # Where head and embedding are one matrix, it is stored as a head is.
        stored = precision.lm_head if text.head.shared else precision.embedding
        size += stored.stored_bytes(table.width, table.table)
    if vision is not None:
        numerics = precision.vision
        size += vision.copies * _stack_bytes(vision.stack, numerics, numerics.activation_bytes)
    if projector is not None:
        numerics = precision.projector
        size += _stored_bytes(projector.blocks, numerics, numerics.activation_bytes)
    # Means over layers may be fractions; bytes are whole.
    return round(size)


def _stack_bytes(stack: Stack, numerics: Numerics, wide: float) -> float:
    """Bytes of layers as stored, and of what stands around them."""
    each = [_stored_bytes(kind, numerics, wide) for kind in stack.kinds]
    around = _stored_bytes((*stack.before, *stack.after), numerics, wide)
    return sum(count * each[kind] for kind, count in Counter(stack.pattern).items()) + around


def _stored_bytes(blocks: Iterable[Block], numerics: Numerics, wide: float) -> float:
    """Bytes of blocks: matrices as stored, all else at `wide` bytes a number."""
    size: float = 0
    for block in blocks:
        if isinstance(block, Project) and not block.shared:
            size += sum(numerics.of(name).stored_bytes(block.width, n) for name, n in block.parts)
            size += block.bias * block.outputs * wide
        else:
            size += block.parameters * wide
    return size


def kv_bytes_per_token(text: TextConfig, num: Numerics) -> float:
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
    """Bytes of the KV cache of every layer, in the order of the layers; a sliding one's is cut.

    Args:
        text: the language model.
        num: its numerics.
        b: batch.
        text_tokens: text tokens per sample.
        spans: visual tokens kept by each layer's cache.
        output_tokens: decoded tokens.
    """
    each = b * kv_bytes_per_token(text, num)
    lengths = [
        text_tokens + span.tokens + output_tokens for span in spans for _ in range(span.layers)
    ]
    return [
        each * cached_tokens(length, window)
        for length, window in zip(lengths, text.windows, strict=True)
    ]


class Moments(NamedTuple):
    """What is alive at a layer's worst moment, from its blocks and who runs it.

    Its MLP, or an attention that writes its scores out, may be the worst; without scores an attention
    never is. Widths are numbers per row, the stream and the branch's normed input among them.

    Attributes:
        mlp: width at the worst moment outside attention.
        attention: width while scores are alive.
        heads: heads whose scores are alive; 0 without attention.
    """

    mlp: int
    attention: int
    heads: int

    def peak_bytes(
        self, rows: Num, scores: Num | None, numerics: Numerics, plan: Plan, maximum: Maximum
    ) -> Num:
        """Bytes at the layer's worst moment.

        Args:
            rows: tokens, batch included.
            scores: query-key pairs per head that are written out; None for none.
            numerics: of the module.
            plan: who runs it.
            maximum: `max`, or `numpy.maximum` for arrays.
        """
        size = numerics.activation_bytes
        mlp = rows * self.mlp * size
        if scores is None:
            return mlp
        scores = self.heads * scores
        if plan.runs_pytorch:
            # The probabilities live to the layer's end.
            mlp = mlp + scores * size
            alive = scores * eager_score_bytes(numerics)
        else:
            alive = scores * 2 * size
        worst: Num = maximum(mlp, rows * self.attention * size + alive)
        return worst


def moments(layer: Iterable[Block], d: int, plan: Plan) -> Moments:
    """Find the worst moments of a layer.

    A branch holds the stream of width d and its own normed input. PyTorch holds the layer's input as
    well, which is the stream itself in the first branch; it has K and V of a cached attention in the
    cache, and repeats them for every query head where they are grouped. Gate, value and product of a
    gated MLP are alive together, two tensors of a plain one, three where the activation is a chain.

    Args:
        layer: its blocks.
        d: the stream's width.
        plan: who runs it.

    >>> from costmodel import load_model
    >>> from costmodel.plans import get_plan
    >>> layer = load_model("llava-1.5-7b").text.stack.kinds[0]
    >>> moments(layer, 4096, get_plan("fused"))  # 2 d + 3 f; stream, norm, q, k and v
    Moments(mlp=41216, attention=20480, heads=32)
    """
    mlp = attention = heads = 0
    stream = d
    for block in layer:
        if isinstance(block, Residual):
            stream = d * (1 + plan.runs_pytorch)
        elif isinstance(block, Activate):
            tensors = 3 if block.gated or (block.chained and plan.runs_pytorch) else 2
            mlp = max(mlp, stream + d + tensors * block.width)
        elif isinstance(block, Attend):
            h, k, e = block.heads, block.kv_heads, block.head_dim
            if plan.runs_pytorch and block.cached:
                k = h if h > k else 0
            attention, heads = max(attention, stream + d + (h + 2 * k) * e), max(heads, h)
    return Moments(mlp, attention, heads)


class Footprint:
    """The memory of a model under a plan: what is fixed is worked out once, the rest per request.

    Args:
        model: the model.
        precision: the numerics of every module.
        plan: the execution plan.
        attention: `flash` or `eager`.
        logits: `last` or `all`.
        workspace_bytes: the libraries' workspace.
    """

    def __init__(
        self,
        model: ModelConfig,
        precision: Precision,
        plan: Plan,
        *,
        attention: str,
        logits: str,
        workspace_bytes: int,
    ) -> None:
        text = model.text
        self._text, self._numerics, self._plan = text, precision.text, plan
        self._masked, self._all_logits = attention == "eager", logits == "all"
        self._weights = model_weight_bytes(model, precision)
        self._workspace = workspace_bytes
        self._logit_row = text.vocab_size * precision.lm_head.activation_bytes
        self._kinds = [moments(kind, text.hidden_size, plan) for kind in text.stack.kinds]
        self._slides = any(text.stack.windows)
        self._vision = model.vision is not None and model.projector is not None
        if model.vision is not None and model.projector is not None:
            vision, size = model.vision, precision.vision.activation_bytes
            self._pixels = vision.num_channels * vision.image_size**2 * size
            self._tower = _tower_bytes(vision, precision.vision, plan, self._masked)
            # The tower's output is kept beside the features that are read.
            self._output = vision.tokens * vision.hidden_size * size if plan.runs_pytorch else 0
            self._bridge = size * _bridge_width(model.projector)

    def timeline(
        self,
        b: Num,
        crops: Num,
        projected_tokens: Num,
        text_tokens: Num,
        spans: tuple[LayerSpan, ...],
        output_tokens: Num,
        maximum: Maximum,
    ) -> list[Phase]:
        """Return the phases of one request with what is resident in each.

        Args:
            b: batch.
            crops: crops or frames per sample through the vision tower.
            projected_tokens: visual tokens per sample through the projector.
            text_tokens: text tokens per sample.
            spans: visual tokens per layer of the language model.
            output_tokens: decode steps.
            maximum: `max`, or `numpy.maximum` for arrays.
        """
        weights, text, numerics = self._weights, self._text, self._numerics
        eager, size, d = self._plan.runs_pytorch, numerics.activation_bytes, text.hidden_size
        # Who calls PyTorch keeps the pixels and the embedded prompt while the layers run.
        held: Num = self._workspace
        phases: list[Phase] = []
        if self._vision:
            images = b * crops
            pixels = images * self._pixels
            phases.append(Phase("vision", weights, 0, held + pixels + images * self._tower))
            if eager:
                held = held + pixels
            bridge = b * projected_tokens * self._bridge + images * self._output
            phases.append(Phase("projector", weights, 0, held + bridge))
        resident = held
        angles: Num = 0
        if eager:
            s = text_tokens + spans[0].tokens
            held = held + b * s * d * size
            # Cosine and sine of the rotary embedding, which the samples share.
            angles = 2 * s * text.head_dim * size
            if text.sliding_window and not self._masked:
                # SDPA's mask, true or false, which layers and samples share.
                angles = angles + s * s * (s >= text.sliding_window)
        kv: Num = 0
        final: Num = 0
        uncut: Num = 0
        first = 0
        each = b * kv_bytes_per_token(text, numerics)
        rows: Num = 0
        longest: Num = 0
        for span in spans:
            if span.layers == 0:
                continue
            s = text_tokens + span.tokens
            last = first + span.layers - 1
            rows = b * s
            if self._slides:
                for window, layers in Counter(text.windows[first : last + 1]).items():
                    kept = cached_tokens(s, window)
                    left = cached_tokens(s + output_tokens, window)
                    kv, final = kv + layers * each * kept, final + layers * each * left
                    longest = maximum(longest, left)
                    if eager:  # A cut is a view: the whole prompt's keys stay till the next token.
                        uncut = uncut + layers * each * (s - kept)
            else:
                kv, longest = kv + span.layers * each * s, maximum(longest, s)
            written = self._masked or span.materialised
            by_row = isinstance(written, np.ndarray)
            scores = b * s * s if by_row or written else None
            layer = self._layer_bytes(first, last, rows, scores, maximum)
            if by_row:
                fused = self._layer_bytes(first, last, rows, None, maximum)
                layer = np.where(written, layer, fused)
            if eager and self._slides and not self._masked:
                layer = self._under_mask(first, last, layer, b, s, maximum)
            name = f"prefill layers {first}-{last}"
            phases.append(Phase(name, weights, kv, held + angles + uncut + layer))
            first = last + 1
        out = (rows if self._all_logits else b) * self._logit_row
        # Under PyTorch the normed stream alone is left; a fused norm has the stream beside it.
        streams = 1 if eager else 2
        logits = held + uncut + rows * streams * d * size + out
        phases.append(Phase("logits", weights, kv, logits))
        if self._slides:
            grown = final - kv
            uncut = maximum(uncut - grown, 0)
        else:
            grown, longest = each * output_tokens * text.num_layers, longest + output_tokens
        step = b * (2 * d + 3 * text.intermediate_size) * size + b * self._logit_row
        if eager:
            # Concatenation holds a layer's old keys beside the new ones, then its values.
            step = step + each * longest / 2 + uncut
        decoding = (output_tokens > 0) * 1
        phases.append(Phase("decode", weights, kv + grown, (resident + step) * decoding))
        return phases

    def _layer_bytes(
        self, first: int, last: int, rows: Num, scores: Num | None, maximum: Maximum
    ) -> Num:
        """Activations alive at the worst moment of layers, apart from the embedded prompt."""
        kinds = self._kinds
        if len(kinds) > 1:
            kinds = [
                kinds[kind] for kind in sorted(set(self._text.stack.pattern[first : last + 1]))
            ]
        worst = kinds[0].peak_bytes(rows, scores, self._numerics, self._plan, maximum)
        for kind in kinds[1:]:
            peak = kind.peak_bytes(rows, scores, self._numerics, self._plan, maximum)
            worst = maximum(worst, peak)
        if self._masked and self._plan.runs_pytorch and scores is not None:
            # One mask for all heads of a sample.
            worst = worst + scores * self._numerics.activation_bytes
        return worst

    def _under_mask(
        self, first: int, last: int, layer: Num, b: Num, s: Num, maximum: Maximum
    ) -> Num:
        """Bytes at the layers' worst moment where SDPA may hold a sliding layer's own mask."""
        for kind in set(self._text.stack.pattern[first : last + 1]):
            window = self._text.stack.windows[kind]
            if window:
                pairs = b * s * (self._kinds[kind].attention + s) * (s >= window)
                layer = maximum(layer, pairs * self._numerics.activation_bytes)
        return layer


def eager_score_bytes(numerics: Numerics) -> float:
    """Bytes per score at the worst moment of an eager softmax, which runs in float32.

    FP32 holds scores and probabilities. Narrower formats add the cast result to them, but bfloat16,
    which CUDA's softmax does not read, holds the scores in both formats beside the probabilities.

    >>> from costmodel.precision import parse_precision
    >>> [eager_score_bytes(parse_precision(p).text) for p in ("fp32", "fp16", "bf16")]
    [8, 8, 10]
    """
    size = numerics.activation_bytes
    if size >= SOFTMAX_BYTES:
        return 2 * size
    copy = SOFTMAX_BYTES if numerics.attention_dtype == "bf16" else size
    return size + SOFTMAX_BYTES + copy


def _bridge_width(projector: ProjectorConfig) -> int:
    """Numbers per row alive at the bridge's worst moment: the features, a block's input and output.

    >>> from costmodel import load_model
    >>> _bridge_width(load_model("llava-1.5-7b").projector)  # 1024 + 2 x 4096
    9216
    """
    features = projector.in_features
    worst = width = 0
    for block in projector.blocks:
        if isinstance(block, Project):
            worst, width = max(worst, width + block.outputs), block.outputs
        elif isinstance(block, (Activate, Norm, Shuffle)):
            worst, width = max(worst, width + block.width), block.width
    return features + worst


def _tower_bytes(vision: VisionConfig, numerics: Numerics, plan: Plan, masked: bool) -> Num:
    """Activations of one crop alive at the tower's worst moment, pixels apart.

    A layer beside the features that are read, or under PyTorch beside the tower's input, which it
    holds too; the features that `vision_feature_layer=-2` reads are then the last layer's input.
    """
    tokens, c = vision.tokens, vision.hidden_size
    scores = tokens**2 if masked else None
    peak = max(
        moments(kind, c, plan).peak_bytes(tokens, scores, numerics, plan, max)
        for kind in vision.stack.kinds
    )
    beside = 1
    if plan.runs_pytorch:
        deep = [i if i >= 0 else vision.num_layers + 1 + i for i in vision.feature_layers]
        beside += sum(index < vision.num_layers - 1 for index in deep)
    return peak + beside * tokens * c * numerics.activation_bytes


def memory_cost(
    phases: list[Phase],
    capacity_bytes: int | None,
    activation_bytes_written: Num,
    maximum: Maximum,
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
