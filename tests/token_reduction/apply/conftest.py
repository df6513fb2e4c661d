"""Tiny random models of each family, prompts for them, and what a run is compared with."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass

import pytest
import torch
import transformers
from hand_written import Hand, TowerView
from tiny_checkpoints import checkpoint, tiled_checkpoint  # noqa: F401 - fixtures

from token_reduction import reduce_tokens

IMAGE, VIDEO, VOCABULARY = 118, 119, 120
#: Tokens generated.
NEW = 4


def clip(size, patch=7, layers=4):
    return transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        image_size=size, patch_size=patch, projection_dim=16,
    )  # fmt: skip


def llama(kv_heads=4):
    return transformers.LlamaConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=kv_heads, vocab_size=VOCABULARY, max_position_embeddings=8192,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def qwen():
    return transformers.Qwen2Config(
        hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=8192,
        pad_token_id=0, eos_token_id=2,
    )  # fmt: skip


def build(cls, config, attention="sdpa"):
    """A model whose weights are large enough for its answers to depend on its input."""
    model = cls._from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5 if "embed" in name else 0.2, generator=generator)
            elif name.endswith(("bias", "class_embedding", "image_newline")):
                weight.normal_(0, 0.1, generator=generator)
    model.requires_grad_(False)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def make_llava(attention="sdpa"):
    config = transformers.LlavaConfig(
        vision_config=clip(168), text_config=llama(), image_token_index=IMAGE, image_seq_length=576
    )
    return build(transformers.LlavaForConditionalGeneration, config, attention)


def make_next(attention="sdpa"):
    config = transformers.LlavaNextConfig(
        vision_config=clip(84), text_config=llama(kv_heads=2), image_token_index=IMAGE,
        image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]], image_seq_length=144,
    )  # fmt: skip
    return build(transformers.LlavaNextForConditionalGeneration, config, attention)


def make_next_video(attention="sdpa"):
    config = transformers.LlavaNextVideoConfig(
        vision_config=clip(84), text_config=llama(kv_heads=2), image_token_index=IMAGE,
        video_token_index=VIDEO, image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]],
        image_seq_length=144, video_seq_length=108,
    )  # fmt: skip
    return build(transformers.LlavaNextVideoForConditionalGeneration, config, attention)


def make_video(attention="sdpa"):
    config = transformers.VideoLlavaConfig(
        vision_config=clip(84), text_config=llama(), image_token_index=IMAGE,
        video_token_index=VIDEO, image_seq_length=144, video_seq_length=435,
    )  # fmt: skip
    return build(transformers.VideoLlavaForConditionalGeneration, config, attention)


def make_onevision(attention="sdpa"):
    tower = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        image_size=63, patch_size=7, vision_use_head=False,
    )  # fmt: skip
    config = transformers.LlavaOnevisionConfig(
        vision_config=tower, text_config=qwen(), image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=[[63, 126], [126, 63], [126, 126]], vision_feature_layer=-1,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    return build(transformers.LlavaOnevisionForConditionalGeneration, config, attention)


MAKERS = {
    "llava": make_llava, "llava-next": make_next, "video-llava": make_video,
    "llava-next-video": make_next_video,
    "llava-onevision": make_onevision,
}  # fmt: skip


@pytest.fixture(scope="session")
def models():
    """family -> its model, built when first asked for."""
    built = {}

    class Models:
        def __getitem__(self, family):
            if family not in built:
                built[family] = MAKERS[family]()
            return built[family]

    return Models()


@pytest.fixture(scope="session")
def llava(models):
    return models["llava"]


@pytest.fixture(scope="session")
def make_model():
    return lambda family, attention="sdpa": MAKERS[family](attention)


def ids_around(count, placeholder, *, before=4, after=5, seed=0):
    """One prompt: text, placeholders, text."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(3, 100, (before + after,), generator=generator)
    middle = torch.full((count,), placeholder)
    return torch.cat((text[:before], middle, text[before:])).unsqueeze(0)


