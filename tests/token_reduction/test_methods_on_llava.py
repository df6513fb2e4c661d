"""Every method on the families of LLaVA runs and is priced, or is refused by both; the page says which.

Their counts are compared by `test_flops_counted_in_other_families.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from methods_on_families import OnFamily, said_of
from tiny_families import FAMILIES, write_family

from costmodel.models.families import get_family

if TYPE_CHECKING:
    from pathlib import Path

INPUTS: dict[str, dict[str, Any]] = {
    "llava": {}, "llava_next": {"image_size": (168, 168)}, "llava_next_video": {"frames": 2},
    "video_llava": {"frames": 2}, "llava_onevision": {"image_size": (168, 168)},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_run_or_are_refused(family: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    source = write_family(family, tmp_path)
    document = json.loads(path.read_text())
    # As deep as methods ask for that name their layers.
    document["vision_config"]["num_hidden_layers"] = 13
    document["text_config"]["num_hidden_layers"] = 6
    path.write_text(json.dumps(document))
    found = OnFamily(source, INPUTS[family], {"frames": 2}).running()
    assert set(found) == said_of(get_family(family).label)
