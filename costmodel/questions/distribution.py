"""What an adaptive method costs when the data decide how many tokens are left.

One mean count hides the spread, and time is no linear function of tokens. Here a distribution of counts
(a list, or data sets with their means) is priced in one vectorised call and summed up by its mean and
percentiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.estimates import context_for
from costmodel.evaluate import Scenario
from costmodel.inputs import check_count, resolve_visual
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from costmodel.methods import Method
    from costmodel.models import ModelConfig
    from hardware_specs import HardwareSpec

#: Percentiles that a distribution reports.
PERCENTILES = (5, 25, 50, 75, 95)
#: Quantities of a whole request that are summed up.
QUANTITIES = ("flops", "time_s", "peak_memory_bytes", "kv_cache_bytes", "hbm_bytes")


@dataclass(frozen=True)
class Distribution:
    """The cost of a method over a distribution of token counts.

    Attributes:
        inputs: every argument as resolved.
        labels: what each count belongs to: a data set, or the count itself.
        counts: the counts, as the method's `keep`.
        weights: how often each occurs; they sum to 1.
        values: per quantity, one value per count.
        mean: per quantity, the weighted mean.
        percentiles: per quantity, percentile -> value.
    """

    inputs: dict[str, Any]
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    weights: tuple[float, ...]
    values: dict[str, tuple[float, ...]]
    mean: dict[str, float]
    percentiles: dict[str, dict[int, float]]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per count."""
        import pandas as pd

        return pd.DataFrame(
            {"label": self.labels, "count": self.counts, "weight": self.weights, **self.values}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document, `schema_version` 1."""
        return {
            "schema_version": 1,
            "inputs": dict(self.inputs),
            "labels": list(self.labels),
            "counts": list(self.counts),
            "weights": list(self.weights),
            "values": {name: list(column) for name, column in self.values.items()},
            "mean": dict(self.mean),
            "percentiles": {
                name: {str(p): value for p, value in column.items()}
                for name, column in self.percentiles.items()
            },
        }


def estimate_distribution(
    model: str | Path | ModelConfig,
    hardware: str | Path | HardwareSpec,
    method: str | Method,
    counts: Sequence[int] | Mapping[str, int] | None = None,
    weights: Sequence[float] | None = None,
    *,
    text_tokens: int = 40,
    batch_size: int = 1,
    output_tokens: int = 0,
    visual_tokens: int | None = None,
    image_size: tuple[int, int] | None = None,
    frames: int | None = None,
    precision: Any = "fp16",
    execution: str = "fused",
    calibration: Any = None,
    attention: str = "flash",
    logits: str = "last",
    layer: int | None = None,
    vision_layers: str = "executed",
) -> Distribution:
    """Price a method over a distribution of token counts.

    Args:
        model: as `estimate`.
        hardware: as `estimate`.
        method: the method; any that takes a count.
        counts: the counts, as the method's `keep`, or data set -> count; None takes those that the
            method's paper reports (PruMerge: TextVQA and MME 40, POPE 35, SQA 16).
        weights: how often each count occurs, in any unit; None weighs all alike.
        text_tokens: text tokens per sample.
        batch_size: samples, all with the same count.
        output_tokens: decode steps.
        visual_tokens: as `estimate`.
        image_size: as `estimate`.
        frames: as `estimate`.
        precision: as `estimate`.
        execution: as `estimate`.
        calibration: as `estimate`.
        attention: as `estimate`.
        logits: as `estimate`.
        layer: as `estimate`.
        vision_layers: as `estimate`.

    Raises:
        InvalidInputError: no counts, counts that are none, weights that do not fit.
        VlmRooflineError: whatever `estimate` refuses.

    >>> spread = estimate_distribution("llava-1.5-7b", "nvidia-a100-sxm4-80gb", "prumerge")
    >>> spread.labels, spread.counts
    (('TextVQA', 'MME', 'POPE', 'SQA'), (40, 40, 35, 16))
    >>> round(spread.mean["flops"] / 1e12, 3)
    1.342
    """
    context, fixed = context_for(
        model, hardware, precision, calibration, method=method, keep=None, layer=layer,
        execution=execution, attention=attention, logits=logits, vision_layers=vision_layers,
    )  # fmt: skip
    if context.method is None:
        raise InvalidInputError(
            "estimate_distribution needs a method; name one of `vlm-roofline methods list`"
        )
    labels, numbers = _counts(context.method.name, counts, context.method.info.counts)
    shares = _weights(weights, len(numbers))
    check_count("text_tokens", text_tokens, 0)
    check_count("batch_size", batch_size, 1)
    check_count("output_tokens", output_tokens, 0)
    tokens, projected, crops = resolve_visual(
        context.model, visual_tokens, image_size, frames, text_tokens, output_tokens, []
    )
    spread = copy(context)
    # The formulas take an array of counts as they take a number; `estimate` lets only one through.
    spread.keep = np.asarray(numbers, dtype=float)
    wide = [
        np.full(len(numbers), float(value))
        for value in (tokens, projected, crops, text_tokens, batch_size, output_tokens)
    ]
    evaluation = spread.evaluate(Scenario(*wide), vector=True)
    stages = evaluation.stages.values()
    memory = evaluation.memory
    columns = {
        "flops": sum(stage.flops for stage in stages),
        "time_s": sum(stage.time_s for stage in stages),
        "peak_memory_bytes": memory.peak_memory_bytes,
        "kv_cache_bytes": memory.kv_cache_bytes,
        "hbm_bytes": sum(stage.hbm_bytes for stage in stages),
    }
    table = {
        name: np.broadcast_to(np.asarray(columns[name], dtype=float), (len(numbers),))
        for name in QUANTITIES
    }
    inputs = {
        **fixed,
        "visual_tokens": tokens,
        "text_tokens": text_tokens,
        "batch_size": batch_size,
        "output_tokens": output_tokens,
        "crops": crops,
    }
    return Distribution(
        inputs,
        labels,
        tuple(numbers),
        tuple(float(share) for share in shares),
        {name: tuple(float(v) for v in column) for name, column in table.items()},
        {name: float(np.sum(column * shares)) for name, column in table.items()},
        {name: _percentiles(column, shares) for name, column in table.items()},
    )


def _counts(
    method: str, counts: Sequence[int] | Mapping[str, int] | None, published: Mapping[str, int]
) -> tuple[tuple[str, ...], list[int]]:
    if counts is None:
        if not published:
            raise InvalidInputError(
                f"no paper reports a distribution of counts for {method}; give counts="
            )
        counts = published
    if isinstance(counts, Mapping):
        labels = tuple(str(name) for name in counts)
        values = [counts[name] for name in counts]
    else:
        values = list(counts)
        labels = tuple(str(value) for value in values)
    if not values:
        raise InvalidInputError("counts is empty; give at least one")
    for value in values:
        check_count("counts", value, 0)
    return labels, [int(value) for value in values]


def _weights(weights: Sequence[float] | None, count: int) -> Any:
    if weights is None:
        return np.full(count, 1 / count)
    shares = np.asarray(list(weights), dtype=float)
    if shares.shape != (count,) or not np.all(np.isfinite(shares)) or np.any(shares < 0):
        raise InvalidInputError(
            f"weights must be {count} numbers from 0, one per count, not {list(weights)!r}"
        )
    if not shares.sum() > 0:
        raise InvalidInputError("weights are all 0; at least one count must occur")
    return shares / shares.sum()


def _percentiles(values: Any, shares: Any) -> dict[int, float]:
    """The smallest value whose cumulated share reaches each percentile."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(shares[order])
    # A hair of slack: cumulated shares miss 1 by rounding.
    places = [int(np.searchsorted(reached, p / 100 - 1e-12)) for p in PERCENTILES]
    return {
        p: float(values[order][min(place, len(values) - 1)])
        for p, place in zip(PERCENTILES, places, strict=True)
    }
