"""How FastV counts: MACs of a two-matrix FFN over 36 text and all image tokens, mean over layers.

FastV (arXiv 2403.06764), Table 1, column "FLOPs (B)". The text defines the reduction for n tokens
and n' = (1-R) n after layer K; the table itself keeps 36 text tokens: n = 36 + 576 and
n' = 36 + (1-R) x 576, unrounded, and prints the mean over layers in units of 1e9.
"""

from __future__ import annotations

from costmodel.conventions.formula import FormulaRule, formula_convention

CONVENTION = formula_convention(
    "fastv",
    "FastV: MACs, two FFN matrices",
    "FastV (arXiv 2403.06764), Table 1",
    FormulaRule(ffn_matrices=2, operations_per_mac=1, text_lengths=(36,)),
    text="36 text tokens, added to the image tokens (found by recomputing the table)",
    printed_as="mean over layers: totals.flops / num_layers, in 1e9",
)
