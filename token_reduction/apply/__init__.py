"""Token-reduction methods inside Hugging Face LLaVA models."""

from __future__ import annotations

from token_reduction.apply.record import ReductionRecord
from token_reduction.apply.reduction import reduce_tokens

__all__ = ["ReductionRecord", "reduce_tokens"]
