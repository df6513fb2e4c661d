"""Parameters by part, against what transformers builds and against sums done by hand."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from costmodel.models import config_dict, list_models, load_model
from costmodel.models.decoders import DECODERS
from costmodel.models.families import get_family, list_families, read_model
from costmodel.models.towers import TOWERS

#: The start of a parameter's name in `transformers` (either version's layout) -> our part.
PREFIXES = {
    "model.vision_tower.": "vision",
    "model.vision_model.": "vision",
    "model.connector.": "projector",
    "model.text_model.embed_tokens.": "embedding",
    "model.text_model.layers.": "layers",
    "model.text_model.norm.": "final_norm",
    "model.visual.merger.": "projector",
    "model.visual.": "vision",
    "model.image_tower.": "vision",
    "model.video_tower.": "vision",
    "model.multi_modal_projector.": "projector",
    "model.vision_resampler.": "extra",
    "model.image_newline": "extra",
    "model.language_model.embed_tokens.": "embedding",
    "model.language_model.layers.": "layers",
    "model.language_model.norm.": "final_norm",
    "model.embed_tokens.": "embedding",
    "model.layers.": "layers",
    "model.norm.": "final_norm",
    "lm_head.": "lm_head",
}


def built_parts(document: dict) -> dict[str, int]:
    """Build the model on the meta device and add up its parameters by part."""
    import torch
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    values = json.loads(json.dumps(document))
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    mappings = (
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    )
    build = next(mapping[type(config)] for mapping in mappings if type(config) in mapping)
    with torch.device("meta"):
        model = build._from_config(config)
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        part = next(part for prefix, part in PREFIXES.items() if name.startswith(prefix))
        parts[part] += parameter.numel()
    return dict(parts)


def our_parts(model) -> dict[str, int]:
    return {part: count for part, count in model.parameter_parts.items() if count}


@pytest.mark.parametrize("name", list_models())
def test_shipped_models_have_the_parameters_transformers_builds(name):
    assert our_parts(load_model(name)) == built_parts(config_dict(name))


def test_llava_7b_by_hand():
    model = load_model("llava-1.5-7b")
    # c = 1024, f = 4096: 1024 x 588 patches, class token, 577 positions, two norms,
    # 24 x (4 (c c + c) + 2 c f + f + c + 2 x 2 c)
    layer = 4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    assert model.parameter_parts["vision"] == 1024 * (588 + 1 + 577 + 4) + 24 * layer == 303_507_456
    assert model.projector.parameters == 4096 * (1024 + 4096 + 2) == 20_979_712
    # d = 4096, f = 11008: v d, 32 x (4 d d + 3 d f + 2 d), d
    body = 32064 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    assert model.text.body_parameters == body == 6_607_605_760
    assert model.text.head_parameters == 32064 * 4096 == 131_334_144
    assert model.parameters == 7_063_427_072


def test_llava_13b_total():
    assert load_model("llava-1.5-13b").parameters == 13_351_494_656


#: Configs that differ from the shipped ones in one structural thing each.
VARIANTS = {
    "several feature layers": ("llava-1.5-7b", {"vision_feature_layer": [-2, -4, 3]}),
    "no projector bias": ("llava-1.5-7b", {"multimodal_projector_bias": False}),
    "attention and MLP bias": (
        "llava-1.5-7b",
        {"text_config": {"attention_bias": True, "mlp_bias": True}},
    ),
    "SigLIP with its pooling head": (
        "llava-onevision-7b",
        {"vision_config": {"vision_use_head": True}},
    ),
    "tied in the text config": (
        "llava-onevision-7b",
        {"text_config": {"tie_word_embeddings": True}},
    ),
    "tied at the top only": ("llava-next-mistral-7b", {"tie_word_embeddings": True}),
    "tied in a text config that does not decide": (
        "llava-next-vicuna-7b",
        {"text_config": {"tie_word_embeddings": True}},
    ),
    "Video-LLaVA, likewise": ("video-llava-7b", {"text_config": {"tie_word_embeddings": True}}),
    "tied LLaVA": ("llava-1.5-7b", {"text_config": {"tie_word_embeddings": True}}),
    "tied LLaVA-NeXT-Video": (
        "llava-next-video-7b",
        {"text_config": {"tie_word_embeddings": True}},
    ),
    "tied Llama": ("llama-2-7b", {"tie_word_embeddings": True}),
    "pooling by convolution": ("llava-next-video-7b", {"spatial_pool_mode": "conv"}),
    "a head dim of its own": ("llava-next-mistral-7b", {"text_config": {"head_dim": 64}}),
    "mistral in LLaVA": ("llava-1.5-7b", {"text_config": {"model_type": "mistral"}}),
    "Qwen3 in LLaVA": ("llava-1.5-7b", {"text_config": {"model_type": "qwen3"}}),
    "Qwen3 with biases": (
        "internvl3.5-8b",
        {"text_config": {"attention_bias": True}},
    ),
    "Phi-3 in LLaVA": ("llava-1.5-7b", {"text_config": {"model_type": "phi3"}}),
    "Gemma in LLaVA": ("llava-1.5-7b", {"text_config": {"model_type": "gemma"}}),
    "Gemma 3 in InternVL": (
        "internvl3-8b",
        {"text_config": {"model_type": "gemma3_text", "head_dim": 64}},
    ),
    "layers without experts": (
        "qwen3-vl-30b-a3b",
        {"text_config": {"mlp_only_layers": [1], "decoder_sparse_step": 1}},
    ),
    "Qwen3 with experts in InternVL": (
        "internvl3.5-8b",
        {
            "text_config": {
                "model_type": "qwen3_moe",
                "num_experts": 16,
                "moe_intermediate_size": 768,
            }
        },
    ),
    "Mixtral in LLaVA": (
        "llava-1.5-7b",
        {"text_config": {"model_type": "mixtral", "num_local_experts": 4}},
    ),
    "SigLIP in LLaVA": (
        "llava-1.5-7b",
        {
            "vision_config": {"model_type": "siglip_vision_model"},
            "vision_feature_select_strategy": "full",
        },
    ),
    "text defaults of every class": (
        "llava-onevision-7b",
        {"text_config": None, "vision_config": {"vision_use_head": False}},
    ),
}


def merged(document: dict, changes: dict) -> dict:
    """Apply changes to a config, one level deep; None empties a part."""
    result = json.loads(json.dumps(document))
    for key, value in changes.items():
        if value is None:
            result[key] = {}
        elif isinstance(value, dict):
            result[key] = {**result[key], **value}
        else:
            result[key] = value
    return result


@pytest.mark.parametrize("what", VARIANTS)
def test_structural_variants_match_transformers(what):
    name, changes = VARIANTS[what]
    document = merged(config_dict(f"{name}@layers=3"), changes)
    if changes.get("text_config", 0) is None:
        document["text_config"] = {"num_hidden_layers": 2}
    assert our_parts(read_model(document, "config.json", what, "test")) == built_parts(document)


@pytest.mark.parametrize(
    "name",
    [
        "llava-1.5-7b@layers=4,width=1/4",
        "llava-1.5-13b@width=1/2",
        "video-llava-7b@layers=2,width=1/8",
        "llava-onevision-7b@layers=3,width=1/4",
        "llava-next-video-7b@layers=1",
        "llama-2-7b@layers=1,width=1/32",
        "qwen2.5-vl-7b@layers=4,width=1/4",
        "qwen2-vl-2b@layers=2,width=1/2",
        "qwen3-vl-8b@layers=4,width=1/4",
        "internvl3-8b@layers=2,width=1/4",
        "gemma-3-4b@layers=6,width=1/4",
        "smolvlm2-2.2b@layers=2,width=1/4",
    ],
)
def test_reduced_models_match_transformers(name):
    assert our_parts(load_model(name)) == built_parts(config_dict(name))


def test_defaults_are_those_of_transformers_classes():
    """Every default we assume for a silent config is the class's own."""
    from transformers import AutoConfig

    families = {name: get_family(name).defaults for name in list_families()}
    parts = {
        name: kinds.get(name).defaults for kinds in (DECODERS, TOWERS) for name in kinds.names()
    }
    for model_type, ours in {**parts, **families}.items():
        theirs = AutoConfig.for_model(model_type)
        for key, value in ours.items():
            if not hasattr(theirs, key):
                # A key of another class; or, before 5.23, one that only the model's code defaults.
                assert model_type in DECODERS or (key, value) == ("vision_use_head", True)
                continue
            seen = getattr(theirs, key)
            if key in ("num_key_value_heads", "head_dim") and value is None and seen is not None:
                value = {"num_key_value_heads": 32, "head_dim": 128}[key]
            if key == "sliding_window" and ours.get("use_sliding_window") is False:
                assert seen is None  # the class empties it when use_sliding_window is false
                continue
            if key == "image_grid_pinpoints":
                seen = [list(size) for size in seen]
            if isinstance(value, list):
                seen = list(seen)
            assert seen == value, (model_type, key)
