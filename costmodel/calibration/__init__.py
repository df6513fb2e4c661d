"""Calibrations: achieved efficiencies fitted from measured ops, and the times that they predict.

    Calibration.load("nvidia-a100-sxm4-80gb").op_time_s("gemm", dtype="bf16", m=576, n=4096, k=4096)
    Calibration.load("generic", hardware=get_hardware("nvidia-l40s"))
    fit_calibration("gemm.parquet", "nvidia-a100-sxm4-80gb").save("a100.json")

Predicting needs numpy alone; fitting scipy and pandas, imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.calibration.calibration import Calibration, best_calibration
from costmodel.calibration.classes import OP_CLASSES
from costmodel.calibration.file import list_calibrations
from costmodel.calibration.parameters import ClassParameters, HeldOut, Parameter, ShapeCurve
from hardware_specs.lazily import public

if TYPE_CHECKING:
    from costmodel.calibration.fitting import fit_calibration

__all__ = [
    "OP_CLASSES",
    "Calibration",
    "ClassParameters",
    "HeldOut",
    "Parameter",
    "ShapeCurve",
    "best_calibration",
    "fit_calibration",
    "list_calibrations",
]

__getattr__, __dir__ = public(__name__, {"fitting": "fit_calibration"})
