"""One row per measured run and stage: time, FLOPs, kernels and memory beside their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.precision.arithmetic import matrix_peak
from costmodel.quantities import STAGES
from profiling.reconciling.gap import PARTS, Gap, PlannedStage, split_gap
from profiling.reconciling.joining import LANGUAGE_STAGES, added
from profiling.records.measurement import COMMUNICATION, DECODE_COMMUNICATION, GENERATION, TOTAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.memory import MemoryCost
    from hardware_specs import HardwareSpec
    from profiling.reconciling.joining import Prediction
    from profiling.records.measurement import Measurement, StageSamples

#: What `total` spans: everything up to the first logits.
TTFT_STAGES = ("vision", "projector", "reduction", "prefill")
#: What several stages timed as one are made of; another tool's clock may hold the decode as well.
TOGETHER = {TOTAL: TTFT_STAGES, GENERATION: (*TTFT_STAGES, "decode")}
#: The id of a CPU that was measured: its peaks are rates achieved, not a data sheet's.
MEASURED_CPU = "cpu-measured"
#: A peak-memory prediction this far off is worth a flag.
MEMORY_TOLERANCE = 0.02

COLUMNS = (
    "model", "dtype", "method", "keep", "visual_tokens", "visual_tokens_llm", "text_tokens",
    "batch_size", "output_tokens", "mode", "attention", "cache", "round", "stage",
    "execution", "regime", "host_bound", "measured_s", "noise_s", "samples", "ideal_s",
    "predicted_s", "low_s", "high_s", *PARTS,
    "relative_error", "within_noise", "inside_interval", "above_roof", "measured_flops",
    "predicted_flops", "measured_kernels", "predicted_kernels", "measured_peak_bytes",
    "predicted_peak_bytes", "measured_link_s", "predicted_link_s", "flags",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StageView:
    """One row's prediction: the stage as a paper counts it, and other work timed between the same two events.

    Attributes:
        stage: priced three ways.
        vision_s: seconds of a vision tower inside the marks.
        projector_s: seconds of a projector inside.
        method_s: seconds of a method's own work inside.
        everything: all that lies inside the marks, under the plan that ran.
        ideal: the same at datasheet peaks under the fused plan: the roof of what was measured.
    """

    stage: PlannedStage
    vision_s: float
    projector_s: float
    method_s: float
    everything: Any
    ideal: Any

    def gap(self, measured_s: float) -> Gap:
        """Split a measured time into its parts."""
        return split_gap(
            measured_s, self.stage, vision_s=self.vision_s, projector_s=self.projector_s,
            method_s=self.method_s,
        )  # fmt: skip


def stage_view(prediction: Prediction, name: str) -> StageView:
    """Return the predicted parts of a measured stage.

    `total` is the language model's prefill with tower, projector and method left out, `generation` its
    decode steps besides; another stage is itself, with the method left out where the method works inside it.

    Args:
        prediction: of the configuration.
        name: a stage, `total` or `generation`.
    """
    stages = prediction.stages
    if name in TOGETHER:
        inside = [stages[each] for each in TOGETHER[name]]
        language = [stages[each] for each in TOGETHER[name] if each in LANGUAGE_STAGES]
        return StageView(
            PlannedStage(
                added([each.ideal for each in language]),
                added([each.fused for each in language]),
                added([each.executed for each in language]),
            ),
            float(stages["vision"].executed.time_s),
            float(stages["projector"].executed.time_s),
            float(stages["reduction"].executed.time_s),
            added([each.executed for each in inside]),
            added([each.ideal for each in inside]),
        )
    inside = [stages[name]]
    if prediction.encloses_method == name:
        inside.append(stages["reduction"])
    return StageView(
        stages[name],
        0.0,
        0.0,
        float(sum(each.executed.time_s for each in inside[1:])),
        added([each.executed for each in inside]),
        added([each.ideal for each in inside]),
    )


def stage_rows(
    record: Measurement,
    prediction: Prediction,
    hardware: HardwareSpec,
    spread_s: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Return a measurement's rows, `total` last."""
    rows = []
    for name in (*STAGES, *TOGETHER):
        data = record.stages.get(name)
        if data is None or data.median_s is None or data.median_s <= 0:
            continue
        rows.append(_row(record, prediction, hardware, name, data, spread_s.get(name)))
    return rows


