"""The models behind published tables: shipped configs, and one shape that is not shipped."""

from __future__ import annotations

from typing import Any

from costmodel.conventions import DecoderShape
from costmodel.models import load_model

#: Qwen-7B, the language model of Qwen-VL-Chat (its config's FFN width 22016 is gate and up), and
#: Qwen2-7B, that of LLaVA-Video.
_UNSHIPPED = {
    "qwen-7b": DecoderShape(4096, 11008, 32, 32, 32, 151936),
    "qwen2-7b": DecoderShape(3584, 18944, 28, 28, 4, 152064),
}


def counted_model(name: str) -> Any:
    """Return the model config of a shipped name, or the bare shape of one that is not shipped.

    >>> counted_model("qwen-7b").num_layers
    32
    """
    return _UNSHIPPED.get(name) or load_model(name)
