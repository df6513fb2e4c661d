"""Gemma 3: four norms a layer, normed heads, five of six layers slide; modeling_gemma3.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.blocks import Activate
from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, read_gated
from costmodel.models.decoders.windows import FULL, SLIDING
from costmodel.models.reading import Section

if TYPE_CHECKING:
    from costmodel.models.text import TextConfig

_DEFAULTS: dict[str, Any] = {
    **{key: value for key, value in DEFAULTS.items() if key != "hidden_act"},
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
    "final_logit_softcapping": None,
}
#: Every so manieth layer sees all, where a config does not name the kind of each.
_PATTERN = 6


def _read(section: Section, tied: bool | None) -> TextConfig:
    section.defaults = _DEFAULTS
    values = section.values
    if values.get("layer_types") is None:
        layers = section.whole("num_hidden_layers", most=10_000)
        every = values.get("sliding_window_pattern", _PATTERN)
        if type(every) is not int or every < 1:
            raise section.fail(
                "sliding_window_pattern", f"must be a number of layers, not {every!r}"
            )
        kinds = [SLIDING if (layer + 1) % every else FULL for layer in range(layers)]
        values = values | {"layer_types": kinds}
    layered = Section(values, section.file, section.path, _DEFAULTS, section.used)
    text = read_gated(
        layered, "gemma3_text", _DEFAULTS, tied, says_biases=True, activation="hidden_activation",
        qk_norm=True, offset_norms=True, sandwich=True,
    )  # fmt: skip
    if layered.raw("final_logit_softcapping") is None:
        return text
    cap = Activate("softcap", text.vocab_size, "logits", "softcap")
    return replace(text, beyond=(cap,))


DECODER = Decoder("Gemma 3", _DEFAULTS, _read)
