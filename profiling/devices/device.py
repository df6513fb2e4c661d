"""Opening a device by its name, checked before a model is built on one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidInputError, MissingDependencyError
from profiling.devices.cpu import CpuDevice
from profiling.devices.cuda import CudaDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiling.devices.interface import Clock, Device

#: kind -> what opens a device of that kind. A test puts a device of its own here.
OPENERS: dict[str, Callable[[str], Device]] = {"cuda": CudaDevice, "cpu": CpuDevice}


def open_device(name: str) -> Device:
    """Return a device that runs work.

    Args:
        name: `cuda`, `cuda:N` or `cpu`.

    Raises:
        InvalidInputError: another kind of device.
        MissingDependencyError: torch is not installed.
        DeviceUnavailableError: no such CUDA device here.

    >>> open_device("cpu").kind
    'cpu'
    """
    try:
        return OPENERS[_kind(name)](name)
    except ImportError as error:
        raise MissingDependencyError("torch", "profile") from error


def device_kind(name: str, *, elsewhere: bool = False) -> str:
    """Return `cuda` or `cpu` after checking that it can be used here; arguments and errors as `open_device`.

    A device that is used `elsewhere` is not looked for on this machine.

    >>> device_kind("cpu")
    'cpu'
    """
    return _kind(name) if elsewhere else open_device(name).kind


def visible_gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES calls each GPU that this process sees, or their numbers."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]


def clock_for(name: str) -> Clock:
    """Return the clock of a device.

    Raises:
        VlmRooflineError: as `open_device`.
    """
    return open_device(name).clock()


def _kind(name: str) -> str:
    kind, _, index = str(name).partition(":")
    if kind not in OPENERS or (index and not index.isdigit()):
        raise InvalidInputError(f"device {name!r} is not one of cuda, cuda:N, cpu")
    return kind
