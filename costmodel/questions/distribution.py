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
from costmodel.kinds import check_count, refused
from costmodel.request import Request, check_names
from costmodel.scenario import scenario_inputs, scenario_of
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from costmodel.methods import Method
    from costmodel.models import ModelConfig
    from hardware_specs import HardwareSpec

#: Percentiles that a distribution reports.
PERCENTILES = (5, 25, 50, 75, 95)


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

    def __repr__(self) -> str:
        """Name the method and the mean."""
        return (
            f"<Distribution of {self.inputs['method']} over {len(self.counts)} counts: mean "
            f"{self.mean['time_s'] * 1e3:.2f} ms>"
        )

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
    **arguments: Any,
) -> Distribution:
    """Price a method over a distribution of token counts.

    Args:
        model: a shipped name, a config.json or its folder, a hub id, or a `ModelConfig`.
        hardware: a device id, a YAML file, or a `HardwareSpec`.
        method: the method; any that takes a count.
        counts: the counts, as the method's `keep`, or data set -> count; None takes those that the
            method's paper reports (PruMerge: TextVQA and MME 40, POPE 35, SQA 16).
        weights: how often each count occurs, in any unit; None weighs all alike.
        arguments: any other argument of `estimate` but `keep` and `convention`.

    Raises:
        InvalidInputError: no counts, counts that are none, weights that do not fit.
        VlmRooflineError: whatever `estimate` refuses.

    >>> spread = estimate_distribution("llava-1.5-7b", "nvidia-a100-sxm4-80gb", "prumerge")
    >>> spread.labels, spread.counts
    (('TextVQA', 'MME', 'POPE', 'SQA'), (40, 40, 35, 16))
    >>> round(spread.mean["flops"] / 1e12, 3)
    1.342
    """
    check_names(arguments, "keep", "convention", by="estimate_distribution")
    request = Request(model, hardware, method=method, **arguments)
    context = context_for(request)
    if context.method is None:
        raise InvalidInputError(
            "estimate_distribution needs a method; name one of `vlm-roofline methods list`"
        )
    labels, numbers = _counts(context.method.name, counts, context.method.info.counts)
    shares = _weights(weights, len(numbers))
    scenario = scenario_of(request, context.model, [])
    spread = copy(context)
    # The formulas take an array of counts as they take a number; `estimate` lets only one through.
    spread.keep = np.asarray(numbers, dtype=float)
    wide: dict[str, Any] = {
        name: np.full(len(numbers), float(value))
        for name, value in scenario._asdict().items()
        if name not in ("seen", "framed", "parts")
    }
    evaluation = spread.evaluate(scenario._replace(**wide), vector=True)
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
        name: np.broadcast_to(np.asarray(column, dtype=float), (len(numbers),))
        for name, column in columns.items()
    }
    inputs = {**context.inputs, **scenario_inputs(request, scenario, context.model)}
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
    try:
        labels = list(counts)
    except TypeError:
        raise refused("counts", "whole numbers, or data sets with theirs", counts) from None
    if not labels:
        raise InvalidInputError("counts is empty; give at least one")
    values = counts.values() if isinstance(counts, Mapping) else labels
    return tuple(map(str, labels)), [check_count("counts", value, 0) for value in values]


def _weights(weights: Sequence[float] | None, count: int) -> Any:
    if weights is None:
        return np.full(count, 1 / count)
    try:
        shares = np.asarray(list(weights), dtype=float)
    except (TypeError, ValueError):
        shares = np.empty(0)
    if shares.shape != (count,) or not np.all(np.isfinite(shares)) or np.any(shares < 0):
        raise InvalidInputError(
            f"weights must be {count} numbers from 0, one per count, not {shown(weights)}"
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
