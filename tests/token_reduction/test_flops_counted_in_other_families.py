"""The cost model against `torch.utils.flop_counter` on tiles, on clips and in the other families of LLaVA."""

from functools import cache

import pytest
import torch
from counted_runs import (
    A100,
    IMAGE,
    LANGUAGE,
    ON_CLIPS,
    TEXT,
    VIDEO,
    VISION,
    WEIGHED,
    assert_equal,
    build,
    lengths,
    run,
)  # fmt: skip

from costmodel import estimate
from token_reduction import get_method


@pytest.fixture(scope="module")
def llava_next(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava_next")
    return build("llava_next", folder, image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]])


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("prumerge", {"keep": 5}),
        ("divprune", {"keep": 0.1}),
        ("fastv", {"keep": 0.25, "layer": 1}),
        ("vtw", {"layer": 1}),
        ("tome", {"keep": 20}),
        ("sequential", {"keep": 8}),
        ("m3", {"keep": 4}),
        ("visionzip", {"keep": 20}),
        ("fastervlm", {}),
        ("vispruner", {"keep": 10}),
        ("cdpruner", {"keep": 10}),
        ("pyramiddrop", {}),
        ("dart", {"keep": 0.2}),
        ("holov", {"keep": 10}),
        ("hiprune", {"keep": 10}),
        ("vscan", {"keep": 10}),
        ("downsample", {"keep": 9}),
    ],
)
@pytest.mark.parametrize("size", [(168, 168), (100, 168)])
def test_tiled_images(llava_next, name, asked, size) -> None:
    model, config = llava_next
    given = config.visual_input(image_size=size)
    pixels = torch.randn(1, given.crops, 3, 84, 84)
    counted, decoded, _ = run(
        model, get_method(name, **asked), 1, given.tokens, pixels,
        image_sizes=torch.tensor([list(size)]),
    )  # fmt: skip
    cost = estimate(
        config, A100, method=name, image_size=size, text_tokens=TEXT, output_tokens=1, **asked
    )
    assert_equal(cost, counted, decoded)


@pytest.mark.parametrize(("size", "off"), [((168, 168), (0, 3)), ((100, 168), (-12, 12))])
def test_hired_expects_what_the_tiles_keep(llava_next, size, off) -> None:
    model, config = llava_next
    given = config.visual_input(image_size=size)
    pixels = torch.randn(1, given.crops, 3, 84, 84)
    counted, _, record = run(
        model, get_method("hired", keep=0.5), 1, given.tokens, pixels,
        image_sizes=torch.tensor([list(size)]),
    )  # fmt: skip
    cost = estimate(config, A100, method="hired", keep=0.5, image_size=size, text_tokens=TEXT)
    for stage in ("vision", "projector", "reduction"):
        assert cost.stages[stage].flops == counted[stage]
    # Shares are truncated, and with padding it depends on the image what the model cuts off.
    (expected,) = set(
        lengths("hired", config, given.tokens, given.crops, given.projected_tokens, keep=0.5)
    )
    assert off[0] <= expected - record.sequence_lengths[0] <= off[1]


SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 84, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip
DEEP = {**LANGUAGE, "num_hidden_layers": 18}
#: family -> its towers, settings, and whether the class token is there to rank by.
FAMILIES = {
    "video_llava": (VISION, {"image_seq_length": 36, "video_seq_length": 111}),
    "llava_next_video": (VISION, {"image_grid_pinpoints": [[84, 168], [168, 84], [168, 168]]}),
    "llava_onevision": (SIGLIP, {"image_grid_pinpoints": [[84, 168], [168, 84], [168, 168]],
                                 "vision_feature_layer": -1,
                                 "vision_feature_select_strategy": "full"}),
}  # fmt: skip
BY_CLASS = [
    ("visionzip", {"keep": 20}),
    ("fastervlm", {"keep": 0.25}),
    ("vispruner", {"keep": 10}),
    ("cdpruner", {"keep": 5}),
    ("holov", {"keep": 10}),
    ("hiprune(shallow=4)", {"keep": 10}),
    ("vscan(shallow=4)", {"keep": 10}),
    ("downsample", {"keep": 16}),
]
IN_THE_LLM = [
    *(("pyramiddrop", {}), ("dart", {"keep": 7}), ("sparsevlm(counts=[66,30,17])", {})),
    ("v2drop(layers=[1,5], shares=[0.4,0])", {}),
]
INPUTS = [
    *(("video_llava", "image", *row) for row in [*BY_CLASS, ("hired", {"keep": 0.3}), *IN_THE_LLM]),
    *(("video_llava", "video", *row) for row in [*BY_CLASS, *IN_THE_LLM]),
    *(("llava_next_video", "image", *row) for row in [*BY_CLASS, *IN_THE_LLM]),
    *(("llava_next_video", "video", *row) for row in IN_THE_LLM),
    *(("llava_onevision", kind, *row) for kind in ("image", "video") for row in IN_THE_LLM),
    *((kind, "video", *row) for kind in FAMILIES for row in ON_CLIPS),
    *(("llava_onevision", "video", *row) for row in WEIGHED),
    *(("llava_onevision", "image", *row) for row in ON_CLIPS),
]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A family's model and its config as the cost model reads it, built when first asked for."""

    @cache
    def of(kind):
        vision, settings = FAMILIES[kind]
        folder = tmp_path_factory.mktemp(kind)
        return build(kind, folder, vision, DEEP, video_token_index=VIDEO, **settings)

    return of


@pytest.mark.parametrize(("kind", "modality", "name", "asked"), INPUTS)
def test_other_families(family, kind, modality, name, asked) -> None:
    model, config = family(kind)
    if modality == "video":
        shape = {"frames": 3}
        given = config.visual_input(**shape, count="transformers")
        inputs = {"pixel_values_videos": torch.randn(1, 3, 3, 84, 84)}
        # Beyond the paper's count it is the one of `transformers`: class tokens go along.
        shape["visual_tokens"] = given.tokens
    else:
        shape = {"image_size": (100, 168)}
        given = config.visual_input(**shape)
        tiled = config.anyres is not None
        crops = (1, given.crops) if tiled else (1,)
        pixels = "pixel_values_images" if kind == "video_llava" else "pixel_values"
        inputs = {pixels: torch.randn(*crops, 3, 84, 84)}
        if tiled:
            inputs["image_sizes"] = torch.tensor([[100, 168]])
    counted, decoded, record = run(
        model, get_method(name, **asked), 1, given.tokens, None, before=0,
        mark=VIDEO if modality == "video" else IMAGE, **inputs,
    )  # fmt: skip
    cost = estimate(config, A100, method=name, text_tokens=TEXT, output_tokens=1, **shape, **asked)
    assert record.sequence_lengths[:-1] == lengths(
        name, config, given.tokens, given.crops, given.projected_tokens, **asked
    )
    assert_equal(cost, counted, decoded)
