"""LLaVA-1.5: one crop."""

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
