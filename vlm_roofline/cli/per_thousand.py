"""Energy and cost of a thousand requests: from an estimate, measured powers and the user's price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.energy import REGIMES, PowerModel, estimate_energy
from costmodel.kinds import check_budget
from costmodel.parallel.degrees import Parallel
from hardware_specs import get_hardware
from hardware_specs.errors import UnknownHardwareError
from vlm_roofline.cli.units import show_scaled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.result import Estimate
    from hardware_specs import HardwareSpec

_REQUESTS = 1000


def per_thousand(
    cost: Estimate, powers_w: Mapping[str, float | None], price_per_hour: float | None
) -> dict[str, Any]:
    """Return joules and price of a thousand requests on busy devices.

    A batch is `batch_size` requests: energy = 1000 E / b, price = 1000 t n / b x price per hour / 3600 of n
    devices.

    Args:
        cost: the estimate.
        powers_w: `idle_w`, `memory_w` and `compute_w` as measured; None where they were not.
        price_per_hour: of the device, in any currency.

    Raises:
        InvalidInputError: a price or power that is none, or another tool's convention.

    >>> from costmodel import estimate
    >>> cost = estimate("llava-1.5-7b", "nvidia-l4", calibration=None)
    >>> found = per_thousand(cost, {}, 3.6)
    >>> abs(found["price"] - cost.totals.time_s) < 1e-12  # 1000 x t x 3.6 / 3600
    True
    """
    check_budget("price_per_hour", price_per_hour)
    batches = _REQUESTS / cost.inputs["batch_size"]
    hardware: HardwareSpec | None
    try:
        hardware = get_hardware(cost.inputs["hardware"])
    except UnknownHardwareError:
        hardware = None if cost.source is None else cost.source.hardware
    idle_w, memory_w, compute_w = (powers_w.get(f"{name}_w") for name in REGIMES)
    energy = estimate_energy(cost, PowerModel(idle_w, memory_w, compute_w), hardware=hardware)

    def joules(value: float | None) -> float | None:
        return None if value is None else value * batches

    seconds = float(cost.totals.time_s) * batches * Parallel.of(cost.inputs).devices
    return {
        "requests": _REQUESTS,
        "device_s": seconds,
        "energy_j": joules(energy.totals.energy_j),
        "energy_low_j": joules(energy.totals.energy_low_j),
        "energy_high_j": joules(energy.totals.energy_high_j),
        "price": None if price_per_hour is None else seconds * price_per_hour / 3600,
        "basis": energy.totals.basis,
    }


def per_thousand_text(found: Mapping[str, Any]) -> str:
    """Say in a line what a thousand requests take.

    >>> per_thousand_text({"requests": 1000, "device_s": 72.0, "energy_j": None, "energy_low_j": None,
    ...     "energy_high_j": 3.6e6, "price": 0.25, "basis": "limit x time"})
    'per 1,000 requests: 72 s of the device, at most 1 kWh (limit x time), price 0.25'
    """
    parts = [f"{found['device_s']:.4g} s of the device"]
    if found["energy_j"] is not None:
        parts.append(f"{show_scaled(found['energy_j'], 3.6e6, 'kWh')} ({found['basis']})")
    elif found["energy_high_j"] is not None:
        high = show_scaled(found["energy_high_j"], 3.6e6, "kWh")
        parts.append(f"at most {high} ({found['basis']})")
    if found["price"] is not None:
        parts.append(f"price {found['price']:.4g}")
    return f"per {found['requests']:,} requests: {', '.join(parts)}"
