"""Other people's counting, one file each, kept apart from the project's own formulas.

A published "FLOPs" column may hold multiply-accumulates or FLOPs, two FFN matrices or three, image
tokens alone or with text, the vision tower or not; a published "memory" may be traffic. Each
convention here reproduces one paper's or one tool's numbers, its mistakes included and labelled.

    get_convention("shortv").evaluate(model, visual_tokens=576).totals.flops
"""

from __future__ import annotations

from costmodel.conventions.convention import Convention
from costmodel.conventions.decoder import DecoderInput, DecoderShape, TextShape
from costmodel.conventions.registry import get_convention, list_conventions

__all__ = [
    "Convention",
    "DecoderInput",
    "DecoderShape",
    "TextShape",
    "get_convention",
    "list_conventions",
]
