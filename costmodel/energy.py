"""Energy: the power of each regime times the time spent in it.

    E = P_idle t_idle + P_memory t_memory + P_compute t_compute

A stage's time divides into what arithmetic bounds, what traffic bounds, and what the device idles
through while the host launches (`StageCost`). The three powers come from measured windows
(`fit_power_model`). Without them only a bracket is known: at least idle power, at most the board's
limit (TDP), each times the stage's time. No data sheet has idle power, so without a measurement the
lower end is None and a note says so. No prediction exceeds the limit times the time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from costmodel.result import Estimate
    from hardware_specs import HardwareSpec

REGIMES = ("idle", "memory", "compute")
#: Below this squared sine between the two columns, memory and compute power cannot be told apart.
SEPARABLE = 0.01
#: Windows from which a fit's spread is known.
MIN_WINDOWS = 3


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Power by regime, in watts; None where it is not known.

    Attributes:
        idle_w: nothing runs.
        memory_w: the memory is the bound.
        compute_w: arithmetic is the bound.
        limit_w: what the board never exceeds, its TDP.
        spread: relative error of the fit, 90 % of its windows; None where too few were measured.
        windows: measured windows behind it.
        source: where the numbers come from.
    """

    idle_w: float | None = None
    memory_w: float | None = None
    compute_w: float | None = None
    limit_w: float | None = None
    spread: float | None = None
    windows: int = 0
    source: str = "given"

    def __post_init__(self) -> None:
        """Refuse powers that no board draws."""
        for name in ("idle_w", "memory_w", "compute_w", "limit_w"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidInputError(f"{name} must be a positive number of watts, not {value!r}")
            if value is not None and self.limit_w is not None and value > self.limit_w:
                raise InvalidInputError(
                    f"{name}={value:g} W is above the limit of {self.limit_w:g} W; check the units"
                )

    @property
    def measured(self) -> bool:
        """Whether windows stand behind it."""
        return self.windows > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PowerWindow:
    """One measured window: its mean power, and what it was predicted to do.

    Attributes:
        power_w: mean power.
        idle_share: share of the time without device work.
        memory_share: share bound by memory.
        compute_share: share bound by arithmetic.
        idle_power_w: power just before, with nothing running; None where it was not measured.
    """

    power_w: float
    idle_share: float
    memory_share: float
    compute_share: float
    idle_power_w: float | None = None


@dataclass(frozen=True, slots=True)
class EnergyCost:
    """The energy of one stage in joules; None where not even a bound is known.

    Attributes:
        energy_low_j: lower end.
        energy_high_j: upper end.
        energy_j: the prediction; None without measured powers.
        basis: where it comes from.
    """

    energy_low_j: float | None
    energy_high_j: float | None
    energy_j: float | None
    basis: str

    def times(self, devices: int) -> EnergyCost:
        """Return the energy of so many devices that do the same."""
        if devices == 1:
            return self
        low, high, mid = (
            None if end is None else end * devices
            for end in (self.energy_low_j, self.energy_high_j, self.energy_j)
        )
        return EnergyCost(low, high, mid, self.basis)


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """Predicted energy by stage, and of all stages together.

    Attributes:
        stages: by stage.
        totals: their sum; an end that one stage lacks is missing here too.
        power: the powers used.
        notes: what a reader must know.
    """

    stages: Mapping[str, EnergyCost]
    totals: EnergyCost
    power: PowerModel
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self) | {"notes": list(self.notes)}


def datasheet_power(hardware: HardwareSpec) -> PowerModel:
    """Return what the data sheet says of a device's power: its limit and nothing else.

    >>> from hardware_specs import get_hardware
    >>> datasheet_power(get_hardware("nvidia-a100-sxm4-80gb")).limit_w
    400.0
    """
    source = "data sheet: the board's limit only"
    if hardware.tdp_w is None:
        source = f"nothing: no power limit of {hardware.id} is known"
    return PowerModel(limit_w=hardware.tdp_w, source=source)


def regime_shares(cost: Any) -> tuple[float, float, float]:
    """Return the shares of a stage's time that are idle, memory-bound and compute-bound.

    >>> from costmodel.roofline import StageCost
    >>> regime_shares(StageCost(time_s=10.0, memory_s=2.0, compute_s=3.0))
    (0.5, 0.2, 0.3)
    """
    time = float(cost.time_s)
    if time <= 0:
        return 0.0, 0.0, 0.0
    # A collective moves bytes, on the link and in memory.
    moving = float(cost.memory_s) + float(cost.link_s)
    memory, compute = moving / time, float(cost.compute_s) / time
    return max(0.0, 1.0 - memory - compute), memory, compute


