"""Precision: what weights, activations and the KV cache are stored in, and what computes.

Storage and arithmetic are separate. `numerics` says how one module stores and computes, `names` what a
precision's name stands for, `formats` what each named format keeps beside its weights, `checkpoint` what a
config.json says of its own weights, `fitted` what a device makes of them, and `resolving` what is priced.
"""

from costmodel.precision.names import GROUP_SIZE, SCALE_BYTES, list_precisions, parse_precision
from costmodel.precision.numerics import MODULES, Numerics, Precision, Scale

__all__ = [
    "GROUP_SIZE",
    "MODULES",
    "SCALE_BYTES",
    "Numerics",
    "Precision",
    "Scale",
    "list_precisions",
    "parse_precision",
]
