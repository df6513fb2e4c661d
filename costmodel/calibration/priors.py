"""Priors of the law's parameters, and the bounds that keep them physical.

A prior is a median, the standard deviation of the parameter's logarithm, and bounds. The medians
are also the `generic` calibration. They are rounded from fits on public A100 and H100 GEMMs whose
shapes occur in no LLaVA or CLIP model; a fit of 64 points moves freely from them where its points
speak, and stays where they are silent.
"""

from __future__ import annotations

from typing import NamedTuple

from costmodel.calibration.attention import FAMILIES as ATTENTION_FAMILIES
from costmodel.calibration.classes import kind_of_class
from costmodel.calibration.gemm import FAMILIES as GEMM_FAMILIES


class Prior(NamedTuple):
    """A log-normal prior within bounds."""

    median: float
    spread: float
    low: float
    high: float


GEMM: dict[str, Prior] = {
    "compute_efficiency": Prior(0.86, 0.15, 0.01, 1.0),
    "memory_efficiency": Prior(0.82, 0.15, 0.01, 1.0),
    "overhead_s": Prior(2.5e-6, 0.7, 1e-8, 1e-2),
    "exponent": Prior(3.0, 0.4, 1.0, 30.0),
    "cache_bandwidth_ratio": Prior(3.8, 0.6, 0.5, 50.0),
    "tail_overlap": Prior(0.4, 1.0, 1e-3, 1.0),
    "epilogue_cost": Prior(0.6, 0.5, 1e-3, 10.0),
    "split_overhead_s": Prior(3e-6, 0.5, 1e-7, 1e-4),
    "small_tile_loss": Prior(0.08, 1.0, 1e-4, 1.0),
}
#: Kernels that quantise their activations first, as dynamic FP8 does.
QUANTISING: dict[str, Prior] = {
    "row_overhead_s": Prior(2e-9, 1.0, 1e-12, 1e-6),
    "quantise_cost": Prior(1.0, 0.7, 1e-3, 50.0),
    "ragged_cost": Prior(1.1, 0.2, 1.0, 3.0),
}
QUANTISING_DTYPES = ("fp8", "fp8-block", "fp4")

ATTENTION: dict[str, Prior] = {
    "compute_efficiency": Prior(0.65, 0.2, 0.01, 1.0),
    "memory_efficiency": Prior(0.7, 0.3, 0.01, 1.0),
    "overhead_s": Prior(8e-6, 0.5, 1e-8, 1e-2),
    "exponent": Prior(2.0, 0.5, 1.0, 30.0),
    "tail_overlap": Prior(0.2, 1.0, 1e-3, 1.0),
    "block_overhead_s": Prior(2e-6, 0.8, 1e-9, 1e-3),
    "score_cost": Prior(12.0, 0.5, 0.1, 200.0),
}
#: What decoding has besides; the median is an RTX 4090's.
DECODE: dict[str, Prior] = {"sequence_overhead_s": Prior(2.8e-6, 1.0, 1e-9, 1e-3)}
STREAM: dict[str, Prior] = {
    "compute_efficiency": Prior(0.5, 0.3, 0.01, 1.0),
    "memory_efficiency": Prior(0.75, 0.4, 0.01, 1.0),
    "overhead_s": Prior(3e-6, 0.7, 1e-8, 1e-2),
    "exponent": Prior(3.0, 0.4, 1.0, 30.0),
    "l2_bandwidth_ratio": Prior(2.0, 0.5, 0.1, 10.0),
}

#: Parameters that describe tiles; the smooth family has none of them.
_TILE_PARAMETERS = {
    "cache_bandwidth_ratio", "tail_overlap", "epilogue_cost", "split_overhead_s", "small_tile_loss",
    "block_overhead_s",
}  # fmt: skip


def priors_of(op_class: str, dtype: str, family: str) -> dict[str, Prior]:
    """Return the priors of the parameters that a class's law has in one kernel family."""
    kind = kind_of_class(op_class)
    if kind == "stream":
        return dict(STREAM)
    if kind == "gemm":
        found = GEMM | (QUANTISING if dtype in QUANTISING_DTYPES else {})
        tiled = bool(GEMM_FAMILIES[family].tiles)
        if GEMM_FAMILIES[family].max_split == 1:
            del found["split_overhead_s"]
    else:
        found = ATTENTION | (DECODE if op_class == "attention_decode" else {})
        tiled = bool(ATTENTION_FAMILIES[family])
    return {name: p for name, p in found.items() if tiled or name not in _TILE_PARAMETERS}


def families_of(op_class: str, dtype: str) -> tuple[str, ...]:
    """Return the kernel families that are tried for a class, the usual one first."""
    kind = kind_of_class(op_class)
    if kind == "stream":
        return ("",)
    if kind == "gemm":
        if dtype in ("w4a16", "w8a16"):
            return ("weight-only", "library", "smooth")
        if dtype in QUANTISING_DTYPES:
            return ("by-rows", "library", "smooth")
        return ("library", "smooth")
    if op_class == "attention_decode":
        return ("split-keys",)
    return ("flash-128", "flash-192", "split-keys")
