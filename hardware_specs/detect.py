"""Detecting this machine's device: a GPU by its driver's exact name, otherwise the measured CPU.

NVML is asked first, since it answers in milliseconds and importing torch takes seconds. torch is
asked when it is loaded anyway, when NVML is missing but a GPU may be there (ROCm), when NVML gives a name
and no memory (GPUs that share the host's: Jetson, GB10), or when the GPUs differ from each other,
because only CUDA knows which of them it puts first.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.cpu import measure_cpu
from hardware_specs.errors import DeviceUnavailableError, InvalidInputError
from hardware_specs.matching import match_device_name
from hardware_specs.registry import get_hardware
from hardware_specs.spec import Provenance

if TYPE_CHECKING:
    from hardware_specs.spec import HardwareSpec

#: One of these exists wherever a GPU can be reached: NVIDIA, WSL, Jetson, ROCm.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/nvhost-gpu", "/dev/kfd")

#: Names the module of a Jetson, part numbers included.
_BOARD_FILE = Path("/proc/device-tree/compatible")


@dataclass(frozen=True, slots=True)
class ReportedDevice:
    """What a driver says about a GPU.

    Attributes:
        name: the name, exactly as printed.
        memory_bytes: total memory, B; None where the driver does not say.
        sm_count: SMs or CUs; None where the driver does not say.
        mig: the GPU is cut into slices, so its name does not describe what runs.
        architecture: ROCm's target, such as `gfx942`; None elsewhere.
        board: what the device tree says the machine is; None without one.
    """

    name: str
    memory_bytes: int | None = None
    sm_count: int | None = None
    mig: bool = False
    architecture: str | None = None
    board: str | None = None


def detect_hardware(device: str = "auto") -> HardwareSpec:
    """Return this machine's device: `cpu`, `cuda` (also ROCm), or `auto`: a GPU if any, else the CPU.

    A GPU is looked up by the exact name its driver prints; with several, the first one CUDA shows.
    A CPU is measured, which takes a second or two.

    Raises:
        UnknownHardwareError: there is a GPU, and no device file describes it.
        DeviceUnavailableError: `cuda` was asked for and there is none.
        InvalidInputError: another word was given.
    """
    if device not in ("auto", "cuda", "cpu"):
        raise InvalidInputError(f"unknown device {device!r}; there is: auto, cuda, cpu")
    reported = None if device == "cpu" else reported_gpu()
    if reported is not None:
        return spec_of(reported)
    if device == "cuda":
        raise DeviceUnavailableError(
            "neither NVML nor torch shows a GPU; name one with --hardware ID "
            "(`vlm-roofline specs list`) or measure the CPU with detect_hardware('cpu')"
        )
    return measure_cpu()


def spec_of(reported: ReportedDevice) -> HardwareSpec:
    """Return the spec of a reported GPU, with the memory that this machine's driver shows.

    Raises:
        UnknownHardwareError: no device file describes it.

    >>> spec_of(ReportedDevice("NVIDIA A100-SXM4-40GB", 42405855232, 108)).id
    'nvidia-a100-sxm4-40gb'
    """
    name = f"{reported.name} MIG slice" if reported.mig else reported.name
    spec = get_hardware(
        match_device_name(
            name,
            reported.memory_bytes,
            sm_count=reported.sm_count,
            architecture=reported.architecture,
            board=reported.board,
        )
    )
    if reported.memory_bytes is None:
        return spec
    shown = min(reported.memory_bytes, spec.memory_bytes or reported.memory_bytes)
    origin = Provenance(("measured",), "measured", "what this machine's driver shows")
    return replace(
        spec,
        memory_reported_bytes=shown,
        provenance={**spec.provenance, "memory_reported_bytes": origin},
    )


def reported_gpu() -> ReportedDevice | None:
    """Return what the driver says about the first visible GPU; None where there is none."""
    if "torch" in sys.modules:
        return _from_torch()
    found = _from_nvml()
    if len(set(found)) == 1 and found[0].memory_bytes is not None:
        return found[0]
    may_have_gpu = bool(found) or any(Path(path).exists() for path in _GPU_FILES)
    asked = _from_torch() if may_have_gpu and find_spec("torch") is not None else None
    return asked or (found[0] if found else None)


def _from_torch() -> ReportedDevice | None:
    torch: Any = import_module("torch")
    # A driver that is too old makes is_available() False with a warning, not an error.
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    # Builds for CUDA have the attribute too, with the name in it.
    target = str(getattr(properties, "gcnArchName", ""))
    return ReportedDevice(
        str(properties.name),
        int(properties.total_memory),
        int(properties.multi_processor_count),
        architecture=target if target.startswith("gfx") else None,
        board=_board(),
    )


def _board() -> str | None:
    try:
        return _BOARD_FILE.read_bytes().decode("utf-8", "replace").replace("\0", " ")
    except OSError:
        return None


def _from_nvml() -> tuple[ReportedDevice, ...]:
    """Ask NVML for the GPUs that CUDA may see; empty where it cannot answer."""
    if find_spec("pynvml") is None:
        return ()
    nvml: Any = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        count = int(nvml.nvmlDeviceGetCount())
        handles = _visible(nvml, [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)])
        return tuple(_reported(nvml, handle) for handle in handles)
    except nvml.NVMLError:
        return ()
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _reported(nvml: Any, handle: Any) -> ReportedDevice:
    name = nvml.nvmlDeviceGetName(handle)
    memory: int | None = None
    mig = False
    # GPUs that share the host's memory answer "not supported", and so do those without MIG.
    with suppress(nvml.NVMLError):
        memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    with suppress(nvml.NVMLError):
        mig = nvml.nvmlDeviceGetMigMode(handle)[0] == 1
    return ReportedDevice(_text(name), memory, mig=mig, board=_board())


def _visible(nvml: Any, handles: list[Any]) -> list[Any]:
    """Keep the GPUs that CUDA_VISIBLE_DEVICES names, in its order; unset means all."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return handles
    uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    kept = []
    for word in (part.strip() for part in wanted.split(",")):
        match = [i for i, uuid in enumerate(uuids) if word and uuid.startswith(word)]
        if word.isdigit() and int(word) < len(handles):
            match = [int(word)]
        if not match:
            break  # CUDA ignores everything after the first entry that names no device.
        kept.append(handles[match[0]])
    return kept


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
