"""The explorer's grid is `estimate` at every point, to the digits it keeps."""

from __future__ import annotations

import random
from itertools import product

import pytest

from costmodel import estimate
from costmodel.energy import estimate_energy
from costmodel.quantities import STAGES
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from vlm_roofline.cli.options import parse_keep
from vlm_roofline.explorer.grid import Axes, digits, price

SMALL = Axes(
    precision=("auto", "int4"),
    method=("fastv", "divprune"),
    keep=(0.5, 64),
    text_tokens=(40, 512),
    output_tokens=(0, 32),
    image_size=((448, 448), (896, 896)),
)
PAIRS = (
    ("llava-1.5-7b", "nvidia-a100-sxm4-80gb"),
    ("qwen2.5-vl-3b", "nvidia-l40s"),
    ("llava-next-vicuna-7b", "amd-mi300x"),
)


@pytest.mark.parametrize(("model", "device"), PAIRS)
def test_points_are_estimates(model: str, device: str) -> None:
    grid = price(model, device, SMALL, {})
    axes = grid["axes"]
    choices = list(product(*axes.values()))
    assert len(choices) == len(grid["points"]["refused"])
    # A sample: every point would price the grid twice.
    for number in random.Random(1).sample(range(len(choices)), 40):
        precision, (method, typed), image, batch, text, output = choices[number]
        keep = parse_keep(typed)
        shared = {
            "precision": precision, "method": method, "keep": keep, "image_size": image,
            "batch_size": batch, "text_tokens": text,
        }  # fmt: skip
        point = {name: column[number] for name, column in grid["points"].items()}
        cost = estimate(model, device, **shared, output_tokens=output)
        for name in ("time_s", "time_low_s", "time_high_s", "ideal_time_s", "ttft_s", "tpot_s"):
            assert point[name] == digits(getattr(cost.totals, name)), name
        for name in ("peak_memory_bytes", "kv_cache_bytes", "weight_bytes", "fits"):
            assert point[name] == digits(getattr(cost.memory, name)), name
        first = estimate(model, device, **shared)
        assert point["ttft_low_s"] == digits(first.totals.time_low_s)
        assert point["energy_high_j"] == digits(estimate_energy(cost).totals.energy_high_j)
        assert grid["schedules"]["layers"][point["schedule"]] == cost.visual_tokens_by_layer
        for stage in STAGES:
            block = {name: column[point[stage]] for name, column in grid["blocks"].items()}
            assert block["time_high_s"] == digits(cost.stages[stage].time_high_s)
            assert block["hbm_bytes"] == digits(cost.stages[stage].hbm_bytes)
            ops = [op for op in cost.ops if op.stage == stage]
            held = range(block["first_op"], block["first_op"] + block["ops"])
            assert [grid["words"][grid["ops"]["name"][k]] for k in held] == [op.name for op in ops]
            assert [grid["ops"]["time_s"][k] for k in held] == [digits(op.time_s) for op in ops]
            assert [grid["ops"]["flops"][k] for k in held] == [digits(op.flops) for op in ops]


def test_a_curve_is_estimates() -> None:
    model, device = PAIRS[0]
    curves = price(model, device, SMALL, {})["curves"]
    counts = curves["visual_tokens"]
    assert (counts[0], counts[-1]) == (0, 576)
    # Precision int4, batch 8, 512 text tokens: the last of each.
    last = len(curves["ttft_s"]) - len(counts)
    for k in (0, 7, len(counts) - 1):
        cost = estimate(
            model, device, precision="int4", batch_size=8, text_tokens=512, visual_tokens=counts[k]
        )
        assert curves["ttft_s"][last + k] == digits(cost.totals.ttft_s)
        assert curves["time_low_s"][last + k] == digits(cost.totals.time_low_s)


def test_what_does_not_fit_is_told_and_not_offered() -> None:
    axes = Axes(method=("tome", "divprune"), keep=(0.5,), precision=("fp16", "fp8"))
    grid = price("qwen2.5-vl-3b", "nvidia-a100-sxm4-80gb", axes, {})
    assert grid["axes"]["precision"] == ["fp16"]
    assert grid["axes"]["setting"] == [[None, None], ["divprune", "0.5"]]
    told = dict(grid["left_out"])
    assert "does not support fp8" in told["fp8"]
    assert "inside the vision tower" in told["tome keep 0.5"]


def test_a_model_without_pictures_has_one_image_size_and_no_curve() -> None:
    grid = price("llama-2-7b", "nvidia-l4", SMALL, {})
    assert grid["axes"]["image_size"] == [None]
    assert grid["axes"]["setting"] == [[None, None]]
    assert grid["curves"]["visual_tokens"] == []


def test_a_device_without_any_of_the_precisions_is_an_error() -> None:
    with pytest.raises(VlmRooflineError, match="fp8"):
        price("llava-1.5-7b", "nvidia-a100-sxm4-80gb", Axes(precision=("fp8",)), {})


def test_a_token_is_not_all_tokens() -> None:
    axes = Axes(
        precision=("fp16",), method=("fastv",), keep=(1, 1.0), batch_size=(1,), text_tokens=(40,),
        output_tokens=(8,),
    )  # fmt: skip
    grid = price("llava-1.5-7b", "nvidia-l40s", axes, {})
    settings = [parse_keep(keep) for _, keep in grid["axes"]["setting"]]
    assert [(type(keep), keep) for keep in settings[1:]] == [(int, 1), (float, 1.0)]


def test_a_prompt_without_text_has_a_curve_from_its_first_tokens() -> None:
    axes = Axes(
        precision=("fp16",), method=(), batch_size=(1,), text_tokens=(0,), output_tokens=(8,)
    )
    grid = price("llava-1.5-7b", "nvidia-l40s", axes, {})
    assert grid["curves"]["visual_tokens"][0] > 0
    assert len(grid["curves"]["ttft_s"]) == len(grid["curves"]["visual_tokens"])


def test_a_grid_without_a_price_says_why() -> None:
    with pytest.raises(InvalidInputError, match="batch_size must be"):
        price("llava-1.5-7b", "nvidia-l40s", Axes(batch_size=(0,)), {})


def test_sizes_of_several_images_are_written_as_they_are_typed() -> None:
    axes = Axes(
        precision=("fp16",), method=(), keep=(), batch_size=(1,), text_tokens=(40,),
        output_tokens=(8,), image_size=((448, 448), ((448, 448), (224, 448))),
    )  # fmt: skip
    grid = price("qwen2.5-vl-3b", "nvidia-l40s", axes, {})
    assert grid["axes"]["image_size"] == ["448x448", "448x448+224x448"]