def identity(record: Measurement, prediction: Prediction | None) -> dict[str, Any]:
    """Return the columns that say which run a row is of.

    Args:
        record: the measurement.
        prediction: of its configuration; None where nothing ran.
    """
    configuration = record.configuration
    lengths = record.tokens.cache_lengths
    entering = record.tokens.visual_llm
    if entering is None and prediction is not None:
        entering = prediction.visual_tokens
    kept = entering
    if lengths:
        kept = max(0, min(lengths) - configuration.text_tokens)
    asked = ("text_tokens", "batch_size", "output_tokens", "mode", "attention", "cache")
    return {
        **{name: getattr(configuration, name) for name in ("model", "dtype", "method", "keep")},
        "visual_tokens": configuration.visual_tokens if kept is None else kept,
        "visual_tokens_llm": entering,
        **{name: getattr(configuration, name) for name in asked},
        "round": record.round,
    }


def _row(
    record: Measurement,
    prediction: Prediction,
    hardware: HardwareSpec,
    name: str,
    data: StageSamples,
    spread_s: float | None,
) -> dict[str, Any]:
    view = stage_view(prediction, name)
    summary = data.summary
    measured = float(summary.median_s or 0.0)
    gap = view.gap(measured)
    noise = noise_of(measured, summary.dispersion, spread_s)
    low, high = float(view.everything.time_low_s), float(view.everything.time_high_s)
    roof = above_roof(prediction, name, measured, float(view.ideal.time_s), hardware)
    row: dict[str, Any] = {
        **identity(record, prediction),
        "stage": name,
        "execution": prediction.plans["prefill" if name in TOGETHER else name],
        "regime": view.everything.bound,
        "host_bound": data.host_bound,
        "measured_s": measured,
        "noise_s": noise,
        "samples": summary.count,
        "ideal_s": gap.ideal_s,
        "predicted_s": gap.predicted_s,
        "low_s": low,
        "high_s": high,
        **gap.parts,
        "relative_error": gap.predicted_s / measured - 1,
        "within_noise": None if noise is None else abs(gap.unexplained_s) <= noise,
        "inside_interval": low <= measured <= high,
        "above_roof": None if roof is None else roof[0],
        "measured_flops": data.flops,
        "predicted_flops": int(view.everything.flops),
        "measured_kernels": data.kernels,
        "predicted_kernels": int(view.everything.kernels),
        "measured_peak_bytes": data.peak_allocated_bytes,
        "predicted_peak_bytes": stage_peak(prediction.memory, name),
        "measured_link_s": in_collectives(record, name),
        "predicted_link_s": None if record.ranks is None else float(view.everything.link_s),
    }
    row["flags"] = tuple(_flags(row, record, prediction, roof))
    return row


def in_collectives(record: Measurement, name: str) -> float | None:
    """Return the seconds of a stage in collectives, None for one process and for a stage inside `total`.

    The median in the process that spent least: the last to arrive waits for nobody.

    Args:
        record: the measurement.
        name: `total` or `decode`.
    """
    stage = {TOTAL: COMMUNICATION, "decode": DECODE_COMMUNICATION}.get(name)
    if record.ranks is None or stage is None:
        return None
    medians = (each.stages[stage].median_s for each in record.ranks.members if stage in each.stages)
    return min((median for median in medians if median is not None), default=None)


def noise_of(measured_s: float, dispersion: float | None, spread_s: float | None) -> float | None:
    """Return a measurement's own spread: its interquartile range, or that between rounds if wider.

    Args:
        measured_s: its median.
        dispersion: interquartile range over median; None for too few samples.
        spread_s: how far apart the medians of several rounds lie; None for one round.

    >>> noise_of(2.0, 0.05, None), noise_of(2.0, 0.05, 0.3), noise_of(2.0, None, None)
    (0.1, 0.3, None)
    """
    known = [spread_s] if spread_s is not None else []
    if dispersion is not None:
        known.append(dispersion * measured_s)
    return max(known, default=None)


