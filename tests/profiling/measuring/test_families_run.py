"""A tiny model of each family that merges patches is profiled and counted, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from merging_families import CONFIGS, write_config

from costmodel import load_model
from profiling.counting.three_counters import count_model
from profiling.measuring.profile import profile

if TYPE_CHECKING:
    from pathlib import Path

#: Image sizes that make a grid of its own where the family has one: 24 x 40 pixels are 3 x 5 tokens.
INPUTS: dict[str, dict[str, Any]] = {
    "image": {"image_size": (24, 40)},
    "clip": {"image_size": (24, 40), "frames": 4},
    "frames": {"frames": 3},
}
CASES = [(kind, "image") for kind in CONFIGS]
CASES += [(kind, "clip") for kind in CONFIGS if kind.startswith("qwen")]
CASES += [(kind, "frames") for kind in ("internvl", "smolvlm")]


@pytest.mark.parametrize(("kind", "given"), CASES)
def test_a_tiny_model_is_profiled_and_counted(
    kind: str, given: str, tmp_path: Path, quick: Any
) -> None:
    model, asked = write_config(kind, tmp_path), INPUTS[given]
    (record,) = profile(
        model, device="cpu", dtype="fp32", text_tokens=7, output_tokens=1, options=quick, **asked
    )
    seen = load_model(model).visual_input(**asked)
    assert (record.tokens.visual_llm, record.tokens.crops) == (seen.tokens, seen.crops)
    assert {"vision", "projector", "prefill", "decode"} <= set(record.stages)
    assert count_model(model, text_tokens=7, fvcore=False, **asked).agrees
