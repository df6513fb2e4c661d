"""Reading configs: broken, foreign and impossible ones fail with one line that says where and why."""

from __future__ import annotations

import copy
import json
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.models import ModelConfig, config_dict, list_models, load_model
from costmodel.models.families import read_model
from hardware_specs.errors import InvalidFileError, VlmRooflineError


def write(folder, document, name="config.json"):
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def changed(name: str, path: str, value) -> dict:
    """A shipped config with one key replaced; `...` removes it."""
    document = config_dict(name)
    *outer, last = path.split(".")
    target = reduce(dict.__getitem__, outer, document)
    if value is ...:
        target.pop(last)
    else:
        target[last] = value
    return document


#: (shipped config, key, bad value, what the message must say beside file and key).
BAD = [
    ("llava-1.5-7b", "model_type", "pixtral_vl", "'pixtral_vl'"),
    ("llava-1.5-7b", "model_type", ..., "is missing"),
    ("llava-1.5-7b", "model_type", None, "must be a string, not null"),
    ("llava-1.5-7b", "model_type", ["llava"], "must be a string"),
    ("llava-1.5-7b", "text_config", ..., "is missing"),
    ("llava-1.5-7b", "text_config", None, "is null"),
    ("llava-1.5-7b", "vision_config", [1], "must be an object"),
    ("llava-1.5-7b", "text_config.model_type", "falcon", "'falcon'"),
    ("llava-1.5-7b", "vision_config.model_type", "pixtral", "'pixtral'"),
    ("llava-1.5-7b", "text_config.hidden_size", 0, "not 0"),
    ("llava-1.5-7b", "text_config.hidden_size", -4096, "not -4096"),
    ("llava-1.5-7b", "text_config.hidden_size", "4096", 'not "4096"'),
    ("llava-1.5-7b", "text_config.hidden_size", None, "not null"),
    ("llava-1.5-7b", "text_config.hidden_size", True, "not true"),
    ("llava-1.5-7b", "text_config.hidden_size", 4096.0, "not 4096.0"),
    ("llava-1.5-7b", "text_config.hidden_size", 10**12, "whole number"),
    ("llava-1.5-7b", "text_config.num_hidden_layers", 10**6, "whole number"),
    ("llava-1.5-7b", "text_config.num_attention_heads", 33, "(33) does not divide hidden_size"),
    ("llava-1.5-7b", "text_config.num_key_value_heads", 5, "(5) does not divide"),
    ("llava-1.5-7b", "text_config.rms_norm_eps", "tiny", 'not "tiny"'),
    ("llava-1.5-7b", "text_config.rms_norm_eps", -1.0, "at least 0"),
    ("llava-1.5-7b", "vision_config.num_attention_heads", 7, "does not divide hidden_size"),
    ("llava-1.5-7b", "vision_config.patch_size", 400, "larger than image_size"),
    ("llava-1.5-7b", "vision_config.image_size", [336, 336], "whole number"),
    ("llava-1.5-7b", "vision_feature_layer", 25, "layer from -25 to 24"),
    ("llava-1.5-7b", "vision_feature_layer", "last", "layer from -25 to 24"),
    ("llava-1.5-7b", "vision_feature_layer", [], "layer from -25 to 24"),
    ("llava-1.5-7b", "vision_feature_layer", [True], "layer from -25 to 24"),
    ("llava-1.5-7b", "vision_feature_select_strategy", "cls", "knows default, full"),
    ("llava-1.5-7b", "multimodal_projector_bias", "yes", "true or false"),
    ("llava-next-vicuna-7b", "image_grid_pinpoints", [[336]], "height, width"),
    ("llava-next-vicuna-7b", "image_grid_pinpoints", [], "list of"),
    ("llava-next-vicuna-7b", "image_grid_pinpoints", [[336, 500]], "multiples of image_size 336"),
    ("llava-next-vicuna-7b", "vision_feature_select_strategy", "full", "no grid of tiles"),
    ("llava-onevision-7b", "vision_aspect_ratio", "square", "anyres_max_9"),
    ("llava-next-video-7b", "spatial_pool_mode", "median", "knows average, max, conv"),
    ("llava-next-video-7b", "spatial_pool_stride", 0, "from 1 to 24"),
    ("llava-next-video-7b", "text_config.rope_scaling", {"type": "linear"}, "from 1 to 1000"),
    ("llama-2-7b", "vocab_size", ..., "is missing"),
    ("llama-2-7b", "num_hidden_layers", 0, "not 0"),
]


