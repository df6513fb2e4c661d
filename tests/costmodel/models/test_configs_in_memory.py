"""Configs in memory: of transformers, of a live model, as a dictionary; and LLaVA's own format."""

from __future__ import annotations

import json

import pytest
import torch

from costmodel import estimate, load_model, sweep
from costmodel.models import config_dict
from hardware_specs.errors import InvalidFileError, InvalidInputError

A100 = "nvidia-a100-sxm4-80gb"
ORIGINAL = {
    "_name_or_path": "liuhaotian/llava-v1.5-7b", "model_type": "llava_llama", "hidden_size": 4096,
    "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "torch_dtype": "float16", "image_aspect_ratio": "pad",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 1024, "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
}  # fmt: skip


def test_config_model_and_dictionary_are_the_same() -> None:
    import transformers

    config = transformers.AutoConfig.for_model(**config_dict("llava-1.5-7b"))
    with torch.device("meta"):
        live = transformers.AutoModelForImageTextToText.from_config(config)
    flops = estimate("llava-1.5-7b", A100).totals.flops
    for source in (config, live, config_dict("llava-1.5-7b"), config.text_config):
        assert load_model(source).text.num_layers == 32
    for source in (config, live, config_dict("llava-1.5-7b")):
        cost = estimate(source, A100)
        assert cost.totals.flops == flops
        assert len(cost.inputs["model"]) < 60
    assert sweep([config, live], A100)["flops"].tolist() == [flops] * 2


def test_llavas_own_format(tmp_path) -> None:
    """The conversion has 64 rows more in embedding and head: 2 x 64 x 4096 parameters."""
    model = load_model(ORIGINAL)
    assert model.parameters == load_model("llava-1.5-7b").parameters - 2 * 64 * 4096
    assert estimate(ORIGINAL, A100).inputs["precision"] == "fp16"
    assert model.default_visual_tokens == 576
    tiles = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[336, 672], [672, 672]]}
    assert load_model(ORIGINAL | tiles).visual_input(image_size=(672, 672)).crops == 5
    (tmp_path / "config.json").write_text(json.dumps(ORIGINAL))
    assert (
        load_model(f"{tmp_path}@layers=2").parameters
        == load_model(model, scale="layers=2").parameters
    )


@pytest.mark.parametrize(("key", "value"), [
    ("mm_vision_tower", "eva02"), ("mm_projector_type", "resampler"), ("model_type", "llava_phi"),
    ("image_aspect_ratio", "anyres_max_9"), ("mm_patch_merge_type", "flat"),
    ("mm_hidden_size", 7),
])  # fmt: skip
def test_other_forks_are_named(key: str, value: object) -> None:
    with pytest.raises(InvalidFileError, match=rf"{key} is {value!r}") as caught:
        load_model(ORIGINAL | {"image_aspect_ratio": "anyres", key: value})
    assert len(str(caught.value)) < 250


def test_no_error_dumps_a_config() -> None:
    import transformers

    config = transformers.AutoConfig.for_model("gpt2")
    with pytest.raises(InvalidFileError) as caught:
        estimate(config, A100)
    assert "n_embd" not in str(caught.value)
    for other in (3, [config], object()):
        with pytest.raises(InvalidInputError) as refused:
            estimate(other, A100)
        assert len(str(refused.value)) < 250
