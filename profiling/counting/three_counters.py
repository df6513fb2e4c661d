"""FLOPs of one run by the cost model and by two independent counters, side by side and explained.

    cost model   closed formulas, no torch
    torch        `torch.utils.flop_counter` on the meta device: every product that is dispatched
    fvcore       `fvcore.nn.FlopCountAnalysis` on a traced graph, its multiply-adds times two

What the two counters do not count alike, and why, is said op by op:

- fvcore drops work whose result nobody reads; a tracer removes it. The last CLIP layer is such
  work where features of the last layer but one are used.
- fvcore adds 5 per element for each layer norm, torch and the cost model count products alone.
- Neither counts embeddings, RMS norm, softmax, rotary embedding or activations.
- Some versions of transformers compute the rotary angles as a batched product, which torch counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from costmodel.models import load_model
from costmodel.models.families import get_family
from hardware_specs.errors import MissingDependencyError
from hardware_specs.showing import brief
from profiling.counting.one_run import flop_counter
from profiling.records.measurement import TOTAL, Configuration
from profiling.subject.execution import Execution
from profiling.subject.inputs import sizes_of
from profiling.subject.models import build_model, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costmodel.models import ModelConfig
    from costmodel.models.model import ImageSize

#: FLOPs do not depend on the device, but an estimate is of one.
_ANY_HARDWARE = "nvidia-a100-sxm4-80gb"


@dataclass(frozen=True, slots=True)
class FlopRow:
    """FLOPs of one kind of op in one stage, by each counter; None where it was not asked.

    Args:
        stage: `vision`, `projector`, `prefill` or `decode` (one step after the prompt).
        op: `linear`, `attention`, `conv`, `rotary` or `norm`.
        cost_model_flops: by `costmodel.estimate`.
        torch_flops: by torch's counter.
        fvcore_flops: by fvcore, multiply-adds doubled (norms as fvcore gives them).
        note: why they differ, empty when they agree.
    """

    stage: str
    op: str
    cost_model_flops: int
    torch_flops: int
    fvcore_flops: int | None
    note: str = ""

    __repr__ = brief


@dataclass(frozen=True, slots=True)
class FlopReport:
    """The whole comparison.

    Args:
        model: the name of the model that was counted.
        visual_tokens: per sequence, at the language model.
        text_tokens: text tokens per sequence.
        batch_size: sequences.
        rows: the counts by stage and kind of op.
        fvcore_missing: why fvcore's column is empty, None when it is not.
    """

    model: str
    visual_tokens: int
    text_tokens: int
    batch_size: int
    rows: tuple[FlopRow, ...]
    fvcore_missing: str | None = None

    __repr__ = brief

    def total(self, counter: str) -> int | None:
        """Return a counter's FLOPs of everything up to the first logits, norms and rotary angles apart.

        Args:
            counter: `cost_model`, `torch` or `fvcore`.
        """
        values = [
            getattr(row, f"{counter}_flops")
            for row in self.rows
            if row.stage != "decode" and row.op not in ("norm", "rotary")
        ]
        return None if any(value is None for value in values) else sum(values)

    @property
    def agrees(self) -> bool:
        """Return whether torch and the cost model agree to the unit, rotary angles aside."""
        return all(
            row.cost_model_flops == row.torch_flops or row.op == "rotary" for row in self.rows
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "model": self.model,
            "visual_tokens": self.visual_tokens,
            "text_tokens": self.text_tokens,
            "batch_size": self.batch_size,
            "total_flops": {name: self.total(name) for name in ("cost_model", "torch", "fvcore")},
            "fvcore_missing": self.fvcore_missing,
            "rows": [asdict(row) for row in self.rows],
        }


def count_model(
    model: str,
    *,
    visual_tokens: int | None = None,
    images: int | None = None,
    image_size: ImageSize | None = None,
    frames: int | None = None,
    text_tokens: int = 40,
    batch_size: int = 1,
    scale: str | None = None,
    fvcore: bool = True,
) -> FlopReport:
    """Count a model's FLOPs three ways on the meta device: no weights, a second or two for 7B.

    A family whose forward reads numbers off its inputs runs on the CPU instead, with weights, and without
    fvcore: take it at a reduced scale.

    Args:
        model: shipped name, path or hub id.
        visual_tokens: per sequence; None for the model's own number, or that of the images.
        images: images per sequence; None for one, or as many as `visual_tokens` say.
        image_size: (height, width) in pixels of every image, or a list of one for each.
        frames: of a clip in place of images.
        text_tokens: text tokens per sequence.
        batch_size: sequences.
        scale: size reduction such as `layers=4,width=1/4`.
        fvcore: ask fvcore as well, where it is installed.

    Raises:
        UnknownModelError: no such model.
        MissingDependencyError: torch or transformers is not installed.
    """
    from costmodel import estimate

    source = named(model, scale)
    shape = load_model(source)
    if visual_tokens is None:
        visual_tokens = shape.visual_input(
            images=images,
            image_size=image_size,
            frames=frames,
            count="paper" if frames is None else "transformers",
        ).tokens
    reads = shape.vision is not None and get_family(shape.model_type).reads_values
    device = "cpu" if reads else "meta"
    network: Any = build_model(source, device=device)
    configuration = Configuration(
        model=source, dtype="bf16", visual_tokens=visual_tokens, text_tokens=text_tokens,
        batch_size=batch_size, output_tokens=1, device=device, images=images,
        image_sizes=sizes_of(image_size), frames=frames,
    )  # fmt: skip
    execution = Execution(network, shape, configuration)
    with execution.ready():
        measured = _torch_counts(execution)
        traced, missing = _traced(execution) if fvcore and not reads else ({}, _UNTRACED[reads])
    predicted = estimate(
        source, _ANY_HARDWARE, visual_tokens=visual_tokens, images=images, image_size=image_size,
        frames=frames, text_tokens=text_tokens,
        batch_size=batch_size, output_tokens=1, precision="bf16", execution="hf-eager",
    )  # fmt: skip
    formulas = _cost_model_counts(predicted)
    rows = _rows(formulas, measured, traced, shape, missing)
    return FlopReport(source, visual_tokens, text_tokens, batch_size, rows, missing)


#: Why fvcore's column is empty: whether the model reads numbers off its inputs -> the reason.
_UNTRACED = {
    False: "fvcore was not asked",
    True: "fvcore traces no model that reads numbers off its inputs",
}


def _traced(execution: Execution) -> tuple[dict[tuple[str, str], int], str | None]:
    from profiling.counting.fvcore import trace_counts

    try:
        return trace_counts(execution), None
    except MissingDependencyError as error:
        return {}, str(error)


def _cost_model_counts(estimate: Any) -> dict[tuple[str, str], int]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in estimate.ops:
        kind = {"gemm": "linear", "conv": "conv"}.get(row.op_class)
        if row.op_class.startswith("attention"):
            kind = "attention"
        if kind is not None and row.flops:
            counts[row.stage, kind] += int(row.flops)
    return counts


@dataclass(slots=True)
class _KindObserver:
    """Split a counter's total by stage and kind of op."""

    counter: Any
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _begun: dict[str, dict[str, int]] = field(default_factory=dict)

    def _now(self) -> dict[str, int]:
        return by_kind(self.counter.get_flop_counts())

    def begin(self, stage: str) -> None:
        self._begun[stage] = self._now()

    def end(self, stage: str) -> None:
        before = self._begun.pop(stage)
        for kind, flops in self._now().items():
            if stage != TOTAL and flops != before[kind]:
                self.counts[stage, kind] += flops - before[kind]


