"""One small model of each family that merges patches is profiled and counted, stage by stage."""

from __future__ import annotations

import pytest

from profiling.counting.three_counters import count_model
from profiling.measuring.point import Options
from profiling.measuring.profile import profile
from profiling.measuring.stopping import StopRule, WarmUpRule

QUICK = Options(
    rule=StopRule(max_time_s=0.01, min_samples=2, min_time_s=0.0),
    warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.01),
    energy=False,
)

#: Model at a scale that divides its heads -> (image size, visual tokens of that image).
SMALL = {
    "qwen2-vl-2b@layers=1,width=1/2": ((112, 140), 20),
    "qwen2.5-vl-3b@layers=1,width=1/2": ((112, 140), 20),
    "qwen3-vl-2b@layers=1,width=1/8": ((256, 256), 64),
    "internvl3-2b@layers=1,width=1/2": ((448, 448), 256),
    "gemma-3-4b@layers=1,width=1/4": ((896, 896), 256),
    "smolvlm2-256m@layers=1,width=1/3": ((512, 512), 1088),
    "idefics3-8b@layers=1,width=1/8": ((364, 364), 2873),
}


@pytest.mark.parametrize("model", SMALL)
def test_a_small_model_of_the_family_is_profiled_and_counted(model: str) -> None:
    size, tokens = SMALL[model]
    (record,) = profile(
        model, image_size=size, device="cpu", dtype="fp32", text_tokens=3, output_tokens=1,
        options=QUICK,
    )  # fmt: skip
    assert record.tokens.visual_llm == tokens
    assert {"vision", "projector", "prefill", "decode"} <= set(record.stages)
    assert count_model(model, image_size=size, text_tokens=3, fvcore=False).agrees
