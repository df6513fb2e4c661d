"""The gap by op class, where a profiler pass says how long each op's kernels took.

Kernel durations hold no host time and no gaps, so the parts are fewer than of a stage: the ideal
roofline of the plan that ran, the achieved efficiency, and what is unexplained. They add up.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from costmodel.calibration.classes import TORCH_KERNELS
from costmodel.roofline import Roofline
from profiling.records.measurement import Measurement, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from profiling.reconciling.joining import Prediction, Predictor
    from profiling.tracing.op_profile import OpProfile

#: What tells profiler passes apart.
PASS = (
    "model",
    "dtype",
    "method",
    "visual_tokens",
    "text_tokens",
    "batch_size",
    "mode",
    "attention",
)
#: The cost model writes the layers that an op spans in brackets.
_LAYERS = re.compile(r"\[\d+:\d+\]$")


def op_rows(profiles: Iterable[OpProfile], predictor: Predictor) -> tuple[dict[str, Any], ...]:
    """Return one row per profiler pass, stage and op, the longest first in each stage."""
    rows: list[dict[str, Any]] = []
    for profile in profiles:
        record = Measurement(
            configuration=profile.configuration,
            status="ok",
            sampling=Sampling(timer="profiler"),
            tokens=profile.tokens,
            environment=profile.environment,
            model_config=profile.model_config,
        )
        rows += _profile_rows(profile, predictor.predict(record))
    return tuple(rows)


def _profile_rows(profile: OpProfile, prediction: Prediction) -> list[dict[str, Any]]:
    predicted = _predicted(prediction)
    # The profiler files an op by its kind of work; where the model has the op, its class stands.
    classes = {(stage, name): op_class for stage, op_class, name in predicted}
    measured: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for op in profile.rows:
        op_class = classes.get((op.stage, op.name), op.op_class)
        found = measured[(op.stage, op_class, op.name)]
        found[0] += op.time_s
        found[1] += op.kernels
    whole_s = sum(found[0] for found in measured.values()) or 1.0
    rows = []
    for key in dict.fromkeys((*measured, *predicted)):
        time_s, kernels = measured.get(key, (0.0, 0.0))
        model = predicted.get(key, {})
        ideal, expected = model.get("ideal_s", 0.0), model.get("predicted_s", 0.0)
        rows.append(
            {
                **{name: getattr(profile.configuration, name) for name in PASS},
                "visual_tokens": profile.tokens.visual_llm,
                "stage": key[0],
                "op_class": key[1],
                "name": key[2],
                "measured_s": time_s,
                "measured_kernels": int(kernels),
                "ideal_s": ideal,
                "efficiency_s": expected - ideal,
                "unexplained_s": time_s - expected,
                "predicted_s": expected,
                "predicted_kernels": int(model.get("kernels", 0)),
                "flops": model.get("flops", 0.0),
                "hbm_bytes": model.get("hbm_bytes", 0.0),
                "share": time_s / whole_s,
                "provenance": model.get("provenance"),
            }
        )
    order = {stage: index for index, stage in enumerate(dict.fromkeys(k[0] for k in measured))}
    rows.sort(key=lambda row: (order.get(row["stage"], len(order)), -row["measured_s"]))
    return rows


#: What adds up over the ops of a class.
_SUMMED = (
    "measured_s", "measured_kernels", "ideal_s", "efficiency_s", "unexplained_s", "predicted_s",
    "predicted_kernels", "flops", "hbm_bytes", "share",
)  # fmt: skip


def passes_of(
    rows: Iterable[dict[str, Any]],
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return op rows by their profiler pass, as the values of `PASS` name it."""
    passes: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        passes[tuple(row[name] for name in PASS)].append(row)
    return passes


def pass_name(key: Sequence[Any]) -> str:
    """Return the words that describe a profiler pass, from its values in the order of `PASS`.

    >>> pass_name(("llava-1.5-7b", "bf16", "none", 576, 40, 1, "eager", "sdpa"))
    'llava-1.5-7b bf16, none, 576 visual tokens, 40 text tokens, batch 1, eager'
    """
    model, dtype, method, visual, text, batch, mode, attention = key
    words = f"{model} {dtype}, {method}, {visual} visual tokens, {text} text tokens, batch {batch}, {mode}"
    return words if attention == "sdpa" else f"{words}, {attention} attention"


def by_class(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return op rows added up by op class: names differ between eager code and model, classes do not.

    Args:
        rows: what `op_rows` returned.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in (*PASS, "stage", "op_class"))
        found = groups.setdefault(key, {**row, "name": None, **dict.fromkeys(_SUMMED, 0)})
        for name in _SUMMED:
            found[name] += row[name]
        found["provenance"] = found["provenance"] or row["provenance"]
    order: dict[Any, int] = {}
    for key in groups:
        order.setdefault(key[:-1], len(order))
    items = sorted(groups.items(), key=lambda item: (order[item[0][:-1]], -item[1]["measured_s"]))
    return tuple(row for _, row in items)


def _predicted(prediction: Prediction) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Price the plan that ran at datasheet peaks and under the calibration, op by op."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for stage in prediction.stages:
        ops, roofline = prediction.ops(stage)
        sheet = Roofline(roofline.hardware, None, roofline.plan)
        for op in ops:
            name = _LAYERS.sub("", op.name)
            entry = found.setdefault(
                # A trace tells PyTorch's own kernels and an engine's apart by no class of its own.
                (stage, TORCH_KERNELS.get(op.op_class, op.op_class), name),
                {"ideal_s": 0.0, "predicted_s": 0.0, "kernels": 0, "flops": 0.0, "hbm_bytes": 0.0},
            )
            count = float(op.count)
            entry["ideal_s"] += float(sheet.op_times(op, max)[0]) * count
            entry["predicted_s"] += float(roofline.op_times(op, max)[0]) * count
            entry["kernels"] += op.kernels * count
            entry["flops"] += float(op.executed_flops) * count
            entry["hbm_bytes"] += float(op.hbm_bytes) * count
            calibration = roofline.calibration
            entry["provenance"] = (
                "computed: roofline"
                if calibration is None
                else calibration.provenance(op.op_class, op.dtype)
            )
    return found
