"""A stand-in for the module `pynvml`: answers what it is given, raises what it is told to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

ERRORS = {
    1: "Uninitialized", 2: "InvalidArgument", 3: "NotSupported", 4: "NoPermission",
    9: "DriverNotLoaded", 12: "LibraryNotFound", 13: "FunctionNotFound", 15: "GpuIsLost",
    18: "LibRmVersionMismatch", 999: "Unknown",
}  # fmt: skip


class NVMLError(Exception):
    """NVML's error, with its number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


def _error_class(value: int, name: str) -> Any:
    def start(self: NVMLError) -> None:
        NVMLError.__init__(self, value)

    return type(f"NVMLError_{name}", (NVMLError,), {"__init__": start})


CLASSES = {value: _error_class(value, name) for value, name in ERRORS.items()}


class FakeNvml:
    """`pynvml` of a machine with one GPU.

    Args:
        failing: function name -> error number it raises.
        missing: functions this version of the binding does not have.
        init_error: number of the error `nvmlInit` raises.
        field_return: the code inside a field answer.
    """

    NVML_SUCCESS = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    NVML_FI_DEV_POWER_INSTANT = 186
    NVML_POWER_SCOPE_GPU = 0
    NVML_POWER_SCOPE_MODULE = 1
    NVMLError = NVMLError

    def __init__(
        self,
        failing: dict[str, int] | None = None,
        missing: tuple[str, ...] = (),
        init_error: int | None = None,
        field_return: dict[int, int] | None = None,
        name: str | bytes = "NVIDIA H200",
        uuid: str = "GPU-0a1b2c3d-0000-1111-2222-333344445555",
    ) -> None:
        self.failing = failing or {}
        self.init_error = init_error
        self.field_return = field_return or {}
        self.name, self.uuid = name, uuid
        self.energy_mj = 1_000_000.0
        self.power_mw = 350_000.0
        self.reasons = 4
        self.processes: list[Any] = []
        self.calls: list[str] = []
        for function in missing:
            setattr(self, function, None)
        self._missing = missing

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml"):
            if name in object.__getattribute__(self, "_missing"):
                raise AttributeError(f"module 'pynvml' has no attribute {name!r}")
            self.calls.append(name)
            error = object.__getattribute__(self, "failing").get(name)
            if error is not None:
                raise CLASSES[error]()
        return object.__getattribute__(self, name)

    def _nvmlGetFunctionPointer(self, name: str) -> None: ...

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise CLASSES[self.init_error]()

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, _handle: int) -> str:
        return self.uuid

    def nvmlDeviceGetName(self, _handle: int) -> str | bytes:
        return self.name

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: int) -> float:
        return self.energy_mj

    def nvmlDeviceGetPowerUsage(self, _handle: int) -> float:
        return self.power_mw + 1000

    def nvmlDeviceGetFieldValues(self, _handle: int, queries: list[Any]) -> list[Any]:
        ((_, scope),) = queries
        code = self.field_return.get(scope, 0)
        return [SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=self.power_mw))]

    def nvmlDeviceGetEnforcedPowerLimit(self, _handle: int) -> int:
        return 700_000

    def nvmlDeviceGetPowerManagementLimit(self, _handle: int) -> int:
        return 600_000

    def nvmlDeviceGetClockInfo(self, _handle: int, kind: int) -> int:
        return {1: 1980, 2: 3201}[kind]

    def nvmlDeviceGetMaxClockInfo(self, _handle: int, _kind: int) -> int:
        return 1980

    def nvmlDeviceGetTemperatureV(self, _handle: int, _sensor: int) -> int:
        return 41

    def nvmlDeviceGetTemperature(self, _handle: int, _sensor: int) -> int:
        return 42

    def nvmlDeviceGetCurrentClocksEventReasons(self, _handle: int) -> int:
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle: int) -> int:
        return self.reasons | 8

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> Any:
        return SimpleNamespace(used=7 * 10**9)

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: int) -> list[Any]:
        return self.processes
