"""Weights of the language model in INT8, INT4 and FP8, through torchao, where the device can.

Vision tower, projector and head stay in the floating dtype, as deployments keep them. What a
device needs (from torchao 0.18's own checks and kernels):

    label   what                                          CPU     CUDA
    w8a16   int8 weights, 16-bit arithmetic                yes     compute capability 7.5
    w8a8    int8 weights, activations quantised per token  yes     compute capability 7.5
    w4a16   int4 weights in groups of 128 (tinygemm)       no      compute capability 8.0
    fp8     fp8 weights and activations                    no      compute capability 8.9
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardware_specs.errors import MissingDependencyError, UnsupportedError
from profiling.devices.device import open_device

if TYPE_CHECKING:
    from torch import nn

#: label -> (smallest CUDA compute capability, whether a CPU can).
_NEEDS: dict[str, tuple[tuple[int, int], bool]] = {
    "w8a16": ((7, 5), True),
    "w8a8": ((7, 5), True),
    "w4a16": ((8, 0), False),
    "fp8": ((8, 9), False),
}

#: label -> the kernel that runs its products on CUDA, for records: others of the same label differ.
KERNELS: dict[str, str] = {
    "w8a16": "torchao-dequantise-mm", "w8a8": "torchao-int-mm", "w4a16": "tinygemm",
    "fp8": "scaled-mm-rowwise",
}  # fmt: skip
#: label -> why its products on CUDA tell nothing about weights of that size in eager mode.
UNTYPICAL: dict[str, str] = {
    "w8a16": "torchao writes the whole weight out in 16 bits at every product, which is slower than "
    "16-bit weights by construction"
}


def check_device(label: str, device: str, capability: tuple[int, int] | None = None) -> None:
    """Make sure that a device can run a quantised label.

    Args:
        label: `w8a16`, `w8a8`, `w4a16` or `fp8`.
        device: `cuda`, `cuda:N` or `cpu`.
        capability: CUDA compute capability; asked from torch when None.

    Raises:
        UnsupportedError: it cannot; the message says what it needs.

    >>> check_device("w8a16", "cpu")
    """
    need, cpu = _NEEDS[label]
    able = [name for name, (_, on_cpu) in _NEEDS.items() if on_cpu]
    if device.partition(":")[0] == "cpu":
        if not cpu:
            raise UnsupportedError(
                f"{label} has no CPU kernels; on a CPU run fp32, fp16, bf16, {', '.join(able)}"
            )
        return
    if capability is None:
        capability = open_device(device).capability() or (0, 0)
    if capability < need:
        able = [name for name, (least, _) in _NEEDS.items() if capability >= least]
        raise UnsupportedError(
            f"{label} needs CUDA compute capability {need[0]}.{need[1]}, this device has "
            f"{capability[0]}.{capability[1]}; it can run fp16"
            + (f", {', '.join(able)}" if able else "")
        )


def quantise(model: nn.Module, label: str) -> None:
    """Quantise the linear layers of the language model in place.

    Args:
        model: what `build_model` returned.
        label: `w8a16`, `w8a8`, `w4a16` or `fp8`.

    Raises:
        MissingDependencyError: torchao is not installed.
        UnsupportedError: torchao has no kernel for this device.
    """
    from profiling.subject.stages import anatomy

    quantise_module(anatomy(model).language, label)


def quantise_module(module: nn.Module, label: str) -> None:
    """Quantise every linear layer of a module in place; see `quantise`."""
    from profiling.subject.libraries import quiet_imports

    quiet_imports()
    try:
        from torchao.quantization import quantize_
    except ImportError as error:
        raise MissingDependencyError("torchao", "quantise") from error
    try:
        quantize_(module, _recipe(label))
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(f"torchao cannot make {label} weights here: {first}") from error


def _recipe(label: str) -> Any:
    # Without torchao's settings for the compiler, which would change the whole process.
    from torchao import quantization as ao

    if label == "w8a16":
        return ao.Int8WeightOnlyConfig(set_inductor_config=False)
    if label == "w8a8":
        return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    if label == "w4a16":
        return ao.Int4WeightOnlyConfig(
            group_size=128, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    return ao.Float8DynamicActivationFloat8WeightConfig(
        granularity=ao.PerRow(), set_inductor_config=False
    )