@pytest.mark.parametrize(("name", "key", "value", "says"), BAD)
def test_an_impossible_value_is_named(tmp_path, name, key, value, says):
    path = write(tmp_path, changed(name, key, value))
    with pytest.raises(InvalidFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {key}")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1, 2]", "a list where a JSON object must be"),
        ("12", "12 where a JSON object must be"),
        ("[" * 100_000, "levels deep"),
        ('{"model_type": ' + "9" * 5000 + "}", "digits"),
        (
            '{"model_type": "llava", "mm_vision_tower": "openai/clip"}',
            "mm_vision_tower is 'openai/clip'",
        ),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(InvalidFileError, match=r"config\.json") as caught:
        load_model(str(path))
    assert says in str(caught.value)


def test_binary_huge_and_special_files_are_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(InvalidFileError, match="no UTF-8 text"):
        load_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(1 << 30)  # sparse: takes no room
    with pytest.raises(InvalidFileError, match="larger than any model config"):
        load_model(weights)
    with pytest.raises(InvalidFileError, match="not a regular file"):
        load_model("/dev/zero")


def test_a_folder_and_a_file_give_the_shipped_model(tmp_path):
    write(tmp_path, config_dict("llava-1.5-7b"))
    shipped = load_model("llava-1.5-7b")
    for source in (tmp_path, str(tmp_path), tmp_path / "config.json"):
        model = load_model(source)
        assert (model.text, model.vision, model.projector) == (
            shipped.text, shipped.vision, shipped.projector)  # fmt: skip
        assert model.source == str(tmp_path / "config.json")
        assert config_dict(source) == config_dict("llava-1.5-7b")


def test_what_comes_from_defaults_is_recorded():
    used = load_model("llava-1.5-7b").from_defaults
    # The hub's config names neither the width nor the layers of Vicuna-7B.
    assert {"text_config.hidden_size", "text_config.num_hidden_layers"} <= set(used)
    assert "text_config.vocab_size" not in used
    assert "text_config.hidden_size" not in load_model("llava-1.5-13b").from_defaults


def test_sliding_windows_are_told():
    document = changed("llava-next-mistral-7b", "text_config.sliding_window", 4096)
    assert read_model(document, "f", "n", "s").text.sliding_window == 4096
    assert load_model("llava-next-mistral-7b").text.sliding_window is None  # null in v0.2
    assert load_model("llava-onevision-7b").text.sliding_window is None


def test_rotary_scaling_stretches_the_positions():
    assert load_model("llava-1.5-7b").text.max_positions == 4096
    assert load_model("llava-next-video-7b").text.max_positions == 10_240  # 4096 x 2.5


def test_every_shipped_config_says_where_it_comes_from():
    for name in list_models():
        assert load_model(name).source.startswith("huggingface.co/")


junk = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.integers(-5, 5), max_size=3), st.just({}), st.just(...),
)  # fmt: skip


def paths_of(document: dict) -> list[str]:
    found = []
    for key, value in document.items():
        found.append(key)
        if isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in value]
    return found


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_gives_a_model_or_one_clear_error(data):
    name = data.draw(st.sampled_from(list_models()))
    document = copy.deepcopy(config_dict(name))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths_of(document)))
        *outer, last = path.split(".")
        target = reduce(dict.__getitem__, outer, document)
        value = data.draw(junk)
        if value is ...:
            target.pop(last)
        else:
            target[last] = value
        if not document:
            break
    try:
        model = read_model(document, "config.json", name, "test")
    except VlmRooflineError as error:
        assert str(error).startswith("config.json: ")
        assert "\n" not in str(error)
    else:
        assert isinstance(model, ModelConfig)
        assert model.parameters > 0
        assert model.visual_input().tokens >= 0
