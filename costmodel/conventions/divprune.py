"""How DivPrune counts: MACs of a two-matrix FFN, mean over the prompt lengths of eleven data sets.

DivPrune (arXiv 2503.02175), script `tflops.py` of the repository vbdi/divprune.
"""

from __future__ import annotations

from costmodel.conventions.formula import FormulaRule, formula_convention

#: Mean prompt length of each of the eleven evaluation data sets, in tokens.
TEXT_LENGTHS = (15, 15, 23, 83, 25, 113, 15, 39, 21, 91, 57)

CONVENTION = formula_convention(
    "divprune",
    "DivPrune: MACs, two FFN matrices, eleven prompt lengths",
    "DivPrune (arXiv 2503.02175), repository vbdi/divprune, tflops.py",
    FormulaRule(ffn_matrices=2, operations_per_mac=1, text_lengths=TEXT_LENGTHS),
    text="mean of the counts at eleven prompt lengths (15 to 113, mean 45.2), unless one is given",
    printed_as="TFLOPs",
)