def _torch_counts(execution: Execution) -> dict[tuple[str, str], int]:
    with flop_counter() as counter:
        observer = _KindObserver(counter)
        execution.run(observer)
    return observer.counts


#: What libraries call the module of an attention.
_ATTENTIONS = ("self_attn", "attn", "attention")


def by_kind(counts: Mapping[str, Mapping[Any, int]]) -> dict[str, int]:
    """Return FLOPs by kind of op from a counter's table of modules.

    The kind of a batched product follows from its module: on the meta device attention runs as two
    of them inside `self_attn`, and a linear layer on rows that are not contiguous as one.

    Args:
        counts: module path -> op -> FLOPs, children included in their parents, all in `Global`.

    >>> by_kind({"Global": {"aten.bmm": 12, "aten.convolution": 5},
    ...          "M.0.self_attn": {"aten.bmm": 10}, "M.0.self_attn.q_proj": {"aten.bmm": 3}})
    {'linear': 5, 'attention': 7, 'conv': 5, 'rotary': 0}
    """
    total = {str(op): flops for op, flops in counts.get("Global", {}).items()}
    convolution = sum(flops for op, flops in total.items() if "conv" in op)
    attention = rotary = 0
    for path, ops in counts.items():
        batched = sum(
            flops for op, flops in ops.items() if "bmm" in str(op) or "attention" in str(op)
        )
        words = path.split(".")
        if words[-1] in _ATTENTIONS:
            attention += batched
        elif len(words) > 1 and words[-2] in _ATTENTIONS:
            attention -= batched
        elif words[-1] == "rotary_emb":
            rotary += batched
    linear = sum(total.values()) - convolution - attention - rotary
    return {"linear": linear, "attention": attention, "conv": convolution, "rotary": rotary}