def above_roof(
    prediction: Prediction,
    name: str,
    measured_s: float,
    ideal_s: float,
    hardware: HardwareSpec,
) -> tuple[str, str] | None:
    """Return which roof a measurement lies above, with the reason to look for; None for none.

    Faster than the products alone need at peak is impossible: a wrong unit, FLOP convention, dtype
    or peak. Faster than the traffic needs is impossible too, unless the operands stayed in a cache.

    Args:
        prediction: of the configuration.
        name: the stage.
        measured_s: its measured seconds.
        ideal_s: its ideal seconds.
        hardware: the device.
    """
    if measured_s >= ideal_s:
        return None
    products_s, moved = 0.0, 0.0
    for stage in TOGETHER.get(name, (name,)):
        ops, _ = prediction.ops(stage, ideal=True)
        for op in ops:
            moved += float(op.weight_bytes * op.count)
            if op.op_class in ("gemm", "conv"):
                products_s += float(op.flops * op.count) / matrix_peak(hardware, op.dtype)
    if measured_s < products_s:
        return "compute", (
            f"faster than its matrix products need at the peak of {hardware.id} "
            f"({measured_s:.3g} s against {products_s:.3g} s): look for a unit, a FLOP convention, "
            "a dtype or a peak that is wrong"
            + (
                "; this peak is a rate that was achieved, so measure it again on an idle machine"
                if hardware.id == MEASURED_CPU
                else ""
            )
        )
    cache = max(hardware.llc_bytes or 0, hardware.l2_bytes or 0)
    if cache and moved <= 2 * cache:
        where = f"its {moved / 1e6:.3g} MB of weights may stay in the {cache / 1e6:.3g} MB cache"
    else:
        where = "look for a unit, a byte count or a bandwidth that is wrong"
    return "memory", (
        f"faster than its traffic needs at the bandwidth of {hardware.id} "
        f"({measured_s:.3g} s against {ideal_s:.3g} s): {where}"
    )


def stage_peak(memory: MemoryCost, name: str) -> int | None:
    """Return the predicted peak bytes of a stage, or of everything to the first logits for `total`.

    Args:
        memory: an estimate's memory with its timeline.
        name: a stage, or `total`.
    """
    peaks = []
    for phase in memory.timeline:
        stage = phase.name if phase.name in ("vision", "projector", "decode") else "prefill"
        if stage == name or stage in TOGETHER.get(name, ()):
            peaks.append(phase.total_bytes)
    return int(max(peaks)) if peaks else None


def _flags(
    row: Mapping[str, Any],
    record: Measurement,
    prediction: Prediction,
    roof: tuple[str, str] | None,
) -> list[str]:
    flags = [] if roof is None else [roof[1]]
    measured, predicted = row["measured_flops"], row["predicted_flops"]
    if measured is not None and measured != predicted:
        share = predicted / measured - 1 if measured else float("inf")
        flags.append(f"FLOPs differ: {measured} counted, {predicted} predicted ({share:+.3%})")
    measured, predicted = row["measured_peak_bytes"], row["predicted_peak_bytes"]
    if row["stage"] == TOTAL and measured and predicted:
        share = predicted / measured - 1
        if abs(share) > MEMORY_TOLERANCE:
            flags.append(
                f"peak memory differs: {measured} B measured, {predicted} B predicted ({share:+.1%})"
            )
    lengths = record.tokens.cache_lengths
    if row["stage"] == "prefill" and lengths and lengths != prediction.cache_lengths:
        flags.append(
            f"token schedule differs: caches hold {_runs(lengths)} keys, "
            f"{_runs(prediction.cache_lengths)} predicted"
        )
    if row["stage"] == TOTAL:
        flags += prediction.warnings
    return flags


def _runs(lengths: tuple[int, ...]) -> str:
    """Write layer lengths as runs.

    >>> _runs((616, 616, 328))
    '2 x 616, 1 x 328'
    """
    runs: list[list[int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1][0] += 1
        else:
            runs.append([1, length])
    return ", ".join(f"{count} x {length}" for count, length in runs)
