"""How ShortV counts: 2 FLOPs per MAC, a three-matrix FFN, 64 text tokens.

ShortV (arXiv 2504.00502), Tables 1 and 2, where FastV and VTW are counted the same way. A ShortV
layer freezes its visual tokens: they are neither queries nor FFN inputs, but still keys and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions.formula import FormulaRule, formula_convention

if TYPE_CHECKING:
    from costmodel.conventions.decoder import TextShape
    from costmodel.quantities import Num

CONVENTION = formula_convention(
    "shortv",
    "ShortV: FLOPs, three FFN matrices",
    "ShortV (arXiv 2504.00502), Tables 1 and 2",
    FormulaRule(ffn_matrices=3, operations_per_mac=2, text_lengths=(64,)),
    text="64 text tokens, added to the image tokens",
    printed_as="TFLOPs",
)


def frozen_layer_flops(shape: TextShape, visual_tokens: Num, text_tokens: Num) -> Num:
    """Return the FLOPs of one layer whose visual tokens are frozen.

    With t text and v visual tokens: 2 t (4 d^2 + 3 d f) for the text, 2 v (2 d^2) for the keys and
    values of the visual tokens, 4 t (t + v) d for text queries over all keys. This reading of the
    method reproduces every ShortV cell of Tables 1 and 2 to the printed digit.

    >>> from costmodel.conventions.decoder import DecoderShape
    >>> frozen_layer_flops(DecoderShape(4, 8, 1, 1, 1, 10), 3, 2)  # 2*2*160 + 2*3*32 + 4*2*5*4
    992
    """
    d, f, t, v = shape.hidden_size, shape.intermediate_size, text_tokens, visual_tokens
    return 2 * t * (4 * d * d + 3 * d * f) + 4 * v * d * d + 4 * t * (t + v) * d