def _rows(
    formulas: dict[tuple[str, str], int],
    measured: dict[tuple[str, str], int],
    traced: dict[tuple[str, str], int],
    shape: ModelConfig,
    fvcore_missing: str | None,
) -> tuple[FlopRow, ...]:
    rows = []
    for stage in ("vision", "projector", "prefill", "decode"):
        for kind in ("conv", "linear", "attention", "rotary", "norm"):
            key = (stage, kind)
            if key not in formulas and key not in measured and key not in traced:
                continue
            expected, counted = formulas.get(key, 0), measured.get(key, 0)
            asked = fvcore_missing is None and stage != "decode"
            other = traced.get(key, 0) if asked else None
            rotary = measured.get((stage, "rotary"), 0)
            rows.append(
                FlopRow(
                    stage,
                    kind,
                    expected,
                    counted,
                    other,
                    "; ".join(_notes(key, expected, counted, other, rotary, shape)),
                )
            )
    return tuple(rows)


def _notes(
    key: tuple[str, str],
    expected: int,
    counted: int,
    other: int | None,
    rotary: int,
    shape: ModelConfig,
) -> Iterator[str]:
    stage, kind = key
    if counted != expected:
        difference = f"torch {counted - expected:+d}"
        if kind == "rotary":
            yield f"{difference}: this transformers computes rotary angles as a batched product"
        elif stage == "projector" and shape.video is not None and shape.video.carries_class_token:
            yield f"{difference}: transformers projects the class token of every frame too"
        else:
            yield f"{difference}: unexplained"
    if other is None or other in (expected, counted):
        return
    if kind == "linear" and rotary and other - expected == rotary:
        yield f"fvcore {rotary:+d}: the rotary angles, which it takes for a linear layer"
    elif kind == "rotary":
        yield "fvcore has them among the linear layers"
    elif kind == "norm":
        yield "fvcore counts 5 per element of a layer norm; products alone are counted elsewhere"
    elif stage == "vision" and shape.vision is not None and shape.vision.feature_layer != -1:
        yield (
            f"fvcore {other - expected:+d}: tracing removes the layers after "
            f"{shape.vision.feature_layer}, whose result nobody reads"
        )
    else:
        yield f"fvcore {other - expected:+d}: unexplained"
