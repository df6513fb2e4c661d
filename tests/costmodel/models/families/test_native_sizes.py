"""Tokens of images and clips against the arithmetic of `transformers`' own processors."""

from __future__ import annotations

import sys
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

import pytest
import torch

from costmodel import estimate, load_model, sweep
from costmodel.models.native import resized
from costmodel.models.tiles import closest_tiles, split_tiles
from hardware_specs.errors import InvalidInputError

A100 = "nvidia-a100-sxm4-80gb"
SIZES = [
    (h, w) for h in (30, 224, 301, 448, 1080, 2160) for w in (56, 333, 448, 1344, 1920, 3840)
    if max(h, w) < 200 * min(h, w)
]  # fmt: skip


@pytest.mark.parametrize("budget", [(3136, 12845056), (3136, 1003520), (200704, 401408)])
@pytest.mark.parametrize("unit", [28, 32])
def test_images_are_resized_as_qwens_processor_does(unit: int, budget: tuple[int, int]) -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    for size in SIZES:
        theirs = module.smart_resize(*size, unit, *budget)
        assert resized(size, unit, *budget) == theirs


def test_clips_are_resized_as_qwen3s_processor_does() -> None:
    module = pytest.importorskip("transformers.models.qwen3_vl.video_processing_qwen3_vl")
    geometry = load_model("qwen3-vl-8b").geometry
    for frames in (2, 5, 7, 8, 64):
        for size in SIZES:
            height, width = module.smart_resize(
                frames, *size, 2, 32, geometry.least_video, geometry.most_video
            )
            assert geometry.clip_grid(frames, size) == (-(-frames // 2), height // 16, width // 16)


@pytest.mark.parametrize("most", [1, 6, 12])
def test_tiles_are_those_of_internvls_processor(most: int) -> None:
    module = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    for size in SIZES:
        columns, rows = module.get_optimal_tiled_canvas(size, (448, 448), 1, most)
        tiles = columns * rows
        assert closest_tiles(*size, 448, most) == tiles + (tiles > 1)


@pytest.mark.parametrize("side", [364, 384, 512])
def test_tiles_are_those_of_smolvlms_processor(side: int) -> None:
    module = pytest.importorskip("transformers.models.smolvlm.image_processing_pil_smolvlm")
    kind = module.SmolVLMImageProcessorPil
    fake = SimpleNamespace(
        do_image_splitting=True, max_image_size={"longest_edge": side},
        size={"longest_edge": 4 * side},
    )  # fmt: skip
    for size in SIZES:
        assert split_tiles(*size, side, 4) == kind.get_number_of_image_patches(fake, *size)[0]


def test_published_sizes() -> None:
    # 1344 / 28 = 48 tokens a side; 1080 / 32 rounds to 34, 1920 / 32 = 60.
    assert load_model("qwen2.5-vl-7b").visual_input(image_size="1344x1344").tokens == 48 * 48
    assert load_model("qwen3-vl-8b").visual_input(image_size="1080p").tokens == 34 * 60
    # At most 128 x 128 tokens; an image of one grows to four.
    assert load_model("qwen2.5-vl-7b").visual_input(image_size=(9000, 9000)).tokens == 128**2
    assert load_model("qwen2.5-vl-7b").visual_input(image_size=(28, 28)).tokens == 4
    assert load_model("internvl3-8b").visual_input(image_size="1080p").tokens == 256
    assert load_model("gemma-3-4b").visual_input(image_size="1080p").tokens == 256
    # Four tiles along the longer edge, three along the other (864 of 1152), and the whole image.
    assert load_model("smolvlm2-2.2b").visual_input(image_size="1080p") == (13 * 81, 13, 13 * 81)


def test_tower_of_qwen25_at_1344() -> None:
    """13.4 TFLOP in the blocks, 13.67 with patch embedding and merger; 11 % kept is 2.6x less."""
    cost = estimate("qwen2.5-vl-7b", A100, image_size=(1344, 1344))
    embedding = 2 * 9216 * 1176 * 1280
    assert round((cost.stages["vision"].flops - embedding) / 1e12, 2) == 13.44
    both = cost.stages["vision"].flops + cost.stages["projector"].flops
    assert round(both / 1e12, 2) == 13.67
    less = estimate(
        "qwen2.5-vl-7b", A100, image_size=(1344, 1344), method="divprune",
        keep=0.11,
    )  # fmt: skip
    assert round(cost.totals.flops / less.totals.flops, 1) == 2.6
    products = [op.flops for op in cost.ops if (op.stage, op.op_class) == ("prefill", "gemm")]
    assert round(sum(products) / 1e12, 1) == 30.6
    assert round(cost.stages["prefill"].flops / 1e12, 1) == 32.8


def test_a_count_alone_is_an_image_of_as_many() -> None:
    """9216 patches in 144 full windows, whether the grid is said or not."""
    said, bare = (
        estimate("qwen2.5-vl-7b", A100, **given)
        for given in ({"image_size": (1344, 1344)}, {"visual_tokens": 2304})
    )
    assert said.stages["vision"].flops == bare.stages["vision"].flops
    assert bare.inputs["images"] == 1


def test_two_frames_are_one_token_deep() -> None:
    model = load_model("qwen3-vl-8b")
    image = model.visual_input(image_size=(672, 672)).tokens
    assert model.visual_input(frames=8, image_size=(672, 672)) == (4 * image, 4, 4 * image)
    assert model.visual_input(frames=7, image_size=(672, 672)).tokens == 4 * image


def test_budgets_are_arguments() -> None:
    """By an argument of `estimate` and `sweep`, or on the model: the same request."""
    crops = closest_tiles(1080, 1920, 448, 12)
    cost = estimate("internvl3-8b", A100, image_size="1080p", max_tiles=12)
    assert (cost.inputs["crops"], cost.inputs["visual_tokens"]) == (crops, 256 * crops)
    small = estimate("qwen3-vl-8b", A100, image_size="1080p", max_pixels=1024 * 256)
    on_model = load_model("qwen3-vl-8b").limited(max_pixels=1024 * 256)
    assert small.to_dict() == estimate(on_model, A100, image_size="1080p").to_dict()
    assert small.inputs["visual_tokens"] <= 256
    assert small.inputs["max_pixels"] == 1024 * 256
    assert small.inputs["min_pixels"] == 64 * 1024  # the checkpoints' own
    table = sweep("qwen3-vl-8b", A100, image_size="1080p", max_pixels=[None, 1024 * 256])
    assert list(table["visual_tokens"]) == [34 * 60, small.inputs["visual_tokens"]]
    assert table["flops"][1] == small.totals.flops


@pytest.mark.parametrize(
    ("model", "budget", "said"),
    [
        ("qwen3-vl-8b", {"max_tiles": 4}, "max_tiles means nothing to qwen3-vl-8b"),
        ("internvl3-8b", {"max_pixels": 9}, "no such budget; it has max_tiles"),
        ("llava-1.5-7b", {"max_pixels": 9}, "no such budget"),
        ("internvl3-8b", {"max_tiles": 1001}, "from 1 to 1000"),
        ("qwen3-vl-8b", {"min_pixels": 100_000, "max_pixels": 50_000}, "is more than max_pixels"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(model: str, budget: dict, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        estimate(model, A100, **budget)


def test_a_clip_has_its_own_budget() -> None:
    clip = {"frames": 8, "image_size": "720p"}
    assert estimate("qwen2.5-vl-7b", A100, **clip).inputs["max_pixels"] == 768 * 28**2
    less = estimate("qwen2.5-vl-7b", A100, **clip, max_pixels=200 * 28**2)
    assert less.inputs["visual_tokens"] <= 4 * 200
    # An image may be given less than a clip's own fewest.
    assert estimate("qwen2.5-vl-7b", A100, max_pixels=64 * 28**2).inputs["visual_tokens"] == 64


def test_clips_are_resized_as_qwen25s_processor_does() -> None:
    """Its arithmetic needs no torchvision, which its module imports for the pixels."""
    import transformers.video_processing_utils  # noqa: F401 - looks whether torchvision is there

    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
    stubs = {name: MagicMock() for name in (*names, f"{names[-1]}.functional")}
    with patch.dict(sys.modules, stubs):
        module = import_module("transformers.models.qwen2_vl.video_processing_qwen2_vl")
    kind = module.Qwen2VLVideoProcessor
    two, three = (kind.get_num_of_video_patches(kind, n, 224, 224, {}) for n in (2, 3))
    if two == three:
        pytest.skip("this release of transformers leaves an odd last frame out of its count")
    model = load_model("qwen2.5-vl-7b")
    for frames in (2, 5, 8):
        for size in SIZES:
            patches = kind.get_num_of_video_patches(kind, frames, *size, {})
            assert model.visual_input(frames=frames, image_size=size).tokens * 4 == patches


def test_timestamps_are_those_of_qwen3s_processor() -> None:
    """Each piece that the tokenizer's pattern cuts is one token, and so is a delimiter."""
    import regex
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    module = pytest.importorskip("transformers.models.qwen3_vl.processing_qwen3_vl")
    marks = {"vision_start_token": "<|a|>", "vision_end_token": "<|b|>", "video_token": ""}
    frames_of = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    fake = SimpleNamespace(video_processor=frames_of, **marks)
    kind = module.Qwen3VLProcessor
    fake._calculate_timestamps = lambda *given: kind._calculate_timestamps(fake, *given)
    for frames in (1, 4, 7, 64):
        grid = torch.tensor([[-(-frames // 2), 4, 4]])
        seen = SimpleNamespace(fps=2, frames_indices=list(range(frames)))
        text = kind.replace_video_token(fake, {"video_grid_thw": grid, "video_metadata": [seen]}, 0)
        pieces = regex.split(r"<\|[ab]\|>", text)
        tokens = sum(len(regex.findall(PRETOKENIZE_REGEX, piece)) for piece in pieces)
        tokens += len(pieces) - 1
        asked = {"frames": frames, "image_size": (448, 448)}
        assert estimate("qwen3-vl-8b", A100, **asked).inputs["text_tokens"] == 40 + tokens
        assert sweep("qwen3-vl-8b", A100, **asked)["text_tokens"][0] == 40 + tokens
        assert estimate("qwen2.5-vl-7b", A100, **asked).inputs["text_tokens"] == 40
        said = estimate("qwen3-vl-8b", A100, **asked, text_tokens=12)
        assert said.inputs["text_tokens"] == 12


def test_a_sliver_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="beyond 200"):
        load_model("qwen2.5-vl-7b").visual_input(image_size=(10, 2010))
