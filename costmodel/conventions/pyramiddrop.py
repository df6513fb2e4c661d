"""How PyramidDrop counts: MACs of a three-matrix FFN over the image tokens alone.

PyramidDrop (arXiv 2410.17247), Tables 3 and 5-7. Four stages of equal depth see n, n*lambda,
n*lambda^2 and n*lambda^3 image tokens, unrounded.
"""

from __future__ import annotations

from costmodel.conventions.formula import FormulaRule, formula_convention

CONVENTION = formula_convention(
    "pyramiddrop",
    "PyramidDrop: MACs, three FFN matrices, image tokens only",
    "PyramidDrop (arXiv 2410.17247), Tables 3 and 5-7",
    FormulaRule(ffn_matrices=3, operations_per_mac=1, text_lengths=()),
    text="not counted, whatever its length",
    printed_as="TFLOPs",
)
