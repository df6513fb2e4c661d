"""`vlm-roofline models list|show`, and the summary behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from costmodel.models import config_dict, describe, list_models, load_model
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def test_describe_adds_up():
    for name in list_models():
        summary = describe(name)
        parts = dict(summary["parameters"])
        assert parts.pop("total") == sum(parts.values()) == load_model(name).parameters
        json.dumps(summary)


def test_kv_bytes_by_hand():
    # K and V x 32 layers x 32 heads x 128 x 2 bytes; a quarter of it with 8 KV heads
    assert describe("llava-1.5-7b")["kv_bytes_per_token"] == 2 * 32 * 32 * 128 * 2 == 524_288
    assert describe("llava-next-mistral-7b")["kv_bytes_per_token"] == 524_288 // 4
    assert describe("llava-onevision-7b")["kv_bytes_per_token"] == 2 * 28 * 4 * 128 * 2


def test_list_prints_every_model(capsys):
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    for name in list_models():
        assert name in out
    assert "7,063,427,072" in out


def test_list_json(capsys):
    assert main(["models", "list", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in models] == list(list_models())


def test_show_counts_an_image(capsys):
    assert main(["models", "show", "llava-next-vicuna-7b", "--image-size", "480x640"]) == 0
    out = capsys.readouterr().out
    assert "2,340 tokens from 5 crops" in out
    assert "303,507,456" in out


def test_show_tells_both_counts_of_a_clip(capsys):
    assert main(["models", "show", "video-llava-7b", "--frames", "4"]) == 0
    assert "1,024 tokens from 4 crops (1,028 as transformers runs it)" in capsys.readouterr().out


def test_show_text_model(capsys):
    assert main(["models", "show", "llama-2-7b"]) == 0
    assert "vision tower    none" in capsys.readouterr().out


def test_show_json_is_describe(capsys):
    assert main(["models", "show", "llava-onevision-7b@layers=2", "--frames", "8", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("checkpoint") is None
    assert shown == json.loads(json.dumps(describe("llava-onevision-7b@layers=2", frames=8)))
    assert shown["visual_input"] == {"tokens": 1569, "crops": 8, "projected_tokens": 5832}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "unknown model 'nosuch'"),
        (["./nosuch"], "no such file"),
        (["llava-1.5-7b", "--frames", "8"], "takes images, not frames"),
        (["llava-1.5-7b", "--image-size", "0x0"], "image height must be"),
        (["llava-1.5-7b", "--image-size", "big"], "--image-size 'big' is not HEIGHTxWIDTH"),
        (["video-llava-7b", "--frames", "-1"], "frames must be"),
        (["llama-2-7b@width=1/3"], "not whole"),
    ],
)
def test_bad_input_is_one_line_and_code_2(refused, arguments, says):
    assert says in refused("models", "show", *arguments)


def test_a_checkpoint_shows_what_it_is_stored_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    document = config_dict("llama-2-7b") | {"dtype": "bfloat16"}
    for quantised, shown in (
        (None, "bf16"),
        ({"quant_method": "awq"}, "bf16, quantised by awq"),
        ({"quant_method": "hqq"}, "not priced: "),
    ):
        text = json.dumps(document | {"quantization_config": quantised})
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        assert main(["models", "show", str(tmp_path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["checkpoint"].startswith(shown)
    assert main(["models", "show", "llama-2-7b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] is None
