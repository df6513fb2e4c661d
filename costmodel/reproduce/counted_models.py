"""The models behind published tables: shipped configs, and one shape that is not shipped."""

from __future__ import annotations

from typing import Any

from costmodel.conventions import DecoderShape
from costmodel.models import load_model

#: Qwen-7B, the language model of Qwen-VL-Chat (its config's FFN width 22016 is gate and up), and
#: those of LLaVA-Video (Qwen2-7B), LLaVA-OneVision-0.5B, InternVL2-8B and LLaVA-Llama-3.
_UNSHIPPED = {
    "qwen-7b": DecoderShape(4096, 11008, 32, 32, 32, 151936),
    "qwen2-7b": DecoderShape(3584, 18944, 28, 28, 4, 152064),
    "qwen2-0.5b": DecoderShape(896, 4864, 24, 14, 2, 151936),
    "internlm2.5-7b": DecoderShape(4096, 14336, 32, 32, 8, 92553),
    "llama-3-8b": DecoderShape(4096, 14336, 32, 32, 8, 128256),
}


def counted_model(name: str) -> Any:
    """Return the model config of a shipped name, or the bare shape of one that is not shipped.

    >>> counted_model("qwen-7b").num_layers
    32
    """
    return _UNSHIPPED.get(name) or load_model(name)
