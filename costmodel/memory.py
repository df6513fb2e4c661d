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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.blocks import Activate, Norm, Project, Shuffle
from costmodel.moments import moments
from costmodel.quantities import MEMORY_MARGIN_BYTES
from costmodel.weights import model_weight_bytes
from costmodel.windows import cached_tokens
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from costmodel.models import ModelConfig, ProjectorConfig, TextConfig, VisionConfig
    from costmodel.models.geometry import Seen
    from costmodel.moments import Maximum
    from costmodel.plans import Plan
    from costmodel.precision import Numerics, Precision
    from costmodel.prefix import Prefix
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
    capacity_bytes: int | None
    fits: bool | NDArray[np.bool_] | None
    activation_bytes_written: Num
    timeline: tuple[Phase, ...] = ()

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)


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
        self._model, self._precision = model, precision
        self._text, self._numerics, self._plan = text, precision.text, plan
        self._masked, self._all_logits = attention == "eager", logits == "all"
        self._weights = model_weight_bytes(model, precision)
        self._workspace = workspace_bytes
        # Bytes of a row: of keys and values, of the stream, of logits, and of all that a decode step holds.
        self._kv_row = kv_bytes_per_token(text, precision.text)
        size = precision.text.activation_bytes
        self._stream = text.hidden_size * size
        self._logit_row = text.vocab_size * precision.lm_head.activation_bytes
        self._step = 2 * self._stream + 3 * text.intermediate_size * size + self._logit_row
        self._kinds = [moments(kind, text.hidden_size, plan) for kind in text.stack.kinds]
        self._slides = any(text.stack.windows)
        self._vision = model.vision is not None and model.projector is not None
        if model.vision is not None and model.projector is not None:
            vision, size = model.vision, precision.vision.activation_bytes
            # Of a crop, or of a patch where an image keeps its own resolution.
            tokens = 1 if vision.native else vision.tokens
            self._pixels = size * (
                vision.patch_pixels if vision.native else vision.num_channels * vision.image_size**2
            )
            self._tower = _tower_bytes(
                vision, precision.vision, plan, tokens, 0 if self._masked else None
            )
            # The tower's output is kept beside the features that are read.
            self._output = tokens * vision.hidden_size * size if plan.runs_pytorch else 0
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
        seen: Seen | None = None,
        prefix: Prefix | None = None,
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
            seen: patches per sample where images keep their own resolution.
            prefix: what of the prompt is in the cache from the start; None for nothing.
        """
        weights, text, stream = self._weights, self._text, self._stream
        eager = self._plan.runs_pytorch
        # Who calls PyTorch keeps the pixels and the embedded prompt while the layers run.
        held: Num = self._workspace
        phases: list[Phase] = []
        each = b * self._kv_row
        before = 0 if prefix is None else each * self._held(prefix, spans)
        if self._vision:
            images = b * (crops if seen is None else seen.patches)
            pixels = images * self._pixels
            each_patch = self._tower
            if seen is not None:
                # With scores written out, a patch has one for each patch of its image.
                each_patch = self._patch_bytes(seen, maximum)
            tower = images * each_patch
            phases.append(Phase("vision", weights, before, held + pixels + tower))
            if eager:
                held = held + pixels
            bridge = b * projected_tokens * self._bridge + images * self._output
            phases.append(Phase("projector", weights, before, held + bridge))
        resident = held
        angles: Num = 0
        if eager:
            s = text_tokens + spans[0].tokens if prefix is None else prefix.fresh(spans[0].tokens)
            held = held + b * s * stream
            # Cosine and sine of the rotary embedding, which the samples share.
            angles = 2 * s * text.head_dim * self._numerics.activation_bytes
            if text.sliding_window and not self._masked:
                # SDPA's mask, true or false, which layers and samples share.
                keys = text_tokens + spans[0].tokens
                angles = angles + s * keys * (keys >= text.sliding_window)
        kv: Num = 0
        final: Num = 0
        uncut: Num = 0
        first = 0
        rows: Num = 0
        longest: Num = 0
        for span in spans:
            if span.layers == 0:
                continue
            s = text_tokens + span.tokens
            last = first + span.layers - 1
            new = s if prefix is None else prefix.fresh(span.tokens)
            rows = b * new
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
            scores = b * new * s if by_row or written else None
            layer = self._layer_bytes(first, last, rows, scores, maximum)
            if by_row:
                fused = self._layer_bytes(first, last, rows, None, maximum)
                layer = np.where(written, layer, fused)
            if eager and self._slides and not self._masked:
                layer = self._under_mask(first, last, layer, rows, s, maximum)
            name = f"prefill layers {first}-{last}"
            phases.append(Phase(name, weights, kv, held + angles + uncut + layer))
            first = last + 1
        out = (rows if self._all_logits else b) * self._logit_row
        # Under PyTorch the normed stream alone is left; a fused norm has the stream beside it.
        streams = 1 if eager else 2
        logits = held + uncut + rows * streams * stream + out
        phases.append(Phase("logits", weights, kv, logits))
        if self._slides:
            grown = final - kv
            uncut = maximum(uncut - grown, 0)
        else:
            grown, longest = each * output_tokens * text.num_layers, longest + output_tokens
        step = b * self._step
        if eager:
            # Concatenation holds a layer's old keys beside the new ones, then its values.
            step = step + each * longest / 2 + uncut
        decoding = (output_tokens > 0) * 1
        phases.append(Phase("decode", weights, kv + grown, (resident + step) * decoding))
        return phases

    def _held(self, prefix: Prefix, spans: tuple[LayerSpan, ...]) -> Num:
        """Tokens in the caches of all layers together before the prefill."""
        held = [prefix.held(span.tokens) for span in spans for _ in range(span.layers)]
        return sum(map(cached_tokens, held, self._text.windows))

    def _patch_bytes(self, seen: Seen, maximum: Maximum) -> Num:
        """Activations of a patch alive at the tower's worst moment."""
        vision = self._model.vision
        assert vision is not None  # noqa: S101 - callers checked; narrows the type
        longest: Num | None = None
        if self._masked:
            longest = 0
            for _, length in seen.pieces:
                longest = maximum(longest, length)
        return _tower_bytes(vision, self._precision.vision, self._plan, 1, longest)

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
        self, first: int, last: int, layer: Num, rows: Num, keys: Num, maximum: Maximum
    ) -> Num:
        """Bytes at the layers' worst moment where SDPA may hold a sliding layer's own mask."""
        for kind in set(self._text.stack.pattern[first : last + 1]):
            window = self._text.stack.windows[kind]
            if window:
                pairs = rows * (self._kinds[kind].attention + keys) * (keys >= window)
                layer = maximum(layer, pairs * self._numerics.activation_bytes)
        return layer


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


