"""Energy and cost of a thousand requests: from an estimate, measured powers and the user's price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.energy import estimate_energy
from costmodel.kinds import check_budget
from costmodel.parallel.degrees import Parallel

if TYPE_CHECKING:
    from costmodel.energy import PowerModel
    from costmodel.result import Estimate

_REQUESTS = 1000


def per_thousand(
    cost: Estimate, power: PowerModel | None = None, price_per_hour: float | None = None
) -> dict[str, Any]:
    """Return joules and price of a thousand requests on busy devices.

    A batch is `batch_size` requests: energy = 1000 E / b, price = 1000 t n / b x price per hour / 3600 of n
    devices.

    Args:
        cost: the estimate.
        power: measured powers; None brackets the energy by the data sheet.
        price_per_hour: of one device, in any currency.

    Raises:
        InvalidInputError: a price or power that is none, or another tool's convention.

    >>> from costmodel import estimate
    >>> cost = estimate("llava-1.5-7b", "nvidia-l4", calibration=None)
    >>> found = per_thousand(cost, price_per_hour=3.6)
    >>> abs(found["price"] - cost.totals.time_s) < 1e-12  # 1000 x t x 3.6 / 3600
    True
    """
    check_budget("price_per_hour", price_per_hour)
    batches = _REQUESTS / cost.inputs["batch_size"]
    hardware = None if cost.source is None else cost.source.hardware
    energy = estimate_energy(cost, power, hardware=hardware)

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
