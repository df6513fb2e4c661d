"""`vlm-roofline generate` on tiny checkpoints of the families that merge patches, with their processors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from merging_families import tiny_model
from PIL import Image

from vlm_roofline.cli import main

_WORDS = ("<pad>", "<s>", "</s>", "<unk>", "what", "is", "this", "?", "ASSISTANT", ":")
_QWEN = {
    120: "<|image_pad|>", 121: "<|video_pad|>", 122: "<|vision_start|>", 123: "<|vision_end|>",
}  # fmt: skip
_CROPS = {120: "<IMG_CONTEXT>", 121: "<img>", 122: "</img>", 123: "<video>"}
_SOFT = {120: "<image_soft_token>", 122: "<start_of_image>", 123: "<end_of_image>"}
_TILES = {
    120: "<image>",
    121: "<fake_token_around_image>",
    122: "<global-img>",
    123: "<end_of_utterance>",
}
#: Family -> processor, image processor with settings, special tokens, an image in a chat.
PROCESSORS: dict[str, tuple[str, str, dict[str, Any], dict[int, str], str]] = {
    kind: (
        name, "Qwen2VLImageProcessor",
        {"patch_size": 4, "merge_size": 2, "size": {"shortest_edge": 64, "longest_edge": 1024}},
        _QWEN, "<|vision_start|><|image_pad|><|vision_end|>",
    )
    for kind, name in (
        ("qwen2_vl", "Qwen2VLProcessor"), ("qwen2_5_vl", "Qwen2_5_VLProcessor"),
        ("qwen3_vl", "Qwen3VLProcessor"), ("qwen3_vl_moe", "Qwen3VLProcessor"),
    )
} | {
    "internvl": (
        "InternVLProcessor", "GotOcr2ImageProcessor", {"size": {"height": 32, "width": 32}},
        _CROPS, "<IMG_CONTEXT>",
    ),
    "gemma3": (
        "Gemma3Processor", "Gemma3ImageProcessor", {"size": {"height": 32, "width": 32}},
        _SOFT, "<start_of_image>",
    ),
} | {
    kind: (
        f"{name}Processor", f"{name}ImageProcessor",
        {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}, _TILES, "<image>",
    )
    for kind, name in (("idefics3", "Idefics3"), ("smolvlm", "SmolVLM"))
}  # fmt: skip


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("picture") / "seen.png"
    noise = np.random.default_rng(0).integers(60, 255, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def _tokenizer(special: dict[int, str]) -> Any:
    words = {word: number for number, word in enumerate(_WORDS)}
    words |= {f"w{number}": number for number in range(len(words), 120)}
    words |= {word: number for number, word in special.items()}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = {
        "<IMG_CONTEXT>": "context_image_token", "<img>": "start_image_token",
        "</img>": "end_image_token", "<video>": "video_token",
        "<image_soft_token>": "image_token", "<start_of_image>": "boi_token",
        "<end_of_image>": "eoi_token",
    }  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        extra_special_tokens={names.get(word, f"token_{n}"): word for n, word in special.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    kind = request.param
    name, pictures, settings, special, image = PROCESSORS[kind]
    if hasattr(transformers.AutoImageProcessor, "_backends"):  # what stands in for what cannot run
        pytest.skip("this release of transformers reads no picture without torchvision")
    folder = tmp_path_factory.mktemp(kind)
    tiny_model(kind).save_pretrained(folder)
    built = getattr(transformers, f"{pictures}Pil", None) or getattr(transformers, pictures)
    built(**settings).save_pretrained(folder)
    _tokenizer(special).save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": name, "image_seq_len": 16, "image_seq_length": 16})
    )
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}" + image
        + "{% else %} {{ part['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT :"
    )  # fmt: skip
    return str(folder)


@pytest.mark.parametrize("checkpoint", PROCESSORS, indirect=True)
def test_every_family_answers(checkpoint: str, picture: str, capsys, monkeypatch) -> None:
    # SmolVLM's processor asks for a package that spells the frames of clips.
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)
    for method in ("divprune", "fastv"):
        line = ["generate", checkpoint, "--image", picture, "--prompt", "what is this ?", "--json"]
        line += ["--method", method, "--keep", "0.5", "--max-new-tokens", "3", "--device", "cpu"]
        assert main(line) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["visual_tokens_after"] < answer["visual_tokens_before"]
        assert {"vision", "prefill", "decode"} <= {k for k, v in answer["times_s"].items() if v}
