"""LLaVA-1.5: one crop, two linear layers."""

from __future__ import annotations

import pytest

from costmodel.models import load_model
from hardware_specs.errors import InvalidInputError

LLAVA = "llava-1.5-7b"


def test_a_fixed_crop_sees_every_image_alike() -> None:
    for size in (None, (336, 336), (1, 5000), (2000, 2000)):
        assert load_model(LLAVA).visual_input(image_size=size) == (576, 1, 576)


def test_it_takes_no_frames() -> None:
    with pytest.raises(InvalidInputError, match="takes images, not frames"):
        load_model(LLAVA).visual_input(frames=8)


def test_its_bridge_is_two_layers() -> None:
    projector = load_model(LLAVA).projector
    assert projector is not None
    assert [block.name for block in projector.blocks] == ["linear_1", "gelu", "linear_2"]
    assert projector.parameters == 4096 * (1024 + 4096 + 2)
