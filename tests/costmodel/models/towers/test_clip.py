"""CLIP's tower as blocks."""

from __future__ import annotations

from costmodel.blocks import Norm, Prepend
from costmodel.models import load_model


def test_a_class_token_and_a_norm_precede_the_layers() -> None:
    vision = load_model("llava-1.5-7b").vision
    assert vision is not None
    assert (vision.tokens, vision.has_cls) == (577, True)
    assert any(isinstance(block, Prepend) for block in vision.stack.before)
    assert isinstance(vision.stack.before[-1], Norm)
    # 1024 x 588 patches, class token, 577 positions, a norm before and one after.
    assert vision.tower_parameters - 24 * vision.layer_parameters == 1024 * (588 + 1 + 577 + 4)