def stage_energy(cost: Any, power: PowerModel) -> EnergyCost:
    """Return the energy of one stage.

    The prediction is sum of P x t over the regimes. Its ends take the time's interval and the powers'
    spread; a regime of unknown power counts as idle in the lower end and at the limit in the upper.

    >>> from costmodel.roofline import StageCost
    >>> cost = StageCost(kernels=1, time_s=2.0, time_low_s=1.0, time_high_s=3.0, compute_s=2.0)
    >>> stage_energy(cost, PowerModel(limit_w=400.0))
    EnergyCost(energy_low_j=None, energy_high_j=1200.0, energy_j=None, basis='limit x time')
    >>> stage_energy(cost, PowerModel(50.0, 250.0, 300.0, 400.0, spread=0.1, windows=9)).energy_j
    600.0
    """
    time = float(cost.time_s)
    if time <= 0:
        return EnergyCost(0.0, 0.0, 0.0, "nothing runs")
    shares = dict(zip(REGIMES, regime_shares(cost), strict=True))
    known = {"idle": power.idle_w, "memory": power.memory_w, "compute": power.compute_w}
    needed = [name for name in REGIMES if shares[name] > 0]
    spread = power.spread if power.measured else None
    slack = spread or 0.0
    low_w, high_w = [], []
    for name in needed:
        value = known[name]
        certain = value is not None and (spread is not None or name == "idle")
        low_w.append(value * (1 - slack) if certain and value is not None else power.idle_w)
        high_w.append(value * (1 + slack) if certain and value is not None else power.limit_w)
    part = [shares[name] for name in needed]
    mid_w = [known[name] for name in needed]
    low, high, mid = (_mean(values, part) for values in (low_w, high_w, mid_w))
    limit = power.limit_w
    if limit is not None:
        high = limit if high is None else min(high, limit)
        mid = None if mid is None else min(mid, limit)
    basis = "limit x time" if mid is None else f"power by regime ({power.source})"
    return EnergyCost(
        None if low is None else low * float(cost.time_low_s),
        None if high is None else high * float(cost.time_high_s),
        None if mid is None else mid * time,
        basis,
    )


def _mean(values: Sequence[float | None], shares: Sequence[float]) -> float | None:
    total = 0.0
    for value, share in zip(values, shares, strict=True):
        if value is None:
            return None
        total += value * share
    return total / sum(shares)


def fit_power_model(
    windows: Iterable[PowerWindow],
    *,
    limit_w: float | None = None,
    source: str = "measured windows",
) -> PowerModel:
    """Return the powers that explain measured windows best, by least squares within bounds.

    Idle power is the median of what was seen before the windows. Memory and compute power lie between
    it and the board's limit; where the windows do not tell the two apart, both get one power. `source` says
    what the windows are.

    Raises:
        InvalidInputError: no window, or shares outside [0, 1].

    >>> model = fit_power_model([PowerWindow(300.0, 0, 0, 1, 60.0), PowerWindow(200.0, 0, 1, 0, 60.0)])
    >>> model.idle_w, model.memory_w, model.compute_w
    (60.0, 200.0, 300.0)
    """
    items = list(windows)
    if not items:
        raise InvalidInputError("no measured window to fit powers from")
    shares = np.array([[w.memory_share, w.compute_share] for w in items])
    rest = np.array([w.idle_share for w in items])
    if (shares < 0).any() or (rest < 0).any() or not np.isfinite(shares).all():
        raise InvalidInputError("shares of a window's time lie between 0 and 1")
    seen = [w.idle_power_w for w in items if w.idle_power_w is not None]
    idle = float(np.median(seen)) if seen else None
    power = np.array([w.power_w for w in items])
    target = power - rest * (idle or 0.0)
    found = _bounded(shares, target, idle or 0.0, limit_w if limit_w is not None else np.inf)
    memory, compute = (None if value is None else min(value, limit_w or value) for value in found)
    predicted = rest * (idle or 0.0) + shares @ np.array([memory or 0.0, compute or 0.0])
    errors = np.abs(predicted / power - 1)
    spread = float(np.quantile(errors, 0.9)) if len(items) >= MIN_WINDOWS else None
    return PowerModel(
        idle, memory, compute, limit_w, spread, len(items), f"{source}, {len(items)} windows"
    )


