"""The cost model against `torch.utils.flop_counter` in models of native resolution, with a method at work.

Tiny random models of Qwen's families get one image, or one clip of three pairs of frames; what the counter
sees of a prefill, rotary angles left out, is the cost model's total. Differences must be 0.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from costmodel import estimate, load_model
from profiling.counting.one_run import RotaryAngles
from token_reduction import get_method, observe, reduce_tokens

A100 = "nvidia-a100-sxm4-80gb"
_IDS = {"image_token_id": 120, "video_token_id": 121, "vision_start_token_id": 122}
_ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "max_position_embeddings": 4096,
}  # fmt: skip
_NATIVE = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        **_IDS,
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {**_NATIVE, "window_size": 56, "fullatt_block_indexes": [2]},
    },
    "qwen3_vl": {
        **_IDS,
        "text_config": {**_TEXT, "rope_parameters": {**_ROPE, "mrope_interleaved": True}},
        "vision_config": {
            **_NATIVE, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1, 2],
        },
    },
}  # fmt: skip
TEXT, FRAMES = 9, 6
SIZE = (280, 392)  # 10 x 14 tokens of 2 x 2 patches of 14 pixels
ON_IMAGES = [
    ("divprune", {"keep": 20}),
    ("random", {"keep": 20}),
    ("fastv", {"keep": 20}),
    ("pyramiddrop", {}),
    ("dart", {"keep": 24}),
    ("dart(variant=embedding, keep=24)", {}),
    ("cdpruner(variant=split, keep=23)", {}),
    ("visionzip", {"keep": 64}),
    ("holov", {"keep": 20}),
    ("hiprune(alpha=0.5)", {"keep": 20}),  # both of its layers are of windows in Qwen2.5-VL
    ("hiprune(shallow=3)", {"keep": 0.25}),
    ("v2drop(layers=[2,5], shares=[0.5,0])", {}),
    ("downsample", {"keep": 0.3}),  # 5 x 8 of 10 x 14 tokens
    ("downsample/fastv(keep=0.5)", {}),
]
EMBEDDED = [
    ("dart(variant=embedding, keep=24)", {}),
    ("cdpruner(variant=split, keep=0.2)", {}),
]
ON_CLIPS = [
    *(("evs", {}), ("vidcom2", {}), ("dycoke", {}), ("fastvid", {})),
    ("fastvid(segments=1, threshold=-1)", {"keep": 0.25}),
    ("downsample", {}),
    ("visionzip", {"keep": 64}),
    *(("holov(chunks=5)", {"keep": 60}), ("hiprune", {"keep": 60})),
    *(("holitom(threshold=1)", {}), ("holitom(threshold=1, cut=2)", {"keep": 0.4})),
]
RUNS = [
    *((kind, "image", *row) for kind in CONFIGS for row in ON_IMAGES),
    *(
        (kind, "video", *row)
        for kind in CONFIGS
        for row in [*ON_CLIPS, ("fastv", {"keep": 0.3}), *EMBEDDED]
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A model of a kind, and the cost model's reading of its config."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind])
            config.save_pretrained(folder)
            torch.manual_seed(0)
            model = transformers.AutoModelForImageTextToText.from_config(
                config, attn_implementation="sdpa"
            )
            made[kind] = model.eval(), load_model(folder)
        return made[kind]

    return of


def prompt(kind, grid, mark):
    """Ids of text, one item's placeholders and text, with pixels; as its processor lays them out."""
    patches = grid[0] * grid[1] * grid[2]
    pairs, each = grid[0], grid[1] * grid[2] // 4
    # Qwen3-VL writes the time of every pair of frames, between delimiters, in front of it.
    parts = pairs if kind == "qwen3_vl" else 1
    middle = [5, 122, *[mark] * (pairs * each // parts)] * parts
    ids = torch.tensor([[*middle, *range(6, 6 + TEXT - 2 * parts)]])
    pixels = torch.randn(patches, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(1))
    types = torch.zeros_like(ids)
    types[ids == mark] = 1 if mark == 120 else 2
    given = {"input_ids": ids, "mm_token_type_ids": types}
    name = "image" if mark == 120 else "video"
    given |= {f"{name}_grid_thw": torch.tensor([grid])}
    return given | {"pixel_values" if mark == 120 else "pixel_values_videos": pixels}


def counted(model, given):
    """FLOPs of a prefill, and those of a method's own work."""
    counter = FlopCounterMode(display=False)
    angles = RotaryAngles(counter)
    own, starts = [0], []

    def told(_name, begins):
        total = counter.get_total_flops() - angles.flops
        if begins:
            starts.append(total)
        else:
            own[0] += total - starts.pop()

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter, observe(told):
        hooks = angles.watch(model.model)
        model(**given, use_cache=True, logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() - angles.flops, own[0]


@pytest.mark.parametrize(("kind", "modality", "name", "asked"), RUNS)
def test_totals_are_equal(built, kind, modality, name, asked) -> None:
    model, config = built(kind)
    size = SIZE
    if modality == "image":
        grid, shape = (1, *config.geometry.grid(size)), {"image_size": size}
    else:
        grid, shape = (
            config.geometry.clip_grid(FRAMES, size),
            {"image_size": size, "frames": FRAMES},
        )
    given = prompt(kind, grid, 120 if modality == "image" else 121)
    with reduce_tokens(model, get_method(name, **asked)) as record:
        total, own = counted(model, given)
    cost = estimate(config, A100, method=name, text_tokens=TEXT, **shape, **asked)
    assert own == cost.stages["reduction"].flops
    assert total == cost.totals.flops
    assert record.visual_tokens[1] == cost.visual_tokens_by_layer[-1][1]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_a_clip_that_keeps_every_token_is_the_models_own(built, kind, name) -> None:
    """Places on three axes, and features of deepstack, follow the tokens of a clip."""
    model, config = built(kind)
    given = prompt(kind, config.geometry.clip_grid(FRAMES, SIZE), 121)
    n = int((given["input_ids"] == 121).sum())
    with torch.no_grad():
        expected = model(**given).logits[:, -1]
        with reduce_tokens(model, get_method(name, keep=n)) as record:
            reduced = model(**given).logits[:, -1]
        torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-4)
        assert record.visual_tokens == (n, n)
        out = model.generate(**given, max_new_tokens=3, do_sample=False, pad_token_id=0)
        with reduce_tokens(model, get_method(name, keep=n)):
            again = model.generate(**given, max_new_tokens=3, do_sample=False, pad_token_id=0)
        assert torch.equal(again, out)
        with reduce_tokens(model, get_method(name, keep=200)) as record:
            assert model.generate(**given, max_new_tokens=3, pad_token_id=0).shape == out.shape
    assert record.visual_tokens == (n, 200)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_tower_sees_what_pixels_leave(built, kind) -> None:
    """Every second cell of a row is the one before it, so that half of every window is left."""
    model, config = built(kind)
    given = prompt(kind, (1, *config.geometry.grid(SIZE)), 120)
    cells = given["pixel_values"].view(10, 7, 2, -1)
    cells[:, :, 1] = cells[:, :, 0]
    with reduce_tokens(model, get_method("pixelprune")) as record:
        total, own = counted(model, given)
    assert record.visual_tokens == (140, 70)
    cost = estimate(config, A100, method="pixelprune", text_tokens=TEXT, image_size=SIZE)
    assert own == cost.stages["reduction"].flops == 0
    assert total == cost.totals.flops


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_picture_that_nothing_foretells_is_the_models_own(built, kind) -> None:
    model, config = built(kind)
    given = prompt(kind, (1, *config.geometry.grid(SIZE)), 120)
    with torch.no_grad():
        expected = model(**given).logits
        with reduce_tokens(model, get_method("pixelprune")) as record:
            torch.testing.assert_close(model(**given).logits, expected, rtol=1e-4, atol=1e-4)
    assert record.visual_tokens == (140, 140)
