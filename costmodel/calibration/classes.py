"""Op classes: their names, the kind of law each follows, and the peak its arithmetic runs at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.calibration.dtypes import LABELS

if TYPE_CHECKING:
    from costmodel.calibration.parameters import Device

#: The op classes every complete calibration holds.
OP_CLASSES = (
    "gemm",
    "conv",
    "attention_prefill",
    "attention_encoder",
    "attention_decode",
    "norm",
    "pointwise",
    "copy",
    "embedding",
)
#: PyTorch's own kernels, which are slower than a serving engine's fused ones: concatenations, kernels that
#: read heads and halves with strides (rotary embedding, heads laid out in one piece), layer norm, the chain
#: of small kernels that an eager RMSNorm is, and softmax over rows too long for registers.
TORCH_KERNELS = {
    "cat": "copy",
    "strided": "pointwise",
    "layer_norm": "norm",
    "norm_chain": "norm",
    "softmax": "norm",
}
#: Classes that a calibration may hold apart, and the class that answers where it does not.
PARENTS = {
    "rope": "pointwise",
    "activation": "pointwise",
    "residual": "pointwise",
    **TORCH_KERNELS,
}


def kind_of_class(op_class: str) -> str:
    """Return `gemm`, `attention` or `stream` for an op class."""
    if op_class in ("gemm", "conv"):
        return "gemm"
    return "attention" if op_class.startswith("attention") else "stream"


def peak_of(device: Device, dtype: str) -> float | None:
    """Return the peak that a label's arithmetic runs at, or None where the device has none."""
    return next((device.peaks[a] for a in LABELS[dtype].arithmetic if a in device.peaks), None)
