"""Tiny LLaVA checkpoints in a folder, with tokenizer and processor, as fixtures; they need `make_model`."""

from __future__ import annotations

import pytest
import tokenizers
import transformers

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "USER", "ASSISTANT", ":", "what", "is", "this", "?"]


def image_processor(name, **settings):
    cls = getattr(transformers, name + "Pil", None) or getattr(transformers, name)
    return cls(**settings)


def tokenizer():
    words = {word: number for number, word in enumerate(WORDS)}
    words |= {f"w{number}": number for number in range(len(words), 118)}
    words |= {"<image>": 118, "<video>": 119}
    model = tokenizers.models.WordLevel(words, unk_token="<unk>")  # noqa: S106
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {
        "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "additional_special_tokens": ["<image>", "<video>"],
    }  # fmt: skip
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, make_model):
    folder = tmp_path_factory.mktemp("llava")
    make_model("llava").save_pretrained(folder)
    pictures = image_processor(
        "CLIPImageProcessor", size={"shortest_edge": 168}, crop_size={"height": 168, "width": 168}
    )
    transformers.LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer(), patch_size=7,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>",  # noqa: S106
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tiled_checkpoint(tmp_path_factory, make_model):
    folder = tmp_path_factory.mktemp("next")
    model = make_model("llava-next")
    model.save_pretrained(folder)
    pictures = image_processor(
        "LlavaNextImageProcessor", size={"shortest_edge": 84},
        crop_size={"height": 84, "width": 84},
        image_grid_pinpoints=model.config.image_grid_pinpoints,
    )  # fmt: skip
    transformers.LlavaNextProcessor(
        image_processor=pictures, tokenizer=tokenizer(), patch_size=7,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>",  # noqa: S106
        chat_template="{% for m in messages %}{% for part in m['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %} ASSISTANT :",
    ).save_pretrained(folder)  # fmt: skip
    return folder
