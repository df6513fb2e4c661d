"""This project's own count beside a published one: the only place where `reproduce` estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmodel.models import ModelConfig

#: The V100 whose 112 TFLOP/s and 900 GB/s LLM-Viewer's table holds, in the size 13B in FP16 needs.
V100 = "nvidia-v100-pcie-32gb"


@dataclass(frozen=True, slots=True)
class OwnCost:
    """One prompt by this project's model, in SI units.

    Attributes:
        flops: vision tower, projector, language model and output head.
        ttft_s: the same, as time to the first token; ideal roofline, a lower bound.
        hbm_bytes: traffic of all stages.
        activation_bytes_written: activations written by all stages.
        peak_memory_bytes: the footprint.
    """

    flops: float
    ttft_s: float
    hbm_bytes: float
    activation_bytes_written: float
    peak_memory_bytes: float


def own_cost(model: str, precision: str, visual_tokens: int, text_tokens: int) -> OwnCost:
    """Estimate a prompt on a V100 with the image encoded in full.

    Args:
        model: a shipped name.
        precision: a precision's name.
        visual_tokens: visual tokens entering the language model; the vision tower and the projector
            see the whole image whatever is kept.
        text_tokens: text tokens.
    """
    from costmodel import estimate

    cost = estimate(
        model,
        V100,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        precision=precision,
        calibration=None,
    )
    return OwnCost(
        float(cost.totals.flops),
        float(cost.totals.ttft_s),
        float(cost.totals.hbm_bytes),
        float(cost.memory.activation_bytes_written),
        float(cost.memory.peak_memory_bytes),
    )


def own_prefill_flops(model: ModelConfig, visual_tokens: int, text_tokens: int) -> int:
    """Return the FLOPs of one prompt, vision tower and projector included."""
    from costmodel import estimate

    cost = estimate(model, V100, visual_tokens=visual_tokens, text_tokens=text_tokens)
    return int(cost.totals.flops)
