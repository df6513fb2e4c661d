"""Queries to an NVIDIA device's driver; each is probed once and skipped if unsupported.

`nvidia-ml-py` (module `pynvml`) is the only boundary. Each quantity has a list of ways to ask for
it, newest first; a probe tries them once and keeps the first that answers. Everything that fails,
whatever the error, is None from then on with its reason in `capabilities`: never 0, never a crash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from profiling.devices.device import open_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AVAILABLE = "available"

#: Bit -> word of the clocks-event (throttle) mask. Source: nvml.h. The binding's "All" constants
#: disagree with each other, so bits are read one by one.
THROTTLE_BITS = {
    1: "idle",
    2: "application-clocks",
    4: "sw-power-cap",
    8: "hw-slowdown",
    16: "sync-boost",
    32: "sw-thermal",
    64: "hw-thermal",
    128: "hw-power-brake",
    256: "display-clocks",
    512: "board-limit",
    1024: "reliability",
}
#: Reasons that make a sample worthless. The software power cap is not among them: a large matrix
#: product on a healthy card runs against it, and that is the speed the card has.
HARMFUL_REASONS = frozenset({"hw-slowdown", "sw-thermal", "hw-thermal", "hw-power-brake"})

_QUANTITIES = (
    "energy", "power", "power_limit", "sm_clock", "memory_clock", "max_sm_clock", "temperature",
    "throttle_reasons", "memory_used", "processes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ForeignProcess:
    """Another process that holds memory on the device."""

    pid: int
    memory_bytes: int | None


class DeviceMonitor(Protocol):
    """The interface to a device's sensors; None, as here, means that a quantity is not reported."""

    capabilities: Mapping[str, str]
    name: str | None = None
    uuid: str | None = None
    driver: str | None = None
    max_sm_clock_hz: int | None = None
    power_limit_w: float | None = None

    def energy_j(self) -> float | None:
        """Return the energy counter since the driver was loaded."""
        return None

    def power_w(self) -> float | None:
        """Return the present power."""
        return None

    def sm_clock_hz(self) -> int | None:
        """Return the present clock of the multiprocessors."""
        return None

    def memory_clock_hz(self) -> int | None:
        """Return the present memory clock."""
        return None

    def temperature_c(self) -> int | None:
        """Return the temperature in degrees Celsius."""
        return None

    def throttle_reasons(self) -> tuple[str, ...] | None:
        """Return the reasons for reduced clocks, in words."""
        return None

    def memory_used_bytes(self) -> int | None:
        """Return the memory in use by all processes."""
        return None

    def foreign_processes(self) -> tuple[ForeignProcess, ...] | None:
        """Return the other processes on the device."""
        return None


class AbsentMonitor(DeviceMonitor):
    """The monitor of a device without sensors: it answers None to everything.

    >>> monitor = AbsentMonitor("a CPU has no NVML")
    >>> monitor.energy_j() is None, monitor.capabilities["energy"]
    (True, 'a CPU has no NVML')
    """

    def __init__(self, reason: str) -> None:
        self.capabilities: Mapping[str, str] = dict.fromkeys(_QUANTITIES, reason)


