"""Finding models: names, aliases, scales, hub ids; what is cached, fast and light."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from costmodel.models import ModelConfig, config_dict, list_models, load_model
from costmodel.models import hub as hub_module
from costmodel.models.registry import ALIASES
from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    MissingDependencyError,
    UnknownModelError,
)

SHIPPED = {
    "llava-1.5-7b", "llava-1.5-13b", "llava-next-vicuna-7b", "llava-next-vicuna-13b",
    "llava-next-mistral-7b", "llava-next-video-7b", "video-llava-7b", "llava-onevision-7b",
    "llama-2-7b", "llama-2-13b", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen2.5-vl-32b",
    "qwen2.5-vl-72b", "qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b", "qwen3-vl-32b",
    "qwen3-vl-30b-a3b", "qwen3-vl-235b-a22b",
    "qwen2-vl-2b", "qwen2-vl-7b", "qwen2-vl-72b", "internvl3-2b",
    "internvl3-8b", "internvl3-14b", "internvl3-38b", "internvl3.5-8b",
    "gemma-3-4b", "gemma-3-12b", "gemma-3-27b", "smolvlm2-256m",
    "smolvlm2-500m", "smolvlm2-2.2b", "idefics3-8b",
}  # fmt: skip


def test_all_models_are_shipped():
    assert set(list_models()) == SHIPPED
    assert list(list_models()) == sorted(SHIPPED)


def test_shipped_names_and_their_hub_ids_give_the_same_object():
    assert load_model("llava-1.5-7b") is load_model("llava-1.5-7b")
    for alias, name in ALIASES.items():
        assert load_model(alias) == load_model(name)
    # Every shipped config names the repository it comes from, and that name finds it.
    for name in list_models():
        assert ALIASES[config_dict(name)["_name_or_path"]] == name


def test_a_model_comes_back_as_it_is():
    model = load_model("llava-1.5-7b")
    assert load_model(model) is model
    assert hash(model) == hash(load_model("llava-hf/llava-1.5-7b-hf"))
    assert config_dict(model) == config_dict("llava-1.5-7b")


def test_config_dict_is_a_copy():
    config_dict("llava-1.5-7b")["text_config"].clear()
    assert config_dict("llava-1.5-7b")["text_config"]["vocab_size"] == 32064


def test_shapes():
    onevision = load_model("llava-onevision-7b")
    assert (onevision.text.num_heads, onevision.text.num_kv_heads) == (28, 4)
    assert onevision.text.qkv_bias
    assert (onevision.vision.family, onevision.vision.has_cls) == ("siglip", False)
    assert (onevision.vision.patch_bias, onevision.vision.pre_norm) == (True, False)
    assert onevision.vision.tokens == onevision.vision.selected_tokens == 27 * 27
    llava = load_model("llava-1.5-7b")
    assert (llava.vision.tokens, llava.vision.selected_tokens) == (577, 576)
    assert (llava.vision.feature_layer, llava.vision.feature_layers) == (-2, (-2,))
    assert load_model("video-llava-7b").vision.copies == 2
    assert load_model("llama-2-7b").vision is None


def test_the_deepest_feature_layer_counts():
    from dataclasses import replace

    vision = replace(load_model("llava-1.5-7b").vision, feature_layers=(3, -2, -8))
    assert vision.feature_layer == -2
    assert replace(vision, feature_layers=(24, -2)).feature_layer == 24


@pytest.mark.parametrize("name", ["llava", "LLaVA", "", "gpt-5", "llava 1.5 7b", "a" * 5000, "\0"])
def test_an_unknown_name_is_an_error_with_the_names(name):
    with pytest.raises(UnknownModelError, match="unknown model"):
        load_model(name)


def test_near_matches_are_offered():
    with pytest.raises(UnknownModelError) as caught:
        load_model("llava-1.5-7B-hf")
    assert "llava-1.5-7b" in caught.value.near_matches


@pytest.mark.parametrize(
    "source", ["./nothing", "/no/such/config.json", "nothing.json", "~/no.json"]
)
def test_a_missing_file_is_said_to_be_missing(source):
    with pytest.raises(InvalidFileError, match="no such file"):
        load_model(source)


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(InvalidFileError, match=r"a folder without config\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("source", [None, 7, 1.5, ["llava-1.5-7b"]])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(InvalidInputError, match="a model is a shipped name"):
        load_model(source)


# --- scales ---------------------------------------------------------------------------------


def test_a_scale_keeps_head_dims_vocabulary_and_tokens():
    full, small = load_model("llava-1.5-7b"), load_model("llava-1.5-7b@layers=4,width=1/4")
    assert small.name == "llava-1.5-7b@layers=4,width=1/4"
    assert (small.text.num_layers, small.vision.num_layers) == (4, 4)
    assert (small.text.hidden_size, small.text.intermediate_size) == (1024, 2752)
    assert (small.text.num_heads, small.text.num_kv_heads, small.text.head_dim) == (8, 8, 128)
    assert (small.vision.hidden_size, small.vision.num_heads, small.vision.head_dim) == (256, 4, 64)
    assert small.text.vocab_size == full.text.vocab_size
    assert small.visual_input() == full.visual_input()
    assert small.projector.in_features == 256


def test_layers_are_a_cap():
    model = load_model("llava-1.5-7b", scale="layers=30")
    assert (model.text.num_layers, model.vision.num_layers) == (30, 24)


def test_the_three_ways_to_scale_agree(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_dict("llava-1.5-7b")))
    shipped = load_model("llava-1.5-7b@width=0.25")
    for other in (
        load_model("llava-1.5-7b", scale="width=1/4"),
        load_model(load_model("llava-1.5-7b"), scale="width=1/4"),
        load_model(f"{tmp_path}@width=1/4"),
    ):
        assert (other.text, other.vision) == (shipped.text, shipped.vision)
    assert load_model("llava-1.5-7b@layers=4@width=1/4").text == load_model(
        "llava-1.5-7b@layers=4,width=1/4"
    ).text  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ("width=1/3", "4096/3 of 4096 for the language model's hidden_size"),
        ("width=1/64", "1/2 of 32 for the language model's attention heads"),
        ("width=2", "above 0 and up to 1"),
        ("width=0", "above 0"),
        ("width=1/0", "above 0"),
        ("width=", "above 0"),
        ("width=-1/4", "above 0"),
        ("layers=0", "from 1"),
        ("layers=1.5", "from 1"),
        ("layers=x", "from 1"),
        ("depth=4", "not of the form"),
        ("layers=4,layers=5", "not of the form"),
        ("", "not of the form"),
        (4, "written like"),
    ],
)
def test_a_bad_scale_is_refused(scale, says):
    with pytest.raises(InvalidInputError) as caught:
        load_model("llama-2-7b", scale=scale)
    assert says in str(caught.value)


def test_kv_heads_must_divide_too():
    with pytest.raises(InvalidInputError, match="1/2 of 8 for the language model's KV heads"):
        load_model("llava-next-mistral-7b@width=1/16")


def test_two_scales_are_one_too_many():
    with pytest.raises(InvalidInputError, match="carries a scale already"):
        load_model("llama-2-7b@layers=2", scale="layers=1")


# --- the hub --------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """huggingface_hub with its three calls under the test's control and no network."""
    package = pytest.importorskip("huggingface_hub")
    state = {"cached": None, "reach": None, "download": None, "calls": []}

    class Session:
        def head(self, url, timeout):
            state["calls"].append(("head", url))
            if state["reach"] is not None:
                raise state["reach"]

    def download(repo, filename):
        state["calls"].append((repo, filename))
        if isinstance(state["download"], Exception):
            raise state["download"]
        return state["download"]

    monkeypatch.setattr(package, "try_to_load_from_cache", lambda *_: state["cached"])
    monkeypatch.setattr(package, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    return state


def hub_error(name):
    """An error of huggingface_hub's without going through its HTTP constructors."""
    import huggingface_hub.errors

    kind = getattr(huggingface_hub.errors, name)
    error = kind.__new__(kind)
    error.args = ("refused",)
    return error


def test_a_cached_hub_config_needs_no_network(hub, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_dict("llava-1.5-13b")))
    hub["cached"] = str(path)
    model = load_model("someone/my-llava-13b")
    assert model.parameters == 13_351_494_656
    assert model.source == "huggingface.co/someone/my-llava-13b"
    assert model.name == "someone/my-llava-13b"
    assert hub["calls"] == []


