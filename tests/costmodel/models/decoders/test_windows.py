"""Which layers slide, and how many positions a model was made for: what a config says -> what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmodel import estimate, load_model
from costmodel.models.decoders.windows import read_positions, read_windows
from costmodel.models.reading import Section
from hardware_specs.errors import InvalidFileError

SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip
F, S = "full_attention", "sliding_attention"
SWITCHED = {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True}


def windows_of(tmp_path, **keys: Any) -> tuple[int, ...]:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SHAPE | keys), encoding="utf-8")
    return load_model(file).text.windows


@pytest.mark.parametrize(
    ("keys", "windows"),
    [
        ({"model_type": "mistral"}, (4096,) * 4),  # the class's default
        ({"model_type": "mistral", "sliding_window": None}, (0,) * 4),
        ({"model_type": "mistral", "sliding_window": 16}, (16,) * 4),
        ({"model_type": "mistral", "sliding_window": 1}, (0,) * 4),  # the cache is cut to [-0:]
        # Mistral's class does not know Qwen2's switch.
        ({"model_type": "mistral", "sliding_window": 16, "use_sliding_window": False}, (16,) * 4),
        ({"model_type": "mistral", "sliding_window": 16, "layer_types": [F] * 4}, (0,) * 4),
        ({"model_type": "llama"}, (0,) * 4),
        ({"model_type": "llama", "sliding_window": 16}, (16,) * 4),
        (
            {"model_type": "llama", "sliding_window": 16, "layer_types": [F, S, "attention", S]},
            (0, 16, 0, 16),
        ),
        ({"model_type": "qwen2", "sliding_window": 16}, (0,) * 4),
        (SWITCHED, (0,) * 4),  # from 28 on
        (SWITCHED | {"max_window_layers": 0}, (16,) * 4),
        (SWITCHED | {"max_window_layers": 3}, (0, 0, 0, 16)),
        (SWITCHED | {"max_window_layers": 0, "sliding_window": None}, (0,) * 4),
        (SWITCHED | {"max_window_layers": 4, "layer_types": [S, F, F, S]}, (16, 0, 0, 16)),
    ],
)  # fmt: skip
def test_the_window_of_every_layer(tmp_path, keys, windows) -> None:
    assert windows_of(tmp_path, **keys) == windows


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "llama", "layer_types": [F, S, F, F]}, "no sliding window"),
        (
            {"model_type": "qwen2", "use_sliding_window": False, "layer_types": [S] * 4},
            "no sliding window",
        ),
        ({"model_type": "llama", "layer_types": [F] * 3}, "each of 4 layers"),
        ({"model_type": "llama", "layer_types": "full_attention"}, "each of 4 layers"),
        ({"model_type": "llama", "layer_types": [F, F, F, "linear_attention"]}, "linear_attention"),
        ({"model_type": "llama", "layer_types": [F, F, F, None]}, "has None"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window must be a whole number"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": -1},
            "max_window_layers must be a whole number",
        ),
    ],
)
def test_windows_that_are_none_are_refused(tmp_path, keys, message) -> None:
    with pytest.raises(InvalidFileError, match=message):
        windows_of(tmp_path, **keys)


def test_a_language_model_inside_another_and_a_scaled_one(tmp_path) -> None:
    """A scale keeps the first layers, each of its kind."""
    from costmodel.models import config_dict

    document = config_dict("llava-onevision-7b")
    document["text_config"] |= {
        "use_sliding_window": True,
        "sliding_window": 512,
        "layer_types": [F, F, S, S] * 7,
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    assert load_model(file).text.windows == (0, 0, 512, 512) * 7
    assert load_model(f"{file}@layers=3").text.windows == (0, 0, 512)


def test_only_what_a_class_knows_is_left_to_its_defaults() -> None:
    section = Section({}, "f")
    assert read_windows(section, 2) == (0, 0)
    assert section.used == []


LINEAR, DYNAMIC = {"type": "linear", "factor": 4.0}, {"type": "dynamic", "factor": 2}
YARN, ORIGINAL = {"type": "yarn", "factor": 4}, "original_max_position_embeddings"


@pytest.mark.parametrize(
    ("positions", "factor", "stretched"),
    [
        (16384, 4.0, 16384),  # 4096 trained on to 16,384: LongChat and DeepSeek-Coder
        (32768, 8.0, 32768),
        (8192, 4.0, 8192),
        (4096, 2.0, 4096),  # Llama 1 stretched, or Llama 2 about to be: the lower
        (4096, 2.5, 10240),  # LLaVA-NeXT-Video: nothing was trained on 1638 positions
        (4096, 4.0, 16384),  # Vicuna 1.5 of 16k
        (2048, 1.0, 2048),
    ],
)
def test_linear_scaling_is_not_multiplied_twice(positions, factor, stretched) -> None:
    keys = {"max_position_embeddings": positions, "rope_scaling": LINEAR | {"factor": factor}}
    assert read_positions(Section(keys, "f")) == stretched


@pytest.mark.parametrize(
    ("keys", "positions"),
    [
        ({}, 32768),
        ({"rope_scaling": None}, 32768),
        ({"rope_scaling": LINEAR}, 32768),  # stretched already or not: the lower
        ({"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 1e4}}, 32768),
        ({"rope_scaling": DYNAMIC}, 65536),
        ({"rope_scaling": DYNAMIC | {ORIGINAL: 8}}, 65536),
        ({"rope_scaling": YARN | {ORIGINAL: 32768}}, 131072),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4, ORIGINAL: 8192}}, 32768),
        ({"rope_scaling": YARN}, 131072),
        ({"rope_scaling": {"type": "yarn", ORIGINAL: 4096}}, 32768),
        # Beside the object it comes first.
        ({"rope_scaling": YARN | {ORIGINAL: 32768}, ORIGINAL: 16384}, 65536),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8, ORIGINAL: 8192}}, 32768),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}, ORIGINAL: 4096}, 32768),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, 32768),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 32768),
        # Both names: the older comes first, unless it is empty.
        ({"rope_scaling": DYNAMIC, "rope_parameters": {"rope_type": "default"}}, 65536),
        ({"rope_scaling": {}, "rope_parameters": {"rope_type": "dynamic", "factor": 2}}, 65536),
        # By kind of layer.
        ({"rope_parameters": {S: {"rope_type": "default"}, F: DYNAMIC}}, 65536),
    ],
)
def test_positions(keys, positions) -> None:
    section = Section({"max_position_embeddings": 32768} | keys, "f")
    assert read_positions(section) == positions


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "linear"}, "rope_scaling.factor must be from 1 to 1000, not None"),
        ({"type": "dynamic", "factor": "2"}, "rope_scaling.factor"),
        ({"type": "yarn", "factor": 0.5}, "rope_scaling.factor"),
        (
            {"type": "yarn", "factor": 2, "original_max_position_embeddings": "4k"},
            "rope_scaling.original_max_position_embeddings",
        ),
    ],
)
def test_scalings_that_are_none_are_refused(scaling, message) -> None:
    section = Section({"max_position_embeddings": 32768, "rope_scaling": scaling}, "f")
    with pytest.raises(InvalidFileError, match=message):
        read_positions(section)


def test_warnings_go_by_the_stretched_positions(tmp_path) -> None:
    """16,384 positions that hold their linear scaling, and 32,768 that YaRN makes 131,072."""

    def warnings_of(positions: int, tokens: int, **scaling: Any) -> tuple[str, ...]:
        file = tmp_path / "config.json"
        keys = {"model_type": "llama", "max_position_embeddings": positions}
        file.write_text(json.dumps(SHAPE | keys | scaling), encoding="utf-8")
        cost = estimate(file, "nvidia-h100-sxm5-80gb", text_tokens=tokens)
        plain = SHAPE | {"model_type": "llama", "max_position_embeddings": 10**6}
        file.write_text(json.dumps(plain), encoding="utf-8")
        assert cost.stages == estimate(file, "nvidia-h100-sxm5-80gb", text_tokens=tokens).stages
        return cost.warnings

    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert "16384" in warnings_of(16384, 20000, rope_scaling=LINEAR)[0]
    assert warnings_of(32768, 60000, rope_scaling=yarn) == ()
    assert "131072" in warnings_of(32768, 140_000, rope_parameters=yarn)[0]
