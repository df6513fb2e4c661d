"""Every method on every family that merges patches: what runs has equal counts, and the page says which.

The rest is refused, by the cost model and by `reduce_tokens` alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from merging_families import CONFIGS, write_config
from methods_on_families import OnFamily, said_of

from costmodel.methods import method_info
from costmodel.models.families import get_family

if TYPE_CHECKING:
    from pathlib import Path

#: 4 x 4 tokens, or one crop; and clips of as much.
IMAGE = {"image_size": (32, 32)}
CLIP = {**IMAGE, "frames": 4}


@pytest.mark.parametrize("kind", CONFIGS)
def test_methods_run_with_equal_counts_or_are_refused(kind: str, tmp_path: Path) -> None:
    found = OnFamily(write_config(kind, tmp_path), IMAGE, CLIP).running()
    for method, stages in found.items():
        # What pixels leave is not its price; test_flops_counted_behind_mergers.py has pixels for that.
        if method_info(method).expected_keep is not None:
            continue
        assert all(ours == torchs for ours, torchs in stages.values()), (method, stages)
    assert set(found) == said_of(get_family(kind).label)


def test_two_images_stand_apart(tmp_path: Path) -> None:
    """Places on three axes need text, or the end of an image, between two."""
    on = OnFamily(write_config("qwen2_vl", tmp_path), {"image_size": (24, 40), "images": 2})
    for method in ("divprune", "downsample"):
        stages = on.counted(method)
        assert stages is not None
        assert all(ours == torchs for ours, torchs in stages.values()), (method, stages)


def test_methods_that_take_tokens_together_refuse_text_between_them(tmp_path: Path) -> None:
    """Times stand between a clip's pairs of frames: priced and run alike, or refused by both."""
    on = OnFamily(write_config("qwen3_vl", tmp_path), CLIP)
    for method in ("pyramiddrop", "dart", "sparsevlm", "fitprune", "fastv(variant=paper)"):
        assert on.counted(method) is None, method
    for method in ("fastv", "v2drop", "vtw"):
        assert on.counted(method) is not None, method


def test_two_methods_on_frames_that_come_as_images(tmp_path: Path) -> None:
    on = OnFamily(write_config("internvl", tmp_path), IMAGE, CLIP)
    for line in ("evs/fastv", "dycoke(variant=both)"):
        stages = on.counted(line)
        assert stages is not None
        assert all(ours == torchs for ours, torchs in stages.values()), (line, stages)
