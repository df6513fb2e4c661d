"""Families whose images keep their resolution, or are cut and merged, against `torch.utils.flop_counter`.

Models are built on the meta device; what a tower reads off the grid (windows, positions) is computed
on the CPU and handed in. The merger is the projector stage here; transformers has it in the tower.
"""

import importlib

import pytest
import torch
from counted_flops import counted
from torch.utils.flop_counter import FlopCounterMode

from costmodel import estimate, load_model
from costmodel.models import config_dict

pytestmark = pytest.mark.usefixtures("meta_tensors")
A100 = "nvidia-a100-sxm4-80gb"
#: Five sizes each: small, square, tall, wide, and one beyond a megapixel.
SIZES = ((224, 224), (640, 480), (1344, 1344), (1080, 1920), (301, 1999))
#: Fewer layers, so that the suite stays quick: every kind of layer is among them.
NATIVE = (
    "qwen2.5-vl-3b@layers=8",
    "qwen2.5-vl-7b@layers=8",
    "qwen2-vl-7b@layers=2",
    "qwen3-vl-2b@layers=6",
    "qwen3-vl-8b@layers=4",
    "qwen3-vl-30b-a3b@layers=4",
)
#: Families whose tower takes tiles, and whose bridge merges patches.
TILED = (
    "internvl3-8b@layers=2", "internvl3-38b@layers=2", "internvl3.5-8b@layers=2",
    "gemma-3-4b@layers=6", "smolvlm2-2.2b@layers=2", "idefics3-8b@layers=2",
)  # fmt: skip


def _build(name: str, attention: str = "sdpa") -> torch.nn.Module:
    import transformers

    config = transformers.AutoConfig.for_model(**config_dict(name))
    # Its default, `grouped_mm`, is an op that the counter does not know.
    config.text_config._experts_implementation = "batched_mm"
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(
            config, attn_implementation=attention, dtype=torch.bfloat16
        )
    return model.eval()


def _counted(run) -> FlopCounterMode:
    counter = FlopCounterMode(display=False, depth=8)
    with torch.no_grad(), counter:
        run()
    return counter


def _flops(counter: FlopCounterMode, part: str) -> int:
    found = counter.get_flop_counts()
    names = [name for name in found if name.split(".", 1)[-1] == part or name == part]
    return sum(sum(found[name].values()) for name in names)


def _on_grid(tower: torch.nn.Module, grid: torch.Tensor) -> dict[str, object]:
    """What a tower reads off the grid, computed where there are values."""
    from transformers import vision_utils

    config = tower.config
    lengths = vision_utils.get_vision_cu_seqlens(grid)
    given = {
        "position_ids": vision_utils.get_vision_position_ids(grid, config.spatial_merge_size),
        "cu_seqlens": lengths,
    }
    if getattr(config, "window_size", None):
        index, windows = vision_utils.get_vision_window_index(
            grid, config.spatial_merge_size, config.window_size, config.patch_size
        )
        given |= {"window_index": index, "cu_window_seqlens": windows}
    if getattr(config, "num_position_embeddings", None):
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid, int(config.num_position_embeddings**0.5), mode="bilinear", align_corners=True,
            spatial_merge_size=config.spatial_merge_size,
        )  # fmt: skip
        given |= {"interp_indices": indices.to("meta"), "interp_weights": weights.to("meta")}
    on_meta = {"position_ids", "window_index"}
    return {key: value.to("meta") if key in on_meta else value for key, value in given.items()}


def _grid(name: str, size: tuple[int, int]) -> tuple[int, int, int]:
    return (1, *load_model(name).geometry.grid(size))


@pytest.mark.parametrize("name", NATIVE)
def test_tower_and_merger_at_five_sizes(name: str) -> None:
    config = load_model(name)
    tower = _build(name).model.visual
    for size in SIZES:
        grid = torch.tensor([_grid(name, size)])
        patches = int(grid.prod())
        pixels = torch.empty(
            patches, config.vision.patch_pixels, device="meta", dtype=torch.bfloat16
        )
        given = _on_grid(tower, grid)
        counter = _counted(lambda: tower(pixels, grid_thw=grid, **given))  # noqa: B023
        cost = estimate(name, A100, image_size=size)
        assert cost.stages["projector"].flops == _flops(counter, "merger")
        total = cost.stages["vision"].flops + cost.stages["projector"].flops
        assert total == counter.get_total_flops()


@pytest.mark.parametrize("name", NATIVE)
def test_two_images_of_different_sizes(name: str) -> None:
    config = load_model(name)
    tower = _build(name).model.visual
    sizes = ((336, 448), (1000, 700))
    grid = torch.tensor([_grid(name, size) for size in sizes])
    patches = int(grid.prod(1).sum())
    pixels = torch.empty(patches, config.vision.patch_pixels, device="meta", dtype=torch.bfloat16)
    given = _on_grid(tower, grid)
    cost = estimate(name, A100, image_size=sizes)
    total = cost.stages["vision"].flops + cost.stages["projector"].flops
    assert total == counted(lambda: tower(pixels, grid_thw=grid, **given))[0]


@pytest.mark.parametrize("name", TILED)
def test_tower_and_bridge_at_five_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Idefics3's tower asks whether its mask hides anything, and meta tensors cannot say.
    monkeypatch.setattr(
        "transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *_, **__: True
    )
    # Up to transformers 5.17 it looks for the patches that are not hidden: all of them here.
    config_of_meta = importlib.import_module("torch.fx.experimental._config")
    with config_of_meta.patch(meta_nonzero_assume_all_nonzero=True):
        _tower_and_bridge(name)


def _tower_and_bridge(name: str) -> None:
    config = load_model(name)
    base = _build(name).model
    side = config.vision.image_size
    counts = {}
    for size in SIZES:
        crops = config.visual_input(image_size=size).crops
        if crops not in counts:
            pixels = torch.empty(crops, 3, side, side, device="meta", dtype=torch.bfloat16)
            counts[crops], _ = counted(lambda: _features(base, pixels))  # noqa: B023
        cost = estimate(name, A100, image_size=size)
        total = cost.stages["vision"].flops + cost.stages["projector"].flops
        assert total == counts[crops]


def _features(base: torch.nn.Module, pixels: torch.Tensor) -> None:
    if hasattr(
        base, "connector"
    ):  # `get_image_features` looks for blank images, which has no shape
        base.connector(base.vision_model(pixel_values=pixels).last_hidden_state)
    else:
        base.get_image_features(pixels)


@pytest.mark.parametrize("name", [*NATIVE, *TILED])
def test_language_model_at_five_counts(name: str) -> None:
    config = load_model(name)
    sliding = config.text.sliding_window is not None
    model = _build(name, attention="eager" if sliding else "sdpa")
    # A mask is made of values; without one eager attention runs the same products.
    kinds = ("full_attention", "sliding_attention")
    mask = {"attention_mask": dict.fromkeys(kinds)} if sliding else {}
    for visual in (1, 64, 144, 1024, 2304):
        tokens = visual + 40
        embeds = torch.empty(
            1, tokens, config.text.hidden_size, device="meta", dtype=torch.bfloat16
        )

        def prefill(embeds: torch.Tensor = embeds) -> None:
            base = model.model
            language = base.text_model if hasattr(base, "text_model") else base.language_model
            hidden = language(inputs_embeds=embeds, use_cache=True, **mask)[0]
            model.lm_head(hidden[:, -1:])

        cost = estimate(name, A100, visual_tokens=visual, text_tokens=40)
        assert cost.stages["prefill"].flops == counted(prefill)[0]
