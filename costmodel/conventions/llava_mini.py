"""How LLaVA-Mini counts with calflops: language model, projector, and a vision tower without attention.

LLaVA-Mini (arXiv 2501.03895), Tables 6 and 14: 8.55 TFLOPs for LLaVA-1.5-7B, of which 8.177 are the
language model (616 tokens), 0.349 the vision tower and 0.024 the projector. The vision figure is the
patch convolution and the linear layers of all 24 layers; the tower's attention products are missing
from it, while the language model's are counted. The output head is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.conventions.formula import FormulaRule, formula_convention

if TYPE_CHECKING:
    from costmodel.quantities import Num


def encoder_flops(model: Any, batch: Num) -> tuple[Num, Num] | None:
    """Return (vision tower, projector) FLOPs of all crops, or None for a model without vision.

    Vision: 2 p d c s^2 for the patch convolution plus l layers of 2 t (4 d^2 + 2 d f), with p
    patches of s x s x c and t tokens; no attention. Projector: 2 t (i h + h o) over the tokens the
    tower hands on, before any reduction. Each of `batch` sequences has one image (or clip) as the model
    takes it by default.
    """
    vision, projector = getattr(model, "vision", None), getattr(model, "projector", None)
    if vision is None or projector is None:
        return None
    image = model.visual_input()
    d, f = vision.hidden_size, vision.intermediate_size
    convolution = 2 * vision.patches * d * vision.num_channels * vision.patch_size**2
    linear = vision.num_layers * 2 * vision.tokens * (4 * d * d + 2 * d * f)
    weights = projector.hidden_features * (projector.in_features + projector.out_features)
    tower = image.crops * (convolution + linear)
    return batch * tower, batch * 2 * image.projected_tokens * weights


CONVENTION = formula_convention(
    "llava-mini",
    "LLaVA-Mini (calflops): FLOPs, three FFN matrices, vision tower without attention",
    "LLaVA-Mini (arXiv 2501.03895), Tables 6 and 14",
    FormulaRule(ffn_matrices=3, operations_per_mac=2, text_lengths=(40,), encoder=encoder_flops),
    text="40 text tokens, added to the image tokens; the rows of LLaVA-Mini itself fit about 45",
    vision="patch convolution and linear layers of every layer, attention left out; "
    "the projector over all tokens of the tower",
    printed_as="TFLOPs",
)