def _tower_bytes(
    vision: VisionConfig, numerics: Numerics, plan: Plan, tokens: int, longest: Num | None
) -> Num:
    """Activations of one crop (or patch) alive at the tower's worst moment, pixels apart.

    A layer beside the features that are read, or under PyTorch beside the tower's input, which it
    holds too; the features that `vision_feature_layer=-2` reads are then the last layer's input.
    """
    c = vision.hidden_size
    scores = None if longest is None else tokens * (longest if vision.native else tokens)
    maximum: Maximum = np.maximum if isinstance(scores, np.ndarray) else max
    peak: Num = 0
    for kind in vision.stack.kinds:
        worst = moments(kind, c, plan).peak_bytes(tokens, scores, numerics, plan, maximum)
        peak = maximum(peak, worst)
    beside = 1
    if plan.runs_pytorch:
        deep = [i if i >= 0 else vision.num_layers + 1 + i for i in vision.feature_layers]
        beside += sum(index < vision.num_layers - 1 for index in deep)
    return peak + beside * tokens * c * numerics.activation_bytes


def fullest(ranks: list[MemoryCost]) -> MemoryCost:
    """Return the memory of the rank whose peak is the highest, scenario by scenario.

    Args:
        ranks: the memory of every rank.
    """
    found = ranks[0]
    for rank in ranks[1:]:
        higher = rank.peak_memory_bytes > found.peak_memory_bytes
        if not isinstance(higher, np.ndarray):
            found = rank if higher else found
            continue
        pairs: list[tuple[Any, Any]] = list(zip(rank[:-1], found[:-1], strict=True))
        columns: list[Any] = [
            None if mine is None else np.where(higher, mine, other) for mine, other in pairs
        ]
        found = MemoryCost(*columns)
    return found


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
    for _, weights, held, active in phases:
        kv = maximum(kv, held)
        total = weights + held + active
        # At the peak, what is neither weights nor KV.
        if maximum is not max:
            resident, peak = np.where(total > peak, active, resident), maximum(peak, total)
        elif total > peak:
            resident, peak = active, total
    return MemoryCost(
        phases[0].weight_bytes, kv, resident, peak, capacity_bytes,
        None if capacity_bytes is None else peak + margin_bytes <= capacity_bytes,
        activation_bytes_written, tuple(phases),
    )  # fmt: skip