def test_a_hub_config_is_fetched(hub, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_dict("llava-1.5-7b")))
    hub["download"] = str(path)
    assert load_model("someone/my-llava@layers=2").text.num_layers == 2
    assert hub["calls"][-1] == ("someone/my-llava", "config.json")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("RepositoryNotFoundError", "no repository 'a/b'"),
        ("GatedRepoError", "is gated"),
        ("EntryNotFoundError", "has no config.json"),
        ("LocalEntryNotFoundError", "hub cannot be reached"),
        ("HFValidationError", "no repository"),
    ],
)
def test_what_the_hub_refuses_is_said(hub, name, says):
    hub["download"] = hub_error(name)
    with pytest.raises(InvalidInputError) as caught:
        load_model("a/b")
    assert says in str(caught.value)


def test_offline_says_how_to_go_on(hub):
    hub["reach"] = OSError("Name or service not known")
    with pytest.raises(InvalidInputError) as caught:
        load_model("a/b")
    message = str(caught.value)
    assert "not in the local cache" in message
    assert "hf download a/b config.json" in message
    assert hub["download"] is None  # nothing was tried over and over
    assert [call[0] for call in hub["calls"]] == ["head"]


def test_without_huggingface_hub_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="huggingface_hub"):
        hub_module.fetch_config("a/b")


# --- light and fast -------------------------------------------------------------------------


def test_a_shipped_model_imports_nothing_heavy():
    program = (
        "import sys, costmodel.models as m; m.load_model('llava-1.5-7b@layers=2'); "
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'pydantic', 'scipy', 'pyarrow', "
        "'huggingface_hub', 'yaml'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_warm_load_is_a_look_up():
    load_model("llava-1.5-7b")
    best = min(_seconds(lambda: load_model("llava-1.5-7b")) for _ in range(200))
    assert best < 1e-3  # about a microsecond; reading the file takes hundreds


def _seconds(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def test_equal_models_are_one_key():
    first = load_model("llava-1.5-7b")
    again = ModelConfig(**{name: getattr(first, name) for name in first.__dataclass_fields__})
    assert {first: 1}[again] == 1
