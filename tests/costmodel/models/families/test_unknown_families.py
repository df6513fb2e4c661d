"""Configs of families that are not among those here: one line each, which says what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.models.families import read_model
from hardware_specs.errors import InvalidFileError

REMOTE = "code in the checkpoint's own repository"
FAMILY = "what is missing is a family that says its tokens and its bridge"
#: What each is like -> the config, what its refusal says, and what it does not.
UNKNOWN: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "LLaVA-OneVision-1.5": (
        {"model_type": "llavaonevision1_5", "auto_map": {"AutoConfig": "x.LlavaConfig"},
         "vision_config": {"model_type": "rice_vit"}, "text_config": {"model_type": "qwen3"}},
        (REMOTE, "vision_config is 'rice_vit'", FAMILY), ("text_config is",),
    ),
    "InternVL as first published": (
        {"model_type": "internvl_chat", "auto_map": {"AutoModel": "m.InternVLChatModel"},
         "vision_config": {"model_type": "intern_vit_6b"}, "llm_config": {"model_type": "qwen2"}},
        (REMOTE, "vision_config is 'intern_vit_6b'", FAMILY), ("llm_config is",),
    ),
    "latent attention": (
        {"model_type": "kimi_vl", "auto_map": {}, "vision_config": {"model_type": "moonvit"},
         "text_config": {"model_type": "deepseek_v3"}},
        ("'moonvit'", "text_config is 'deepseek_v3'", FAMILY), (REMOTE,),
    ),
    "cross attention": (
        {"model_type": "mllama", "vision_config": {"model_type": "mllama_vision_model"},
         "text_config": {"model_type": "mllama_text_model"}},
        ("'mllama_vision_model'", "'mllama_text_model'", FAMILY), (REMOTE,),
    ),
    "known parts, joined in a way of their own": (
        {"model_type": "paligemma", "vision_config": {"model_type": "siglip_vision_model"},
         "text_config": {"model_type": "gemma"}},
        (FAMILY,), ("of which there are no blocks", REMOTE),
    ),
    "sound": (
        {"model_type": "gemma3n", "audio_config": {"model_type": "gemma3n_audio"},
         "vision_config": {"model_type": "siglip_vision_model"},
         "text_config": {"model_type": "gemma3_text"}},
        ("audio_config describes a part that no family here has", FAMILY), ("vision_config is",),
    ),
    "linear attention": (
        {"model_type": "qwen3_5", "vision_config": {"model_type": "qwen3_5_vision"},
         "text_config": {"model_type": "qwen3_5_text"}},
        ("'qwen3_5_vision'", "'qwen3_5_text'", FAMILY), (REMOTE,),
    ),
    "a language model alone": (
        {"model_type": "gpt_neox", "hidden_size": 64, "quantization_config": {"bits": 4}},
        ("what is missing is a decoder",), (FAMILY, "quantization_config"),
    ),
    "a family here with another tower": (
        {"model_type": "llava", "vision_config": {"model_type": "convnext"},
         "text_config": {"model_type": "llama"}},
        ("vision_config.model_type is 'convnext'; this project knows clip_vision_model",), (),
    ),
    "a family here with another decoder": (
        {"model_type": "qwen2_5_vl", "text_config": {"model_type": "mamba"},
         "vision_config": {"model_type": "qwen2_5_vl_vision"}},
        ("text_config.model_type is 'mamba'; this project knows", "qwen2_5_vl_text"), (),
    ),
    "no kind at all": ({"vision_config": {}}, ("model_type is missing", "knows llava"), ()),
    "a hundred parts with long names": (
        {"model_type": "x", **{f"{'p' * 300}{n}_config": {"a": 1} for n in range(100)}},
        ("describes a part", FAMILY), (REMOTE,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNKNOWN)
def test_one_line_says_what_is_missing(what: str) -> None:
    config, told, untold = UNKNOWN[what]
    with pytest.raises(InvalidFileError) as refused:
        read_model(config, "config.json", what, "here")
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) < 1000
    assert said.startswith("config.json: ")
    assert all(each in said for each in told), said
    assert not any(each in said for each in untold), said
