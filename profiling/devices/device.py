"""The kinds of device, checked before a model is built on one."""

from __future__ import annotations

from hardware_specs.errors import DeviceUnavailableError, InvalidInputError, MissingDependencyError


def device_kind(device: str) -> str:
    """Return `cuda`, `cpu` or `meta` (shapes only) after checking that it can be used here.

    Raises:
        InvalidInputError: another kind of device.
        MissingDependencyError: torch is not installed.
        DeviceUnavailableError: no such CUDA device here.

    >>> device_kind("cpu")
    'cpu'
    """
    kind, _, index = device.partition(":")
    if kind not in ("cuda", "cpu", "meta") or (index and not index.isdigit()):
        raise InvalidInputError(f"device {device!r} is not one of cuda, cuda:N, cpu, meta")
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "profile") from error
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = "with CUDA" if torch.version.cuda else "without CUDA"
            raise DeviceUnavailableError(
                f"no CUDA device: torch {torch.__version__} is built {built} and sees none; "
                "use --device cpu, or install a CUDA build of torch on a machine with a GPU"
            )
        if index and int(index) >= torch.cuda.device_count():
            raise DeviceUnavailableError(
                f"no device {device}: there are {torch.cuda.device_count()} CUDA devices"
            )
    return kind
