"""NVML absent, half-supported, failing and lost, all simulated at the boundary."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import ERRORS, FakeNvml

from profiling.instruments.nvml import AVAILABLE, AbsentMonitor, open_monitor

UUID = "0a1b2c3d-0000-1111-2222-333344445555"
QUANTITIES = set(AbsentMonitor("x").capabilities)


def _open(library: Any, uuid: str = UUID) -> Any:
    return open_monitor("cuda", uuid, library)


def test_a_device_that_answers_everything() -> None:
    monitor = _open(FakeNvml())
    assert monitor.capabilities == dict.fromkeys(QUANTITIES, AVAILABLE)
    assert monitor.energy_j() == 1000.0
    assert monitor.power_w() == 350.0
    assert monitor.power_limit_w == 700.0
    assert monitor.sm_clock_hz() == 1_980_000_000
    assert monitor.memory_clock_hz() == 3_201_000_000
    assert monitor.max_sm_clock_hz == 1_980_000_000
    assert monitor.temperature_c() == 41
    assert monitor.throttle_reasons() == ("sw-power-cap",)
    assert monitor.memory_used_bytes() == 7 * 10**9
    assert (monitor.name, monitor.driver) == ("NVIDIA H200", "580.1")


@pytest.mark.parametrize("error", ERRORS)
def test_a_failing_start_is_a_reason_and_never_a_crash(error: int) -> None:
    monitor = _open(FakeNvml(init_error=error))
    assert isinstance(monitor, AbsentMonitor)
    assert ERRORS[error] in monitor.capabilities["energy"]
    assert monitor.energy_j() is monitor.power_w() is monitor.sm_clock_hz() is None
    assert monitor.throttle_reasons() is monitor.temperature_c() is None
    assert monitor.memory_used_bytes() is monitor.memory_clock_hz() is None
    assert monitor.foreign_processes() is None


@pytest.mark.parametrize("error", ERRORS)
def test_a_missing_energy_counter_leaves_the_rest(error: int) -> None:
    # What a P100 does: everything else answers.
    monitor = _open(FakeNvml(failing={"nvmlDeviceGetTotalEnergyConsumption": error}))
    assert monitor.energy_j() is None
    assert ERRORS[error] in monitor.capabilities["energy"]
    assert monitor.power_w() == 350.0


FUNCTIONS = {
    "energy": ["nvmlDeviceGetTotalEnergyConsumption"],
    "power": ["nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"],
    "power_limit": ["nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit"],
    "sm_clock": ["nvmlDeviceGetClockInfo"],
    "memory_clock": ["nvmlDeviceGetClockInfo"],
    "max_sm_clock": ["nvmlDeviceGetMaxClockInfo"],
    "temperature": ["nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"],
    "throttle_reasons": [
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons",
    ],
    "memory_used": ["nvmlDeviceGetMemoryInfo"],
    "processes": ["nvmlDeviceGetComputeRunningProcesses"],
}  # fmt: skip


@pytest.mark.parametrize("quantity", FUNCTIONS)
def test_each_quantity_may_be_missing_alone(quantity: str) -> None:
    monitor = _open(FakeNvml(failing=dict.fromkeys(FUNCTIONS[quantity], 3)))
    assert "NotSupported" in monitor.capabilities[quantity]
    others = [
        name
        for name, functions in FUNCTIONS.items()
        if not set(functions) & set(FUNCTIONS[quantity])
    ]
    assert all(monitor.capabilities[name] == AVAILABLE for name in others)
    answers = {
        "energy": monitor.energy_j(), "power": monitor.power_w(),
        "power_limit": monitor.power_limit_w, "sm_clock": monitor.sm_clock_hz(),
        "memory_clock": monitor.memory_clock_hz(), "max_sm_clock": monitor.max_sm_clock_hz,
        "temperature": monitor.temperature_c(), "throttle_reasons": monitor.throttle_reasons(),
        "memory_used": monitor.memory_used_bytes(),
        "processes": monitor.foreign_processes(),
    }  # fmt: skip
    assert answers[quantity] is None
    assert all(answers[name] is not None for name in others)


def test_what_is_missing_is_asked_for_once() -> None:
    library = FakeNvml(failing={"nvmlDeviceGetTotalEnergyConsumption": 3})
    monitor = _open(library)
    for _ in range(5):
        monitor.energy_j()
    assert library.calls.count("nvmlDeviceGetTotalEnergyConsumption") == 1


def test_older_drivers_and_bindings_are_asked_the_old_way() -> None:
    old_driver = FakeNvml(failing={"nvmlDeviceGetCurrentClocksEventReasons": 13})
    assert _open(old_driver).throttle_reasons() == ("sw-power-cap", "hw-slowdown")
    old_binding = FakeNvml(missing=("nvmlDeviceGetTemperatureV",))
    assert _open(old_binding).temperature_c() == 42


def test_field_errors_inside_the_answer_are_seen() -> None:
    # The GPU scope is refused inside the answer, the module scope works: Grace Hopper.
    assert _open(FakeNvml(field_return={0: 3})).power_w() == 350.0
    # Both refused: averaged power is what is left.
    assert _open(FakeNvml(field_return={0: 3, 1: 3})).power_w() == 351.0


def test_module_energy_is_marked_as_such() -> None:
    monitor = _open(FakeNvml(name=b"NVIDIA GH200 480GB"))
    assert "whole module" in monitor.capabilities["energy"]
    assert monitor.energy_j() == 1000.0


def test_a_lost_device_stops_answering_and_says_so() -> None:
    library = FakeNvml()
    monitor = _open(library)
    assert monitor.power_w() == 350.0
    library.failing["nvmlDeviceGetFieldValues"] = 15
    assert monitor.power_w() is None
    assert monitor.capabilities["power"].startswith("stopped answering: GpuIsLost")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (0, ()),
        (1, ("idle",)),
        (8 | 64, ("hw-slowdown", "hw-thermal")),
        (32 | 128 | 1024, ("sw-thermal", "hw-power-brake", "reliability")),
        (512 | 256, ("display-clocks", "board-limit")),
    ],
)
def test_throttle_bits_are_read_one_by_one(mask: int, words: tuple[str, ...]) -> None:
    library = FakeNvml()
    library.reasons = mask
    assert _open(library).throttle_reasons() == words


def test_devices_are_matched_by_uuid() -> None:
    assert _open(FakeNvml(), f"GPU-{UUID.upper()}").power_w() == 350.0
    other = _open(FakeNvml(), "ffffffff-0000-1111-2222-333344445555")
    assert "no NVML device has the UUID" in other.capabilities["power"]


def test_foreign_processes_are_those_that_are_not_ours() -> None:
    library = FakeNvml()
    own = SimpleNamespace(pid=os.getpid(), usedGpuMemory=5)
    other = SimpleNamespace(pid=1, usedGpuMemory=None)
    library.processes = [own, other]
    monitor = _open(library)
    assert [item.pid for item in monitor.foreign_processes()] == [1]
    # In a container the ids are the host's: ours is taken to be the largest.
    library.processes = [other, SimpleNamespace(pid=2, usedGpuMemory=9)]
    assert [item.pid for item in monitor.foreign_processes()] == [1]


def test_a_foreign_pynvml_is_refused() -> None:
    monitor = _open(SimpleNamespace(NVMLError=Exception))
    assert "not the one of nvidia-ml-py" in monitor.capabilities["energy"]


def test_without_the_package_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in open_monitor("cuda", UUID).capabilities["power"]


def test_a_cpu_is_not_asked_about() -> None:
    assert "CPU" in open_monitor("cpu").capabilities["energy"]


def test_the_real_package_is_the_official_one() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert hasattr(pynvml, "_nvmlGetFunctionPointer")
    # Every constant the monitor uses exists in the installed binding.
    for name in dir(FakeNvml):
        if name.startswith("NVML_"):
            assert hasattr(pynvml, name), name
