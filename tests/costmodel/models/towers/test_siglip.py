"""SigLIP's tower with and without its pooling head."""

from __future__ import annotations

from costmodel import estimate
from costmodel.blocks import Plain
from costmodel.models import config_dict, load_model
from costmodel.models.families import read_model

VISION = "llava-onevision-7b"


def test_the_pooling_head_runs_although_nobody_reads_it() -> None:
    document = config_dict(VISION)
    document["vision_config"]["vision_use_head"] = True
    pooled, plain = read_model(document, "f", "pooled", "s"), load_model(VISION)
    assert pooled.vision is not None
    assert plain.vision is not None
    assert any(isinstance(block, Plain) for block in pooled.vision.stack.after)
    c, f = 1152, 4304
    # The probe, four c x c with biases, a norm, an MLP.
    more = c + 4 * (c * c + c) + 2 * c + 2 * c * f + f + c
    assert pooled.vision.tower_parameters - plain.vision.tower_parameters == more
    for plan in ("fused", "hf-eager"):
        asked = {"visual_tokens": 729, "execution": plan}
        kernels = [
            estimate(m, "nvidia-a100-sxm4-80gb", **asked).stages["vision"].kernels
            for m in (pooled, plain)
        ]
        assert kernels[0] - kernels[1] == 10  # 5 products, 3 of attention, a norm, a GELU
