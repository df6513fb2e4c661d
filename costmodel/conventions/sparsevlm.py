"""How SparseVLM counts: MACs of a three-matrix FFN over image tokens and about 119 text tokens.

SparseVLM (arXiv 2410.04417), Table 1 of the ICML 2025 version. The paper states no text length; 119
is fitted: it gives the untouched model and the ToMe rows to under 1 %.
"""

from __future__ import annotations

from costmodel.conventions.formula import FormulaRule, formula_convention

CONVENTION = formula_convention(
    "sparsevlm",
    "SparseVLM: MACs, three FFN matrices",
    "SparseVLM (arXiv 2410.04417), Table 1",
    FormulaRule(ffn_matrices=3, operations_per_mac=1, text_lengths=(119,)),
    text="119 text tokens, added to the image tokens (fitted, not stated)",
    printed_as="TFLOPs",
)