@dataclass(slots=True)
class NvmlMonitor:
    """One device, queried through NVML.

    Args:
        library: the module `pynvml`, or what stands in for it.
        handle: NVML's handle of the device.
    """

    library: Any
    handle: Any
    capabilities: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    uuid: str | None = None
    driver: str | None = None
    max_sm_clock_hz: int | None = None
    power_limit_w: float | None = None
    _ways: dict[str, Callable[[], Any]] = field(default_factory=dict)
    _answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Probe every quantity once and keep the way that answers."""
        n = self.library
        self.capabilities = self._answers
        ways: dict[str, list[Callable[[], Any]]] = {
            "energy": [lambda: n.nvmlDeviceGetTotalEnergyConsumption(self.handle) * 1e-3],
            "power": [
                lambda: self._field_power_w("NVML_POWER_SCOPE_GPU"),
                lambda: self._field_power_w("NVML_POWER_SCOPE_MODULE"),
                lambda: n.nvmlDeviceGetPowerUsage(self.handle) * 1e-3,
            ],
            "power_limit": [
                lambda: n.nvmlDeviceGetEnforcedPowerLimit(self.handle) * 1e-3,
                lambda: n.nvmlDeviceGetPowerManagementLimit(self.handle) * 1e-3,
            ],
            "sm_clock": [lambda: n.nvmlDeviceGetClockInfo(self.handle, n.NVML_CLOCK_SM) * 10**6],
            "memory_clock": [
                lambda: n.nvmlDeviceGetClockInfo(self.handle, n.NVML_CLOCK_MEM) * 10**6
            ],
            "max_sm_clock": [
                lambda: n.nvmlDeviceGetMaxClockInfo(self.handle, n.NVML_CLOCK_SM) * 10**6
            ],
            "temperature": [
                lambda: int(n.nvmlDeviceGetTemperatureV(self.handle, n.NVML_TEMPERATURE_GPU)),
                lambda: int(n.nvmlDeviceGetTemperature(self.handle, n.NVML_TEMPERATURE_GPU)),
            ],
            "throttle_reasons": [
                lambda: int(n.nvmlDeviceGetCurrentClocksEventReasons(self.handle)),
                lambda: int(n.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle)),
            ],
            "memory_used": [lambda: int(n.nvmlDeviceGetMemoryInfo(self.handle).used)],
            "processes": [lambda: list(n.nvmlDeviceGetComputeRunningProcesses(self.handle))],
        }
        for quantity, candidates in ways.items():
            self._probe(quantity, candidates)
        self.name = self._text(lambda: n.nvmlDeviceGetName(self.handle))
        self.uuid = self._text(lambda: n.nvmlDeviceGetUUID(self.handle))
        self.driver = self._text(lambda: n.nvmlSystemGetDriverVersion())
        self.max_sm_clock_hz = self._ask("max_sm_clock")
        self.power_limit_w = self._ask("power_limit")
        if self.name is not None and "GH200" in self.name and "energy" in self._ways:
            self._answers["energy"] = "available (of the whole module, CPU included)"

    def _probe(self, quantity: str, candidates: list[Callable[[], Any]]) -> None:
        reasons = []
        for way in candidates:
            try:
                way()
            except (self.library.NVMLError, AttributeError, OSError) as error:
                reasons.append(_reason(error))
                continue
            self._ways[quantity] = way
            self._answers[quantity] = AVAILABLE
            return
        self._answers[quantity] = "; ".join(dict.fromkeys(reasons))

    def _ask(self, quantity: str) -> Any:
        way = self._ways.get(quantity)
        if way is None:
            return None
        try:
            return way()
        except (self.library.NVMLError, AttributeError, OSError) as error:
            # It answered before: the device was lost or the driver went away. Do not ask again.
            del self._ways[quantity]
            self._answers[quantity] = f"stopped answering: {_reason(error)}"
            return None

    def _field_power_w(self, scope: str) -> float:
        n = self.library
        query = (n.NVML_FI_DEV_POWER_INSTANT, getattr(n, scope))
        answer = n.nvmlDeviceGetFieldValues(self.handle, [query])[0]
        # Field queries report errors inside the answer instead of raising.
        if answer.nvmlReturn != n.NVML_SUCCESS:
            raise n.NVMLError(answer.nvmlReturn)
        return float(answer.value.uiVal) * 1e-3

    def _text(self, ask: Callable[[], Any]) -> str | None:
        try:
            answer = ask()
        except (self.library.NVMLError, AttributeError, OSError):
            return None
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def energy_j(self) -> float | None:
        """Return the energy counter since the driver was loaded, in joules."""
        return cast("float | None", self._ask("energy"))

    def power_w(self) -> float | None:
        """Return the present power in watts: instantaneous where the device offers it."""
        return cast("float | None", self._ask("power"))

    def sm_clock_hz(self) -> int | None:
        """Return the present clock of the multiprocessors in hertz."""
        return cast("int | None", self._ask("sm_clock"))

    def memory_clock_hz(self) -> int | None:
        """Return the present memory clock in hertz."""
        return cast("int | None", self._ask("memory_clock"))

    def temperature_c(self) -> int | None:
        """Return the temperature in degrees Celsius."""
        return cast("int | None", self._ask("temperature"))

    def throttle_reasons(self) -> tuple[str, ...] | None:
        """Return the reasons for reduced clocks, in words."""
        mask = self._ask("throttle_reasons")
        if mask is None:
            return None
        return tuple(word for bit, word in THROTTLE_BITS.items() if mask & bit)

    def memory_used_bytes(self) -> int | None:
        """Return the memory in use by all processes."""
        return cast("int | None", self._ask("memory_used"))

    def foreign_processes(self) -> tuple[ForeignProcess, ...] | None:
        """Return the other processes on the device, where this one runs too.

        Inside a container NVML gives the host's ids, so ours is not among them; then the one with most
        memory is ours.
        """
        running = self._ask("processes")
        if running is None:
            return None
        processes = [
            ForeignProcess(
                int(item.pid), None if item.usedGpuMemory is None else int(item.usedGpuMemory)
            )
            for item in running
        ]
        others = [item for item in processes if item.pid != os.getpid()]
        if others and len(others) == len(processes):
            others.remove(max(others, key=lambda item: item.memory_bytes or 0))
        return tuple(others)


def _reason(error: Exception) -> str:
    if isinstance(error, AttributeError):
        return f"nvidia-ml-py is too old: {error}"
    return f"{type(error).__name__.removeprefix('NVMLError_')}: {error}"


def open_monitor(device: str, uuid: str | None = None, library: Any = None) -> DeviceMonitor:
    """Return the monitor of a device, or one that says why there is none.

    CUDA's numbering and NVML's differ (`CUDA_VISIBLE_DEVICES`, bus order), so a device is matched
    by its UUID and never by its number.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.
        uuid: the device's UUID; asked from the device when None.
        library: stands in for the module `pynvml`.
    """
    if device.partition(":")[0] == "cpu":
        return AbsentMonitor("the device is a CPU, which NVML does not cover")
    if library is None:
        try:
            library = import_module("pynvml")
        except ImportError:
            return AbsentMonitor("nvidia-ml-py is not installed (pip install nvidia-ml-py)")
    if not hasattr(library, "_nvmlGetFunctionPointer"):
        return AbsentMonitor(
            "the module pynvml is not the one of nvidia-ml-py; uninstall pynvml, "
            "install nvidia-ml-py"
        )
    try:
        library.nvmlInit()
        handle = _handle_of(library, uuid if uuid is not None else open_device(device).uuid())
    except (library.NVMLError, OSError) as error:
        return AbsentMonitor(_reason(error))
    if handle is None:
        return AbsentMonitor(f"no NVML device has the UUID of {device} (a MIG slice?)")
    return NvmlMonitor(library, handle)


def _handle_of(library: Any, uuid: str | None) -> Any:
    wanted = _bare(uuid or "")
    for index in range(library.nvmlDeviceGetCount()):
        handle = library.nvmlDeviceGetHandleByIndex(index)
        found = library.nvmlDeviceGetUUID(handle)
        if _bare(found.decode() if isinstance(found, bytes) else found) == wanted:
            return handle
    return None


def _bare(uuid: str) -> str:
    return uuid.strip().lower().removeprefix("gpu-")
