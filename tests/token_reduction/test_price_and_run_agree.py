"""Edge settings, found by comparing random ones: priced and run alike, or refused by both."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from merging_families import CONFIGS, write_config
from methods_on_families import OnFamily
from tiny_families import FAMILIES, SIGLIP, write_family

if TYPE_CHECKING:
    from collections.abc import Callable

#: Models whose config differs from that of a family's tiny one.
CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "class token goes along": ("llava", {
        "vision_feature_select_strategy": "full", "image_seq_length": 37,
    }),
    "two layers' features": ("llava", {"vision_feature_layer": [-2, -1]}),
    "no class token": ("llava", {
        "vision_config": SIGLIP, "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
    }),
}  # fmt: skip
SMALL = {"image_size": (24, 40)}
SIZES = {"image_size": ((168, 168), (100, 168))}
NATIVE_SIZES = {"image_size": ((24, 40), (24, 48))}
BOTH_RUN: list[tuple[str, str, dict[str, Any]]] = [
    # A crop's class token stays beside what is kept of its patches.
    ("class token goes along", "m3(keep=9)", {}),
    ("class token goes along", "sequential(keep=0.3)", {"images": 2}),
    ("class token goes along", "prumerge(keep=2, variant=paper)", {}),
    ("video_llava", "evit(keep=5, layers=[1], fuse=false)", {"frames": 3}),
    ("class token goes along", "hired(keep=5)", {"images": 2}),
    # Similarities are those of the features that the projector reads; none where attention picks all.
    ("two layers' features", "vispruner(keep=12)", {}),
    ("llava", "vispruner(keep=8, important=1.0)", {"images": 2}),
    # Reduced crops are not cut to the image's shape: here more are left than the image had.
    ("llava_next", "m3(keep=36)", {"image_size": (100, 168)}),
    ("llava_next", "crossget(keep=0.999)", {"image_size": (168, 168)}),
    # An image's own pivots are no more than its share.
    ("gemma3", "dart(keep=2, variant=embedding, image_pivots=40, text_pivots=8)", {}),
    ("qwen2_vl", "dart(keep=3, variant=embedding)", {**SMALL, "images": 2}),
    # Keeping everything leaves any model as it is, and the second method all of it.
    ("no class token", "fastervlm(keep=1.0)", {}),
    ("qwen2_vl", "prumerge(keep=1.0)/fastv(keep=0.5, layer=1)", SMALL),
    # A draw before layer 0 does not mind text between images; attention behind it does.
    ("qwen2_vl", "fastv(keep=5, layer=0, variant=paper)", {**SMALL, "images": 2}),
    # Images of several sizes, next to each other, and what a first method left of them.
    ("llava", "cdpruner(variant=split, keep=8)", {"images": 2}),
    ("llava_next", "divprune(keep=9)", SIZES),
    ("llava_next", "visionzip(keep=12)", SIZES),
    (
        "smolvlm",
        "divprune(keep=5)/cdpruner(variant=split, keep=4)",
        {"image_size": ((32, 32), (32, 96))},
    ),
    ("qwen2_5_vl", "divprune(keep=0.5)/dart(variant=embedding, keep=6)", NATIVE_SIZES),
    ("qwen2_5_vl", "random(keep=1.0)/cdpruner(variant=split, keep=4)", NATIVE_SIZES),
    ("internvl", "evs(keep=0.5)/cdpruner(variant=split, keep=4)", {"frames": 4}),
    # As many reference samples as there are tokens, class token included.
    ("llava", "ats(keep=37, layers=[1])", {}),
]
BOTH_REFUSE: list[tuple[str, str, dict[str, Any]]] = [
    *(("two layers' features", f"{name}(keep=12)", {}) for name in ("cdpruner", "tome", "visionzip")),
    ("class token goes along", "hired(keep=37)", {}),
    ("video_llava", "hired(keep=3)", {"frames": 1}),
    ("qwen2_vl", "holitom(threshold=1, keep=0.1, cut=2, deep=0.01)", {**SMALL, "frames": 4}),
    ("llava", "ats(keep=1, minimum=2)", {}),
    ("llava", "evit(keep=37, layers=[1])", {}),
    ("llava", "sparsevlm(layers=[1,2], counts=[8,0])", {}),
    ("qwen2_vl", "pixelprune(keep=16)", {**SMALL, "images": 2}),
]  # fmt: skip


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OnFamily]:
    """A model by its family, or by what is different about it; built when first asked for."""

    @cache
    def of(name: str) -> OnFamily:
        folder = tmp_path_factory.mktemp("model")
        family, changes = CHANGED.get(name, (name, {}))
        if family in CONFIGS:
            return OnFamily(write_config(family, folder), {})
        assert family in FAMILIES
        source = write_family(family, folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return OnFamily(source, {})

    return of


@pytest.mark.parametrize(("model", "method", "shape"), BOTH_RUN)
def test_counts_are_equal(
    on: Callable[[str], OnFamily], model: str, method: str, shape: dict[str, Any]
) -> None:
    stages = on(model).compared(method, **shape)
    assert stages is not None
    if not method.startswith("ats"):  # the image decides
        for stage in ("reduction", "prefill", "decode"):
            assert stages[stage][0] == stages[stage][1], stage


@pytest.mark.parametrize(("model", "method", "shape"), BOTH_REFUSE)
def test_both_refuse(
    on: Callable[[str], OnFamily], model: str, method: str, shape: dict[str, Any]
) -> None:
    assert on(model).compared(method, **shape) is None
