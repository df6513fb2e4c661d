"""What the work of a published row allows: its ideal time, its FLOPs, its memory."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from costmodel.conventions.decoder import text_shape
from costmodel.conventions.formula import FormulaRule, layer_terms
from costmodel.conventions.shortv import frozen_layer_flops
from costmodel.estimates import estimate
from costmodel.models import load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.reproduce.measured_published import Encoder, MeasuredRow
    from costmodel.result import Estimate

#: Ops of a prefill that LLaVA-Mini's pre-fusion layers do not have.
_HEAD = ("final_norm", "lm_head")


def ideal_seconds(row: MeasuredRow, devices: Sequence[str]) -> float:
    """Return the ideal roofline of a row on the fastest device it may have run on.

    Vision tower and projector in full, the language model at the row's mean token count (its work is
    convex in the tokens, so the mean never overstates it), LLaVA-Mini's pre-fusion layers on top.
    """
    return min(
        float(_estimate(row, device).totals.ttft_s) + _prefusion_seconds(row, device)
        for device in devices
    )


def _estimate(row: MeasuredRow, device: str, **asked: Any) -> Estimate:
    """Return the estimate of a language model's row at its mean token count."""
    shape, tokens = _language(row)
    prompt: dict[str, Any] = {"visual_tokens": tokens, "text_tokens": row.text}
    return estimate(
        shape, device, precision=row.precision, **{"calibration": None, **prompt, **asked}
    )


def _prefusion_seconds(row: MeasuredRow, device: str) -> float:
    if not row.prefusion_layers:
        return 0.0
    # Layers of the language model's own size over all visual tokens and the text.
    shape = f"{row.shape}@layers={row.prefusion_layers}"
    ideal: dict[str, Any] = {"precision": row.precision, "calibration": None}
    ops = estimate(shape, device, text_tokens=row.text, **ideal).ops
    return float(sum(op.time_s for op in ops if op.stage == "prefill" and op.name not in _HEAD))


def calibrated_seconds(row: MeasuredRow, devices: Sequence[str]) -> float | None:
    """Return the time of a row by the eager plan under the first shipped calibration of `devices`.

    None without a calibration, and for a language model with layers of its own.
    """
    from costmodel.calibration import list_calibrations

    shipped = next((device for device in devices if device in list_calibrations()), None)
    if shipped is None or row.prefusion_layers or row.frozen_layers:
        return None
    cost = _estimate(row, shipped, execution="hf-eager", calibration=shipped)
    return float(cost.totals.ttft_s)


def prompt_flops(row: MeasuredRow, *, reduced: bool = True) -> float:
    """Return the FLOPs of a prompt: vision tower, projector, language model.

    It is counted as the row is, or unreduced: with all visual tokens in every layer.
    """
    shape, tokens = _language(row)
    full = row.of or 576
    method = row.counted_as if reduced else None
    cost = estimate(
        shape, "nvidia-a100-sxm4-80gb", text_tokens=row.text, method=method,
        visual_tokens=tokens if reduced and method is None else full,
    )  # fmt: skip
    total = float(cost.totals.flops)
    if reduced and row.frozen_layers:
        text = text_shape(load_model(shape))
        d, f = text.hidden_size, text.intermediate_size
        full_layer = sum(layer_terms(FormulaRule(3, 2, ()), full + row.text, d, f))
        total -= row.frozen_layers * float(full_layer - frozen_layer_flops(text, full, row.text))
    return total


def peak_gigabytes(row: MeasuredRow, devices: Sequence[str]) -> float:
    """Return the peak memory in GB on the first device, with attention and all logits written out."""
    cost = _estimate(row, devices[0], execution="hf-eager", attention="eager", logits="all")
    return float(cost.memory.peak_memory_bytes) / 1e9


def _language(row: MeasuredRow) -> tuple[str, int]:
    if row.shape is None or row.tokens is None:
        raise ValueError("a vision encoder's row has no language model")
    return row.shape, math.floor(row.tokens)


@lru_cache(maxsize=64)
def encoder_flops(encoder: Encoder, merged_per_layer: int = 0) -> int:
    """Return the FLOPs of one image through a ViT that merges r tokens between attention and FFN.

    Per layer with t tokens of width c: 2 t (4 c^2) + 4 t^2 c, then 2 (t - r) (8 c^2); the patch
    embedding on top. ToMe merges at most half of the tokens that are not the class token.

    >>> from costmodel.reproduce.measured_published import Encoder
    >>> vit = Encoder(width=768, layers=12, image=224, patch=16)
    >>> round(encoder_flops(vit) / 2e9, 1)  # ViT-B/16 is known as 17.6 GMAC
    17.6
    """
    c, patches = encoder.width, (encoder.image // encoder.patch) ** 2
    tokens = patches + 1
    total = 2 * patches * c * 3 * encoder.patch**2
    for _ in range(encoder.layers):
        total += 8 * tokens * c * c + 4 * tokens * tokens * c
        tokens -= min(merged_per_layer, (tokens - 1) // 2)
        total += 16 * tokens * c * c
    return total
