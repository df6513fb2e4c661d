"""Measured energy windows beside predicted energy.

A window repeats one stage back to back. The powers it is judged with are fitted from all *other*
windows, so that no window explains itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.energy import (
    PowerWindow,
    datasheet_power,
    fit_power_model,
    regime_shares,
    stage_energy,
)
from profiling.reconciling.joining import added
from profiling.reconciling.rows import TTFT_STAGES, identity
from profiling.records.measurement import TOTAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.energy import PowerModel
    from costmodel.roofline import StageCost
    from hardware_specs import HardwareSpec
    from profiling.reconciling.joining import Prediction
    from profiling.records.measurement import Measurement
    from profiling.records.readings import EnergyWindow

#: What a window's stage repeats, in the cost model's stages.
WINDOW_STAGES = {
    TOTAL: TTFT_STAGES,
    "vision": ("vision", "projector"),
    "prefill": ("prefill",),
    "decode": ("decode",),
}
#: Counter and integrated power further apart than this are worth a flag.
METHODS_AGREE = 0.05


def energy_rows(
    runs: Sequence[tuple[Measurement, Prediction]],
    hardware: HardwareSpec,
    power: PowerModel | None,
) -> tuple[tuple[dict[str, Any], ...], PowerModel | None]:
    """Return one row per measured energy window, and the powers fitted from all of them.

    Args:
        runs: measurements with their predictions.
        hardware: the device.
        power: its powers; None fits them here, each window's from the others.
    """
    found = [
        (record, window, _cost(prediction, window.stage, record.configuration.output_tokens))
        for record, prediction in runs
        for window in record.energy
        if window.energy_j is not None and window.stage in WINDOW_STAGES
    ]
    points = [_point(window, cost) for _, window, cost in found]
    fitted = power
    if power is None:
        known = [point for point in points if point is not None]
        if known:
            fitted = fit_power_model(known, limit_w=hardware.tdp_w)
    rows = []
    for index, (record, window, cost) in enumerate(found):
        used = power or _without(points, index, hardware)
        predicted = stage_energy(cost, used)
        row = {
            **identity(record, None),
            "visual_tokens": record.tokens.visual_llm,
            "visual_tokens_llm": record.tokens.visual_llm,
            "stage": window.stage,
            "covers": " + ".join(WINDOW_STAGES[window.stage]),
            "method_of_measurement": window.method,
            "measured_j": window.energy_j,
            "power_w": window.power_w,
            "idle_power_w": window.idle_power_w,
            "predicted_j": predicted.energy_j,
            "low_j": predicted.energy_low_j,
            "high_j": predicted.energy_high_j,
            "relative_error": None
            if predicted.energy_j is None or not window.energy_j
            else predicted.energy_j / window.energy_j - 1,
        }
        row["flags"] = tuple(_flags(window, hardware))
        rows.append(row)
    return tuple(rows), fitted


def _cost(prediction: Prediction, stage: str, steps: int) -> StageCost:
    cost = added([prediction.stages[name].executed for name in WINDOW_STAGES[stage]])
    if stage == "decode" and steps > 1:
        # A window repeats one step; the prediction holds all of them.
        return cost.mapped(lambda value: value / steps)
    return cost


def _point(window: EnergyWindow, cost: StageCost) -> PowerWindow | None:
    if window.power_w is None or cost.time_s <= 0:
        return None
    return PowerWindow(window.power_w, *regime_shares(cost), window.idle_power_w)


def _without(
    points: Sequence[PowerWindow | None], index: int, hardware: HardwareSpec
) -> PowerModel:
    others = [point for i, point in enumerate(points) if i != index and point is not None]
    if not others:
        return datasheet_power(hardware)
    return fit_power_model(others, limit_w=hardware.tdp_w, source="the other windows")


def _flags(window: EnergyWindow, hardware: HardwareSpec) -> list[str]:
    flags = []
    limit = hardware.tdp_w
    if limit is not None and window.window_s and window.energy_j and window.repetitions:
        power = window.energy_j * window.repetitions / window.window_s
        if power > 1.05 * limit:
            flags.append(
                f"{power:.0f} W on average is above the board's {limit:.0f} W: look for a unit or a "
                "window that is wrong"
            )
    if window.counter_j and window.integral_j:
        apart = window.counter_j / window.integral_j - 1
        if abs(apart) > METHODS_AGREE:
            flags.append(f"counter and integrated power differ by {apart:+.0%}")
    return flags
