"""The hardware and software of a measurement: enough to compare two of them, nothing personal.

Neither host name, user nor path is recorded.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from hardware_specs.cpu import cpu_info, memory_bytes
from profiling.devices.device import open_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from profiling.instruments.nvml import DeviceMonitor

#: Settings that change what a run costs.
_VARIABLES = (
    "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS", "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
    "TORCHINDUCTOR_FREEZING", "CUBLAS_WORKSPACE_CONFIG", "TORCH_CUDNN_SDPA_DEPRIORITIZED",
    "TORCH_CUDNN_SDPA_AVOID_RECOMPILE", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
_PACKAGES = ("transformers", "torchao", "numpy", "nvidia-ml-py", "vlm-roofline")


def describe_environment(device: str, monitor: DeviceMonitor | None = None) -> dict[str, Any]:
    """Return software, device and settings as plain JSON data.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.
        monitor: of the device, for the driver and UUID.
    """
    import torch

    processor = cpu_info()
    environment: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_name": cpu_name(processor),
        "cpu_signature": cpu_signature(processor),
        "cpu_count": os.cpu_count(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    environment |= {name: _version(name) for name in _PACKAGES}
    found = open_device(device)
    if found.kind == "cpu":
        environment |= {"device_name": environment["cpu_name"], "memory_bytes": memory_bytes()}
    environment |= found.describe()
    if monitor is not None:
        environment |= {
            "driver": monitor.driver,
            "device_uuid": monitor.uuid,
            "power_limit_w": monitor.power_limit_w,
            "max_sm_clock_hz": monitor.max_sm_clock_hz,
        }
    return environment


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name(known: Mapping[str, str]) -> str:
    """Return the processor's name, from `hardware_specs.cpu.cpu_info`."""
    return known.get("model name") or platform.processor() or platform.machine()


def cpu_signature(known: Mapping[str, str]) -> str | None:
    """Return family, model and stepping, which tell processors apart that share a name."""
    if "cpu family" not in known:
        return None
    parts = (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))
    return " ".join(f"{word} {known[key]}" for word, key in parts if key in known)
