"""Budgets of images and clips that lie beside a config.json, against `transformers`' own processors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from costmodel import estimate, load_model
from costmodel.models import config_dict
from costmodel.models.tiles import pan_and_scan
from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from pathlib import Path

A100 = "nvidia-a100-sxm4-80gb"
WHOLE, IMAGE, CLIP = "processor_config", "preprocessor_config", "video_preprocessor_config"


def folder(where: Path, model: str, **files: Any) -> str:
    (where / "config.json").write_text(json.dumps(config_dict(model)), encoding="utf-8")
    for name, values in files.items():
        (where / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return str(where)


def edges(least: int, most: int) -> dict[str, dict[str, int]]:
    return {"size": {"shortest_edge": least, "longest_edge": most}}


@pytest.mark.parametrize(
    ("model", "files", "budget"),
    [
        ("qwen2.5-vl-7b", {IMAGE: {"min_pixels": 3136, "max_pixels": 1003520}}, (3136, 1003520)),
        ("qwen3-vl-8b", {IMAGE: edges(65536, 262144)}, (65536, 262144)),
        ("qwen2-vl-7b", {IMAGE: {"size": {"min_pixels": 9, "max_pixels": 100352}}}, (9, 100352)),
        # Either is said twice: the plain one wins.
        ("qwen2-vl-7b", {IMAGE: edges(9, 99) | {"max_pixels": 200704}}, (9, 200704)),
        # What no file says, the class of the processor does: 56^2 and 1280 x 28^2.
        ("qwen3-vl-8b", {IMAGE: {"patch_size": 16, "min_pixels": None}}, (3136, 1003520)),
        # Newer checkpoints write one file.
        ("qwen3-vl-8b", {WHOLE: {"image_processor": edges(5, 50176)}, IMAGE: edges(1, 2)}, (5, 50176)),
        ("qwen3-vl-8b", {WHOLE: {"processor_class": "x"}, IMAGE: edges(5, 50176)}, (5, 50176)),
        ("qwen3-vl-8b", {}, (65536, 16777216)),
    ],
)  # fmt: skip
def test_pixels_of_an_image(
    tmp_path: Path, model: str, files: dict[str, Any], budget: tuple[int, int]
) -> None:
    cost = estimate(folder(tmp_path, model, **files), A100, image_size="1080p")
    assert (cost.inputs["min_pixels"], cost.inputs["max_pixels"]) == budget
    given = estimate(model, A100, image_size="1080p", min_pixels=budget[0], max_pixels=budget[1])
    assert cost.totals.flops == given.totals.flops
    said = cost.assumptions["visual_budget"]["max_pixels"]
    assert said.endswith(".json") if files else said == "the family's default"


def test_an_argument_wins_and_says_so(tmp_path: Path) -> None:
    where = folder(tmp_path, "qwen3-vl-8b", **{IMAGE: edges(65536, 262144)})
    cost = estimate(where, A100, image_size="1080p", max_pixels=131072)
    assert (cost.inputs["min_pixels"], cost.inputs["max_pixels"]) == (65536, 131072)
    assert cost.to_dict()["assumptions"]["visual_budget"] == {
        "min_pixels": str(tmp_path / "preprocessor_config.json"), "max_pixels": "given",
    }  # fmt: skip
    small = load_model(f"{where}@layers=1,width=1/4")
    assert small.geometry == load_model(where).geometry
    assert "visual_budget" not in estimate("llava-1.5-7b", A100).assumptions


def test_clips_have_a_file_of_their_own(tmp_path: Path) -> None:
    files = {IMAGE: edges(65536, 262144), CLIP: edges(4096, 1048576)}
    where = folder(tmp_path, "qwen3-vl-8b", **files)
    cost = estimate(where, A100, frames=8, image_size="720p")
    assert (cost.inputs["min_pixels"], cost.inputs["max_pixels"]) == (4096, 1048576)
    assert cost.assumptions["visual_budget"]["max_pixels"].endswith(f"{CLIP}.json")
    # Without one, frames have been resized before the processor sees them.
    (tmp_path / f"{CLIP}.json").unlink()
    alone = estimate(where, A100, frames=8, image_size="720p")
    assert alone.inputs["max_pixels"] == 24576 * 32**2
    assert alone.assumptions["visual_budget"]["max_pixels"] == "the family's default"


@pytest.mark.parametrize(
    ("model", "files", "crops"),
    [
        ("internvl3-8b", {IMAGE: {"crop_to_patches": False, "max_patches": 12}}, 1),
        ("internvl3-8b", {IMAGE: {"crop_to_patches": True}}, 9),
        ("internvl3-8b", {IMAGE: {"crop_to_patches": True, "max_patches": 6}}, 3),
        ("smolvlm2-500m", {IMAGE: {"size": {"longest_edge": 1024}}}, 5),
        ("smolvlm2-500m", {IMAGE: {"do_image_splitting": False, "size": {"longest_edge": 9}}}, 1),
        ("idefics3-8b", {IMAGE: {}, WHOLE: {"image_seq_len": 169}}, 13),
        ("gemma-3-4b", {IMAGE: {"do_pan_and_scan": None}}, 1),
        ("gemma-3-4b", {IMAGE: {"do_pan_and_scan": True}}, 3),
        ("gemma-3-4b", {IMAGE: {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 1081}}, 1),
        ("gemma-3-4b", {IMAGE: {"do_pan_and_scan": True, "pan_and_scan_min_ratio_to_activate": 2}}, 1),
    ],
)  # fmt: skip
def test_tiles_of_an_image(tmp_path: Path, model: str, files: dict[str, Any], crops: int) -> None:
    cost = estimate(folder(tmp_path, model, **files), A100, image_size="1080p")
    assert cost.inputs["crops"] == crops
    assert cost.assumptions["visual_budget"]["max_tiles"].endswith(f"{IMAGE}.json")


@pytest.mark.parametrize(("least", "most", "ratio"), [(256, 4, 1.2), (100, 2, 1.5), (1, 9, 1.0)])
def test_pan_and_scan_is_that_of_gemmas_processor(least: int, most: int, ratio: float) -> None:
    module = pytest.importorskip("transformers.models.gemma3.image_processing_pil_gemma3")
    processor = module.Gemma3ImageProcessorPil()
    for height in (90, 255, 256, 300, 511, 1080):
        for width in (90, 300, 360, 513, 700, 1920, 4000):
            image = np.zeros((1, height, width), dtype=np.uint8)
            theirs = processor.pan_and_scan(image, least, most, ratio)
            assert pan_and_scan(height, width, least, most, ratio) == 1 + len(theirs)


@pytest.mark.parametrize(
    ("model", "files", "said"),
    [
        ("qwen3-vl-8b", {IMAGE: [1]}, "holds a list where a JSON object"),
        ("qwen3-vl-8b", {IMAGE: {"min_pixels": "x"}}, "min_pixels must be a whole number"),
        ("qwen3-vl-8b", {IMAGE: {"size": 448}}, "size is 448"),
        ("qwen3-vl-8b", {IMAGE: {"size": {"longest_edge": 9}}}, "size.shortest_edge is missing"),
        ("qwen3-vl-8b", {IMAGE: edges(10, 9)}, "more pixels at least"),
        ("qwen3-vl-8b", {IMAGE: {"patch_size": 14}}, "patch_size .14. must be the tower's, 16"),
        ("qwen3-vl-8b", {IMAGE: {"do_resize": False}}, "do_resize is false"),
        ("qwen3-vl-8b", {WHOLE: {"image_processor": 4}}, "image_processor is 4"),
        ("internvl3-8b", {IMAGE: {"crop_to_patches": "yes"}}, "must be true or false"),
        ("internvl3-8b", {IMAGE: {"crop_to_patches": True, "min_patches": 2}}, "min_patches"),
        ("internvl3-8b", {WHOLE: {"image_seq_length": 64}}, "must be the tokens of a tile, 256"),
        ("smolvlm2-500m", {IMAGE: {"size": {"longest_edge": 1000}}}, "multiple of a tile's 512"),
        ("smolvlm2-500m", {IMAGE: {"max_image_size": {"longest_edge": 364}}}, "tower's side, 512"),
        ("gemma-3-4b", {IMAGE: {"do_pan_and_scan": True, "pan_and_scan_max_num_crops": 1}}, "from 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, model: str, files: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidFileError, match=said):
        estimate(folder(tmp_path, model, **files), A100)


def test_files_of_families_without_a_budget_are_not_opened(tmp_path: Path) -> None:
    where = folder(tmp_path, "llava-1.5-7b", **{IMAGE: [1]})
    assert estimate(where, A100).inputs["visual_tokens"] == 576
