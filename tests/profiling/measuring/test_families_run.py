"""A tiny model of each family that merges patches is profiled, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from merging_families import CASES, INPUTS, write_config

from costmodel import load_model
from profiling.measuring.profile import profile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("kind", "given"), CASES)
def test_a_tiny_model_is_profiled(kind: str, given: str, tmp_path: Path, quick: Any) -> None:
    model, asked = write_config(kind, tmp_path), INPUTS[given]
    (record,) = profile(
        model, device="cpu", dtype="fp32", text_tokens=7, output_tokens=1, options=quick, **asked
    )
    seen = load_model(model).visual_input(**asked)
    assert (record.tokens.visual_llm, record.tokens.crops) == (seen.tokens, seen.crops)
    assert {"vision", "projector", "prefill", "decode"} <= set(record.stages)