def picture(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Case:
    """One prompt of a family: what the model is given, and how many visual tokens that makes."""

    family: str
    inputs: dict
    visual: int

    @property
    def start(self):
        ids = self.inputs["input_ids"][0]
        return int(((ids == IMAGE) | (ids == VIDEO)).nonzero()[0])

    def rows(self, length, visual, left=None):
        """Rows of a sequence with `left` visual tokens, by default all: its text, and these of them."""
        image = range(self.start, self.start + (self.visual if left is None else left))
        text = [i for i in range(length) if i not in image]
        return sorted([*text, *(self.start + int(v) for v in visual)])


def make_case(model, kind, seed=0):
    """A prompt with one image or video: llava, llava-next, video-llava, ..., or ...:video."""
    family, _, modality = kind.partition(":")
    if family == "llava":
        pixels, count, mark = {"pixel_values": picture(1, 3, 168, 168, seed=seed)}, 576, IMAGE
    elif modality:
        # Three frames: of 12 x 12 patches and a class token; pooled to 6 x 6; or pooled from 9 x 9 to
        # 5 x 5, and the newline token.
        side, count = {"video-llava": (84, 435), "llava-next-video": (84, 108)}.get(
            family, (63, 76)
        )
        pixels = {"pixel_values_videos": picture(1, 3, 3, side, side, seed=seed)}
        mark = VIDEO
    elif family == "video-llava":
        names = inspect.signature(model.forward).parameters
        name = "pixel_values" if "pixel_values" in names else "pixel_values_images"
        pixels, count, mark = {name: picture(1, 3, 84, 84, seed=seed)}, 144, IMAGE
    else:
        tiles_of_84 = family.startswith("llava-next")
        side, size = (84, (100, 160)) if tiles_of_84 else (63, (100, 120))
        pixels = {
            "pixel_values": picture(1, 5, 3, side, side, seed=seed),
            "image_sizes": torch.tensor([size]),
        }
        found = model.model.get_image_features(**pixels, return_dict=True).pooler_output
        count, mark = len(found[0]), IMAGE
    return Case(family, {"input_ids": ids_around(count, mark, seed=seed), **pixels}, count)


KINDS = (
    "llava", "llava-next", "video-llava", "video-llava:video", "llava-onevision",
    "llava-onevision:video",
)  # fmt: skip


@pytest.fixture(scope="session")
def cases(models):
    """kind -> its prompt."""
    built = {}

    class Cases:
        def __getitem__(self, kind):
            if kind not in built:
                with torch.no_grad():
                    built[kind] = make_case(models[kind.partition(":")[0]], kind)
            return built[kind]

    return Cases()


@pytest.fixture(scope="session")
def new_case():
    return make_case


@pytest.fixture(scope="session")
def hand():
    return Hand


@pytest.fixture(scope="session")
def sequence():
    """Embeddings of a case with given visual tokens in the place of its placeholders."""

    def make(model, case, visual):
        ids = case.inputs["input_ids"][0]
        h = Hand(model)
        return torch.cat(
            (h.embed(ids[: case.start]), visual.double(), h.embed(ids[case.start + case.visual :]))
        )

    return make


@pytest.fixture(scope="session")
def features():
    """Visual tokens of the untouched model, [n, d]."""

    def make(model, case):
        given = {k: v for k, v in case.inputs.items() if k not in ("input_ids", "attention_mask")}
        name = "video" if "pixel_values_videos" in given else "image"
        pixels = next(value for key, value in given.items() if key.startswith("pixel"))
        rest = {k: v for k, v in given.items() if not k.startswith("pixel")}
        encoder = getattr(model.model, f"get_{name}_features")
        with torch.no_grad():
            found = encoder(pixels, **rest, return_dict=True).pooler_output
        tokens = torch.cat([part.reshape(-1, part.shape[-1]) for part in found])
        if len(tokens) == case.visual - 1:  # the newline token is added outside in older versions
            tokens = torch.cat((tokens, model.model.image_newline[None]))
        return tokens

    return make


@pytest.fixture(scope="session")
def generated():
    """From model, case and method: the answer, the first logits, the record."""

    def run(model, case, method):
        with torch.no_grad(), reduce_tokens(model, method) as record:
            first = model(**case.inputs, logits_to_keep=1).logits[0, -1]
            output = model.generate(**case.inputs, max_new_tokens=NEW, do_sample=False)
        return output[0, case.inputs["input_ids"].shape[1] :].tolist(), first, record

    return run


@pytest.fixture(scope="session")
def agree(generated, hand):
    """Generation under a method equals the hand-written model on these embeddings; the record."""

    def check(model, case, method, embeddings, reference=None, **hooks):
        answer, first, record = generated(model, case, method)
        reference = reference or hand(model)
        expected, logits = reference.generate(embeddings, NEW, **hooks)
        assert answer == expected
        torch.testing.assert_close(first.double(), logits, rtol=1e-3, atol=1e-4)
        assert record.sequence_lengths == [*reference.entering[:4], reference.leaving]
        return record

    return check


@pytest.fixture(scope="session")
def in_double():
    """Model and inputs in float64, for a method whose chain of near ties would flip in float32."""

    def wide(value):
        return value.double() if value.is_floating_point() else value

    def widen(model, rows):
        rows = [{name: wide(value) for name, value in row.items()} for row in rows]
        return copy.deepcopy(model).double(), rows

    return widen


@pytest.fixture(scope="session")
def project():
    """Rows of features, [m, w], through a model's projector."""

    def through(model, rows):
        return model.model.multi_modal_projector(rows.to(model.dtype).unsqueeze(0))[0]

    return through


@pytest.fixture(scope="session")
def tower_view():
    """What a tower's class token looks at, from the tower's own states."""
    return TowerView