def _bounded(
    shares: np.ndarray[Any, Any], target: np.ndarray[Any, Any], low: float, high: float
) -> tuple[float | None, float | None]:
    """Solve the two-column least squares with each power in [low, high]."""
    gram, right = shares.T @ shares, shares.T @ target
    present = [index for index in (0, 1) if gram[index, index] > 1e-6]
    if not present:
        return None, None
    apart = 1.0
    if len(present) == 2:
        apart = 1 - gram[0, 1] ** 2 / (gram[0, 0] * gram[1, 1])
    if len(present) == 1 or apart < SEPARABLE:
        column = shares.sum(axis=1)
        value = float(np.clip(column @ target / (column @ column), low, high))
        same = [value if index in present else None for index in (0, 1)]
        return same[0], same[1]
    free = np.linalg.solve(gram, right)
    candidates = [free] if ((free >= low) & (free <= high)).all() else []
    # A convex problem on a box: the optimum is inside, or on an edge where one power is fixed.
    for fixed in (0, 1):
        for bound in (low, high):
            if np.isfinite(bound):
                point = np.zeros(2)
                point[fixed] = bound
                other = 1 - fixed
                best = (right[other] - gram[other, fixed] * bound) / gram[other, other]
                point[other] = np.clip(best, low, high)
                candidates.append(point)
    best = min(candidates, key=lambda point: float(((shares @ point - target) ** 2).sum()))
    return float(best[0]), float(best[1])


def estimate_energy(
    estimate: Estimate, power: PowerModel | None = None, *, hardware: HardwareSpec | None = None
) -> EnergyEstimate:
    """Return the predicted energy of an estimate, stage by stage, of all devices together.

    Without measured powers of the device it is the bracket that its data sheet allows; `hardware` is needed
    where the device is not a shipped one.

    Raises:
        InvalidInputError: another tool's convention, which has no regimes; a power that is no PowerModel.
        UnknownHardwareError: the estimate's device is not shipped and was not given.

    >>> from costmodel import estimate
    >>> energy = estimate_energy(estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb"))
    >>> energy.totals.energy_j is None and energy.totals.energy_low_j is None
    True
    >>> bool(energy.totals.energy_high_j > 400 * 0.0275)  # at least TDP x the ideal time
    True
    """
    if estimate.inputs.get("convention") != "torch":
        raise InvalidInputError(
            f"convention {estimate.inputs.get('convention')!r} does not divide time into regimes; "
            "estimate energy under convention='torch'"
        )
    if not (power is None or isinstance(power, PowerModel)):
        raise InvalidInputError(
            f"power must be a PowerModel, as fit_power_model returns it, not {shown(power)}; a board's "
            "limit in watts is power_limit_w of the estimate"
        )
    if power is None or power.limit_w is None:
        if hardware is None:
            from hardware_specs import get_hardware

            hardware = get_hardware(estimate.inputs["hardware"])
        sheet = datasheet_power(hardware)
        power = sheet if power is None else replace(power, limit_w=sheet.limit_w)
    # Ranks and replicas do the same at the same time; pipeline stages one after the other.
    busy = estimate.inputs.get("tp", 1) * estimate.inputs.get("dp", 1)
    stages = {name: stage_energy(cost, power).times(busy) for name, cost in estimate.stages.items()}
    return EnergyEstimate(stages, _total(stages), power, _notes(estimate, power))


def _total(stages: Mapping[str, EnergyCost]) -> EnergyCost:
    def added(name: str) -> float | None:
        values = [getattr(cost, name) for cost in stages.values()]
        return None if None in values else float(sum(values))

    running = [cost.basis for cost in stages.values() if cost.basis != "nothing runs"]
    basis = ", ".join(dict.fromkeys(running)) or "nothing runs"
    return EnergyCost(added("energy_low_j"), added("energy_high_j"), added("energy_j"), basis)


def _notes(estimate: Estimate, power: PowerModel) -> tuple[str, ...]:
    notes = []
    if not power.measured:
        notes.append("no measured power: a bracket, not a prediction")
    if power.idle_w is None:
        notes.append(
            "idle power is on no data sheet and was not measured, so there is no lower end; give "
            "PowerModel(idle_w=...)"
        )
    if power.limit_w is None:
        notes.append("no power limit of this device is known, so there is no upper end")
    if estimate.inputs.get("pp", 1) > 1:
        notes.append("what a pipeline stage draws while others compute is left out")
    if estimate.inputs.get("calibration") is None:
        notes.append("times are the ideal roofline: energies at the same power are lower bounds")
    return tuple(notes)
