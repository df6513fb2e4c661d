"""This project's own count beside a published one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.estimates import estimate

if TYPE_CHECKING:
    from costmodel.result import Estimate

#: The V100 whose 112 TFLOP/s and 900 GB/s LLM-Viewer's table holds, in the size 13B in FP16 needs.
V100 = "nvidia-v100-pcie-32gb"


def own_cost(model: Any, precision: str, visual_tokens: int, text_tokens: int) -> Estimate:
    """Estimate a prompt on a V100, on the ideal roofline.

    The vision tower and the projector see the whole image, however few of its tokens enter the language
    model.
    """
    return estimate(
        model, V100, visual_tokens=visual_tokens, text_tokens=text_tokens, precision=precision,
        calibration=None,
    )  # fmt: skip
